//! The data under `tests/data`; its README has formats and provenance.
#![expect(clippy::missing_panics_doc, reason = "fixtures panic on anything unexpected")]
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "fixtures panic on anything unexpected"
)]

use std::path::PathBuf;

use serde_json::Value;

/// Returns the path of a file under `tests/data`.
#[must_use]
pub fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("data").join(name)
}

/// Reads the blocks of a `.blkdat` file: magic, length, block, over and over.
#[must_use]
pub fn blocks(name: &str) -> Vec<Vec<u8>> {
    let bytes = std::fs::read(path(name)).expect("the file is in the repository");
    let mut rest = bytes.as_slice();
    let mut blocks = Vec::new();
    while !rest.is_empty() {
        let length = u32::from_le_bytes(rest[4..8].try_into().expect("four bytes")) as usize;
        blocks.push(rest[8..8 + length].to_vec());
        rest = &rest[8 + length..];
    }
    blocks
}

/// What is known of a chain after one of its blocks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct State {
    /// Height of the block.
    pub height: u32,
    /// Its hash, as shown to people.
    pub block_hash: String,
    /// Chain work, 64 hex digits.
    pub chain_work: String,
    /// Number of unspent outputs.
    pub utxo_count: u64,
    /// Their value in satoshis.
    pub total_amount: u64,
    /// Bitcoin Core's `bogosize`.
    pub bogosize: u64,
    /// Bitcoin Core's `hash_serialized_3`.
    pub hash_serialized_3: String,
    /// Bitcoin Core's `muhash`.
    pub muhash: String,
}

/// Reads the known states of a chain file, by height.
#[must_use]
pub fn states(name: &str) -> Vec<State> {
    let text = std::fs::read_to_string(path("expected-states.json")).expect("in the repository");
    let all: Value = serde_json::from_str(&text).expect("JSON");
    let states = all[name]["states"].as_array().expect("states of the chain");
    states.iter().map(state).collect()
}

fn state(value: &Value) -> State {
    let number = |name: &str| value[name].as_u64().expect("a number");
    let text = |name: &str| value[name].as_str().expect("a text").to_owned();
    State {
        height: u32::try_from(number("height")).expect("a height"),
        block_hash: text("block_hash"),
        chain_work: text("chainwork"),
        utxo_count: number("utxo_count"),
        total_amount: number("utxo_total_satoshis"),
        bogosize: number("bogosize"),
        hash_serialized_3: text("hash_serialized_3"),
        muhash: text("muhash"),
    }
}
