//! Settings of the connections to peers.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use cofferdam_ibd::params::ChainParams;

use super::{ProxyConfig, bind_address, check_ports, port};
use crate::p2p::{Permissions, Whitebind, Whitelist};
use crate::settings::Settings;

/// Longest user agent that peers accept (Bitcoin Core's `MAX_SUBVERSION_LENGTH`).
const USER_AGENT_LENGTH_MAX: usize = 256;

/// Most connections (Bitcoin Core's default).
const MAX_CONNECTIONS_DEFAULT: usize = 125;

/// How long `setban` bans, in seconds (Bitcoin Core's default).
const BAN_SECONDS_DEFAULT: i64 = 24 * 60 * 60;

/// Settings of the connections to peers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct P2pConfig {
    /// Peers to connect to, and no others.
    pub connect: Vec<String>,
    /// Peers to keep a connection with.
    pub add_nodes: Vec<String>,
    /// Addresses to listen on.
    pub bind: Vec<SocketAddr>,
    /// Addresses where only the onion service connects.
    pub onion_bind: Vec<SocketAddr>,
    /// Addresses to listen on, with permissions for who connects there.
    pub whitebind: Vec<Whitebind>,
    /// Port to listen on at all IPv6 addresses, if there are any.
    pub any_v6_port: Option<u16>,
    /// Port that others reach us at unless told.
    pub listen_port: u16,
    /// Our own addresses, as the user names them.
    pub external: Vec<SocketAddr>,
    /// Whether what peers see as our address is told to them.
    pub discover: bool,
    /// Permissions by address.
    pub whitelist: Vec<Whitelist>,
    /// Most connections but those to peers that the user names.
    pub max_connections: usize,
    /// Bytes that may wait to be sent to one peer before what it asks is left unread.
    pub send_buffer_bytes: usize,
    /// Through what connections go.
    pub proxies: ProxyConfig,
    /// Time limit of a connection attempt.
    pub connect_timeout: Duration,
    /// Time in which a connection need not do anything.
    pub peer_timeout: Duration,
    /// How long a ban lasts unless told.
    pub ban_seconds: i64,
    /// Bytes to send in a day, beyond which old blocks are not served; 0: no limit.
    pub max_upload_bytes: u64,
    /// Whether the encrypted transport is offered (BIP-0324).
    pub v2_transport: bool,
    /// Whether peers are told that no transactions are wanted.
    pub blocks_only: bool,
    /// Whether there may be connections before `setnetworkactive` is called.
    pub network_active: bool,
    /// Whether the node opens connections by itself.
    pub automatic: bool,
    /// Whether the seeds' names are resolved if there are no addresses.
    pub dns_seed: bool,
    /// Whether they are in any case.
    pub force_dns_seed: bool,
    /// Whether the addresses of the program are used if no other is found.
    pub fixed_seeds: bool,
    /// The file that tells the autonomous systems of addresses.
    pub address_map: Option<String>,
    /// Whether addresses have the same places each time, for tests.
    pub test_addresses: bool,
    /// One of how many uses of the tables of addresses looks whether they are sound; 0: none.
    pub check_addresses: u32,
    /// Nodes that are asked for addresses if there are none.
    pub seed_nodes: Vec<String>,
    /// How the node names itself.
    pub user_agent: String,
    /// Whether the log has the addresses of peers.
    pub log_ips: bool,
}

impl P2pConfig {
    /// Returns whether others can connect.
    pub(crate) const fn listens(&self) -> bool {
        !self.bind.is_empty() || !self.whitebind.is_empty() || !self.onion_bind.is_empty()
    }

