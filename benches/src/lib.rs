//! What the benchmarks share: keys and values like those of coins, every backend, real blocks.
#![expect(clippy::missing_panics_doc, reason = "benchmarks panic on anything unexpected")]
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "benchmarks panic on anything unexpected"
)]

pub mod chain_maker;
pub mod coin_load;
pub mod counting;
pub mod generator;
pub mod null;
pub mod report;

use std::path::Path;

use bitcoin::ScriptBuf;
use cofferdam_storage::{BackendKind, BackendOptions, Batch, Database, Tree};

/// The tree that the workloads fill.
pub const TREE: Tree = Tree { id: 1, name: "coins" };

/// Opens a backend below `dir`.
#[must_use]
pub fn open(kind: BackendKind, dir: &Path) -> Box<dyn Database> {
    kind.open(dir, &[TREE], &BackendOptions::default()).expect("opens")
}

/// Returns the key of number `n`: 36 bytes as those of a coin, in no order (`SplitMix64`).
#[must_use]
pub fn random_key(n: u64) -> [u8; 36] {
    let mut key = [0; 36];
    let mut state = n;
    for chunk in key.chunks_mut(8) {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let bytes = (z ^ (z >> 31)).to_be_bytes();
        chunk.copy_from_slice(&bytes[..chunk.len()]);
    }
    key
}

/// Returns the key of number `n` in ascending order.
#[must_use]
pub fn sequential_key(n: u64) -> [u8; 36] {
    let mut key = [0; 36];
    key[..8].copy_from_slice(&n.to_be_bytes());
    key
}

/// Returns a batch that puts the keys of `numbers`, with values of the size of most coins.
#[must_use]
pub fn batch(numbers: std::ops::Range<u64>, key: fn(u64) -> [u8; 36]) -> Batch {
    let mut batch = Batch::new();
    for n in numbers {
        batch.put(TREE, &key(n), &random_key(n)[..28]);
    }
    batch
}

/// Reads the blocks of a `.blkdat` file under `tests/data`.
#[must_use]
pub fn blocks(name: &str) -> Vec<Vec<u8>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data").join(name);
    let bytes = std::fs::read(path).expect("in the repository");
    let mut rest = bytes.as_slice();
    let mut blocks = Vec::new();
    while !rest.is_empty() {
        let length = u32::from_le_bytes(rest[4..8].try_into().expect("four bytes")) as usize;
        blocks.push(rest[8..8 + length].to_vec());
        rest = &rest[8 + length..];
    }
    blocks
}

/// Reads the single blocks under `tests/data` that have at least `bytes_min` bytes: name and bytes.
#[must_use]
pub fn single_blocks(bytes_min: usize) -> Vec<(String, Vec<u8>)> {
    let mut blocks = Vec::new();
    for network in ["mainnet", "testnet3"] {
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data");
        let dir = std::fs::read_dir(data.join(network).join("blocks")).expect("in the repository");
        let mut paths: Vec<_> = dir.map(|entry| entry.expect("readable").path()).collect();
        paths.sort();
        for path in paths {
            let height = path.file_stem().expect("a name").to_string_lossy();
            let name = format!("{network} {}", height.trim_start_matches('0'));
            blocks.push((name, std::fs::read(&path).expect("readable")));
        }
    }
    blocks.retain(|(_, raw)| raw.len() >= bytes_min);
    blocks
}

/// Reads the outputs that a block of [`single_blocks`] spends, in the order of its inputs: amounts and
/// scripts; `None` if they are not there.
#[must_use]
pub fn spent_outputs(name: &str) -> Option<Vec<(u64, ScriptBuf)>> {
    let (network, height) = name.split_once(' ').expect("network and height");
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data").join(network);
    let bytes = std::fs::read(data.join(format!("spent/{height:0>9}.spent"))).ok()?;
    let (count, mut rest) = bytes.split_first_chunk::<4>().expect("a number");
    let read = |_| {
        // Outpoint and origin are not needed here.
        let value = u64::from_le_bytes(rest[40..48].try_into().expect("eight bytes"));
        let mut tail = &rest[48..];
        let script = bitcoin::consensus::Decodable::consensus_decode(&mut tail);
        rest = tail;
        (value, script.expect("a script"))
    };
    Some((0..u32::from_le_bytes(*count)).map(read).collect())
}
