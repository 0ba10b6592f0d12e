//! Settings of the JSON-RPC server and client.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use cofferdam_ibd::params::ChainParams;

use super::{bind_address, port};
use crate::rpc;
use crate::settings::Settings;

/// File of the RPC secret, in the chain directory.
const COOKIE_FILE: &str = ".cookie";

/// How long a connection may be idle (Core's `DEFAULT_HTTP_SERVER_TIMEOUT`).
const SERVER_TIMEOUT_DEFAULT: u64 = 30;

/// Most calls that may wait: more than connections are taken at a time, and what can be counted.
const WORK_QUEUE_MAX: usize = 1 << 20;

/// Settings of the JSON-RPC server and client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RpcConfig {
    /// Whether the node serves RPC.
    pub enabled: bool,
    /// Whether it serves REST as well.
    pub rest: bool,
    /// Addresses to listen on; those that cannot be had are left out as long as one can.
    pub bind: Vec<SocketAddr>,
    /// Who may connect besides this machine.
    pub(crate) allow: Vec<Subnet>,
    /// Host and port the client connects to.
    pub connect: String,
    /// User and password; there is no cookie then.
    pub user: Option<(String, String)>,
    /// Further users as `NAME:SALT$HMAC`.
    pub auth: Vec<String>,
    /// Which user may call what: `NAME:METHOD,METHOD`.
    pub whitelist: Vec<String>,
    /// Whether users without such a list may call nothing.
    pub whitelist_default: bool,
    /// The file of the secret, relative to the chain directory; `None`: no such file.
    pub cookie_file: Option<PathBuf>,
    /// Who may read that file: `owner`, `group` or `all`.
    pub cookie_perms: Option<String>,
    /// Connections at a time; fewer where the system lets too few files be open.
    pub connections: usize,
    /// Calls that run at a time.
    pub threads: usize,
    /// Calls that may wait.
    pub work_queue: usize,
    /// How long a connection may be idle; `None`: for ever.
    pub server_timeout: Option<Duration>,
    /// How long the client waits for a reply; `None`: for ever.
    pub client_timeout: Option<Duration>,
    /// Whether the log has the addresses of who calls.
    pub log_ips: bool,
    /// What the log has to say about these settings.
    pub warnings: Vec<&'static str>,
}

impl RpcConfig {
    /// Reads the options.
    ///
    /// # Errors
    ///
    /// Returns the text for the user.
    pub(super) fn from_settings(settings: &Settings, params: &ChainParams) -> Result<Self, String> {
        let port = port(settings, "rpcport", params.rpc_port)?;
        let allow = allowed(settings)?;
        let mut warnings = Vec::new();
        let bind = addresses(settings, port, !allow.is_empty(), &mut warnings)?;
        let host = settings.get("rpcconnect").unwrap_or("127.0.0.1");
        let has_port = host.parse::<SocketAddr>().is_ok() || (host.matches(':').count() == 1);
        let password = settings.get("rpcpassword").filter(|password| !password.is_empty());
        let user = settings.get("rpcuser").unwrap_or_default();
        let seconds = settings.number("rpcservertimeout")?.unwrap_or(SERVER_TIMEOUT_DEFAULT);
        let whitelist: Vec<String> = texts(settings, "rpcwhitelist");
        Ok(Self {
            enabled: settings.flag("server", true),
            rest: settings.flag("rest", false),
            bind,
            allow,
            connect: if has_port { host.to_owned() } else { format!("{host}:{port}") },
            user: password.map(|password| (user.to_owned(), password.to_owned())),
            auth: texts(settings, "rpcauth"),
            whitelist_default: settings.flag("rpcwhitelistdefault", !whitelist.is_empty()),
            whitelist,
            cookie_file: settings.path("rpccookiefile", COOKIE_FILE),
            cookie_perms: settings.get("rpccookieperms").map(str::to_owned),
            connections: rpc::CONNECTIONS_MAX,
            threads: settings.number("rpcthreads")?.unwrap_or(16).clamp(1, 256),
            work_queue: settings.number("rpcworkqueue")?.unwrap_or(64).clamp(1, WORK_QUEUE_MAX),
            server_timeout: Some(seconds).filter(|s| *s != 0).map(Duration::from_secs),
            client_timeout: Some(settings.number("rpcclienttimeout")?.unwrap_or(900))
                .filter(|seconds| *seconds != 0)
                .map(Duration::from_secs),
            log_ips: settings.flag("logips", false),
            warnings,
        })
    }
}

