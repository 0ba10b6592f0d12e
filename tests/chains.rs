//! Does every known state of every chain come out, on every backend?
#![expect(clippy::indexing_slicing, reason = "a test fails by a panic")]

use cofferdam_ibd::{ChainstateOptions, Network};
use cofferdam_storage::BackendKind;
use cofferdam_tests::{chain, data};

/// Connects a chain on every backend and compares each known state, also after a restart.
fn check(network: Network, name: &str) {
    let blocks = data::blocks(name);
    let states = data::states(name);
    assert!(states.len() > 1, "{name} has known states");
    for backend in BackendKind::ALL {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let options = ChainstateOptions { coin_stats: true, ..chain::options(network, dir.path()) };
        let mut chainstate = chain::open_with(options, backend);
        let mut fed = 0;
        for expected in &states {
            let upto = expected.height as usize + 1;
            chain::store(&mut chainstate, &blocks[fed..upto]);
            fed = upto;
            let advance = chain::advance(&mut chainstate);
            assert!(advance.done && advance.invalid.is_empty(), "{advance:?}");
            assert_eq!(chain::state(&chainstate), *expected, "{name} on {backend}");
        }
        // What was kept on the way says the same of every height.
        for expected in &states {
            let block = chainstate.block_at(expected.height).expect("connected");
            let kept = chainstate.coin_stats(&block.hash).expect("readable").expect("kept");
            assert_eq!(kept.muhash.to_string(), expected.muhash, "{name} at {}", block.height);
            assert_eq!(kept.txouts, expected.utxo_count);
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

/// Feeds a file of headers in messages of 2,000, as a peer would send them.
fn check_headers(network: Network, name: &str, tip: &str) {
    let bytes = std::fs::read(data::path(name)).expect("in the repository");
    let headers: Vec<_> = bytes
        .chunks(80)
        .map(|raw| bitcoin::consensus::deserialize(raw).expect("a header"))
        .collect();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut chainstate = chain::open(network, BackendKind::Rocksdb, dir.path());
    for message in headers.chunks(2000) {
        let accepted = chainstate.accept_headers(message, chain::NOW).expect("the machine works");
        assert!(accepted.is_ok(), "{accepted:?}");
    }
    let best = |chainstate: &cofferdam_ibd::Chainstate| {
        chainstate.headers().entry(chainstate.headers().best()).hash.to_string()
    };
    assert_eq!((best(&chainstate).as_str(), chainstate.headers().len()), (tip, headers.len()));
    chainstate.shutdown().expect("closes");
    let reopened = chain::open(network, BackendKind::Rocksdb, dir.path());
    assert_eq!((best(&reopened).as_str(), reopened.headers().len()), (tip, headers.len()));
    assert_eq!(reopened.tip().height, 0);
}

/// Five periods of difficulty; the header after each has to have the bits of the rule.
#[test]
fn mainnet_headers_0_to_10236() {
    let tip = "000000004f74d42205b9d7ae1cb5c1591e723894a71358fce73b7e0919628161";
    check_headers(Network::Mainnet, "mainnet/headers-0-10236.bin", tip);
}

#[test]
fn signet_headers_0_to_2015() {
    let tip = "000000c0a3841a6ae64c45864ae25314b40fd522bfb299a4b6bd5ef288cae74d";
    check_headers(Network::Signet, "signet/headers-0-2015.bin", tip);
}

/// The outcome depends on neither the number of threads nor the size of the buffer.
#[test]
fn threads_and_buffer_do_not_change_the_state() {
    let name = "testnet3/chain-0-400.blkdat";
    let mut outcomes = Vec::new();
    for (threads, memtable_bytes) in [(1, 4 << 10), (2, 64 << 10), (7, 64 << 20)] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut options = chain::options(Network::Testnet3, dir.path());
        options.threads = threads;
        options.wal.memtable_bytes = memtable_bytes;
        let mut chainstate = chain::open_with(options, BackendKind::Sled);
        chain::store(&mut chainstate, &data::blocks(name));
        chain::settle(&mut chainstate);
        assert_eq!(Some(&chain::state(&chainstate)), data::states(name).last());
        outcomes.push(chain::coin_bytes(&chainstate));
    }
    assert!(outcomes.windows(2).all(|pair| pair[0] == pair[1]));
}
