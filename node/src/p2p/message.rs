//! The messages that the node understands, and their bytes. Blocks stay bytes: the thread that
//! checks them parses them.

use bitcoin::BlockHash;
use bitcoin::block::Header;
use bitcoin::consensus::encode::{Decodable, Encodable, VarInt, serialize};
use bitcoin::hashes::Hash as _;
use bitcoin::p2p::message_blockdata::Inventory;

/// The protocol version spoken (BIP-0339's).
pub(crate) const PROTOCOL_VERSION: u32 = 70_016;

/// Limits of Bitcoin Core: `MAX_INV_SZ`, `MAX_LOCATOR_SZ`, `MAX_HEADERS_RESULTS`,
/// `MAX_SUBVERSION_LENGTH`.
pub(crate) const INVENTORY_MAX: usize = 50_000;
const LOCATOR_MAX: usize = 101;
const HEADERS_MAX: usize = cofferdam_ibd::sync::HEADERS_MAX;
const USER_AGENT_BYTES_MAX: usize = 256;

/// What a node says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Version {
    /// Protocol version.
    pub(crate) version: u32,
    /// Service bits.
    pub(crate) services: u64,
    /// Its clock.
    pub(crate) time: i64,
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
            Self::Ping(_) => "ping",
            Self::Pong(_) => "pong",
            Self::GetHeaders(..) => "getheaders",
            Self::Headers(_) => "headers",
            Self::Inv(_) => "inv",
            Self::GetData(_) => "getdata",
            Self::NotFound(_) => "notfound",
            Self::Block(_) => "block",
            Self::Other => "",
        }
    }

    /// Encodes the payload.
    pub(crate) fn payload(self) -> Vec<u8> {
        match self {
            Self::Version(version) => version.payload(),
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
            Self::Verack
            | Self::WtxidRelay
            | Self::SendAddrV2
            | Self::SendHeaders
            | Self::Other => Vec::new(),
        }
    }

    /// Decodes the payload of a command; bytes behind what is known are left alone, as in Core.
    ///
    /// # Errors
    ///
    /// Returns what is wrong with it.
    pub(crate) fn decode(command: &str, payload: Vec<u8>) -> Result<Self, String> {
        let mut input = payload.as_slice();
        let input = &mut input;
        Ok(match command {
            "version" => Self::Version(Version::decode(input)?),
            "verack" => Self::Verack,
            "wtxidrelay" => Self::WtxidRelay,
            "sendaddrv2" => Self::SendAddrV2,
            "sendheaders" => Self::SendHeaders,
            "ping" => Self::Ping(item(input)?),
            "pong" => Self::Pong(item(input).unwrap_or_default()),
            "getheaders" => {
                let _version: u32 = item(input)?;
                let locator = items(input, LOCATOR_MAX, "getheaders locator size")?;
                Self::GetHeaders(locator, item(input)?)
            }
            "headers" => {
                let count = count(input, HEADERS_MAX, "headers message size")?;
                let mut headers = Vec::with_capacity(count.min(input.len() / 81));
                for _ in 0..count {
                    headers.push(item(input)?);
                    let _transactions: VarInt = item(input)?;
                }
                Self::Headers(headers)
            }
            "inv" => Self::Inv(items(input, INVENTORY_MAX, "inv message size")?),
            "getdata" => Self::GetData(items(input, INVENTORY_MAX, "getdata message size")?),
            "notfound" => Self::NotFound(items(input, INVENTORY_MAX, "notfound message size")?),
            "block" => Self::Block(payload),
            _ => Self::Other,
        })
    }
}

impl Version {
    fn payload(&self) -> Vec<u8> {
        /// An address field: services, IPv6 address, port; nobody reads it.
        const NO_ADDRESS: [u8; 26] = [0; 26];
        let mut out = serialize(&self.version);
        out.extend(serialize(&self.services));
        out.extend(serialize(&self.time));
        out.extend(NO_ADDRESS);
        out.extend(NO_ADDRESS);
        out.extend(serialize(&self.nonce));
        out.extend(serialize(&self.user_agent));
        out.extend(serialize(&self.start_height));
        out.push(u8::from(self.relay));
        out
    }

    fn decode(input: &mut &[u8]) -> Result<Self, String> {
        let version = item(input)?;
        let services = item(input)?;
        let time = item(input)?;
        let _receiver: [u8; 26] = take(input)?;
        let _sender: [u8; 26] = take(input)?;
        let nonce = item(input)?;
        let length = count(input, USER_AGENT_BYTES_MAX, "user agent size")?;
        let (name, rest) = input.split_at_checked(length).ok_or("end of data")?;
        *input = rest;
        // Only what can be printed: the name ends up in logs and on terminals.
        let printable = |byte: &u8| {
            if (0x20..0x7f).contains(byte) { char::from(*byte) } else { '?' }
        };
        let user_agent = name.iter().map(printable).collect();
        let start_height = item(input)?;
        // Absent in old versions, which want transactions.
        let relay = input.first().is_none_or(|byte| *byte != 0);
        Ok(Self { version, services, time, nonce, user_agent, start_height, relay })
    }
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

fn item<T: Decodable>(input: &mut &[u8]) -> Result<T, String> {
    T::consensus_decode(input).map_err(|error| error.to_string())
}

fn take<const N: usize>(input: &mut &[u8]) -> Result<[u8; N], String> {
    let (taken, rest) = input.split_first_chunk::<N>().ok_or("end of data")?;
    *input = rest;
    Ok(*taken)
}

fn count(input: &mut &[u8], max: usize, what: &str) -> Result<usize, String> {
    let count: VarInt = item(input)?;
    let count = usize::try_from(count.0).ok().filter(|count| *count <= max);
    count.ok_or_else(|| format!("{what} > {max}"))
}

/// Decodes a list; memory is bounded by the bytes that came, not by the claimed length.
fn items<T: Decodable>(input: &mut &[u8], max: usize, what: &str) -> Result<Vec<T>, String> {
    /// The smallest element of any list here is a hash.
    const ELEMENT_BYTES_MIN: usize = 32;
    let count = count(input, max, what)?;
    let mut items = Vec::with_capacity(count.min(input.len() / ELEMENT_BYTES_MIN));
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
            nonce: 7,
            user_agent: "/test:1/".into(),
            start_height: 5,
            relay: false,
        };
        let messages = [
            Message::Version(version),
            Message::Verack,
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
        assert!(Message::decode("getheaders", too_long).unwrap_err().contains("> 101"));
        let too_many = Message::Headers(vec![header(); 2001]).payload();
        assert!(Message::decode("headers", too_many).unwrap_err().contains("> 2000"));
        // A claim of 50,000 elements with no bytes behind takes no memory.
        assert!(Message::decode("inv", vec![0xfd, 0x50, 0xc3]).is_err());
        assert!(Message::decode("inv", vec![0xfd, 0x51, 0xc3]).unwrap_err().contains("> 50000"));
    }

    #[test]
    fn a_version_without_the_relay_byte_and_with_odd_names_is_understood() {
        let version = Version {
            version: 70_001,
            services: 1,
            time: 0,
            nonce: 0,
            user_agent: "/a\u{7}b/".into(),
            start_height: 0,
            relay: true,
        };
        let mut payload = Message::Version(version.clone()).payload();
        payload.pop();
        let decoded = Message::decode("version", payload);
        assert_eq!(
            decoded,
            Ok(Message::Version(Version { user_agent: "/a?b/".into(), ..version }))
        );
    }
}