    /// Reads the options.
    ///
    /// # Errors
    ///
    /// Returns the text for the user.
    pub(super) fn from_settings(settings: &Settings, params: &ChainParams) -> Result<Self, String> {
        let owned = |values: Vec<&str>| values.into_iter().map(str::to_owned).collect::<Vec<_>>();
        let port = port(settings, "port", params.default_port)?;
        let listens = listens(settings)?;
        check_ports(settings)?;
        let doors = if listens { Doors::from_settings(settings, port)? } else { Doors::default() };
        let version = env!("CARGO_PKG_VERSION");
        for comment in settings.all("uacomment") {
            if !comment.chars().all(is_safe_in_comment) {
                return Err(format!("User Agent comment ({comment}) contains unsafe characters."));
            }
        }
        let comments = settings.all("uacomment").join("; ");
        let comments = if comments.is_empty() { comments } else { format!("({comments})") };
        let user_agent = format!("/Cofferdam:{version}{comments}/");
        if user_agent.len() > USER_AGENT_LENGTH_MAX {
            return Err(format!(
                "Total length of network version string ({}) exceeds maximum length ({USER_AGENT_LENGTH_MAX}). Reduce the number or size of uacomments.",
                user_agent.len()
            ));
        }
        let proxies = ProxyConfig::from_settings(settings, listens)?;
        let wants_seeds = !wants_no_others(settings)? && proxies.reaches_ip();
        let dns_seed = settings.flag("dnsseed", wants_seeds);
        if dns_seed && !proxies.reaches_ip() {
            return Err("Incompatible options: -dnsseed=1 was explicitly specified, but -onlynet forbids connections to IPv4/IPv6".into());
        }
        let force_dns_seed = settings.flag("forcednsseed", false);
        if force_dns_seed && !dns_seed {
            let text = "Cannot set -forcednsseed to true when setting -dnsseed to false.";
            return Err(text.into());
        }
        let external =
            parse_all(settings.all("externalip"), |text| bind_address("externalip", text, port))?;
        let discover = settings.flag("discover", external.is_empty() && !hides(settings));
        Ok(Self {
            proxies,
            external,
            discover,
            listen_port: port,
            network_active: settings.flag("networkactive", true),
            automatic: !settings.is_set("connect"),
            dns_seed,
            force_dns_seed,
            fixed_seeds: settings.flag("fixedseeds", true),
            address_map: address_map(settings),
            test_addresses: settings.all("test").contains(&"addrman"),
            check_addresses: settings.number("checkaddrman")?.unwrap_or(0),
            seed_nodes: owned(settings.all("seednode")),
            // -connect=0 is -noconnect.
            connect: owned(settings.all("connect").into_iter().filter(|at| *at != "0").collect()),
            add_nodes: owned(settings.all("addnode")),
            bind: doors.bind,
            onion_bind: doors.onion,
            whitebind: doors.white,
            any_v6_port: doors.any_v6_port,
            whitelist: parse_all(settings.all("whitelist"), |text| {
                Whitelist::parse(text, usual_permissions(settings))
            })?,
            max_connections: max_connections(settings)?,
            send_buffer_bytes: send_buffer(settings)?,
            connect_timeout: Duration::from_millis(
                settings.number("timeout")?.unwrap_or(5000).max(1),
            ),
            peer_timeout: peer_timeout(settings)?,
            ban_seconds: settings.number("bantime")?.unwrap_or(BAN_SECONDS_DEFAULT),
            max_upload_bytes: upload_target(settings)?,
            v2_transport: settings.flag("v2transport", true),
            blocks_only: settings.flag("blocksonly", false),
            user_agent,
            log_ips: settings.flag("logips", false),
        })
    }
}

/// Returns what the user says of a map of autonomous systems.
fn address_map(settings: &Settings) -> Option<String> {
    let map = settings.get("asmap").filter(|_| !settings.is_negated("asmap"));
    map.map(str::to_owned)
}

/// Whether the user has a proxy, and so does not want to be found unless told.
fn hides(settings: &Settings) -> bool {
    settings.get("proxy").is_some_and(|proxy| !proxy.is_empty() && proxy != "0")
}

fn max_connections(settings: &Settings) -> Result<usize, String> {
    Ok(settings.number("maxconnections")?.unwrap_or(MAX_CONNECTIONS_DEFAULT))
}

/// Whether the user names all the peers, or wants none but those that he names.
fn wants_no_others(settings: &Settings) -> Result<bool, String> {
    Ok(settings.is_set("connect") || max_connections(settings)? == 0)
}

/// Whether others can connect.
fn listens(settings: &Settings) -> Result<bool, String> {
    let named = !settings.all("bind").is_empty() || !settings.all("whitebind").is_empty();
    let usually = named || !(wants_no_others(settings)? || hides(settings));
    let listens = settings.flag("listen", usually);
    if named && !listens {
        return Err("Cannot set -bind or -whitebind together with -listen=0".into());
    }
    Ok(listens)
}

