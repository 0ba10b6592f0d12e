//! The messages that the node understands, and their bytes. Blocks stay bytes: the thread that
//! checks them parses them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use bitcoin::BlockHash;
use bitcoin::block::Header;
use bitcoin::consensus::encode::{Decodable, Encodable, VarInt, serialize};
use bitcoin::hashes::Hash as _;
use bitcoin::p2p::message_blockdata::Inventory;

use super::filters::FilterMessage;
use super::payload::{END_OF_DATA, bytes, item, size, take};
use super::relay_message::RelayMessage;

/// The protocol version spoken (BIP-0434's).
pub(crate) const PROTOCOL_VERSION: u32 = 70_017;

/// Limits of Bitcoin Core: `MAX_INV_SZ`, `MAX_LOCATOR_SZ`, `MAX_HEADERS_RESULTS`,
/// `MAX_SUBVERSION_LENGTH`.
pub(crate) const INVENTORY_MAX: usize = 50_000;
/// Most elements of a `notfound` that is looked at: as many as a peer is asked for at a time
/// (`MAX_PEER_TX_ANNOUNCEMENTS`, `MAX_BLOCKS_IN_TRANSIT_PER_PEER`).
const NOT_FOUND_MAX: usize = 5_000 + 16;
const LOCATOR_MAX: usize = 101;
const HEADERS_MAX: usize = cofferdam_ibd::sync::HEADERS_MAX;
const USER_AGENT_BYTES_MAX: usize = 256;
const HASH_BYTES: usize = 32;
/// A type and a hash.
const INVENTORY_BYTES: usize = 4 + HASH_BYTES;

/// What a node says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Version {
    /// Protocol version.
    pub(crate) version: u32,
    /// Service bits.
    pub(crate) services: u64,
    /// Its clock.
    pub(crate) time: i64,
    /// How it sees the other end's address.
    pub(crate) receiver: Option<SocketAddr>,
    /// A random number, by which a node knows its own messages.
    pub(crate) nonce: u64,
    /// Its name.
    pub(crate) user_agent: String,
    /// Height of its tip.
    pub(crate) start_height: i32,
    /// Whether it wants transactions.
    pub(crate) relay: bool,
}

/// A message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Message {
    /// `version`
    Version(Version),
    /// `verack`
    Verack,
    /// `wtxidrelay` (BIP-0339)
    WtxidRelay,
    /// `sendaddrv2` (BIP-0155)
    SendAddrV2,
    /// `sendheaders` (BIP-0130)
    SendHeaders,
    /// `sendcmpct` (BIP-0152): whether new blocks may come unasked, and the version.
    SendCmpct(u8, u64),
    /// `feefilter` (BIP-0133): the least fee rate to be told of, in satoshis per 1000 bytes.
    FeeFilter(u64),
    /// `feature` (BIP-0434), well formed.
    Feature,
    /// A message of relay.
    Relay(RelayMessage),
    /// `getaddr`
    GetAddr,
    /// `ping`
    Ping(u64),
    /// `pong`
    Pong(u64),
    /// `getheaders`: what follows the first known hash of the locator, up to the stop hash.
    GetHeaders(Vec<BlockHash>, BlockHash),
    /// `headers`
    Headers(Vec<Header>),
    /// `inv`
    Inv(Vec<Inventory>),
    /// `getdata`
    GetData(Vec<Inventory>),
    /// `notfound`
    NotFound(Vec<Inventory>),
    /// `block`
    Block(Vec<u8>),
    /// One about block filters (BIP-0157)
    Filters(FilterMessage),
    /// Any other.
    Other,
}

