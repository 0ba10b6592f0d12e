//! Down and up: what connecting did, disconnecting takes back, to the byte.

use std::path::Path;
use std::time::{Duration, Instant};

use cofferdam_storage::{BackendKind, BackendOptions, KeyRange, MemoryDatabase, StdFileSystem};

use super::*;
use crate::coin_stats::CoinStats;
use crate::params::Network;
use crate::tables::{COINS, TREES};
use crate::utxo_stats::UtxoHash;

const NOW: u32 = 1_767_225_600;

pub(super) fn open(network: Network, dir: &Path) -> Chainstate {
    let backend = Box::new(MemoryDatabase::new(TREES));
    open_over(network, dir, backend, true)
}

fn open_over(
    network: Network,
    dir: &Path,
    backend: Box<dyn Database>,
    coin_stats: bool,
) -> Chainstate {
    let options = ChainstateOptions {
        params: Arc::new(ChainParams::new(network)),
        threads: 2,
        assume_valid: AssumeValid::Off,
        dir: dir.to_owned(),
        coin_stats,
        wal: WalOptions { verify_freshness: true, ..WalOptions::default() },
    };
    Chainstate::open(options, Arc::new(StdFileSystem), backend).expect("opens").0
}

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

pub(super) fn dump(
    chainstate: &Chainstate,
    tree: cofferdam_storage::Tree,
) -> Vec<(Vec<u8>, Vec<u8>)> {
    let entries = chainstate.store.range(tree, KeyRange::all()).expect("readable");
    entries.collect::<std::result::Result<_, _>>().expect("readable")
}

pub(super) fn advance(chainstate: &mut Chainstate) -> Advance {
    chainstate.advance(Instant::now() + Duration::from_secs(600)).expect("works")
}

/// What a scan of the set gives.
fn scan(chainstate: &Chainstate) -> Option<CoinStats> {
    Option::from(&chainstate.utxo_stats(UtxoHash::Muhash).expect("readable"))
}

/// The statistics at the tip, which have to be those of a scan.
fn check_stats(chainstate: &Chainstate) {
    let tip = chainstate.tip();
    assert!(chainstate.has_coin_stats());
    let stats = chainstate.coin_stats(&tip.hash).expect("readable");
    assert_eq!(stats, scan(chainstate), "at {}", tip.height);
}

#[test]
fn coin_statistics_are_those_of_a_scan_after_every_block_up_and_down() {
    let dir = tempfile::tempdir().expect("temporary");
    let mut chainstate = open(Network::Testnet3, dir.path());
    let mut up = vec![scan(&chainstate)];
    check_stats(&chainstate);
    for raw in blocks("testnet3/chain-0-400.blkdat").into_iter().skip(1) {
        assert!(matches!(chainstate.accept_block(raw, NOW), Ok(BlockAccepted::Stored(_))));
        assert_eq!(advance(&mut chainstate).connected, 1);
        check_stats(&chainstate);
        up.push(scan(&chainstate));
    }
    let hashes: Vec<BlockHash> =
        (0..=400).map(|height| chainstate.block_at(height).expect("connected").hash).collect();
    for _ in 0..50 {
        chainstate.disconnect_tip().expect("works");
        chainstate.write_index().expect("works");
        check_stats(&chainstate);
    }
    // Every height below is still known, and none above.
    for (height, (hash, expected)) in hashes.iter().zip(up).enumerate() {
        let stats = chainstate.coin_stats(hash).expect("readable");
        assert_eq!(stats, expected.filter(|_| height <= 350), "{height}");
    }
}

/// Statistics that were not kept for a while catch up, from where they stood, down and up.
#[test]
fn coin_statistics_catch_up_from_the_block_files() {
    let dir = tempfile::tempdir().expect("temporary");
    let over = |coin_stats| {
        let backend = BackendKind::Sled;
        let database = backend.open(&dir.path().join("db"), TREES, &BackendOptions::default());
        open_over(Network::Testnet3, dir.path(), database.expect("opens"), coin_stats)
    };
    std::fs::create_dir_all(dir.path().join("db")).expect("room");
    let all = blocks("testnet3/chain-0-400.blkdat");
    let feed = |chainstate: &mut Chainstate, range: std::ops::Range<usize>| {
        for raw in &all[range] {
            let _ = chainstate.accept_block(raw.clone(), NOW).expect("works");
        }
        assert!(advance(chainstate).done);
    };
    let mut without = over(false);
    feed(&mut without, 1..100);
    assert!(!without.has_coin_stats());
    without.shutdown().expect("closes");

    let mut with = over(true);
    assert!(!with.has_coin_stats());
    feed(&mut with, 100..200);
    check_stats(&with);
    with.shutdown().expect("closes");

    // Meanwhile the chain goes down and up again.
    let mut without = over(false);
    for _ in 0..30 {
        without.disconnect_tip().expect("works");
    }
    without.write_index().expect("works");
    assert_eq!(without.tip().height, 169);
    without.shutdown().expect("closes");
    let mut with = over(true);
    assert!(with.catch_up_stats(Instant::now() + Duration::from_secs(600)).expect("works"));
    check_stats(&with);
    feed(&mut with, 200..401);
    check_stats(&with);
    with.shutdown().expect("closes");
    let with = over(true);
    check_stats(&with);
    for height in 0..=400 {
        let hash = with.block_at(height).expect("connected").hash;
        assert!(with.coin_stats(&hash).expect("readable").is_some(), "{height}");
    }
}

/// Connects a chain block by block, disconnects it to the genesis block, connects it again: at
/// every height the coins are the same bytes each time, and at the end the index too.
fn check_down_and_up(network: Network, name: &str) {
    let dir = tempfile::tempdir().expect("temporary");
    let mut chainstate = open(network, dir.path());
    let mut up = vec![dump(&chainstate, COINS)];
    for raw in blocks(name).into_iter().skip(1) {
        let accepted = chainstate.accept_block(raw, NOW).expect("works");
        assert!(matches!(accepted, BlockAccepted::Stored(_)), "{accepted:?}");
        assert_eq!(advance(&mut chainstate).connected, 1);
        up.push(dump(&chainstate, COINS));
    }
    let index = dump(&chainstate, HEADERS);
    while chainstate.tip().height > 0 {
        chainstate.disconnect_tip().expect("works");
        let height = chainstate.tip().height as usize;
        assert_eq!(dump(&chainstate, COINS), up[height], "down to {height}");
    }
    assert_eq!(advance(&mut chainstate).connected as usize, up.len() - 1);
    assert_eq!(Some(&dump(&chainstate, COINS)), up.last());
    assert_eq!(dump(&chainstate, HEADERS), index);
}

#[test]
fn testnet3_down_and_up_leaves_the_same_bytes() {
    check_down_and_up(Network::Testnet3, "testnet3/chain-0-400.blkdat");
}

#[test]
fn regtest_down_and_up_leaves_the_same_bytes() {
    check_down_and_up(Network::Regtest, "regtest/chain-a-0-150.blkdat");
}
