//! `peers.dat` as this program wrote it before it took Bitcoin Core's form.
//!
//! ```text
//! magic 8 | version u32 | network 4 | key 16 | count u32
//!       | count times: IPv6 16 | port u16 | source 16 | services u64 | time u64 | last try u64
//!                      | last success u64 | attempts u32 | tried u8
//!       | double SHA-256 of all before, first 4 bytes
//! ```

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use bitcoin::hashes::{Hash as _, sha256d};

use super::super::addrman::AddrMan;
use super::super::net_group::NetGroups;
use super::super::payload::take;

pub(super) const MAGIC: &[u8; 8] = b"cofpeers";

/// Reads a file: its addresses get places of their own.
pub(super) fn decode(
    bytes: &[u8],
    network: [u8; 4],
    groups: &Arc<NetGroups>,
) -> Result<AddrMan, String> {
    let (mut input, sum) = bytes.split_last_chunk::<4>().ok_or("too short")?;
    let hash = sha256d::Hash::hash(input).to_byte_array();
    if !hash.starts_with(sum) {
        return Err("its checksum is wrong".into());
    }
    let input = &mut input;
    let (_, _version): ([u8; 8], [u8; 4]) = (take(input)?, take(input)?);
    if take::<4>(input)? != network {
        return Err("it is another network's".into());
    }
    // Both halves of the key: what is secret stays so.
    let mut key = [0; 32];
    for (to, from) in key.iter_mut().zip(take::<16>(input)?.into_iter().cycle()) {
        *to = from;
    }
    let mut manager = AddrMan::new(key, Arc::clone(groups));
    let count = u32::from_le_bytes(take(input)?);
    for _ in 0..count {
        let ip = ip(take(input)?);
        let address = SocketAddr::new(ip, u16::from_le_bytes(take(input)?)).into();
        let source = self::ip(take(input)?).into();
        let services = u64::from_le_bytes(take(input)?);
        let time = u64::from_le_bytes(take(input)?);
        let _last_try: [u8; 8] = take(input)?;
        let last_success = u64::from_le_bytes(take(input)?);
        let _attempts: [u8; 4] = take(input)?;
        let is_tried = take::<1>(input)? == [1];
        manager.add((address, services, time), source, 0, time);
        if is_tried {
            manager.good(address, last_success);
        }
    }
    if input.is_empty() { Ok(manager) } else { Err("it is too long".into()) }
}

fn ip(octets: [u8; 16]) -> IpAddr {
    IpAddr::V6(Ipv6Addr::from(octets)).to_canonical()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_earlier_files_are_taken_over() {
        let mut bytes = MAGIC.to_vec();
        bytes.extend([1, 0, 0, 0, 9, 9, 9, 9]);
        bytes.extend([7; 16]);
        bytes.extend([2, 0, 0, 0]);
        for number in [1, 2_u8] {
            let ip = std::net::Ipv4Addr::new(20, number, 1, 1).to_ipv6_mapped().octets();
            bytes.extend(ip);
            bytes.extend(8333_u16.to_le_bytes());
            bytes.extend(ip);
            for value in [9, 1_800_000_000, 0, 1_800_000_000_u64] {
                bytes.extend(value.to_le_bytes());
            }
            bytes.extend([0, 0, 0, 0, number - 1]);
        }
        let sum = sha256d::Hash::hash(&bytes).to_byte_array();
        bytes.extend(&sum[..4]);
        let manager = decode(&bytes, [9; 4], &Arc::default()).expect("sound");
        assert_eq!((manager.counts(None).new, manager.counts(None).tried), (1, 1));
        assert!(decode(&bytes, [8; 4], &Arc::default()).is_err());
        bytes[20] ^= 1;
        assert!(decode(&bytes, [9; 4], &Arc::default()).is_err());
    }
}