fn texts(settings: &Settings, name: &str) -> Vec<String> {
    settings.all(name).into_iter().map(str::to_owned).collect()
}

/// Returns where to listen. As in Bitcoin Core, other addresses than the loopback ones need both
/// `-rpcbind` and `-rpcallowip`: one alone is ignored, and the log says so.
fn addresses(
    settings: &Settings,
    port: u16,
    allowed: bool,
    warnings: &mut Vec<&'static str>,
) -> Result<Vec<SocketAddr>, String> {
    let mut named = Vec::new();
    let texts = settings.all("rpcbind");
    for text in &texts {
        match bind_address("rpcbind", text, port) {
            Ok(address) => named.push(address),
            Err(error) if error.starts_with("Invalid port") => return Err(error),
            Err(_) => warnings.push("Could not bind RPC: Address lookup failed."),
        }
    }
    if allowed && !texts.is_empty() {
        if named.iter().any(|address| address.ip().is_unspecified()) {
            warnings.push(
                "The RPC server is not safe to expose to untrusted networks such as the public internet",
            );
        }
        return Ok(named);
    }
    if allowed {
        warnings.push(
            "Option -rpcallowip was specified without -rpcbind; this doesn't usually make sense",
        );
    }
    if !texts.is_empty() {
        warnings.push(
            "Option -rpcbind was ignored because -rpcallowip was not specified, refusing to allow everyone to connect",
        );
    }
    Ok(vec![(Ipv6Addr::LOCALHOST, port).into(), (Ipv4Addr::LOCALHOST, port).into()])
}

fn allowed(settings: &Settings) -> Result<Vec<Subnet>, String> {
    let with_cjdns = settings.flag("cjdnsreachable", false);
    let read = |text: &str| {
        let subnet = Subnet::parse(text);
        subnet.filter(|subnet| !(with_cjdns && subnet.is_cjdns())).ok_or_else(|| format!(
            "Invalid -rpcallowip subnet specification: {text}. Valid values are a single IP (e.g. 1.2.3.4), a network/netmask (e.g. 1.2.3.4/255.255.255.0), a network/CIDR (e.g. 1.2.3.4/24), all ipv4 (0.0.0.0/0), or all ipv6 (::/0). RFC4193 is allowed only if -cjdnsreachable=0.\nError: Unable to start HTTP server. See debug log for details."
        ))
    };
    settings.all("rpcallowip").into_iter().map(read).collect()
}

/// A range of addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Subnet {
    network: u128,
    mask: u128,
    is_v4: bool,
}

