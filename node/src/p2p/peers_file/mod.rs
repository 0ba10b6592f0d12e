//! `peers.dat`: the addresses of nodes, between runs, as Bitcoin Core writes and reads it.
//!
//! ```text
//! network 4 | format u8 | 32 + lowest format that can read it u8 | key 32
//!       | new i32 | tried i32 | buckets i32, xor 1 << 30
//!       | new and tried entries: address in Core's disk form | source | last success i64 | attempts i32
//!       | for each bucket: count i32 | index among the new entries i32 ...
//!       | hash of the map of autonomous systems 32
//!       | double SHA-256 of all before
//! ```
//!
//! All numbers are little-endian but ports; `addrman.cpp` and `addrdb.cpp` are where this is from. A
//! file that is damaged stops the start, since the file is replaced whole or not at all: somebody has
//! to look. One of a format of the future is put aside. Files of our own earlier form are read once.

mod earlier;

use std::path::Path;
use std::sync::Arc;

use bitcoin::consensus::encode::{VarInt, serialize};
use bitcoin::hashes::{Hash as _, sha256d};
use cofferdam_storage::{StdFileSystem, write_atomic};

use super::addrman::{AddrMan, BUCKET_SIZE, Entry, NEW_BUCKETS, Saved, TRIED_BUCKETS};
use super::net_addr::{Host, NodeAddr};
use super::net_group::NetGroups;
use super::payload::{number, take};

/// The format that is written, the first that has such entries, and what is added to its number.
const FORMAT: u8 = 4;
const FORMAT_MULTIPORT: u8 = 4;
const INCOMPATIBILITY_BASE: u8 = 32;
/// The formats that first had what follows.
const FORMAT_DETERMINISTIC: u8 = 1;
const FORMAT_MAP: u8 = 2;
const FORMAT_ADDR_V2: u8 = 3;

/// What sets the number of buckets apart from that of the first format.
const BUCKETS_MARK: u32 = 1 << 30;

/// What an address begins with: Core's `DISK_VERSION_ADDRV2`, and below it `DISK_VERSION_INIT`, which
/// is not looked at.
const ADDR_V2: u32 = 1 << 29;
const VERSION: u32 = 220_000;
const VERSION_MASK: u32 = 0x7_ffff;

/// Why a file is not taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Unreadable {
    /// It is of a format of the future.
    Newer,
    /// It is wrong, in Core's words.
    Corrupt(String),
}

impl From<String> for Unreadable {
    fn from(text: String) -> Self {
        Self::Corrupt(text)
    }
}

/// Reads the file, or starts anew with that key.
///
/// # Errors
///
/// Returns what is wrong with the file, for the user.
pub(super) fn load(
    path: &Path,
    network: [u8; 4],
    key: [u8; 32],
    groups: &Arc<NetGroups>,
) -> Result<AddrMan, String> {
    let empty = || AddrMan::new(key, Arc::clone(groups));
    let shown = path.display();
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            tracing::info!("Creating peers.dat because the file was not found (\"{shown}\")");
            save(path, network, &empty());
            return Ok(empty());
        }
        Err(error) => return Err(format!("Cannot read {shown}: {error}")),
    };
    match decode(&bytes, network, groups) {
        Ok(manager) => Ok(manager),
        Err(Unreadable::Newer) => {
            std::fs::rename(path, path.with_extension("dat.bak")).map_err(|_| {
                "Failed to rename invalid peers.dat file. Please move or delete it and try again."
            })?;
            tracing::warn!(
                "Creating new peers.dat because the file version was not compatible (\"{shown}\"). Original backed up to peers.dat.bak"
            );
            save(path, network, &empty());
            Ok(empty())
        }
        Err(Unreadable::Corrupt(reason)) => Err(format!(
            "Invalid or corrupt peers.dat ({reason}). If you believe this is a bug, please report it to {}. As a workaround, you can move the file (\"{shown}\") out of the way (rename, move, or delete) to have a new one created on the next start.",
            "the project's issue tracker"
        )),
    }
}

/// Writes the file; a failure costs what was learnt in this run.
pub(super) fn save(path: &Path, network: [u8; 4], manager: &AddrMan) {
    if let Err(error) = write_atomic(&StdFileSystem, path, &encode(manager, network)) {
        tracing::warn!("Cannot write {}: {error}", path.display());
    }
}

