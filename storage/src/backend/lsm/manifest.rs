//! `Manifest`: which runs are the database.
//!
//! ```text
//! magic 8 | format u32 | seed u64 | next run's number u64 | runs u32
//! per run, the oldest first: number u64 | hidden trees u16 | id u8 each
//! CRC-32 of all before u32
//! ```
//!
//! Integers are little-endian. It is replaced whole ([`write_atomic`]): that is the moment at which
//! a write, a merge or a clearing happens.

use std::path::Path;

use crate::error::{Error, Result};
use crate::file_system::{FileSystem, read_small, write_atomic};

/// Its name in the database's directory.
pub(super) const NAME: &str = "MANIFEST";
const MAGIC: [u8; 8] = *b"cofd-lsm";
const FORMAT: u32 = 1;
/// Far above what merging leaves: a few dozen runs of a few hundred bytes at most.
const BYTES_MAX: usize = 4 << 20;

/// A run, and which of its trees were cleared since it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RunEntry {
    pub(super) number: u64,
    pub(super) hidden: Vec<u8>,
}

/// The list of runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Manifest {
    /// Of the keys' hashes.
    pub(super) seed: u64,
    /// The number that the next run gets.
    pub(super) next: u64,
    /// The oldest first.
    pub(super) runs: Vec<RunEntry>,
}

impl Manifest {
    /// Reads it, if there is one.
    pub(super) fn read(fs: &dyn FileSystem, dir: &Path) -> Result<Option<Self>> {
        let path = dir.join(NAME);
        let Some(bytes) = read_small(fs, &path, BYTES_MAX)? else {
            return Ok(None);
        };
        let parsed = Self::parse(&bytes)
            .map_err(|what| Error::corrupt(format!("{}: {what}", path.display())))?;
        Ok(Some(parsed))
    }

    /// Makes it the database's, durably, with the names of all files in the directory.
    pub(super) fn write(&self, fs: &dyn FileSystem, dir: &Path) -> Result<()> {
        // The runs' names, before the list that has them.
        fs.sync_dir(dir)?;
        write_atomic(fs, &dir.join(NAME), &self.encode())
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        bytes.extend_from_slice(&self.seed.to_le_bytes());
        bytes.extend_from_slice(&self.next.to_le_bytes());
        let count = u32::try_from(self.runs.len()).unwrap_or(u32::MAX);
        bytes.extend_from_slice(&count.to_le_bytes());
        for run in &self.runs {
            bytes.extend_from_slice(&run.number.to_le_bytes());
            // At most 256 trees.
            let hidden = u16::try_from(run.hidden.len()).unwrap_or(u16::MAX);
            bytes.extend_from_slice(&hidden.to_le_bytes());
            bytes.extend_from_slice(&run.hidden);
        }
        let crc = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn parse(bytes: &[u8]) -> std::result::Result<Self, &'static str> {
        let (checked, crc) = bytes.split_last_chunk::<4>().ok_or("cut off")?;
        if crc32fast::hash(checked) != u32::from_le_bytes(*crc) {
            return Err("wrong checksum");
        }
        let mut rest = checked.strip_prefix(&MAGIC).ok_or("not a list of runs")?;
        if take(&mut rest).map(u32::from_le_bytes) != Some(FORMAT) {
            return Err("a format that this version does not know");
        }
        Self::parse_body(&mut rest).filter(|_| rest.is_empty()).ok_or("wrong lengths")
    }

    fn parse_body(rest: &mut &[u8]) -> Option<Self> {
        let seed = u64::from_le_bytes(take(rest)?);
        let next = u64::from_le_bytes(take(rest)?);
        let mut runs = Vec::new();
        for _ in 0..u32::from_le_bytes(take(rest)?) {
            let number = u64::from_le_bytes(take(rest)?);
            let hidden = usize::from(u16::from_le_bytes(take(rest)?));
            let (ids, after) = rest.split_at_checked(hidden)?;
            runs.push(RunEntry { number, hidden: ids.to_vec() });
            *rest = after;
        }
        Some(Self { seed, next, runs })
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_every_wrong_bit_is_noticed() {
        let runs = vec![
            RunEntry { number: 7, hidden: vec![1, 200] },
            RunEntry { number: 1 << 40, hidden: Vec::new() },
        ];
        let manifest = Manifest { seed: 0x1234_5678_9abc_def0, next: u64::MAX, runs };
        let bytes = manifest.encode();
        assert_eq!(Manifest::parse(&bytes).as_ref(), Ok(&manifest));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Manifest::parse(&damaged).is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(Manifest::parse(&bytes[..len]).is_err(), "{len} bytes");
        }
    }
}
