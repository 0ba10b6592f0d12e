//! Addresses of nodes in any network: IPv4, IPv6, Tor, I2P and CJDNS.
//!
//! Those of Tor and I2P are read and told on, though the node dials nobody there by itself: it
//! connects to onion services that the user names. Their written forms are the networks' own, their
//! bytes those of BIP-0155.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use sha3::{Digest as _, Sha3_256};

use super::payload::{bytes, size, take};
use super::subnet::{is_routable, unmapped};
use crate::config::Net;

/// Longest address of any network (Core's `MAX_ADDRV2_SIZE`).
const BYTES_MAX: u64 = 512;

/// Networks of BIP-0155, their names in Core's words, and the bytes of their addresses.
const IPV4: u8 = 1;
const IPV6: u8 = 2;
const TOR_V3: u8 = 4;
const I2P: u8 = 5;
const CJDNS: u8 = 6;
const SIZES: [(u8, &str, u64); 6] = [
    (IPV4, "IPv4", 4),
    (IPV6, "IPv6", 16),
    (3, "TORv2", 10),
    (TOR_V3, "TORv3", 32),
    (I2P, "I2P", 32),
    (CJDNS, "CJDNS", 16),
];

/// How Core writes the name of a seed as an address, and old addresses of Tor.
const INTERNAL_PREFIX: [u8; 6] = [0xfd, 0x6b, 0x88, 0xc0, 0x87, 0x24];
const TOR_V2_PREFIX: [u8; 6] = [0xfd, 0x87, 0xd8, 0x7e, 0xeb, 0x43];

/// First byte of an address of CJDNS.
const CJDNS_PREFIX: u8 = 0xfc;

/// The only version of the addresses of Tor, which they end with.
const ONION_VERSION: u8 = 3;

/// Where a node is, without the port.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Host {
    /// Of IPv4 or IPv6; never IPv4 mapped into IPv6.
    Ip(IpAddr),
    /// The public key of an onion service.
    Onion([u8; 32]),
    /// The hash of a destination.
    I2p([u8; 32]),
    /// Bytes that begin with `fc`.
    Cjdns([u8; 16]),
}

impl Host {
    /// No address of anybody, for what cannot be read as one.
    pub(crate) const NONE: Self = Self::Ip(IpAddr::V6(Ipv6Addr::UNSPECIFIED));

    /// Returns what an address of IP is; that of CJDNS where it is spoken.
    pub(crate) fn of(ip: IpAddr, has_cjdns: bool) -> Self {
        match unmapped(ip) {
            IpAddr::V6(ip) if has_cjdns && ip.octets().starts_with(&[CJDNS_PREFIX]) => {
                Self::Cjdns(ip.octets())
            }
            ip => Self::Ip(ip),
        }
    }

    /// Returns the network, as far as the address can be reached from anywhere.
    pub(crate) fn net(&self) -> Option<Net> {
        self.is_routable().then_some(match self {
            Self::Ip(IpAddr::V4(_)) => Net::Ipv4,
            Self::Ip(IpAddr::V6(_)) => Net::Ipv6,
            Self::Onion(_) => Net::Onion,
            Self::I2p(_) => Net::I2p,
            Self::Cjdns(_) => Net::Cjdns,
        })
    }

