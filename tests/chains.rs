//! Does every known state of every chain come out, on every backend?
#![expect(clippy::indexing_slicing, reason = "a test fails by a panic")]

use cofferdam_ibd::Network;
use cofferdam_storage::BackendKind;
use cofferdam_tests::{chain, data};

/// Connects a chain on every backend and compares each known state, also after a restart.
fn check(network: Network, name: &str) {
    let blocks = data::blocks(name);
    let states = data::states(name);
    assert!(states.len() > 1, "{name} has known states");
    for backend in [BackendKind::Memory, BackendKind::Sled, BackendKind::Rocksdb] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut chainstate = chain::open(network, backend, dir.path());
        let mut fed = 0;
        for expected in &states {
            let upto = expected.height as usize + 1;
            chain::store(&mut chainstate, &blocks[fed..upto]);
            fed = upto;
            let advance = chain::advance(&mut chainstate);
            assert!(advance.done && advance.invalid.is_empty(), "{advance:?}");
            assert_eq!(chain::state(&chainstate), *expected, "{name} on {backend}");
        }
        assert_eq!(fed, blocks.len(), "the last state is the tip's");
        chainstate.shutdown().expect("closes");
        if chain::BACKENDS.contains(&backend) {
            let reopened = chain::open(network, backend, dir.path());
            assert_eq!(
                Some(&chain::state(&reopened)),
                states.last(),
                "{name} on {backend}, reopened"
            );
        }
    }
}

#[test]
fn mainnet_0_to_4521() {
    check(Network::Mainnet, "mainnet/chain-0-4521.blkdat");
}

#[test]
fn testnet3_0_to_400() {
    check(Network::Testnet3, "testnet3/chain-0-400.blkdat");
}

#[test]
fn signet_0_to_120() {
    check(Network::Signet, "signet/chain-0-120.blkdat");
}

#[test]
fn regtest_0_to_150() {
    check(Network::Regtest, "regtest/chain-a-0-150.blkdat");
}

#[test]
fn blocks_in_any_order_give_the_same_state() {
    let name = "testnet3/chain-0-400.blkdat";
    let mut blocks = data::blocks(name);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut chainstate = chain::open(Network::Testnet3, BackendKind::Memory, dir.path());
    let headers: Vec<_> = blocks
        .iter()
        .map(|raw| bitcoin::consensus::deserialize(&raw[..80]).expect("a header"))
        .collect();
    chainstate.accept_headers(&headers, chain::NOW).expect("works").expect("sound headers");
    // A fixed shuffle: every block goes to a far place.
    let count = blocks.len();
    let order: Vec<usize> = (0..count).map(|i| i * 263 % count).collect();
    for &from in &order {
        chain::store(&mut chainstate, &[std::mem::take(&mut blocks[from])]);
        let advance = chain::advance(&mut chainstate);
        assert!(advance.invalid.is_empty(), "{advance:?}");
    }
    assert_eq!(Some(&chain::state(&chainstate)), data::states(name).last());
}