/// Where to listen.
#[derive(Default)]
struct Doors {
    bind: Vec<SocketAddr>,
    onion: Vec<SocketAddr>,
    white: Vec<Whitebind>,
    any_v6_port: Option<u16>,
}

impl Doors {
    fn from_settings(settings: &Settings, port: u16) -> Result<Self, String> {
        let (binds, white) = (settings.all("bind"), settings.all("whitebind"));
        let named = !binds.is_empty() || !white.is_empty();
        // The port next to the usual one is for the onion service.
        let onion_port = port.checked_add(1).unwrap_or(port);
        let usual = usual_permissions(settings);
        let white = parse_all(white, |text| Whitebind::parse(text, usual))?;
        let mut doors = Self { white, ..Self::default() };
        for text in binds {
            match text.strip_suffix("=onion") {
                Some(address) => doors.onion.push(bind_address("bind", address, onion_port)?),
                None => doors.bind.push(bind_address("bind", text, port)?),
            }
        }
        if doors.bind.is_empty() && doors.onion.is_empty() {
            doors.onion.push(SocketAddr::from((Ipv4Addr::LOCALHOST, onion_port)));
        }
        if !named {
            doors.bind.push(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)));
            doors.any_v6_port = Some(port);
        }
        Ok(doors)
    }
}

