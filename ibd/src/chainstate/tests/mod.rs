//! Tests of the chainstate that look into it: its tables, byte by byte.

mod coin_stats;
mod crash;
mod down_and_up;
mod read_back;

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::Path;
use std::time::{Duration, Instant};

use cofferdam_storage::{KeyRange, MemoryDatabase, StdFileSystem, Tree};

use super::*;
use crate::params::Network;
use crate::tables::{COINS, TREES};

/// A time after every block of the test data: 2026-01-01.
const NOW: u32 = 1_767_225_600;

/// Opens a chain in `dir` over memory.
pub(super) fn open(params: ChainParams, dir: &Path) -> Chainstate {
    let options = options(params, dir);
    let backend = Box::new(MemoryDatabase::new(TREES));
    Chainstate::open(options, Arc::new(StdFileSystem), backend).expect("opens").0
}

/// Opens a chain whose block files have a certain size.
pub(super) fn open_with_files(
    params: ChainParams,
    dir: &Path,
    file_size: crate::FileSize,
) -> Chainstate {
    let options = ChainstateOptions { file_size, ..options(params, dir) };
    let backend = Box::new(MemoryDatabase::new(TREES));
    Chainstate::open(options, Arc::new(StdFileSystem), backend).expect("opens").0
}

fn options(params: ChainParams, dir: &Path) -> ChainstateOptions {
    ChainstateOptions {
        threads: 2,
        assume_valid: AssumeValid::Off,
        wal: WalOptions { verify_freshness: true, ..WalOptions::default() },
        ..ChainstateOptions::new(params, dir)
    }
}

/// Reads the blocks of a file under `tests/data`.
fn blocks(name: &str) -> Vec<Vec<u8>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data").join(name);
    let bytes = std::fs::read(path).expect("in the repository");
    let mut rest = bytes.as_slice();
    let mut blocks = Vec::new();
    while let Some((frame, tail)) = rest.split_first_chunk::<8>() {
        let length = u32::from_le_bytes([frame[4], frame[5], frame[6], frame[7]]) as usize;
        blocks.push(tail[..length].to_vec());
        rest = &tail[length..];
    }
    blocks
}

/// A number for all that a table holds: keys, values and their order.
fn digest(chainstate: &Chainstate, tree: Tree) -> u64 {
    let mut hasher = DefaultHasher::new();
    for entry in chainstate.store.range(tree, KeyRange::all()).expect("readable") {
        entry.expect("readable").hash(&mut hasher);
    }
    hasher.finish()
}

pub(super) fn advance(chainstate: &mut Chainstate) -> Advance {
    chainstate.advance(Instant::now() + Duration::from_secs(600)).expect("works")
}

/// All that a table holds.
pub(super) fn dump(chainstate: &Chainstate, tree: Tree) -> Vec<(Vec<u8>, Vec<u8>)> {
    let entries = chainstate.store.range(tree, KeyRange::all()).expect("readable");
    entries.collect::<std::result::Result<_, _>>().expect("readable")
}
