//! Damaged bytes: blocks with bytes changed, cut out, repeated or put in at random, as they are and
//! with a header that commits to them.

use bitcoin::Block;
use bitcoin::consensus::{deserialize, deserialize_partial, serialize};
use cofferdam_ibd::Network;
use cofferdam_storage::testing::{Random, effort};

use crate::draft::{Branch, commit, set_merkle_root, solve};
use crate::generator::random_block;
use crate::pair::{Counts, Pair};
use crate::wallet::Wallet;

/// Good blocks of a chain: with coins to spend, and not so many that Core's own consistency checks
/// take long.
const CHAIN: u32 = 160;
/// From here on blocks are damaged.
const DAMAGED_FROM: u32 = 105;
/// Damaged versions of each.
const VERSIONS: usize = 40;
/// Bytes that mean something: lengths, marks, operations, and their neighbours.
const TELLING: [u8; 20] = [
    0, 1, 2, 3, 0x21, 0x4b, 0x4c, 0x4d, 0x4e, 0x50, 0x51, 0x60, 0x6a, 0x7f, 0x80, 0xac, 0xae, 0xfc,
    0xfd, 0xff,
];

/// Damages a few places after the header.
fn damage(raw: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..1 + random.below(3) {
        let at = 80 + random.below(raw.len() - 80);
        let len = (1 + random.below(4)).min(raw.len() - at);
        match random.below(6) {
            0 => raw[at] ^= 1 << random.below(8),
            1 | 2 => raw[at] = TELLING[random.below(TELLING.len())],
            3 => drop(raw.drain(at..at + len)),
            4 => {
                let again = raw[at..at + len].to_vec();
                drop(raw.splice(at..at, again));
            }
            _ => raw.insert(at, TELLING[random.below(TELLING.len())]),
        }
        if raw.len() <= 81 {
            break;
        }
    }
}

/// Damages a block; of what can be read, what follows is left out, for there the sides are known
/// to differ.
fn damaged(good: &Block, random: &mut Random) -> Vec<u8> {
    let mut raw = serialize(good);
    damage(&mut raw, random);
    let Ok((mut block, _)) = deserialize_partial::<Block>(&raw) else {
        return raw;
    };
    let has_input = block.txdata.first().is_some_and(|tx| !tx.input.is_empty());
    if has_input && !random.one_in(4) {
        if random.one_in(2) {
            commit(&mut block);
        }
        set_merkle_root(&mut block);
        solve(&mut block);
    }
    serialize(&block)
}

fn run(wallet: &Wallet, seed: u64) -> Counts {
    let mut random = Random::new(seed);
    let mut pair = Pair::open(Network::Regtest, format!("damage of seed {seed}"));
    let mut branch = Branch::genesis();
    while branch.height() < CHAIN {
        let draft = random_block(&branch, wallet, random.next());
        if branch.height() >= DAMAGED_FROM {
            for _ in 0..VERSIONS {
                let raw = damaged(&draft.block, &mut random);
                // What is the good block after all comes later.
                if raw != serialize(&draft.block) {
                    pair.deliver(&raw);
                }
            }
        }
        // Some damage leaves a good block: then the two are equals, and the next one decides.
        let good = pair.deliver(&serialize(&draft.block));
        assert_eq!(good.fault(), None, "{}", pair.label());
        branch = draft.into_branch();
    }
    pair.check_coins();
    pair.counts
}

#[test]
fn damaged_blocks_have_the_same_verdict() {
    let wallet = Wallet::new();
    let mut counts = Counts::default();
    for seed in 0..effort().pick(1, 10, 200) {
        counts += run(&wallet, seed);
    }
    counts.print("damaged blocks");
}

/// The damage is read back as it is written: else the test above would compare nothing.
#[test]
fn most_damage_can_be_read() {
    let wallet = Wallet::new();
    let good = random_block(&Branch::genesis(), &wallet, 1).block;
    let mut random = Random::new(1);
    let versions = (0..1_000).map(|_| damaged(&good, &mut random));
    let read = versions.filter(|raw| deserialize::<Block>(raw).is_ok()).count();
    assert!((200..950).contains(&read), "{read}");
}