pub(super) fn encode(manager: &AddrMan, network: [u8; 4]) -> Vec<u8> {
    let places = manager.places(false);
    // Each address once, in the order of addresses.
    let mut new: Vec<Entry> = places.iter().map(|(_, entry)| *entry).collect();
    new.sort_by_key(|entry| entry.address);
    new.dedup_by_key(|entry| entry.address);
    let mut tried: Vec<Entry> = manager.places(true).into_iter().map(|(_, entry)| entry).collect();
    tried.sort_by_key(|entry| entry.address);

    let mut out = network.to_vec();
    out.extend([FORMAT, INCOMPATIBILITY_BASE + FORMAT_MULTIPORT]);
    out.extend(manager.key);
    let buckets = NEW_BUCKETS ^ BUCKETS_MARK;
    for count in [length(new.len()), length(tried.len()), buckets] {
        out.extend(count.to_le_bytes());
    }
    new.iter().chain(&tried).for_each(|entry| encode_entry(entry, &mut out));
    let mut places = places.into_iter().peekable();
    for bucket in 0..NEW_BUCKETS {
        let mut indexes = Vec::new();
        while let Some((_, entry)) = places.next_if(|((of, _), _)| *of == bucket) {
            let index = new.binary_search_by_key(&entry.address, |entry| entry.address);
            indexes.extend(index.ok().map(length));
        }
        out.extend(length(indexes.len()).to_le_bytes());
        out.extend(indexes.into_iter().flat_map(u32::to_le_bytes));
    }
    out.extend(manager.groups.version());
    let sum = sha256d::Hash::hash(&out).to_byte_array();
    out.extend(sum);
    out
}

fn encode_entry(entry: &Entry, out: &mut Vec<u8>) {
    out.extend((ADDR_V2 | VERSION).to_le_bytes());
    out.extend(u32::try_from(entry.time).unwrap_or(u32::MAX).to_le_bytes());
    out.extend(serialize(&VarInt(entry.services)));
    entry.address.host.encode_v2(out);
    out.extend(entry.address.port.to_be_bytes());
    entry.source.encode_v2(out);
    out.extend(entry.last_success.to_le_bytes());
    out.extend(entry.attempts.to_le_bytes());
}

pub(super) fn decode(
    bytes: &[u8],
    network: [u8; 4],
    groups: &Arc<NetGroups>,
) -> Result<AddrMan, Unreadable> {
    if bytes.starts_with(earlier::MAGIC) {
        return Ok(earlier::decode(bytes, network, groups)?);
    }
    let mut input = bytes;
    let input = &mut input;
    if take::<4>(input).map_err(in_file)? != network {
        return Err(Unreadable::Corrupt("Invalid network magic number".into()));
    }
    let saved = decode_saved(input, groups)?;
    let manager = AddrMan::restore(saved, Arc::clone(groups))
        .map_err(|code| ios(&format!("Corrupt data. Consistency check failed with code {code}")))?;
    let read = bytes.len() - input.len();
    let sum = take::<32>(input).map_err(in_file)?;
    if sha256d::Hash::hash(bytes.get(..read).unwrap_or_default()).to_byte_array() != sum {
        return Err(Unreadable::Corrupt("Checksum mismatch, data corrupted".into()));
    }
    Ok(manager)
}

fn decode_saved(input: &mut &[u8], groups: &NetGroups) -> Result<Saved, Unreadable> {
    let [format, compatible] = take(input).map_err(in_file)?;
    let Some(lowest) = compatible.checked_sub(INCOMPATIBILITY_BASE) else {
        return Err(ios(&format!(
            "Corrupted addrman database: The compat value ({compatible}) is lower than the expected minimum value {INCOMPATIBILITY_BASE}."
        )));
    };
    if lowest > FORMAT {
        return Err(Unreadable::Newer);
    }
    let v2 = format >= FORMAT_ADDR_V2;
    let mut saved = Saved { key: take(input).map_err(in_file)?, ..Saved::default() };
    let new = count(input)?;
    let tried = count(input)?;
    let mark = if format >= FORMAT_DETERMINISTIC { BUCKETS_MARK } else { 0 };
    let buckets = u32::from_le_bytes(take(input).map_err(in_file)?) ^ mark;
    let new = limited("nNew", new, NEW_BUCKETS * BUCKET_SIZE)?;
    let tried = limited("nTried", tried, TRIED_BUCKETS * BUCKET_SIZE)?;
    for number in 0..new + tried {
        let entry = decode_entry(input, v2).map_err(in_file)?;
        if number < new { &mut saved.new } else { &mut saved.tried }.push(entry);
    }
    // Numbers below come out of bytes that are there: they bound the work.
    for bucket in 0..buckets {
        for _ in 0..count(input)? {
            let index = count(input)?;
            if let Some(index) =
                usize::try_from(index).ok().filter(|index| *index < saved.new.len())
            {
                saved.buckets.push((bucket, index));
            }
        }
    }
    let map = if format >= FORMAT_MAP { take(input).map_err(in_file)? } else { [0; 32] };
    saved.same_buckets = buckets == NEW_BUCKETS && map == groups.version();
    if !saved.same_buckets {
        tracing::debug!("Bucketing method was updated, re-bucketing addrman entries from disk");
    }
    Ok(saved)
}

