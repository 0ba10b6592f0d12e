//! The rows of a block index in one file: `(key 36 | length u16 LE | value)*`, as the table `headers`
//! has them.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use cofferdam_ibd::headers::HeaderRow;
use cofferdam_ibd::{Chainstate, Error};
use cofferdam_storage::{FileSystem, write_atomic};

/// Bytes of a key: height and hash.
const KEY_BYTES: usize = 36;

/// Saves all rows of a chain, durably and whole: some 150 bytes a block, in memory for a moment.
pub(super) fn save(fs: &Arc<dyn FileSystem>, dir: &Path, chainstate: &Chainstate) -> Result<()> {
    let headers = chainstate.headers();
    let mut bytes = Vec::new();
    for at in headers.iter() {
        let entry = headers.entry(at);
        let value = entry.row().encode();
        bytes.extend(HeaderRow::key(entry.height, &entry.hash));
        bytes.extend(u16::try_from(value.len()).context("a row")?.to_le_bytes());
        bytes.extend(value);
    }
    fs.create_dir_all(dir)?;
    Ok(write_atomic(fs.as_ref(), &dir.join("ROWS"), &bytes)?)
}

/// Reads them; each is checked against the hash in its key.
pub(super) fn load(dir: &Path) -> Result<impl Iterator<Item = Result<HeaderRow, Error>>> {
    let path = dir.join("ROWS");
    let bytes = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    let mut at = 0;
    Ok(std::iter::from_fn(move || {
        let rest = bytes.get(at..).filter(|rest| !rest.is_empty())?;
        let row = split(rest);
        at = row.as_ref().map_or(bytes.len(), |(_, read)| at + read);
        let cut = || Error::Corrupt { what: "the saved rows are cut off".into() };
        Some(row.ok_or_else(cut).and_then(|(row, _)| row))
    }))
}

/// The first row, and how many bytes it takes.
fn split(bytes: &[u8]) -> Option<(Result<HeaderRow, Error>, usize)> {
    let (key, rest) = bytes.split_at_checked(KEY_BYTES)?;
    let (length, rest) = rest.split_first_chunk::<2>()?;
    let length = usize::from(u16::from_le_bytes(*length));
    let value = rest.get(..length)?;
    Some((HeaderRow::decode(key, value), KEY_BYTES + 2 + length))
}
