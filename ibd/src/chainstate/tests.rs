//! Down and up: what connecting did, disconnecting takes back, to the byte.

use std::path::Path;
use std::time::{Duration, Instant};

use cofferdam_storage::{KeyRange, MemoryDatabase, StdFileSystem};

use super::*;
use crate::params::Network;
use crate::tables::{COINS, TREES};

fn open(network: Network, dir: &Path) -> Chainstate {
    let options = ChainstateOptions {
        params: Arc::new(ChainParams::new(network)),
        threads: 2,
        assume_valid: AssumeValid::Off,
        dir: dir.to_owned(),
        wal: WalOptions { verify_freshness: true, ..WalOptions::default() },
    };
    let backend = Box::new(MemoryDatabase::new(TREES));
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

fn dump(chainstate: &Chainstate, tree: cofferdam_storage::Tree) -> Vec<(Vec<u8>, Vec<u8>)> {
    let entries = chainstate.store.range(tree, KeyRange::all()).expect("readable");
    entries.collect::<std::result::Result<_, _>>().expect("readable")
}

fn advance(chainstate: &mut Chainstate) -> Advance {
    chainstate.advance(Instant::now() + Duration::from_secs(600)).expect("works")
}

/// Connects a chain block by block, disconnects it to the genesis block, connects it again: at
/// every height the coins are the same bytes each time, and at the end the index too.
fn check_down_and_up(network: Network, name: &str) {
    const NOW: u32 = 1_767_225_600;
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