fn decode_entry(input: &mut &[u8], v2: bool) -> Result<Entry, String> {
    let version = u32::from_le_bytes(take(input)?) & !VERSION_MASK;
    let time = u64::from(u32::from_le_bytes(take(input)?));
    let is_v2 = match version {
        0 => false,
        ADDR_V2 if v2 => true,
        _ => return Err("Unsupported CAddress disk format version".into()),
    };
    let services = if is_v2 { number(input)? } else { u64::from_le_bytes(take(input)?) };
    let host = decode_host(input, is_v2)?;
    let port = u16::from_be_bytes(take(input)?);
    let source = decode_host(input, v2)?;
    let mut entry = Entry::new(NodeAddr { host, port }, source, services, time);
    // What was before 1970 was never.
    let last_success = i64::from_le_bytes(take(input)?);
    entry.last_success = u64::try_from(last_success).unwrap_or(0);
    entry.attempts = u32::from_le_bytes(take(input)?);
    Ok(entry)
}

fn decode_host(input: &mut &[u8], v2: bool) -> Result<Host, String> {
    if v2 {
        return Ok(Host::decode_v2(input)?.unwrap_or(Host::NONE));
    }
    Host::decode_v1(input)
}

fn count(input: &mut &[u8]) -> Result<i32, Unreadable> {
    Ok(i32::from_le_bytes(take(input).map_err(in_file)?))
}

fn limited(name: &str, count: i32, max: u32) -> Result<u32, Unreadable> {
    let fits = u32::try_from(count).ok().filter(|count| *count <= max);
    fits.ok_or_else(|| {
        ios(&format!("Corrupt AddrMan serialization: {name}={count}, should be in [0, {max}]"))
    })
}

/// What Core's C++ library adds to errors of streams.
fn ios(text: &str) -> Unreadable {
    Unreadable::Corrupt(format!("{text}: iostream error"))
}

/// The words for what is missing or wrong, where it is of a file.
fn in_file(text: String) -> Unreadable {
    let is_end = text == super::payload::END_OF_DATA;
    ios(if is_end { "AutoFile::read: end of file" } else { &text })
}

