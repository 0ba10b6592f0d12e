//! `anchors.dat`: the peers for blocks alone, connected to again after a restart.
//!
//! Whoever fills our tables with addresses of their own cannot take these two places by a crash or
//! a restart of the node. The file is Bitcoin Core's: the network's magic, a list of addresses in
//! the form of BIP-0155 with the version of that form, and the double SHA-256 of all before. It is
//! removed once it was read, so that a peer that crashes us is not asked again and again.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::Path;

use bitcoin::consensus::encode::{Decodable as _, VarInt, serialize};
use bitcoin::hashes::{Hash as _, sha256d};
use cofferdam_storage::{StdFileSystem, write_atomic};

use super::manager::PeerManager;
use super::peer::Kind;

/// Most addresses (Core's `MAX_BLOCK_RELAY_ONLY_ANCHORS`).
const ANCHORS_MAX: usize = 2;

/// What an address begins with: Core's `DISK_VERSION_ADDRV2`, and below it `DISK_VERSION_INIT`, which
/// is not looked at.
const ADDR_V2: u32 = 1 << 29;
const VERSION: u32 = 220_000;
const VERSION_MASK: u32 = 0x7_ffff;

/// Networks of BIP-0155.
const IPV4: u8 = 1;
const IPV6: u8 = 2;

const FILE: &str = "anchors.dat";

/// A peer to connect to again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Anchor {
    time: u32,
    services: u64,
    address: SocketAddr,
}

impl PeerManager {
    /// Takes the anchors of the last run, which are connected to first.
    pub(super) fn take_anchors(&self, chain_dir: &Path) {
        let path = chain_dir.join(FILE);
        let Ok(bytes) = std::fs::read(&path) else { return };
        if let Err(error) = std::fs::remove_file(&path) {
            tracing::warn!("Cannot remove {}: {error}", path.display());
        }
        let anchors = decode(&bytes, self.chain.params().magic).unwrap_or_default();
        tracing::info!("{} block-relay-only anchors will be tried for connections.", anchors.len());
        self.outbound().anchors = anchors.iter().map(|anchor| anchor.address).collect();
    }

    /// Writes the anchors of the next run.
    pub(super) fn save_anchors(&self, chain_dir: &Path) {
        let peers = self.peers();
        let anchors: Vec<Anchor> = peers
            .iter()
            .filter(|peer| peer.kind == Kind::BlockRelayOnly && peer.is_ready())
            .take(ANCHORS_MAX)
            .map(|peer| Anchor {
                time: u32::try_from(self.clock.now().as_secs()).unwrap_or(u32::MAX),
                services: peer.state().version.as_ref().map_or(0, |version| version.services),
                address: peer.address,
            })
            .collect();
        let what = format!(
            "DumpAnchors: Flush {} outbound block-relay-only peer addresses to anchors.dat",
            anchors.len()
        );
        tracing::info!("{what} started");
        let path = chain_dir.join(FILE);
        let bytes = encode(&anchors, self.chain.params().magic);
        if let Err(error) = write_atomic(&StdFileSystem, &path, &bytes) {
            tracing::warn!("Cannot write {}: {error}", path.display());
        }
        tracing::info!("{what} completed");
    }
}

pub(super) fn encode(anchors: &[Anchor], magic: [u8; 4]) -> Vec<u8> {
    let mut out = magic.to_vec();
    out.extend(serialize(&VarInt::from(anchors.len())));
    for anchor in anchors {
        out.extend((ADDR_V2 | VERSION).to_le_bytes());
        out.extend(anchor.time.to_le_bytes());
        out.extend(serialize(&VarInt(anchor.services)));
        match anchor.address.ip().to_canonical() {
            IpAddr::V4(ip) => {
                out.extend([IPV4, 4]);
                out.extend(ip.octets());
            }
            IpAddr::V6(ip) => {
                out.extend([IPV6, 16]);
                out.extend(ip.octets());
            }
        }
        out.extend(anchor.address.port().to_be_bytes());
    }
    let sum = sha256d::Hash::hash(&out).to_byte_array();
    out.extend(sum);
    out
}

/// Returns the addresses, or nothing if the file is damaged, of another network, or names a node in
/// a network that cannot be reached from here.
pub(super) fn decode(bytes: &[u8], magic: [u8; 4]) -> Option<Vec<Anchor>> {
    let (mut input, sum) = bytes.split_last_chunk::<32>()?;
    if sha256d::Hash::hash(input).to_byte_array() != *sum || take(&mut input)? != magic {
        return None;
    }
    let count = length(&mut input)?;
    let anchors: Option<Vec<Anchor>> = (0..count).map(|_| decode_one(&mut input)).collect();
    let mut anchors = anchors.filter(|_| input.is_empty())?;
    anchors.truncate(ANCHORS_MAX);
    Some(anchors)
}

fn decode_one(input: &mut &[u8]) -> Option<Anchor> {
    if u32::from_le_bytes(take(input)?) & !VERSION_MASK != ADDR_V2 {
        return None;
    }
    let time = u32::from_le_bytes(take(input)?);
    let services = length(input)?;
    let ip = match take(input)? {
        [IPV4, 4] => IpAddr::from(take::<4>(input)?),
        [IPV6, 16] => IpAddr::V6(Ipv6Addr::from(take::<16>(input)?)),
        _ => return None,
    };
    let port = u16::from_be_bytes(take(input)?);
    Some(Anchor { time, services, address: SocketAddr::new(ip, port) })
}

fn length(input: &mut &[u8]) -> Option<u64> {
    VarInt::consensus_decode(input).ok().map(|number| number.0)
}

fn take<const N: usize>(input: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = input.split_first_chunk::<N>()?;
    *input = rest;
    Some(*taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn anchors() -> Vec<Anchor> {
        let anchor = |address: &str| Anchor {
            time: 1_800_000_000,
            services: 0x409,
            address: address.parse().expect("an address"),
        };
        vec![anchor("127.0.0.1:18444"), anchor("[2001:db8::1]:8333")]
    }

    #[test]
    fn what_is_written_is_read_and_begins_as_cores_file() {
        let bytes = encode(&anchors(), [1, 2, 3, 4]);
        let first = [1, 2, 3, 4, 2, 0x60, 0x5b, 3, 0x20, 0, 0xd2, 0x49, 0x6b, 0xfd, 9, 4, 1, 4];
        assert_eq!(bytes[..18], first);
        assert_eq!(bytes[18..24], [127, 0, 0, 1, 0x48, 0x0c]);
        assert_eq!(decode(&bytes, [1, 2, 3, 4]), Some(anchors()));
        assert_eq!(decode(&encode(&[], [1; 4]), [1; 4]), Some(Vec::new()));
    }

    #[test]
    fn damage_and_another_network_cost_the_file_alone() {
        let bytes = encode(&anchors(), [1, 2, 3, 4]);
        assert_eq!(decode(&bytes, [1, 2, 3, 5]), None);
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert_eq!(decode(&damaged, [1, 2, 3, 4]), None, "byte {at}");
            assert_eq!(decode(&bytes[..at], [1, 2, 3, 4]), None, "cut at {at}");
        }
        // A count that promises more than there is takes no memory.
        let mut claims = vec![1, 2, 3, 4];
        claims.extend([0xff; 9]);
        let sum = sha256d::Hash::hash(&claims).to_byte_array();
        claims.extend(sum);
        assert_eq!(decode(&claims, [1, 2, 3, 4]), None);
    }
}