impl Message {
    /// Returns the command.
    pub(crate) const fn command(&self) -> &'static str {
        match self {
            Self::Version(_) => "version",
            Self::Verack => "verack",
            Self::WtxidRelay => "wtxidrelay",
            Self::SendAddrV2 => "sendaddrv2",
            Self::SendHeaders => "sendheaders",
            Self::SendCmpct(..) => "sendcmpct",
            Self::FeeFilter(_) => "feefilter",
            Self::Feature => "feature",
            Self::Relay(message) => message.command(),
            Self::GetAddr => "getaddr",
            Self::Ping(_) => "ping",
            Self::Pong(_) => "pong",
            Self::GetHeaders(..) => "getheaders",
            Self::Headers(_) => "headers",
            Self::Inv(_) => "inv",
            Self::GetData(_) => "getdata",
            Self::NotFound(_) => "notfound",
            Self::Block(_) => "block",
            Self::Filters(message) => message.command(),
            Self::Other => "",
        }
    }

    /// Encodes the payload.
    pub(crate) fn payload(self) -> Vec<u8> {
        match self {
            Self::Version(version) => version.payload(),
            Self::SendCmpct(unasked, version) => {
                let mut out = vec![unasked];
                out.extend(serialize(&version));
                out
            }
            Self::FeeFilter(rate) => serialize(&rate),
            Self::Relay(message) => message.payload(),
            Self::Ping(nonce) | Self::Pong(nonce) => serialize(&nonce),
            Self::GetHeaders(locator, stop) => {
                let mut out = serialize(&PROTOCOL_VERSION);
                out.extend(list(&locator));
                out.extend(serialize(&stop));
                out
            }
            Self::Headers(headers) => {
                let mut out = length(headers.len());
                for header in headers {
                    out.extend(serialize(&header));
                    // The number of transactions, always 0 here.
                    out.push(0);
                }
                out
            }
            Self::Inv(items) | Self::GetData(items) | Self::NotFound(items) => list(&items),
            Self::Block(raw) => raw,
            Self::Filters(message) => message.payload(),
            Self::Verack
            | Self::WtxidRelay
            | Self::SendAddrV2
            | Self::SendHeaders
            | Self::Feature
            | Self::GetAddr
            | Self::Other => Vec::new(),
        }
    }

    /// Decodes the payload of a command; bytes behind what is known are left alone, as in Core.
    ///
    /// # Errors
    ///
    /// Returns what is wrong with it.
    pub(crate) fn decode(command: &str, payload: Vec<u8>) -> Result<Self, Malformed> {
        let mut input = payload.as_slice();
        let input = &mut input;
        Ok(match command {
            "version" => Self::Version(Version::decode(input)?),
            "verack" => Self::Verack,
            "wtxidrelay" => Self::WtxidRelay,
            "sendaddrv2" => Self::SendAddrV2,
            "sendheaders" => Self::SendHeaders,
            "sendcmpct" => Self::SendCmpct(item(input)?, item(input)?),
            "feefilter" => Self::FeeFilter(item(input)?),
            "feature" => {
                check_feature(input)
                    .ok_or_else(|| Malformed::Refused("invalid feature payload".into()))?;
                Self::Feature
            }
            "getaddr" => Self::GetAddr,
            // Before BIP-0031 a ping had no nonce and got no answer.
            "ping" => Self::Ping(item(input)?),
            "pong" => Self::Pong(item(input)?),
            "getheaders" => {
                let _version: u32 = item(input)?;
                let locator = items(input, (LOCATOR_MAX, HASH_BYTES), |count| {
                    let text = format!("getheaders locator size {count} > {LOCATOR_MAX}");
                    Malformed::Refused(text)
                })?;
                Self::GetHeaders(locator, item(input)?)
            }
            "headers" => {
                let count = count(input, HEADERS_MAX, too_many("headers"))?;
                let mut headers = Vec::with_capacity(count.min(input.len() / 81));
                for _ in 0..count {
                    headers.push(item(input)?);
                    size(input)?;
                }
                Self::Headers(headers)
            }
            "inv" => Self::Inv(items(input, (INVENTORY_MAX, INVENTORY_BYTES), too_many("inv"))?),
            "getdata" => {
                Self::GetData(items(input, (INVENTORY_MAX, INVENTORY_BYTES), too_many("getdata"))?)
            }
            "notfound" => {
                let max = (NOT_FOUND_MAX, INVENTORY_BYTES);
                match items(input, max, too_many("notfound")) {
                    Err(Malformed::TooMany(_)) => Self::NotFound(Vec::new()),
                    items => Self::NotFound(items?),
                }
            }
            "block" => Self::Block(payload),
            "getcfilters" | "getcfheaders" | "getcfcheckpt" => {
                Self::Filters(FilterMessage::decode(command, input)?)
            }
            _ => RelayMessage::decode(command, &payload)?.map_or(Self::Other, Self::Relay),
        })
    }
}

