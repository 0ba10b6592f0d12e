//! `peers.dat`: the addresses of nodes, between runs.
//!
//! ```text
//! magic 8 | version u32 | network 4 | key 16 | count u32
//!       | count times: IPv6 16 | port u16 | source 16 | services u64 | time u64 | last try u64
//!                      | last success u64 | attempts u32 | tried u8
//!       | double SHA-256 of all before, first 4 bytes
//! ```
//!
//! All numbers are little-endian; IPv4 is mapped into IPv6. A file that is damaged, or another
//! network's or version's, is made anew: what is lost is found again.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::Path;

use bitcoin::hashes::{Hash as _, sha256d};
use cofferdam_storage::{StdFileSystem, write_atomic};

use super::addrman::{AddrMan, Entry, wide};

const MAGIC: &[u8; 8] = b"cofpeers";
const VERSION: u32 = 1;

/// Most entries of a file: the places of both tables.
const ENTRIES_MAX: u32 = (1024 + 256) * 64;

/// Reads the file, or starts anew with that key.
pub(super) fn load(path: &Path, network: [u8; 4], key: [u64; 2]) -> AddrMan {
    match std::fs::read(path) {
        Ok(bytes) => match decode(&bytes, network) {
            Ok(manager) => return manager,
            Err(reason) => {
                tracing::warn!("{} is of no use ({reason}): starting anew", path.display());
            }
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let shown = path.display();
            tracing::info!("Creating peers.dat because the file was not found ({shown})");
        }
        Err(error) => tracing::warn!("Cannot read {}: {error}", path.display()),
    }
    AddrMan::new(key)
}

/// Writes the file; a failure costs what was learnt in this run.
pub(super) fn save(path: &Path, network: [u8; 4], manager: &AddrMan) {
    if let Err(error) = write_atomic(&StdFileSystem, path, &encode(manager, network)) {
        tracing::warn!("Cannot write {}: {error}", path.display());
    }
}

pub(super) fn encode(manager: &AddrMan, network: [u8; 4]) -> Vec<u8> {
    let entries = manager.entries();
    let mut out = MAGIC.to_vec();
    out.extend(VERSION.to_le_bytes());
    out.extend(network);
    out.extend(manager.key.iter().flat_map(|half| half.to_le_bytes()));
    out.extend(u32::try_from(entries.len()).unwrap_or(u32::MAX).to_le_bytes());
    for entry in &entries {
        out.extend(wide(entry.address.ip()).octets());
        out.extend(entry.address.port().to_le_bytes());
        out.extend(wide(entry.source).octets());
        for number in [entry.services, entry.time, entry.last_try, entry.last_success] {
            out.extend(number.to_le_bytes());
        }
        out.extend(entry.attempts.to_le_bytes());
        out.push(u8::from(entry.tried));
    }
    let sum = checksum(&out);
    out.extend(sum);
    out
}

pub(super) fn decode(bytes: &[u8], network: [u8; 4]) -> Result<AddrMan, &'static str> {
    let (mut input, sum) = bytes.split_last_chunk::<4>().ok_or("too short")?;
    if checksum(input) != *sum {
        return Err("its checksum is wrong");
    }
    let input = &mut input;
    if take::<8>(input)? != *MAGIC || number32(input)? != VERSION {
        return Err("it is of another version");
    }
    if take::<4>(input)? != network {
        return Err("it is another network's");
    }
    let mut manager = AddrMan::new([number(input)?, number(input)?]);
    let count = number32(input)?;
    if count > ENTRIES_MAX {
        return Err("it has too many entries");
    }
    for _ in 0..count {
        let ip = narrow(take(input)?);
        let address = SocketAddr::new(ip, u16::from_le_bytes(take(input)?));
        let source = narrow(take(input)?);
        let mut entry = Entry::new(address, source, number(input)?, number(input)?);
        entry.last_try = number(input)?;
        entry.last_success = number(input)?;
        entry.attempts = number32(input)?;
        entry.tried = take::<1>(input)? == [1];
        manager.restore(entry);
    }
    if input.is_empty() { Ok(manager) } else { Err("it is too long") }
}

fn checksum(bytes: &[u8]) -> [u8; 4] {
    let [a, b, c, d, ..] = sha256d::Hash::hash(bytes).to_byte_array();
    [a, b, c, d]
}

fn narrow(octets: [u8; 16]) -> IpAddr {
    IpAddr::V6(Ipv6Addr::from(octets)).to_canonical()
}

fn take<const N: usize>(input: &mut &[u8]) -> Result<[u8; N], &'static str> {
    let (taken, rest) = input.split_first_chunk::<N>().ok_or("it is too short")?;
    *input = rest;
    Ok(*taken)
}

fn number(input: &mut &[u8]) -> Result<u64, &'static str> {
    take(input).map(u64::from_le_bytes)
}

fn number32(input: &mut &[u8]) -> Result<u32, &'static str> {
    take(input).map(u32::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manager() -> AddrMan {
        let mut manager = AddrMan::new([5, 6]);
        for number in 0..100 {
            let address = SocketAddr::from(([20 + number, 1, 2, 3], 8333));
            manager.add((address, 9, 1_800_000_000), [30, 1, 1, number].into(), 0, 1_800_000_000);
            if number % 3 == 0 {
                manager.good(address, 1_800_000_100);
            }
        }
        manager
    }

    #[test]
    fn what_is_written_is_read() {
        let manager = manager();
        let bytes = encode(&manager, [1, 2, 3, 4]);
        let read = decode(&bytes, [1, 2, 3, 4]).expect("sound");
        assert_eq!(read.entries(), manager.entries());
        assert_eq!(encode(&read, [1, 2, 3, 4]), bytes);
        assert_eq!(decode(&bytes, [1, 2, 3, 5]).err(), Some("it is another network's"));
    }

    #[test]
    fn an_address_that_is_there_twice_is_put_back_once() {
        let entry = |source: [u8; 4]| {
            Entry::new(([1, 2, 3, 4], 8333).into(), source.into(), 9, 1_800_000_000)
        };
        let mut manager = AddrMan::new([5, 6]);
        manager.restore(entry([9, 9, 9, 9]));
        let once = manager.clone();
        manager.restore(entry([77, 1, 1, 1]));
        assert_eq!(manager, once);
    }

    #[test]
    fn every_damage_is_seen_and_costs_the_file_alone() {
        let bytes = encode(&manager(), [1, 2, 3, 4]);
        for at in (0..bytes.len()).step_by(7) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(decode(&damaged, [1, 2, 3, 4]).is_err(), "byte {at}");
            assert!(decode(&bytes[..at], [1, 2, 3, 4]).is_err(), "cut at {at}");
        }
        let dir = tempfile::tempdir().expect("temporary");
        let path = dir.path().join("peers.dat");
        std::fs::write(&path, &bytes[1..]).expect("written");
        assert_eq!(load(&path, [1, 2, 3, 4], [7, 8]), AddrMan::new([7, 8]));
        save(&path, [1, 2, 3, 4], &manager());
        assert_eq!(load(&path, [1, 2, 3, 4], [7, 8]).entries(), manager().entries());
    }
}