fn length(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    const MAGIC: [u8; 4] = [1, 2, 3, 4];

    fn manager() -> AddrMan {
        let mut manager = AddrMan::new([5; 32], Arc::default());
        let now = 1_800_000_000;
        for number in 0..100 {
            let address = SocketAddr::from(([20 + number, 1, 2, 3], 8333)).into();
            let source = Host::Ip([30, 1, 1, number].into());
            manager.add((address, 9, now), source, 0, now);
            if number % 3 == 0 {
                manager.good(address, now + 100);
                manager.attempt(address, true, now);
            }
        }
        for host in [Host::Onion([7; 32]), Host::I2p([8; 32]), Host::Cjdns([0xfc; 16])] {
            manager.add((NodeAddr { host, port: 1 }, 9, now), host, 0, now);
        }
        manager
    }

    fn read(bytes: &[u8]) -> Result<AddrMan, Unreadable> {
        decode(bytes, MAGIC, &Arc::default())
    }

    fn corrupt(text: &str) -> Result<AddrMan, Unreadable> {
        Err(Unreadable::Corrupt(text.into()))
    }

    #[test]
    fn what_is_written_is_read() {
        let manager = manager();
        let bytes = encode(&manager, MAGIC);
        let again = read(&bytes).expect("sound");
        assert_eq!(again.counts(None), manager.counts(None));
        for tried in [false, true] {
            let places = |manager: &AddrMan| -> Vec<_> {
                let places = manager.places(tried).into_iter();
                let saved = |entry| Entry { last_try: 0, last_counted: 0, ..entry };
                places.map(|(place, entry)| (place, saved(entry))).collect()
            };
            assert_eq!(places(&again), places(&manager), "all but the last attempts");
        }
        assert_eq!(encode(&again, MAGIC), bytes);
        let other = decode(&bytes, [9; 4], &Arc::default());
        assert_eq!(other, corrupt("Invalid network magic number"));
    }

    #[test]
    fn buckets_are_made_anew_where_another_map_is_used() {
        let manager = manager();
        let mut bytes = encode(&manager, MAGIC);
        let end = bytes.len() - 32;
        bytes[end - 1] ^= 1;
        let sum = sha256d::Hash::hash(&bytes[..end]).to_byte_array();
        bytes[end..].copy_from_slice(&sum);
        assert_eq!(read(&bytes).expect("sound").counts(None), manager.counts(None));
    }

    #[test]
    fn addresses_of_networks_not_known_are_left_out() {
        let mut bytes = encode(&manager(), MAGIC);
        let known = read(&bytes).expect("sound").counts(None).new;
        // Two become addresses of a network of the future: where they are, and who told of them.
        for host in [Host::Onion([7; 32]), Host::I2p([8; 32])] {
            let mut written = Vec::new();
            host.encode_v2(&mut written);
            let is_it = |at: &usize| bytes[*at..].starts_with(&written);
            let places: Vec<usize> = (0..bytes.len()).filter(is_it).collect();
            assert_eq!(places.len(), 2);
            places.into_iter().for_each(|at| bytes[at] = 99);
        }
        let end = bytes.len() - 32;
        let sum = sha256d::Hash::hash(&bytes[..end]).to_byte_array();
        bytes[end..].copy_from_slice(&sum);
        assert_eq!(read(&bytes).expect("sound").counts(None).new, known - 2);
    }

    #[test]
    fn every_damage_is_seen_and_named_as_in_core() {
        let bytes = encode(&manager(), MAGIC);
        for at in (0..bytes.len()).step_by(61) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(read(&damaged).is_err(), "byte {at}");
            let end = "AutoFile::read: end of file: iostream error";
            assert_eq!(read(&bytes[..at]), corrupt(end), "cut at {at}");
        }
        let changed = |at: usize, new: &[u8]| {
            let mut bytes = bytes.clone();
            bytes[at..at + new.len()].copy_from_slice(new);
            read(&bytes)
        };
        assert_eq!(changed(5, &[32 + 111]), Err(Unreadable::Newer));
        let text = "Corrupted addrman database: The compat value (0) is lower than the expected minimum value 32.: iostream error";
        assert_eq!(changed(5, &[0]), corrupt(text));
        let text =
            "Corrupt AddrMan serialization: nNew=-1, should be in [0, 65536]: iostream error";
        assert_eq!(changed(38, &[0xff; 4]), corrupt(text));
        let text =
            "Corrupt AddrMan serialization: nTried=16385, should be in [0, 16384]: iostream error";
        assert_eq!(changed(42, &16385_u32.to_le_bytes()), corrupt(text));
        let mut without_key = manager();
        without_key = AddrMan::new([0; 32], Arc::clone(&without_key.groups));
        let text = "Corrupt data. Consistency check failed with code -16: iostream error";
        assert_eq!(read(&encode(&without_key, MAGIC)), corrupt(text));
        let last = bytes.len() - 1;
        let text = "Checksum mismatch, data corrupted";
        assert_eq!(changed(last, &[bytes[last] ^ 1]), corrupt(text));
    }

    #[test]
    fn a_file_of_the_future_is_put_aside_and_a_damaged_one_stops_the_start() {
        let dir = tempfile::tempdir().expect("temporary");
        let path = dir.path().join("peers.dat");
        let load = || load(&path, MAGIC, [7; 32], &Arc::default());
        assert_eq!(load().expect("none yet").key, [7; 32]);
        let written = std::fs::read(&path).expect("is written at once");
        let mut newer = written.clone();
        newer[5] = 200;
        std::fs::write(&path, &newer).expect("written");
        assert!(load().is_ok());
        assert_eq!(std::fs::read(dir.path().join("peers.dat.bak")).expect("kept"), newer);
        assert_eq!(std::fs::read(&path).expect("anew"), written);
        std::fs::write(&path, &written[1..]).expect("written");
        assert!(load().unwrap_err().starts_with("Invalid or corrupt peers.dat (Invalid network"));
    }
}