impl Version {
    fn payload(&self) -> Vec<u8> {
        let mut out = serialize(&self.version);
        out.extend(serialize(&self.services));
        out.extend(serialize(&self.time));
        out.extend(address_field(0, self.receiver));
        out.extend(address_field(self.services, None));
        out.extend(serialize(&self.nonce));
        out.extend(serialize(&self.user_agent));
        out.extend(serialize(&self.start_height));
        out.push(u8::from(self.relay));
        out
    }

    /// Reads as Bitcoin Core does: what is behind the receiver's address may be left out.
    fn decode(input: &mut &[u8]) -> Result<Self, Malformed> {
        let version = item(input)?;
        let services = item(input)?;
        let time = item::<i64>(input)?.max(0);
        let _receiver_services: [u8; 8] = take(input)?;
        let receiver = address(take(input)?, take(input)?);
        let mut nonce = 1;
        if !input.is_empty() {
            let _sender: [u8; 26] = take(input)?;
            nonce = item(input)?;
        }
        let user_agent = if input.is_empty() { String::new() } else { user_agent(input)? };
        let start_height = if input.is_empty() { -1 } else { item(input)? };
        // Absent in old versions, which want transactions.
        let relay = input.first().is_none_or(|byte| *byte != 0);
        Ok(Self { version, services, time, receiver, nonce, user_agent, start_height, relay })
    }
}

/// Services, IPv6 address, port.
fn address_field(services: u64, address: Option<SocketAddr>) -> Vec<u8> {
    let mut out = serialize(&services);
    let (ip, port) = match address {
        Some(SocketAddr::V4(v4)) => (v4.ip().to_ipv6_mapped().octets(), v4.port()),
        Some(SocketAddr::V6(v6)) => (v6.ip().octets(), v6.port()),
        None => ([0; 16], 0),
    };
    out.extend(ip);
    out.extend(port.to_be_bytes());
    out
}

/// Returns an address that means something.
fn address(ip: [u8; 16], port: [u8; 2]) -> Option<SocketAddr> {
    let ip = super::subnet::unmapped(ip.into());
    let is_sound = !ip.is_unspecified() && ip != IpAddr::V4(Ipv4Addr::BROADCAST);
    is_sound.then(|| SocketAddr::new(ip, u16::from_be_bytes(port)))
}

fn user_agent(input: &mut &[u8]) -> Result<String, Malformed> {
    let limit = |_| Malformed::Unreadable("String length limit exceeded".into());
    let length = count(input, USER_AGENT_BYTES_MAX, limit)?;
    let name = bytes(input, length)?;
    // Only what can be printed, and is no markup: the name ends up in logs and on terminals.
    let is_safe = |c: &char| c.is_ascii_alphanumeric() || " .,;-_/:?@()".contains(*c);
    Ok(name.iter().map(|byte| char::from(*byte)).filter(is_safe).collect())
}

/// Reads a feature: a name of 4 to 80 bytes and at most 512 bytes about it.
fn check_feature(input: &mut &[u8]) -> Option<()> {
    const NAME_BYTES: std::ops::RangeInclusive<usize> = 4..=80;
    const DATA_BYTES_MAX: usize = 512;
    let mut skip = |max: usize| {
        let length = usize::try_from(item::<VarInt>(input).ok()?.0).ok()?;
        *input = input.get(length..).filter(|_| length <= max)?;
        Some(length)
    };
    let name = skip(*NAME_BYTES.end())?;
    skip(DATA_BYTES_MAX)?;
    (NAME_BYTES.contains(&name) && input.is_empty()).then_some(())
}