    /// Returns the network's name; addresses of no use outside have one of their own.
    pub(crate) fn net_name(&self) -> &'static str {
        self.net().map_or("not_publicly_routable", Net::name)
    }

    /// Returns whether the address can be reached from anywhere.
    pub(crate) fn is_routable(&self) -> bool {
        match self {
            Self::Ip(ip) => is_routable(*ip),
            Self::Onion(_) | Self::I2p(_) => true,
            Self::Cjdns(bytes) => bytes.starts_with(&[CJDNS_PREFIX]),
        }
    }

    /// Returns whether it only stands for the name of a seed.
    pub(super) fn is_internal(&self) -> bool {
        matches!(self, Self::Ip(IpAddr::V6(ip)) if ip.octets().starts_with(&INTERNAL_PREFIX))
    }

    /// Returns whether it may be an address at all (Core's `IsValid`).
    pub(super) fn is_valid(&self) -> bool {
        match self {
            Self::Ip(IpAddr::V4(ip)) => !ip.is_unspecified() && !ip.is_broadcast(),
            Self::Ip(IpAddr::V6(ip)) => {
                let is_documentation = ip.segments().starts_with(&[0x2001, 0xdb8]);
                !ip.is_unspecified() && !is_documentation && !self.is_internal()
            }
            Self::Onion(_) | Self::I2p(_) => true,
            Self::Cjdns(bytes) => bytes.starts_with(&[CJDNS_PREFIX]),
        }
    }

    /// Returns the address of IP to connect to.
    pub(crate) fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Ip(ip) => Some(*ip),
            Self::Cjdns(bytes) => Some(IpAddr::from(*bytes)),
            Self::Onion(_) | Self::I2p(_) => None,
        }
    }

    /// Returns whether a message has room for it: one of the new kind, which the other end has to
    /// have asked for, or an old one.
    pub(super) const fn fits(&self, v2: bool) -> bool {
        v2 || matches!(self, Self::Ip(_))
    }

    /// Returns the bytes that stand for it in hashes (Core's `GetAddrBytes`).
    pub(super) fn hash_bytes(&self) -> Vec<u8> {
        match self {
            Self::Ip(ip) => wide(*ip).octets().to_vec(),
            Self::Onion(bytes) | Self::I2p(bytes) => bytes.to_vec(),
            Self::Cjdns(bytes) => bytes.to_vec(),
        }
    }

    /// Writes it in the form of BIP-0155.
    pub(super) fn encode_v2(&self, out: &mut Vec<u8>) {
        let (net, bytes): (u8, &[u8]) = match self {
            Self::Ip(IpAddr::V4(ip)) => (IPV4, &ip.octets()),
            Self::Ip(IpAddr::V6(ip)) => (IPV6, &ip.octets()),
            Self::Onion(bytes) => (TOR_V3, bytes),
            Self::I2p(bytes) => (I2P, bytes),
            Self::Cjdns(bytes) => (CJDNS, bytes),
        };
        out.push(net);
        // None is longer than 32 bytes: its length is one byte.
        out.push(u8::try_from(bytes.len()).unwrap_or(u8::MAX));
        out.extend(bytes);
    }

    /// Reads it in the form of BIP-0155; none: of a network not known, or in a form not its own.
    ///
    /// # Errors
    ///
    /// Returns what is wrong with it, in Bitcoin Core's words.
    pub(super) fn decode_v2(input: &mut &[u8]) -> Result<Option<Self>, String> {
        let [net] = take(input)?;
        let size = size(input)?;
        if size > BYTES_MAX {
            return Err(format!("Address too long: {size} > {BYTES_MAX}"));
        }
        if let Some((_, name, right)) = SIZES.iter().find(|(known, ..)| *known == net)
            && size != *right
        {
            let text = format!("BIP155 {name} address with length {size}");
            return Err(format!("{text} (should be {right})"));
        }
        Ok(match net {
            IPV4 => Some(Self::Ip(take::<4>(input)?.into())),
            IPV6 => {
                let octets = take::<16>(input)?;
                let ip = Ipv6Addr::from(octets);
                // IPv4 and old addresses of Tor have forms of their own.
                let is_own = ip.to_ipv4_mapped().is_none() && !octets.starts_with(&TOR_V2_PREFIX);
                is_own.then_some(Self::Ip(ip.into()))
            }
            TOR_V3 => Some(Self::Onion(take(input)?)),
            I2P => Some(Self::I2p(take(input)?)),
            CJDNS => Some(Self::Cjdns(take(input)?)).filter(Self::is_valid),
            _ => {
                bytes(input, usize::try_from(size).unwrap_or(usize::MAX))?;
                None
            }
        })
    }

    /// Writes it as 16 bytes of IPv6; only [those that fit](Self::fits) survive that.
    pub(super) fn encode_v1(&self, out: &mut Vec<u8>) {
        let ip = if let Self::Ip(ip) = self { wide(*ip) } else { Ipv6Addr::UNSPECIFIED };
        out.extend(ip.octets());
    }

    /// Reads 16 bytes of IPv6.
    ///
    /// # Errors
    ///
    /// Returns an error if there are fewer.
    pub(super) fn decode_v1(input: &mut &[u8]) -> Result<Self, String> {
        let octets = take::<16>(input)?;
        let is_old_tor = octets.starts_with(&TOR_V2_PREFIX);
        let ip = IpAddr::V6(Ipv6Addr::from(octets)).to_canonical();
        Ok(if is_old_tor { Self::NONE } else { Self::Ip(ip) })
    }
}

