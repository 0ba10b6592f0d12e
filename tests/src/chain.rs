//! A chainstate over any backend, in a temporary directory.
#![expect(clippy::missing_panics_doc, reason = "fixtures panic on anything unexpected")]
#![expect(clippy::expect_used, reason = "fixtures panic on anything unexpected")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bitcoin::hex::DisplayHex as _;
use cofferdam_ibd::{
    Advance, AssumeValid, BlockAccepted, ChainParams, Chainstate, ChainstateOptions, Network,
    TREES, UtxoHash,
};
use cofferdam_storage::{
    BackendKind, BackendOptions, Database as _, KeyRange, StdFileSystem, WalOptions,
};

use crate::data::State;

/// A time after every block of the test data: 2026-01-01.
pub const NOW: u32 = 1_767_225_600;

/// Every backend that survives a restart.
pub const BACKENDS: [BackendKind; 3] = [BackendKind::Sled, BackendKind::Rocksdb, BackendKind::Lsm];

/// Returns options for a chain below `dir`; a small buffer, so that flushes happen.
#[must_use]
pub fn options(network: Network, dir: &Path) -> ChainstateOptions {
    ChainstateOptions {
        threads: 2,
        assume_valid: AssumeValid::Off,
        wal: WalOptions { memtable_bytes: 256 * 1024, ..WalOptions::default() },
        ..ChainstateOptions::new(ChainParams::new(network), dir)
    }
}

/// Opens a chain below `dir`.
#[must_use]
pub fn open(network: Network, backend: BackendKind, dir: &Path) -> Chainstate {
    open_with(options(network, dir), backend)
}

/// Opens a chain with other options than [`options`] gives.
#[must_use]
pub fn open_with(options: ChainstateOptions, backend: BackendKind) -> Chainstate {
    let path = options.dir.join("chainstate").join(backend.to_string());
    std::fs::create_dir_all(&path).expect("a temporary directory");
    let database = backend.open(&path, TREES, &BackendOptions::default()).expect("opens");
    let (chainstate, _) =
        Chainstate::open(options, Arc::new(StdFileSystem), database).expect("opens");
    chainstate
}

/// Stores blocks that have to be fine, without connecting them.
pub fn store(chainstate: &mut Chainstate, blocks: &[Vec<u8>]) {
    for raw in blocks {
        let accepted = chainstate.accept_block(raw.clone(), NOW).expect("the machine works");
        assert!(!matches!(accepted, BlockAccepted::Rejected(_)), "{accepted:?}");
    }
}

/// Connects whatever is stored.
pub fn advance(chainstate: &mut Chainstate) -> Advance {
    let hour = Instant::now() + Duration::from_secs(3600);
    chainstate.advance(hour).expect("the machine works")
}

/// Reads the state that `expected-states.json` lists.
#[must_use]
pub fn state(chainstate: &Chainstate) -> State {
    let stats = chainstate.utxo_stats(UtxoHash::Both).expect("the set can be read");
    let tip = chainstate.headers().entry(chainstate.tip_ref());
    State {
        height: tip.height,
        block_hash: tip.hash.to_string(),
        chain_work: tip.chain_work.to_be_bytes().to_lower_hex_string(),
        utxo_count: stats.txouts,
        total_amount: stats.total_amount,
        bogosize: stats.bogosize,
        hash_serialized_3: stats.hash_serialized_3.expect("asked for").to_string(),
        muhash: stats.muhash.expect("asked for").to_string(),
    }
}

/// Returns every coin's key and value, as stored.
#[must_use]
pub fn coin_bytes(chainstate: &Chainstate) -> Vec<(Vec<u8>, Vec<u8>)> {
    let coins = chainstate.store().range(cofferdam_ibd::COINS, KeyRange::all()).expect("readable");
    coins.collect::<Result<_, _>>().expect("readable")
}

/// Connects whatever is stored; all of it has to be fine.
pub fn settle(chainstate: &mut Chainstate) {
    let advance = advance(chainstate);
    assert!(advance.done && advance.invalid.is_empty(), "{advance:?}");
}