/// The types that Bitcoin Core knows, which have a counter each; all others share one.
pub(super) const KNOWN_TYPES: [&str; 36] = [
    "version",
    "verack",
    "addr",
    "addrv2",
    "sendaddrv2",
    "inv",
    "getdata",
    "merkleblock",
    "getblocks",
    "getheaders",
    "tx",
    "headers",
    "block",
    "getaddr",
    "mempool",
    "ping",
    "pong",
    "notfound",
    "filterload",
    "filteradd",
    "filterclear",
    "sendheaders",
    "feefilter",
    "sendcmpct",
    "cmpctblock",
    "getblocktxn",
    "blocktxn",
    "getcfilters",
    "cfilter",
    "getcfheaders",
    "cfheaders",
    "getcfcheckpt",
    "cfcheckpt",
    "wtxidrelay",
    "sendtxrcncl",
    "feature",
];

/// Returns the name under which a type is counted: a peer must not make a new counter each time.
pub(crate) fn counter_name(command: &str) -> &'static str {
    KNOWN_TYPES.iter().find(|known| **known == command).copied().unwrap_or("*other*")
}

/// Returns whether the type is one that Bitcoin Core knows.
pub(crate) fn is_known(command: &str) -> bool {
    KNOWN_TYPES.contains(&command)
}

/// Why a payload is no message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Malformed {
    /// It cannot be read, in Bitcoin Core's words; as there that is logged, and the peer stays.
    Unreadable(String),
    /// It has more elements than any peer may send.
    TooMany(String),
    /// The connection ends, and nobody is blamed.
    Refused(String),
}

impl From<String> for Malformed {
    fn from(text: String) -> Self {
        Self::Unreadable(text)
    }
}

fn too_many(name: &'static str) -> impl Fn(u64) -> Malformed {
    move |count| Malformed::TooMany(format!("{name} message size = {count}"))
}

fn length(count: usize) -> Vec<u8> {
    serialize(&VarInt::from(count))
}

fn list<T: Encodable>(items: &[T]) -> Vec<u8> {
    let mut out = length(items.len());
    for item in items {
        out.extend(serialize(item));
    }
    out
}

fn count(
    input: &mut &[u8],
    max: usize,
    over: impl Fn(u64) -> Malformed,
) -> Result<usize, Malformed> {
    let claimed = size(input)?;
    let count = usize::try_from(claimed).ok().filter(|count| *count <= max);
    count.ok_or_else(|| over(claimed))
}

/// Decodes a list whose elements take `element_bytes` each. It is read before it is found too long,
/// as in Core; memory is bounded by the bytes that came, not by the claimed length.
fn items<T: Decodable>(
    input: &mut &[u8],
    (max, element_bytes): (usize, usize),
    over: impl Fn(u64) -> Malformed,
) -> Result<Vec<T>, Malformed> {
    let claimed = size(input)?;
    let count = usize::try_from(claimed).unwrap_or(usize::MAX);
    if count > input.len() / element_bytes {
        return Err(Malformed::Unreadable(END_OF_DATA.into()));
    }
    if count > max {
        return Err(over(claimed));
    }
    let mut items = Vec::with_capacity(count);
    for _ in 0..count {
        items.push(item(input)?);
    }
    Ok(items)
}

