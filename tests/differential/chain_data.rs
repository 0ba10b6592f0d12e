//! Real chains: every block of `tests/data` that is part of one.

use cofferdam_ibd::Network;
use cofferdam_tests::data;

use crate::pair::Pair;
use crate::verdict::Accepted;

/// Blocks between two comparisons of the UTXO sets.
const SET_EVERY: usize = 250;

/// Delivers chain files in their order; returns the hash of the set at the end.
fn run(network: Network, files: &[&str]) -> String {
    let mut pair = Pair::open(network, files.join(", "));
    for file in files {
        for (index, raw) in data::blocks(file).iter().enumerate() {
            let outcome = pair.deliver(raw);
            assert_eq!(outcome.fault(), None, "{file} {index}");
            assert!(index > 0 || outcome.accepted != Accepted::Stored || pair.tip().0 > 0);
            if index % SET_EVERY == 0 {
                pair.check_coins();
            }
        }
    }
    let set = pair.check_coins();
    pair.print_counts();
    set.hash_serialized_3
}

fn known(file: &str) -> String {
    data::states(file).last().expect("a state").hash_serialized_3.clone()
}

#[test]
fn the_first_4522_blocks_of_mainnet() {
    const FILE: &str = "mainnet/chain-0-4521.blkdat";
    assert_eq!(run(Network::Mainnet, &[FILE]), known(FILE));
}

/// The other chain of mainnet has more work up to its end, and loses it at height 2,020 of the
/// real one: 2,016 blocks down, and 2,020 up.
#[test]
fn the_alternate_chain_of_mainnet_and_back() {
    const MAIN: &str = "mainnet/chain-0-4521.blkdat";
    const ALTERNATE: &str = "mainnet/alt-chain-1-2016.blkdat";
    assert_eq!(run(Network::Mainnet, &[ALTERNATE, MAIN]), known(MAIN));
    let main = data::blocks(MAIN);
    let mut pair = Pair::open(Network::Mainnet, "main to 2018, alternate");
    for raw in main[..=2018].iter().chain(&data::blocks(ALTERNATE)) {
        assert_eq!(pair.deliver(raw).fault(), None);
    }
    assert_eq!(pair.check_coins().hash_serialized_3, known(ALTERNATE));
    assert_eq!(pair.counts.reorganisations, 1);
}

#[test]
fn testnet3_and_signet() {
    for (network, file) in [
        (Network::Testnet3, "testnet3/chain-0-400.blkdat"),
        (Network::Signet, "signet/chain-0-120.blkdat"),
    ] {
        assert_eq!(run(network, &[file]), known(file));
    }
}

#[test]
fn regtest_and_its_reorganisation() {
    const CHAIN: &str = "regtest/chain-a-0-150.blkdat";
    const BRANCH_A: &str = "regtest/reorg-branch-a-1-10.blkdat";
    const BRANCH_B: &str = "regtest/reorg-branch-b-6-16.blkdat";
    assert_eq!(run(Network::Regtest, &[BRANCH_A, BRANCH_B]), known(BRANCH_B));
    assert_eq!(run(Network::Regtest, &[BRANCH_A, BRANCH_B, CHAIN]), known(CHAIN));
}

/// Headers alone, beyond the blocks: five retargets of mainnet, one of signet.
#[test]
fn headers_of_mainnet_and_signet() {
    for (network, file) in [
        (Network::Mainnet, "mainnet/headers-0-10236.bin"),
        (Network::Signet, "signet/headers-0-2015.bin"),
    ] {
        let mut pair = Pair::open(network, file);
        let bytes = std::fs::read(data::path(file)).expect("in the repository");
        for raw in bytes.chunks(80) {
            let header = bitcoin::consensus::deserialize(raw).expect("a header");
            assert_eq!(pair.deliver_header(&header), Ok(()));
        }
        pair.print_counts();
    }
}
