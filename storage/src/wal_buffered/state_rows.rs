//! `StateRows`: how far the backend is, in rows of [`STATE_TREE`].
//!
//! | key | value | meaning |
//! |---|---|---|
//! | `format` | u32 | version of these rows, 2 |
//! | `applied` | u64 | the backend holds exactly the batches up to this LSN, but for parts up to `writing` |
//! | `writing` | u64 | the newest LSN of which the backend may hold a part |
//! | `tip` | u32, 32 bytes | height and hash after batch `applied`; missing if there is no tip |
//! | `check` | u32 | CRC-32 of the values of `applied` and `tip` |
//!
//! Integers are little-endian. Every batch of a write-back sets `writing`; the last one sets all.
//! An engine has checksums of its own; `check` is for those that have not, since one wrong bit in
//! `applied` would leave a batch out. Version 1 had no such row and is still read.

use crate::batch::Batch;
use crate::database::{Database, STATE_TREE};
use crate::error::{Error, Result};
use crate::mutation::{Mutation, mutated};
use crate::wal::format::NUMBER_MAX;
use crate::wal_buffered::{Lsn, Tip};

/// The version of the rows.
const FORMAT: u32 = 2;
/// The version without `check`.
const FORMAT_UNCHECKED: u32 = 1;
/// The number of rows that the last batch of a write-back adds.
pub(crate) const ROWS: usize = 5;

const KEY_FORMAT: &[u8] = b"format";
const KEY_APPLIED: &[u8] = b"applied";
const KEY_WRITING: &[u8] = b"writing";
const KEY_TIP: &[u8] = b"tip";
const KEY_CHECK: &[u8] = b"check";

/// How far a backend is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct StateRows {
    /// All batches up to this one are in it.
    pub(crate) applied: Lsn,
    /// Parts of batches up to this one may be.
    pub(crate) writing: Lsn,
    /// The tip after batch `applied`.
    pub(crate) tip: Option<Tip>,
}

impl StateRows {
    /// Reads the rows; a database without them is at the beginning.
    pub(crate) fn read(database: &dyn Database) -> Result<Self> {
        let format = row(database, KEY_FORMAT)?.map(u32::from_le_bytes);
        if let Some(found) = format.filter(|found| ![FORMAT, FORMAT_UNCHECKED].contains(found)) {
            return Err(Error::Version { what: "state tree", found, supported: FORMAT });
        }
        let applied = row(database, KEY_APPLIED)?;
        let tip = row::<36>(database, KEY_TIP)?;
        let check = row(database, KEY_CHECK)?.map(u32::from_le_bytes);
        let checked = format == Some(FORMAT) && !mutated(Mutation::StateRowsUnchecked);
        if checked && check != Some(check_of(applied, tip)) {
            return Err(Error::corrupt("the checksum of the state tree's rows is wrong"));
        }
        let applied = applied.map_or(0, u64::from_le_bytes);
        let writing = row(database, KEY_WRITING)?.map_or(0, u64::from_le_bytes);
        if applied.max(writing) > NUMBER_MAX {
            return Err(Error::corrupt("an LSN in the state tree is out of bounds"));
        }
        let tip = tip.and_then(|row| {
            let (height, hash) = row.split_first_chunk::<4>()?;
            Some(Tip { height: u32::from_le_bytes(*height), hash: *hash.first_chunk()? })
        });
        Ok(Self { applied, writing, tip })
    }

    /// Adds the row of a batch that is not the last of a write-back.
    pub(crate) fn put_writing(batch: &mut Batch, lsn: Lsn) {
        if !mutated(Mutation::WritingNotWritten) {
            batch.put(STATE_TREE, KEY_WRITING, &lsn.to_le_bytes());
        }
    }