/// The stop hash that means "as many as fit".
pub(crate) fn no_stop() -> BlockHash {
    BlockHash::all_zeros()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        bitcoin::constants::genesis_block(bitcoin::Network::Regtest).header
    }

    #[test]
    fn messages_survive_encoding_and_no_truncation_panics() {
        let hash = header().block_hash();
        let version = Version {
            version: PROTOCOL_VERSION,
            services: 9,
            time: 1_700_000_000,
            receiver: Some("1.2.3.4:5".parse().unwrap()),
            nonce: 7,
            user_agent: "/test:1/".into(),
            start_height: 5,
            relay: false,
        };
        let messages = [
            Message::Version(version),
            Message::Verack,
            Message::SendCmpct(1, 2),
            Message::FeeFilter(1000),
            Message::GetAddr,
            Message::Ping(1),
            Message::GetHeaders(vec![hash, hash], no_stop()),
            Message::Headers(vec![header(); 3]),
            Message::Inv(vec![Inventory::Block(hash)]),
            Message::GetData(vec![Inventory::WitnessBlock(hash); 2]),
            Message::NotFound(vec![]),
            Message::Block(vec![1, 2, 3]),
        ];
        for message in messages {
            let payload = message.clone().payload();
            assert_eq!(Message::decode(message.command(), payload.clone()), Ok(message.clone()));
            for cut in 0..payload.len() {
                let _ = Message::decode(message.command(), payload[..cut].to_vec());
            }
        }
    }

    #[test]
    fn limits_are_those_of_core() {
        let hash = header().block_hash();
        let too_long = Message::GetHeaders(vec![hash; 102], no_stop()).payload();
        let refused = Malformed::Refused("getheaders locator size 102 > 101".into());
        assert_eq!(Message::decode("getheaders", too_long), Err(refused));
        let over = |text: &str| Err(Malformed::TooMany(text.into()));
        let headers = Message::Headers(vec![header(); 2001]).payload();
        assert_eq!(Message::decode("headers", headers), over("headers message size = 2001"));
        // A claim of 50,000 elements with no bytes behind takes no memory.
        let end = Err(Malformed::Unreadable(END_OF_DATA.into()));
        assert_eq!(Message::decode("inv", vec![0xfd, 0x50, 0xc3]), end);
        assert_eq!(Message::decode("inv", vec![0xfd, 0x51, 0xc3]), end);
        let full = Message::Inv(vec![Inventory::Block(hash); 50_001]).payload();
        assert_eq!(Message::decode("inv", full.clone()), over("inv message size = 50001"));
        assert_eq!(Message::decode("getdata", full.clone()), over("getdata message size = 50001"));
        assert_eq!(Message::decode("notfound", full), Ok(Message::NotFound(Vec::new())));
    }

    #[test]
    fn what_cannot_be_read_costs_nothing_but_itself() {
        for (command, payload, text) in [
            ("ping", &[1, 2, 3][..], END_OF_DATA),
            ("inv", &[0xfd, 1, 0], "non-canonical ReadCompactSize()"),
            ("getdata", &[0xfe, 0xff, 0, 0, 0], "non-canonical ReadCompactSize()"),
            ("headers", &[0xff; 9], "ReadCompactSize(): size too large"),
            ("headers", &[1; 80], END_OF_DATA),
            ("getblocktxn", &[0xff; 41], "ReadCompactSize(): size too large"),
            ("getcfilters", &[0], END_OF_DATA),
            ("addr", &[0xff; 9], "ReadCompactSize(): size too large"),
        ] {
            let fault = Err(Malformed::Unreadable(text.into()));
            assert_eq!(Message::decode(command, payload.to_vec()), fault, "{command}");
        }
    }

    #[test]
    fn a_version_without_its_end_and_with_odd_names_is_understood() {
        let version = Version {
            version: 70_001,
            services: 1,
            time: 0,
            receiver: None,
            nonce: 5,
            user_agent: "/a\u{7}b<>/".into(),
            start_height: 0,
            relay: true,
        };
        let payload = Message::Version(version.clone()).payload();
        let decode = |bytes: &[u8]| match Message::decode("version", bytes.to_vec()) {
            Ok(Message::Version(version)) => version,
            other => panic!("{other:?}"),
        };
        let clean = Version { user_agent: "/ab/".into(), ..version };
        assert_eq!(decode(&payload[..payload.len() - 1]), clean);
        let bare = Version { nonce: 1, user_agent: String::new(), start_height: -1, ..clean };
        assert_eq!(decode(&payload[..46]), bare);
    }

    #[test]
    fn a_feature_has_a_name_and_some_bytes() {
        let feature = |name: usize, data: u16| {
            let mut bytes = vec![u8::try_from(name).unwrap()];
            bytes.extend(vec![b'x'; name]);
            bytes.push(0xfd);
            bytes.extend(data.to_le_bytes());
            bytes.extend(vec![0; data.into()]);
            Message::decode("feature", bytes)
        };
        assert_eq!(feature(4, 300), Ok(Message::Feature));
        assert_eq!(feature(80, 512), Ok(Message::Feature));
        for (name, data) in [(3, 300), (81, 300), (4, 513)] {
            assert!(matches!(feature(name, data), Err(Malformed::Refused(_))));
        }
    }
}
