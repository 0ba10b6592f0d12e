//! Settings of proxies, and of the networks that the node connects to by itself.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};

use super::split_port;
use crate::p2p::{is_routable, unmapped};
use crate::settings::Settings;

/// Port of a proxy unless told (Bitcoin Core's `DEFAULT_TOR_SOCKS_PORT`).
const PROXY_PORT: u16 = 9050;

/// A kind of addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Net {
    /// Of IPv4.
    Ipv4,
    /// Of IPv6.
    Ipv6,
    /// Of Tor.
    Onion,
    /// Of I2P, which is not spoken here.
    I2p,
    /// Of CJDNS.
    Cjdns,
}

impl Net {
    /// All there are, in Core's order.
    pub(crate) const ALL: [Self; 5] = [Self::Ipv4, Self::Ipv6, Self::Onion, Self::I2p, Self::Cjdns];

    /// Returns what it is called.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
            Self::Onion => "onion",
            Self::I2p => "i2p",
            Self::Cjdns => "cjdns",
        }
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|net| net.name() == name)
    }
}

/// Through what the node connects, and where to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ProxyConfig {
    ipv4: Option<SocketAddr>,
    ipv6: Option<SocketAddr>,
    onion: Option<SocketAddr>,
    cjdns: Option<SocketAddr>,
    /// For names, which are not resolved here then: that would tell who asks.
    names: Option<SocketAddr>,
    /// Whether each connection has its own name and password, and so a circuit of its own.
    pub(crate) randomize: bool,
    /// Whether names are resolved here where no proxy does it (`-dns`).
    pub(crate) dns: bool,
    /// The networks of automatic connections; none: all.
    only: Vec<Net>,
    /// Whether addresses in `fc00::/8` are CJDNS's.
    has_cjdns: bool,
}

impl ProxyConfig {
    pub(super) fn from_settings(settings: &Settings, listens: bool) -> Result<Self, String> {
        let mut config = Self {
            randomize: settings.flag("proxyrandomize", true),
            dns: settings.flag("dns", true),
            has_cjdns: settings.flag("cjdnsreachable", false),
            ..Self::default()
        };
        for name in settings.all("onlynet") {
            let net = Net::parse(&name.to_ascii_lowercase());
            let unknown = || format!("Unknown network specified in -onlynet: '{name}'");
            config.only.push(net.ok_or_else(unknown)?);
        }
        if config.only.contains(&Net::Cjdns) && !config.has_cjdns {
            return Err("Outbound connections restricted to CJDNS (-onlynet=cjdns) but -cjdnsreachable is not provided".into());
        }
        if config.only.contains(&Net::I2p) && settings.get("i2psam").is_none_or(str::is_empty) {
            return Err(
                "Outbound connections restricted to i2p (-onlynet=i2p) but -i2psam is not provided"
                    .into(),
            );
        }
        for text in settings.all("proxy") {
            config.add(text)?;
        }
        config.set_onion(settings, listens)?;
        Ok(config)
    }

    /// Takes `-proxy=address[=network]`.
    fn add(&mut self, text: &str) -> Result<(), String> {
        let (address, net) =
            text.rsplit_once('=').map_or((text, None), |(at, net)| (at, Some(net)));
        if net == Some("") {
            return Err(format!("Invalid -proxy address or hostname, ends with '=': '{text}'"));
        }
        let proxy = address_of("proxy", address, self.dns)?;
        match net.map(str::to_ascii_lowercase).as_deref() {
            None => {
                for slot in [
                    &mut self.ipv4,
                    &mut self.ipv6,
                    &mut self.onion,
                    &mut self.cjdns,
                    &mut self.names,
                ] {
                    *slot = proxy;
                }
            }
            Some("ipv4") => (self.ipv4, self.names) = (proxy, proxy),
            Some("ipv6") => (self.ipv6, self.names) = (proxy, proxy),
            Some("onion") => self.onion = proxy,
            Some("cjdns") => self.cjdns = proxy,
            Some(net) => {
                return Err(format!("Unrecognized network in -proxy='{text}': '{net}'"));
            }
        }
        Ok(())
    }