impl From<IpAddr> for Host {
    fn from(ip: IpAddr) -> Self {
        Self::of(ip, false)
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => write!(f, "{ip}"),
            Self::Cjdns(bytes) => write!(f, "{}", Ipv6Addr::from(*bytes)),
            Self::I2p(bytes) => write!(f, "{}.b32.i2p", to_base32(bytes)),
            Self::Onion(key) => {
                let bytes = [&key[..], &onion_checksum(key), &[ONION_VERSION]].concat();
                write!(f, "{}.onion", to_base32(&bytes))
            }
        }
    }
}

/// What was written is no address of any network.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NotAHost;

impl FromStr for Host {
    type Err = NotAHost;

    fn from_str(text: &str) -> Result<Self, NotAHost> {
        let lower = text.to_ascii_lowercase();
        if let Some(name) = lower.strip_suffix(".onion") {
            let bytes = from_base32(name).ok_or(NotAHost)?;
            let (key, end) = bytes.split_first_chunk::<32>().ok_or(NotAHost)?;
            let [a, b] = onion_checksum(key);
            let is_sound = end == [a, b, ONION_VERSION];
            return is_sound.then_some(Self::Onion(*key)).ok_or(NotAHost);
        }
        if let Some(name) = lower.strip_suffix(".b32.i2p") {
            let bytes = from_base32(name).ok_or(NotAHost)?;
            return bytes.try_into().map(Self::I2p).map_err(|_| NotAHost);
        }
        lower.trim_matches(['[', ']']).parse::<IpAddr>().map(Self::from).map_err(|_| NotAHost)
    }
}

/// A host and its port.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct NodeAddr {
    pub(crate) host: Host,
    pub(crate) port: u16,
}

impl NodeAddr {
    /// Returns where to connect to, if that is a matter of IP.
    pub(crate) fn socket(&self) -> Option<SocketAddr> {
        self.host.ip().map(|ip| SocketAddr::new(ip, self.port))
    }
}

impl From<SocketAddr> for NodeAddr {
    fn from(address: SocketAddr) -> Self {
        Self { host: address.ip().into(), port: address.port() }
    }
}

