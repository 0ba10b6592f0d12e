//! Does the chain with the most work win, and does the way there and back leave the same bytes?

use cofferdam_ibd::Network;
use cofferdam_storage::BackendKind;
use cofferdam_tests::{chain, data};

const BRANCH_A: &str = "regtest/reorg-branch-a-1-10.blkdat";
const BRANCH_B: &str = "regtest/reorg-branch-b-6-16.blkdat";
const MAIN: &str = "mainnet/chain-0-4521.blkdat";
const ALTERNATE: &str = "mainnet/alt-chain-1-2016.blkdat";

/// Branch a, then the longer b: a's last five blocks are disconnected. The coins are the bytes of a
/// chainstate that never saw the five.
#[test]
fn longer_branch_wins_and_leaves_the_same_bytes() {
    let (a, b) = (data::blocks(BRANCH_A), data::blocks(BRANCH_B));
    for backend in BackendKind::ALL {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut chainstate = chain::open(Network::Regtest, backend, dir.path());
        chain::store(&mut chainstate, &a);
        assert_eq!(chain::advance(&mut chainstate).connected, 10);
        assert_eq!(Some(&chain::state(&chainstate)), data::states(BRANCH_A).last());

        chain::store(&mut chainstate, &b);
        let advance = chain::advance(&mut chainstate);
        assert_eq!((advance.disconnected, advance.connected), (5, 11), "on {backend}");
        assert_eq!(Some(&chain::state(&chainstate)), data::states(BRANCH_B).last());

        let straight_dir = tempfile::tempdir().expect("a temporary directory");
        let mut straight = chain::open(Network::Regtest, backend, straight_dir.path());
        chain::store(&mut straight, &a[..5]);
        chain::store(&mut straight, &b);
        assert_eq!(chain::advance(&mut straight).connected, 16);
        assert_eq!(chain::coin_bytes(&chainstate), chain::coin_bytes(&straight), "on {backend}");
    }
}

/// The alternate chain of 2,016 blocks has the work of the real one at height 2019: the real chain
/// loses up to 2018, an equal does not replace the tip, and from 2020 on it wins.
#[test]
fn mainnet_alternate_chain_loses_and_wins_by_work_alone() {
    let (main, alternate) = (data::blocks(MAIN), data::blocks(ALTERNATE));
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut chainstate = chain::open(Network::Mainnet, BackendKind::Rocksdb, dir.path());

    for expected in data::states(ALTERNATE) {
        chain::store(&mut chainstate, &alternate[..expected.height as usize]);
        chain::settle(&mut chainstate);
        assert_eq!(chain::state(&chainstate), expected);
    }
    let alternate_tip = chainstate.tip();
    let alternate_coins = chain::coin_bytes(&chainstate);
    for upto in [2018, 2019] {
        chain::store(&mut chainstate, &main[..=upto]);
        assert_eq!(chain::advance(&mut chainstate).connected, 0, "up to {upto}");
        assert_eq!(chainstate.tip(), alternate_tip, "up to {upto}");
    }
    chain::store(&mut chainstate, &main[..=2020]);
    let advance = chain::advance(&mut chainstate);
    assert_eq!((advance.disconnected, advance.connected), (2016, 2020));
    assert_eq!(chainstate.tip().height, 2020);
    assert_ne!(chain::coin_bytes(&chainstate), alternate_coins);

    chain::store(&mut chainstate, &main);
    chain::settle(&mut chainstate);
    assert_eq!(Some(&chain::state(&chainstate)), data::states(MAIN).last());
}

/// Seen from the other side: the alternate chain takes over from 2018, not from 2019.
#[test]
fn alternate_chain_replaces_a_main_chain_with_less_work_only() {
    let (main, alternate) = (data::blocks(MAIN), data::blocks(ALTERNATE));
    for (upto, alternate_wins) in [(2018, true), (2019, false), (2020, false)] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut chainstate = chain::open(Network::Mainnet, BackendKind::Memory, dir.path());
        chain::store(&mut chainstate, &main[..=upto]);
        chain::settle(&mut chainstate);
        let before = (chainstate.tip(), chain::coin_bytes(&chainstate));
        chain::store(&mut chainstate, &alternate);
        let advance = chain::advance(&mut chainstate);
        assert_eq!(advance.connected == 2016, alternate_wins, "main chain up to {upto}");
        if alternate_wins {
            assert_eq!(Some(&chain::state(&chainstate)), data::states(ALTERNATE).last());
        } else {
            assert_eq!((chainstate.tip(), chain::coin_bytes(&chainstate)), before);
        }
    }
}

/// A reorganisation that meets an invalid block goes back to the old tip, with the old bytes, and
/// the invalid branch stays condemned after a restart.
#[test]
fn invalid_branch_returns_to_the_old_tip() {
    let a = data::blocks(BRANCH_A);
    let b = data::blocks(BRANCH_B);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut chainstate = chain::open(Network::Regtest, BackendKind::Rocksdb, dir.path());
    chain::store(&mut chainstate, &a);
    chain::settle(&mut chainstate);
    let before = (chainstate.tip(), chain::coin_bytes(&chainstate));

    // Branch b with a coinbase that pays one satoshi too much in its fourth block, mined anew from
    // there on.
    let mut prev = None;
    for (index, raw) in b.iter().enumerate() {
        let mut block: bitcoin::Block = bitcoin::consensus::deserialize(raw).expect("a block");
        if index >= 3 {
            if index == 3 {
                let output = &mut block.txdata[0].output[0];
                output.value += bitcoin::Amount::ONE_SAT;
            }
            if let Some(prev) = prev {
                block.header.prev_blockhash = prev;
            }
            block.header.merkle_root = block.compute_merkle_root().expect("has transactions");
            let mut tries = 1 << 20;
            assert!(cofferdam_ibd::mining::solve(&mut block, chainstate.params(), &mut tries));
        }
        prev = Some(block.block_hash());
        chain::store(&mut chainstate, &[bitcoin::consensus::serialize(&block)]);
    }
    let advance = chain::advance(&mut chainstate);
    assert_eq!(advance.invalid.len(), 1);
    assert_eq!(advance.invalid[0].1.code, "bad-cb-amount");
    assert_eq!((advance.disconnected, advance.connected), (5 + 3, 3 + 5));
    assert_eq!((chainstate.tip(), chain::coin_bytes(&chainstate)), before);

    chainstate.shutdown().expect("closes");
    let mut reopened = chain::open(Network::Regtest, BackendKind::Rocksdb, dir.path());
    assert_eq!(chain::advance(&mut reopened).connected, 0);
    assert_eq!((reopened.tip(), chain::coin_bytes(&reopened)), before);
}

/// A reorganisation is not left in the middle, however short the time: whoever looks between two
/// calls never sees a tip with less work than before.
#[test]
fn deadline_does_not_stop_a_reorganisation_below_the_old_work() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut chainstate = chain::open(Network::Regtest, BackendKind::Memory, dir.path());
    chain::store(&mut chainstate, &data::blocks(BRANCH_A));
    chain::settle(&mut chainstate);
    chain::store(&mut chainstate, &data::blocks(BRANCH_B));
    let past = std::time::Instant::now();
    let advance = chainstate.advance(past).expect("the machine works");
    assert_eq!((advance.disconnected, advance.connected, advance.done), (5, 6, false));
    assert_eq!(chainstate.tip().height, 11);
    // From there on each call may pause after a block.
    assert_eq!(chainstate.advance(past).expect("the machine works").connected, 1);
    chain::settle(&mut chainstate);
    assert_eq!(Some(&chain::state(&chainstate)), data::states(BRANCH_B).last());
}
