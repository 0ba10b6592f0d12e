//! `Subnet`: an address, or all that share its first bits, as `setban` and `-whitelist` name them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A range of addresses. The order is that of `listbanned`: by kind, address, length.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Subnet {
    /// IPv4 addresses that share as many leading bits.
    V4(Ipv4Addr, u8),
    /// IPv6 addresses that share as many leading bits.
    V6(Ipv6Addr, u8),
    /// A name in an overlay network (Tor, I2P): one address.
    Name(String),
}

impl Subnet {
    /// Reads `address`, `address/bits` or `address/mask`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let Some((address, range)) = text.split_once('/') else {
            return Self::single(text);
        };
        let ip = unmapped(address.parse().ok()?);
        let bits = match (ip, range.parse::<IpAddr>()) {
            (IpAddr::V4(_), Ok(IpAddr::V4(mask))) => mask_bits(u128::from(mask.to_bits()) << 96)?,
            (IpAddr::V6(_), Ok(IpAddr::V6(mask))) => mask_bits(mask.to_bits())?,
            (_, Ok(_)) => return None,
            (_, Err(_)) => range.parse().ok()?,
        };
        match ip {
            IpAddr::V4(ip) if bits <= 32 => {
                Some(Self::V4((ip.to_bits() & v4_mask(bits)).into(), bits))
            }
            IpAddr::V6(ip) if bits <= 128 => {
                Some(Self::V6((ip.to_bits() & v6_mask(bits)).into(), bits))
            }
            _ => None,
        }
    }

    /// Returns the range of one address.
    pub(crate) fn of(ip: IpAddr) -> Self {
        match unmapped(ip) {
            IpAddr::V4(ip) => Self::V4(ip, 32),
            IpAddr::V6(ip) => Self::V6(ip, 128),
        }
    }

    /// Returns whether an address is in it.
    pub(crate) fn contains(&self, ip: IpAddr) -> bool {
        match (self, unmapped(ip)) {
            (Self::V4(first, bits), IpAddr::V4(ip)) => {
                ip.to_bits() & v4_mask(*bits) == first.to_bits()
            }
            (Self::V6(first, bits), IpAddr::V6(ip)) => {
                ip.to_bits() & v6_mask(*bits) == first.to_bits()
            }
            _ => false,
        }
    }

    fn single(text: &str) -> Option<Self> {
        if let Ok(ip) = text.trim_matches(['[', ']']).parse() {
            return Some(Self::of(ip));
        }
        // Version 3 of Tor's addresses, and I2P's, by length and alphabet; neither is ever the
        // address of a socket here, so a wrong checksum in one harms nobody.
        let name = text.to_ascii_lowercase();
        let label = match name.strip_suffix(".onion") {
            Some(label) if label.len() == 56 => label,
            Some(_) => return None,
            None => name.strip_suffix(".b32.i2p").filter(|label| label.len() == 52)?,
        };
        let is_base32 = label.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'2'..=b'7'));
        is_base32.then_some(Self::Name(name))
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(ip, bits) => write!(f, "{ip}/{bits}"),
            Self::V6(ip, bits) => write!(f, "{ip}/{bits}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// Returns an IPv4 address that came as an IPv6 one as what it is.
pub(crate) fn unmapped(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(ip, IpAddr::V4),
        IpAddr::V4(_) => ip,
    }
}

/// Returns whether an address can be reached from anywhere (Bitcoin Core's `IsRoutable`).
pub(crate) fn is_routable(ip: IpAddr) -> bool {
    match unmapped(ip) {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            let is_shared = a == 100 && b & 0xc0 == 64;
            let is_benchmark = a == 198 && b & 0xfe == 18;
            !(a == 0
                || is_shared
                || is_benchmark
                || ip.is_private()
                || ip.is_loopback()
                || ip.is_link_local()
                || ip.is_broadcast()
                || ip.is_documentation())
        }
        IpAddr::V6(ip) => {
            let [a, b, ..] = ip.segments();
            let is_orchid = a == 0x2001 && (b & 0xfff0 == 0x10 || b & 0xfff0 == 0x20);
            let is_documentation = a == 0x2001 && b == 0xdb8;
            !(ip.is_loopback()
                || ip.is_unspecified()
                || is_orchid
                || is_documentation
                || ip.is_unique_local()
                || ip.is_unicast_link_local())
        }
    }
}

fn v4_mask(bits: u8) -> u32 {
    u32::MAX.checked_shl(32_u32.saturating_sub(bits.into())).unwrap_or(0)
}

fn v6_mask(bits: u8) -> u128 {
    u128::MAX.checked_shl(128_u32.saturating_sub(bits.into())).unwrap_or(0)
}

/// Returns the length of a mask whose ones all come first.
fn mask_bits(mask: u128) -> Option<u8> {
    let ones = mask.leading_ones();
    let is_sound = mask.checked_shl(ones).unwrap_or(0) == 0;
    if is_sound { u8::try_from(ones).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Option<String> {
        Subnet::parse(text).map(|subnet| subnet.to_string())
    }

    #[test]
    fn ranges_are_written_as_core_writes_them() {
        assert_eq!(shown("127.0.0.1").as_deref(), Some("127.0.0.1/32"));
        assert_eq!(shown("127.0.0.9/24").as_deref(), Some("127.0.0.0/24"));
        assert_eq!(shown("1.2.3.4/255.255.0.0").as_deref(), Some("1.2.0.0/16"));
        assert_eq!(shown("1.2.3.4/0").as_deref(), Some("0.0.0.0/0"));
        let v6 = shown("2001:4d48:ac57:400:cacf:e9ff:fe1d:9c63/19");
        assert_eq!(v6.as_deref(), Some("2001:4000::/19"));
        assert_eq!(shown("::ffff:1.2.3.4").as_deref(), Some("1.2.3.4/32"));
        let onion = "pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscryd.onion";
        assert_eq!(shown(onion).as_deref(), Some(onion));
        for bad in
            ["127.0.0.1/42", "1.2.3.4/255.0.255.0", "x", "", "::1/129", "a.onion", "1.1.1.1/::"]
        {
            assert_eq!(shown(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_range_contains_what_shares_its_bits() {
        let range = Subnet::parse("10.1.0.0/16").unwrap();
        assert!(range.contains("10.1.255.3".parse().unwrap()));
        assert!(range.contains("::ffff:10.1.2.3".parse().unwrap()));
        assert!(!range.contains("10.2.0.0".parse().unwrap()));
        assert!(!range.contains("::1".parse().unwrap()));
        assert!(Subnet::parse("::/0").unwrap().contains("::1".parse().unwrap()));
        assert!(Subnet::parse("10.1.0.0/16") < Subnet::parse("10.1.0.0/17"));
        assert!(Subnet::parse("255.0.0.0/8") < Subnet::parse("::/8"));
    }

    #[test]
    fn addresses_of_private_networks_are_told_to_nobody() {
        let routable = |text: &str| is_routable(text.parse().unwrap());
        for ip in ["8.8.8.8", "100.128.0.1", "2a00::1", "::ffff:8.8.8.8"] {
            assert!(routable(ip), "{ip}");
        }
        for ip in ["127.0.0.1", "10.0.0.1", "100.64.0.1", "0.1.2.3", "198.19.0.1", "::1", "fd00::1"]
        {
            assert!(!routable(ip), "{ip}");
        }
    }
}