impl fmt::Display for NodeAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host {
            Host::Ip(IpAddr::V6(_)) | Host::Cjdns(_) => write!(f, "[{}]:{}", self.host, self.port),
            _ => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// Returns an address as IPv6 has it.
pub(super) const fn wide(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

/// Returns what an address of Tor has before its version (`rend-spec-v3`).
fn onion_checksum(key: &[u8; 32]) -> [u8; 2] {
    let mut hasher = Sha3_256::new();
    hasher.update(b".onion checksum");
    hasher.update(key);
    hasher.update([ONION_VERSION]);
    let [a, b, ..] = <[u8; 32]>::from(hasher.finalize());
    [a, b]
}

const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// Writes bytes in the base of RFC 4648, without padding.
fn to_base32(bytes: &[u8]) -> String {
    let mut out = String::new();
    let (mut held, mut bits) = (0_u32, 0);
    for byte in bytes {
        held = held << 8 | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            out.push(digit(held >> bits));
        }
        held &= (1 << bits) - 1;
    }
    if bits > 0 {
        out.push(digit(held << (5 - bits)));
    }
    out
}

fn digit(number: u32) -> char {
    let index = usize::try_from(number & 31).unwrap_or(0);
    BASE32.get(index).copied().map_or('a', char::from)
}

/// Reads what [`to_base32`] writes, and nothing else.
fn from_base32(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let (mut held, mut bits) = (0_u32, 0);
    for byte in text.bytes() {
        let value = BASE32.iter().position(|digit| *digit == byte)?;
        held = held << 5 | u32::try_from(value).ok()?;
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            out.push(u8::try_from(held >> bits & 0xff).ok()?);
        }
        held &= (1 << bits) - 1;
    }
    (held == 0 && bits < 5).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Addresses of Core's tests.
    const WRITTEN: [&str; 5] = [
        "1.2.3.4",
        "2803:0:1234:abcd::1",
        "pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscryd.onion",
        "c4gfnttsuwqomiygupdqqqyy5y5emnk5c73hrfvatri67prd7vyq.b32.i2p",
        "[fc00:1:2:3:4:5:6:7]",
    ];

    #[test]
    fn every_network_is_read_and_written() {
        let nets = [Net::Ipv4, Net::Ipv6, Net::Onion, Net::I2p];
        for (text, net) in WRITTEN.into_iter().zip(nets) {
            let host: Host = text.parse().expect("an address");
            assert_eq!((host.to_string().as_str(), host.net()), (text, Some(net)));
            let mut bytes = Vec::new();
            host.encode_v2(&mut bytes);
            assert_eq!(Host::decode_v2(&mut &bytes[..]), Ok(Some(host)));
        }
        let ip = WRITTEN[4].trim_matches(['[', ']']).parse().expect("an address");
        assert_eq!(Host::of(ip, false).net(), None, "local where CJDNS is not spoken");
        let host = Host::of(ip, true);
        assert_eq!((host.net(), host.ip()), (Some(Net::Cjdns), Some(ip)));
        let address = NodeAddr { host, port: 7 };
        assert_eq!(address.to_string(), "[fc00:1:2:3:4:5:6:7]:7");
        assert_eq!(address.socket(), Some(SocketAddr::new(ip, 7)));
    }

    #[test]
    fn what_is_misspelt_is_no_address() {
        let onion = WRITTEN[2];
        for text in [
            "",
            "not_an_ip",
            &onion.replace("pg6", "pg7"),
            &onion.replace("scryd", "scrye"),
            &onion[1..],
            &WRITTEN[3][1..],
            "1.b32.i2p",
            ".onion",
        ] {
            assert_eq!(text.parse::<Host>(), Err(NotAHost), "{text}");
        }
        assert!(onion.to_uppercase().parse::<Host>().is_ok());
    }

    #[test]
    fn forms_that_are_not_a_networks_own_are_passed_over() {
        let mapped = [&[IPV6, 16][..], &wide([1, 2, 3, 4].into()).octets()].concat();
        let old_tor = [&[IPV6, 16][..], &TOR_V2_PREFIX, &[7; 10]].concat();
        let unknown = [9, 3, 1, 2, 3];
        for bytes in [&mapped[..], &old_tor, &unknown] {
            assert_eq!(Host::decode_v2(&mut &*bytes), Ok(None));
        }
        assert_eq!(Host::decode_v1(&mut &mapped[2..]), Ok(Host::Ip([1, 2, 3, 4].into())));
        assert_eq!(Host::decode_v1(&mut &old_tor[2..]), Ok(Host::NONE));
    }
}