    /// Takes `-onion`, which goes before `-proxy`.
    fn set_onion(&mut self, settings: &Settings, listens: bool) -> Result<(), String> {
        let only_onion = self.only.contains(&Net::Onion);
        match settings.get("onion").filter(|text| !text.is_empty()) {
            Some("0") if only_onion => {
                return Err("Outbound connections restricted to Tor (-onlynet=onion) but the proxy for reaching the Tor network is explicitly forbidden: -onion=0".into());
            }
            Some(text) => self.onion = address_of("onion", text, self.dns)?,
            None => {}
        }
        // Core would ask the control port of Tor for it, which is not spoken to here.
        if self.onion.is_none() && only_onion && !settings.flag("listenonion", listens) {
            return Err("Outbound connections restricted to Tor (-onlynet=onion) but the proxy for reaching the Tor network is not provided: none of -proxy, -onion or -listenonion is given".into());
        }
        Ok(())
    }

    /// Returns the proxy of a network.
    pub(crate) const fn of(&self, net: Net) -> Option<SocketAddr> {
        match net {
            Net::Ipv4 => self.ipv4,
            Net::Ipv6 => self.ipv6,
            Net::Onion => self.onion,
            Net::Cjdns => self.cjdns,
            Net::I2p => None,
        }
    }

    /// Returns the proxy for an address; what is not reached from everywhere is near.
    pub(crate) fn of_address(&self, ip: IpAddr) -> Option<SocketAddr> {
        match self.net_of(ip) {
            Some(net) => self.of(net),
            None => None,
        }
    }

    /// Returns the proxy that resolves names, `.onion` apart.
    pub(crate) const fn of_names(&self) -> Option<SocketAddr> {
        self.names
    }

    /// Returns whether connections may be made to a network without being asked for.
    pub(crate) fn reaches(&self, net: Net) -> bool {
        let is_spoken = match net {
            Net::Ipv4 | Net::Ipv6 => true,
            Net::Onion => self.onion.is_some(),
            Net::I2p => false,
            Net::Cjdns => self.has_cjdns,
        };
        is_spoken && (self.only.is_empty() || self.only.contains(&net))
    }

    /// Returns whether connections may be made to an address without being asked for.
    pub(crate) fn reaches_address(&self, ip: IpAddr) -> bool {
        self.net_of(ip).is_none_or(|net| self.reaches(net))
    }

    /// Returns whether addresses in `fc00::/8` are CJDNS's.
    pub(crate) const fn has_cjdns(&self) -> bool {
        self.has_cjdns
    }

    /// Returns whether seeds, which have addresses of IP, are of use.
    pub(crate) fn reaches_ip(&self) -> bool {
        self.reaches(Net::Ipv4) || self.reaches(Net::Ipv6)
    }

    /// Returns what kind of address it is; none if it is not reached from everywhere.
    pub(crate) fn net_of(&self, ip: IpAddr) -> Option<Net> {
        match unmapped(ip) {
            IpAddr::V6(ip) if self.has_cjdns && ip.octets().starts_with(&[0xfc]) => {
                Some(Net::Cjdns)
            }
            ip if !is_routable(ip) => None,
            IpAddr::V4(_) => Some(Net::Ipv4),
            IpAddr::V6(_) => Some(Net::Ipv6),
        }
    }
}

/// Reads the address of a proxy; none is `0` or nothing.
fn address_of(option: &str, text: &str, dns: bool) -> Result<Option<SocketAddr>, String> {
    if text.is_empty() || text == "0" {
        return Ok(None);
    }
    let invalid = || format!("Invalid -{option} address or hostname: '{text}'");
    let (host, port) = split_port(text).ok_or_else(invalid)?;
    let address = (host, port.unwrap_or(PROXY_PORT));
    if !dns && host.parse::<IpAddr>().is_err() {
        return Err(invalid());
    }
    let mut found = address.to_socket_addrs().map_err(|_| invalid())?;
    found.next().map(Some).ok_or_else(invalid)
}