impl Subnet {
    /// Reads an address alone, with a number of bits, or with a mask.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (address, mask) = match text.split_once('/') {
            Some((address, mask)) => (address, Some(mask)),
            None => (text, None),
        };
        let ip: IpAddr = address.trim_matches(['[', ']']).parse().ok()?;
        let width = if ip.is_ipv4() { 32 } else { 128 };
        let full = u128::MAX >> (128 - width);
        let mask = match mask.map(|mask| (mask, mask.parse::<u32>())) {
            None => full,
            Some((_, Ok(bits))) if bits <= width => {
                full & !full.checked_shr(bits).unwrap_or_default()
            }
            Some((_, Ok(_))) => return None,
            Some((text, Err(_))) => {
                let mask: IpAddr = text.parse().ok()?;
                let bits = number(mask);
                let host = full & !bits;
                // The ones come first.
                if mask.is_ipv4() != ip.is_ipv4() || host & host.wrapping_add(1) != 0 {
                    return None;
                }
                bits
            }
        };
        Some(Self { network: number(ip) & mask, mask, is_v4: ip.is_ipv4() })
    }

    /// Returns whether an address is in the range.
    pub(crate) fn contains(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        ip.is_ipv4() == self.is_v4 && number(ip) & self.mask == self.network
    }

    /// Returns whether it is a range of CJDNS (`fc00::/8`), which are no addresses of IPv6.
    fn is_cjdns(&self) -> bool {
        !self.is_v4 && self.network >> 120 == 0xfc
    }
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::load;

    fn bound(line: &str) -> Vec<String> {
        let rpc = load(line, "").unwrap().rpc;
        rpc.bind.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn rpc_leaves_the_loopback_only_with_both_options() {
        let loopback = ["[::1]:18443", "127.0.0.1:18443"];
        assert_eq!(bound("-regtest"), loopback);
        assert_eq!(bound("-regtest -rpcbind=0.0.0.0"), loopback);
        assert_eq!(bound("-regtest -rpcallowip=0.0.0.0/0"), loopback);
        let both = "-regtest -rpcbind=0.0.0.0 -rpcbind=[::1]:7 -rpcallowip=10.0.0.0/8";
        assert_eq!(bound(both), ["0.0.0.0:18443", "[::1]:7"]);
        let warnings = load("-regtest -rpcbind=0.0.0.0", "").unwrap().rpc.warnings;
        assert!(warnings.iter().any(|text| text.contains("-rpcbind was ignored")), "{warnings:?}");
    }

    #[test]
    fn as_many_calls_may_wait_as_can_be_counted() {
        let length = |line: &str| load(line, "").unwrap().rpc.work_queue;
        assert_eq!((length(""), length("-rpcworkqueue=0")), (64, 1));
        let longest = length("-rpcworkqueue=2305843009213693952");
        assert_eq!(longest, WORK_QUEUE_MAX);
        // What panicked at the start.
        assert!(longest + 256 < tokio::sync::Semaphore::MAX_PERMITS);
    }

    #[test]
    fn bad_ports_are_refused_whether_used_or_not() {
        for text in ["127.0.0.1:notaport", "127.0.0.1:0", "127.0.0.1:65536", "[::1]:-18443"] {
            let expected = format!("Invalid port specified in -rpcbind: '{text}'");
            assert_eq!(load(&format!("-rpcbind={text}"), "").unwrap_err(), expected);
        }
    }

    #[test]
    fn a_password_replaces_the_cookie() {
        let rpc = load("-rpcuser=me -rpcpassword=pw", "").unwrap().rpc;
        assert_eq!(rpc.user, Some(("me".into(), "pw".into())));
        assert_eq!(load("-rpcuser=me", "").unwrap().rpc.user, None);
        assert_eq!(load("-norpccookiefile", "").unwrap().rpc.cookie_file, None);
        assert!(load("-rpcauth=a -norpcauth", "rpcauth=b").unwrap().rpc.auth.is_empty());
    }

    #[test]
    fn subnets_are_read_in_three_ways() {
        let contains = |subnet: &str, ip: &str| {
            Subnet::parse(subnet).is_some_and(|subnet| subnet.contains(ip.parse().unwrap()))
        };
        assert!(contains("1.2.3.4", "1.2.3.4") && !contains("1.2.3.4", "1.2.3.5"));
        assert!(contains("1.2.3.4/24", "1.2.3.200") && !contains("1.2.3.4/24", "1.2.4.1"));
        assert!(contains("1.2.3.4/255.255.255.0", "::ffff:1.2.3.9"));
        assert!(contains("0.0.0.0/0", "9.9.9.9") && !contains("0.0.0.0/0", "::1"));
        assert!(contains("::/0", "fe80::1") && contains("fc00::/8", "fc00::1"));
        for wrong in ["", "x", "1.2.3.4/33", "1.2.3.4/255.0.255.0", "::1/129", "1.2.3.4/"] {
            assert_eq!(Subnet::parse(wrong), None, "{wrong}");
        }
        let error = load("-rpcallowip=x", "").unwrap_err();
        assert!(error.starts_with("Invalid -rpcallowip subnet specification: x."), "{error}");
        let cjdns = "-rpcallowip=fc00:db8:c0:ff:ee::/80";
        assert!(load(cjdns, "").is_ok());
        assert!(load(&format!("{cjdns} -cjdnsreachable"), "").is_err());
    }
}