    /// Adds the rows of the last batch of a write-back.
    pub(crate) fn put_applied(batch: &mut Batch, lsn: Lsn, tip: Option<Tip>) {
        let lsn = lsn + u64::from(mutated(Mutation::AppliedTooHigh));
        let tip = tip.filter(|_| !mutated(Mutation::TipNotWritten));
        batch.put(STATE_TREE, KEY_FORMAT, &FORMAT.to_le_bytes());
        batch.put(STATE_TREE, KEY_APPLIED, &lsn.to_le_bytes());
        Self::put_writing(batch, lsn);
        let tip = tip.map(|tip| {
            let mut row = [0; 36];
            let bytes = tip.height.to_le_bytes().into_iter().chain(tip.hash);
            row.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
            batch.put(STATE_TREE, KEY_TIP, &row);
            row
        });
        batch.put(STATE_TREE, KEY_CHECK, &check_of(Some(lsn.to_le_bytes()), tip).to_le_bytes());
    }
}

/// What stands in `check` with these rows.
fn check_of(applied: Option<[u8; 8]>, tip: Option<[u8; 36]>) -> u32 {
    let bytes: Vec<u8> = applied.into_iter().flatten().chain(tip.into_iter().flatten()).collect();
    crc32fast::hash(&bytes)
}

fn row<const N: usize>(database: &dyn Database, key: &[u8]) -> Result<Option<[u8; N]>> {
    let Some(value) = database.get(STATE_TREE, key)? else {
        return Ok(None);
    };
    value.as_slice().try_into().map(Some).map_err(|_| {
        let name = String::from_utf8_lossy(key);
        Error::corrupt(format!("the state row `{name}` has {} bytes, not {N}", value.len()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::MemoryDatabase;

    #[test]
    fn rows_round_trip() {
        let database = MemoryDatabase::new(&[]);
        assert_eq!(StateRows::read(&database).unwrap(), StateRows::default());
        let tip = Some(Tip { height: 7, hash: [9; 32] });
        let mut batch = Batch::new();
        StateRows::put_applied(&mut batch, 5, tip);
        assert_eq!(batch.len(), ROWS);
        database.apply(&batch).unwrap();
        batch.clear();
        StateRows::put_writing(&mut batch, 8);
        database.apply(&batch).unwrap();
        let read = StateRows::read(&database).unwrap();
        assert_eq!(read, StateRows { applied: 5, writing: 8, tip });
    }

    #[test]
    fn rows_of_another_size_or_version_are_refused() {
        let database = MemoryDatabase::new(&[]);
        let mut batch = Batch::new();
        batch.put(STATE_TREE, KEY_APPLIED, b"123");
        database.apply(&batch).unwrap();
        assert!(matches!(StateRows::read(&database), Err(Error::Corrupt { .. })));
        batch.put(STATE_TREE, KEY_FORMAT, &3_u32.to_le_bytes());
        database.apply(&batch).unwrap();
        let error = StateRows::read(&database).unwrap_err();
        assert!(matches!(error, Error::Version { found: 3, .. }));
    }

    /// What version 1 wrote, byte for byte.
    #[test]
    fn rows_without_a_checksum_are_those_of_version_1() {
        let database = MemoryDatabase::new(&[]);
        let mut batch = Batch::new();
        batch.put(STATE_TREE, b"format", &[1, 0, 0, 0]);
        batch.put(STATE_TREE, b"applied", &[5, 0, 0, 0, 0, 0, 0, 0]);
        batch.put(STATE_TREE, b"writing", &[5, 0, 0, 0, 0, 0, 0, 0]);
        batch.put(STATE_TREE, b"tip", &[&[7, 0, 0, 0][..], &[9; 32]].concat());
        database.apply(&batch).unwrap();
        let tip = Some(Tip { height: 7, hash: [9; 32] });
        let read = StateRows::read(&database).unwrap();
        assert_eq!(read, StateRows { applied: 5, writing: 5, tip });
        batch.put(STATE_TREE, b"format", &[2, 0, 0, 0]);
        database.apply(&batch).unwrap();
        assert!(matches!(StateRows::read(&database), Err(Error::Corrupt { .. })));
    }
}