#[cfg(test)]
mod tests {
    use crate::config::tests::load;

    use super::*;

    fn proxies(line: &str) -> ProxyConfig {
        load(&format!("-regtest {line}"), "").expect("is taken").p2p.proxies
    }

    #[test]
    fn each_network_has_the_proxy_that_was_named_last_for_it() {
        let at = |text: &str| Some(text.parse().expect("an address"));
        let config = proxies("-proxy=127.0.0.1:1 -proxy=127.0.0.1:2=onion -proxy=[::1]:3=ipv6");
        assert_eq!(config.of(Net::Ipv4), at("127.0.0.1:1"));
        assert_eq!(config.of(Net::Onion), at("127.0.0.1:2"));
        assert_eq!((config.of(Net::Ipv6), config.of_names()), (at("[::1]:3"), at("[::1]:3")));
        assert_eq!(config.of_address([127, 0, 0, 1].into()), None, "what is near is not proxied");
        assert_eq!(config.of_address([8, 8, 8, 8].into()), at("127.0.0.1:1"));
        let config = proxies("-proxy=127.0.0.1 -noonion");
        assert_eq!((config.of(Net::Ipv4), config.of(Net::Onion)), (at("127.0.0.1:9050"), None));
        assert_eq!(proxies("-proxy=127.0.0.1:1 -noproxy"), proxies(""));
    }

    #[test]
    fn networks_that_were_not_named_are_not_connected_to() {
        let (v4, v6) = ([8, 8, 8, 8].into(), "2001:4860::1".parse().expect("an address"));
        let config = proxies("-onlynet=ipv4 -onlynet=onion -onion=127.0.0.1:2");
        assert!(config.reaches_address(v4) && !config.reaches_address(v6));
        assert!(config.reaches(Net::Onion) && config.reaches_ip());
        let config = proxies("-onlynet=onion -proxy=127.0.0.1:2");
        assert!(!config.reaches_address(v4) && !config.reaches_ip());
        assert!(!proxies("").reaches(Net::Cjdns) && proxies("-cjdnsreachable").reaches(Net::Cjdns));
    }

    #[test]
    fn what_is_no_proxy_is_refused_in_cores_words() {
        let refused = |line: &str| load(&format!("-regtest {line}"), "").expect_err("refused");
        assert_eq!(
            refused("-proxy=abc..abc:5"),
            "Invalid -proxy address or hostname: 'abc..abc:5'"
        );
        assert_eq!(
            refused("-onion=xyz..xyz:5"),
            "Invalid -onion address or hostname: 'xyz..xyz:5'"
        );
        assert_eq!(
            refused("-dns=0 -proxy=localhost"),
            "Invalid -proxy address or hostname: 'localhost'"
        );
        for option in
            ["-proxy=192.0.0.1:def", "-proxy=[::1]:0=ipv6", "-onion=xyz:65536", "-i2psam=def:xyz"]
        {
            let (name, text) = option.split_once('=').expect("a value");
            assert_eq!(refused(option), format!("Invalid port specified in {name}: '{text}'"));
        }
        assert!(refused("-onlynet=i2p").ends_with("(-onlynet=i2p) but -i2psam is not provided"));
        assert_eq!(refused("-onlynet=abc"), "Unknown network specified in -onlynet: 'abc'");
        let text = refused("-proxy=127.0.0.1:1=mars");
        assert_eq!(text, "Unrecognized network in -proxy='127.0.0.1:1=mars': 'mars'");
        assert!(refused("-onlynet=onion -onion=0").contains("explicitly forbidden: -onion=0"));
        for line in ["-onlynet=onion -listenonion=0", "-onlynet=onion -listen=0"] {
            assert!(refused(line).contains("is not provided: none of"), "{line}");
        }
        assert_eq!(refused("-onion=unix:/x"), "Invalid -onion address or hostname: 'unix:/x'");
    }
}