fn parse_all<T>(
    texts: Vec<&str>,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, String> {
    texts.into_iter().map(parse).collect()
}

/// What is meant by `-whitelist` and `-whitebind` without names of permissions.
fn usual_permissions(settings: &Settings) -> Permissions {
    let relay = settings.flag("whitelistrelay", true);
    Permissions::usual(relay, settings.flag("whitelistforcerelay", false))
}

/// Reads `-maxsendbuffer`, in units of 1000 bytes (Bitcoin Core's `DEFAULT_MAXSENDBUFFER`).
fn send_buffer(settings: &Settings) -> Result<usize, String> {
    const DEFAULT: usize = 1000;
    Ok(settings.number("maxsendbuffer")?.unwrap_or(DEFAULT).saturating_mul(1000))
}

fn peer_timeout(settings: &Settings) -> Result<Duration, String> {
    /// Bitcoin Core's `DEFAULT_PEER_CONNECT_TIMEOUT`.
    const DEFAULT_SECONDS: i64 = 60;
    let seconds = settings.number("peertimeout")?.unwrap_or(DEFAULT_SECONDS);
    let positive = u64::try_from(seconds).ok().filter(|seconds| *seconds > 0);
    positive
        .map(Duration::from_secs)
        .ok_or_else(|| "peertimeout must be a positive integer.".into())
}

/// Reads a number of bytes: MiB, or with a unit after it (`k`, `m`, `g`, `t` of 1000, in capitals
/// of 1024).
fn upload_target(settings: &Settings) -> Result<u64, String> {
    let Some(text) = settings.get("maxuploadtarget") else {
        return Ok(0);
    };
    let (digits, factor) = match text.as_bytes().last() {
        Some(b'k') => (text.strip_suffix('k'), 1000),
        Some(b'K') => (text.strip_suffix('K'), 1 << 10),
        Some(b'm') => (text.strip_suffix('m'), 1_000_000),
        Some(b'M') => (text.strip_suffix('M'), 1 << 20),
        Some(b'g') => (text.strip_suffix('g'), 1_000_000_000),
        Some(b'G') => (text.strip_suffix('G'), 1 << 30),
        Some(b't') => (text.strip_suffix('t'), 1_000_000_000_000),
        Some(b'T') => (text.strip_suffix('T'), 1 << 40),
        _ => (Some(text), 1 << 20),
    };
    let number = digits.and_then(|digits| digits.parse::<u64>().ok());
    let bytes = number.and_then(|number| number.checked_mul(factor));
    bytes.ok_or_else(|| format!("Unable to parse -maxuploadtarget: '{text}'"))
}

/// Returns whether a character may stand in a comment of the user agent, whose marks are `/:()`
/// (Bitcoin Core's `SAFE_CHARS_UA_COMMENT`).
fn is_safe_in_comment(character: char) -> bool {
    character.is_ascii_alphanumeric() || " .,;-_?@".contains(character)
}

#[cfg(test)]
mod tests {
    use crate::config::tests::load;

    fn addresses(line: &str, file: &str) -> [Vec<String>; 2] {
        let p2p = load(line, file).unwrap().p2p;
        [p2p.bind, p2p.onion_bind].map(|list| list.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn listening_follows_connect_and_bind() {
        let usual = [vec!["0.0.0.0:18444"], vec!["127.0.0.1:18445"]];
        assert_eq!(addresses("-regtest", ""), usual);
        assert_eq!(addresses("-regtest -connect=a", ""), [vec![""; 0], vec![]]);
        assert_eq!(addresses("-regtest -maxconnections=0", ""), [vec![""; 0], vec![]]);
        assert_eq!(addresses("-regtest -maxconnections=0 -listen", ""), usual);
        let file = "regtest=1\n[regtest]\nconnect=0\nport=5\nbind=127.0.0.1\n";
        let both = [vec!["127.0.0.1:5"], vec!["127.0.0.1:7"]];
        assert_eq!(addresses("-bind=127.0.0.1:7=onion", file), both);
        assert!(load("", file).unwrap().p2p.connect.is_empty());
        let white = [vec![""; 0], vec!["127.0.0.1:18445"]];
        assert_eq!(addresses("-regtest -whitebind=noban@127.0.0.1:9", ""), white);
        let error = |line| load(line, "").unwrap_err();
        assert_eq!(error("-port=0"), "Invalid port specified in -port: '0'");
        assert_eq!(error("-port=65536"), "Invalid port specified in -port: '65536'");
        let text = "Cannot set -bind or -whitebind together with -listen=0";
        assert_eq!(error("-bind=127.0.0.1 -nolisten"), text);
    }

    #[test]
    fn times_and_amounts_are_read_and_checked() {
        let p2p = |line| load(line, "").unwrap().p2p;
        assert_eq!(p2p("-peertimeout=3").peer_timeout.as_secs(), 3);
        assert_eq!(p2p("-maxuploadtarget=800").max_upload_bytes, 800 << 20);
        assert_eq!(p2p("-maxuploadtarget=2G").max_upload_bytes, 2 << 30);
        assert_eq!(p2p("-bantime=1234").ban_seconds, 1234);
        assert_eq!(p2p("").send_buffer_bytes, 1_000_000);
        assert_eq!(p2p("-maxsendbuffer=5").send_buffer_bytes, 5000);
        let error = |line| load(line, "").unwrap_err();
        assert_eq!(error("-peertimeout=0"), "peertimeout must be a positive integer.");
        assert_eq!(error("-peertimeout=-1"), "peertimeout must be a positive integer.");
        assert_eq!(error("-maxuploadtarget=x"), "Unable to parse -maxuploadtarget: 'x'");
        assert!(p2p("").dns_seed && !p2p("-connect=0").dns_seed);
        assert!(!p2p("-maxconnections=0").dns_seed && p2p("-maxconnections=0 -dnsseed").dns_seed);
        let text = "Cannot set -forcednsseed to true when setting -dnsseed to false.";
        assert_eq!(error("-forcednsseed -nodnsseed"), text);
        assert_eq!(error("-forcednsseed -connect=0"), text);
        assert_eq!(error("-whitelist=oopsie@::1"), "Invalid P2P permission: 'oopsie'");
    }

    #[test]
    fn the_user_agent_has_the_comments() {
        let agent = load("-uacomment=testnode0 -uacomment=x", "").unwrap().p2p.user_agent;
        assert_eq!(agent, format!("/Cofferdam:{}(testnode0; x)/", env!("CARGO_PKG_VERSION")));
        for unsafe_one in ["/", ":", "(", ")", "₿", "🏃"] {
            assert_eq!(
                load(&format!("-uacomment={unsafe_one}"), "").unwrap_err(),
                format!("User Agent comment ({unsafe_one}) contains unsafe characters.")
            );
        }
        assert!(
            load(&format!("-uacomment={}", "a".repeat(260)), "").unwrap_err().contains("exceeds")
        );
    }
}
