//! Blocks that break one rule each, and blocks that seem to: one table with the verdict of all.

mod blocks;
mod coins;
mod headers;
mod scripts;
mod table;
mod transactions;

use bitcoin::{Transaction, TxOut};
use cofferdam_ibd::Network;
use cofferdam_storage::testing::{Random, effort};

use crate::draft::{Branch, Draft, unsigned};
use crate::pair::{Counts, Pair};
use crate::wallet::{KEYS, Lock, PLAIN, Wallet};

pub(crate) use table::{MUTANTS, Make, Mutant};

/// Blocks before the first mutant: coinbases with every lock are mature.
const BASE: u32 = 150;

/// A block to break: a coinbase, and a payment with a witness to coins of every kind.
fn good_draft<'a>(branch: &Branch, wallet: &'a Wallet, seed: u64) -> Draft<'a> {
    let mut draft = Draft::new(branch, wallet, seed);
    let coins = [draft.take(Lock::P2wpkh).expect("each block makes one")];
    let value = coins[0].output.value / (PLAIN.len() as u64);
    let locks: Vec<_> = PLAIN.iter().map(|lock| (*lock, draft.random.below(KEYS))).collect();
    let pay = |&(lock, key): &(Lock, usize)| TxOut {
        value,
        script_pubkey: wallet.script_pubkey(lock, key),
    };
    let mut tx = unsigned(&coins, locks.iter().map(pay).collect());
    wallet.sign(&mut tx, &coins, &mut draft.random);
    let locks: Vec<_> = locks.into_iter().map(Some).collect();
    draft.push(tx, &coins, &locks);
    draft.finish();
    draft
}

/// A chain with coins of every kind, on both sides.
fn base(wallet: &Wallet, label: &str) -> (Pair, Branch) {
    let mut pair = Pair::open(Network::Regtest, label);
    let mut branch = Branch::genesis();
    for seed in 0..u64::from(BASE) {
        let mut draft = Draft::new(&branch, wallet, seed);
        draft.finish();
        let outcome = pair.deliver(&bitcoin::consensus::serialize(&draft.block));
        assert_eq!(outcome.fault(), None);
        branch = draft.into_branch();
    }
    (pair, branch)
}

/// Delivers what the mutant makes of a good block on the tip; returns the last one's reason, and
/// whether the good block is still one afterwards.
fn try_mutant(pair: &mut Pair, draft: &Draft<'_>, mutant: &Mutant) -> Option<String> {
    let mut bad = draft.clone();
    let raws = match mutant.make {
        Make::Block(change) | Make::Lone(change) | Make::Header(change) => {
            change(&mut bad).unwrap_or_else(|| panic!("{}: a coin is missing", mutant.name));
            vec![bitcoin::consensus::serialize(&bad.block)]
        }
        Make::Bytes(make) => vec![make(&mut bad).expect("the coins are there")],
        Make::History(make) => make(&mut bad).expect("the coins are there"),
        Make::Unreachable(_) => return None,
    };
    if matches!(mutant.make, Make::Header(_)) {
        let fault = pair.deliver_header(&bad.block.header).err();
        assert_eq!(fault.map(|fault| fault.reason).as_deref(), mutant.reason, "{}", mutant.name);
    }
    let outcomes: Vec<_> = raws.iter().map(|raw| pair.deliver(raw)).collect();
    outcomes.last().and_then(|outcome| outcome.fault()).map(|fault| fault.reason.clone())
}

/// Every row of the table: both sides agree, on the table's reason, and the genuine block is taken
/// afterwards as if nothing had been.
#[test]
fn each_mutant_has_its_reason() {
    let wallet = Wallet::new();
    let (mut pair, mut branch) = base(&wallet, "mutants");
    let (mut tried, mut unreachable) = (0, Vec::new());
    for (seed, mutant) in (1_000..).zip(MUTANTS) {
        if let Make::Unreachable(why) = mutant.make {
            assert!(mutant.reason.is_some() && !why.is_empty());
            unreachable.push(mutant.name);
            continue;
        }
        let draft = good_draft(&branch, &wallet, seed);
        pair.set_label(format!("mutant {} on a block of seed {seed}", mutant.name));
        let reason = try_mutant(&mut pair, &draft, mutant);
        assert_eq!(reason.as_deref(), mutant.reason, "{}", mutant.name);
        tried += 1;
        // The good block is on a branch of its own if the mutant turned out to be fine.
        let good = pair.deliver(&bitcoin::consensus::serialize(&draft.block));
        assert_eq!(good.fault(), None, "the good block after {}", mutant.name);
        branch = draft.into_branch();
        let next = good_draft(&branch, &wallet, seed + 1_000_000);
        let outcome = pair.deliver(&bitcoin::consensus::serialize(&next.block));
        assert_eq!(outcome.fault(), None, "the block after that of {}", mutant.name);
        branch = next.into_branch();
        assert_eq!(pair.tip().1, branch.tip, "{}", mutant.name);
        pair.check_coins();
    }
    assert!(tried > 100, "{tried}");
    pair.set_label(format!("{tried} mutants, without {}", unreachable.join(", ")));
    pair.print_counts();
}

/// Two faults in a block: whatever comes first, it comes first on both sides.
#[test]
fn two_faults_have_the_same_verdict() {
    let wallet = Wallet::new();
    let (mut pair, mut branch) = base(&wallet, "two faults");
    let tries = effort().pick(200, 4_000, 40_000);
    let mut random = Random::new(crate::effort::seed());
    let mut counts = Counts::default();
    for seed in 0..tries {
        let draft = good_draft(&branch, &wallet, 1_000 + seed);
        let mut names = [0; 2].map(|_| &MUTANTS[random.below(MUTANTS.len())]);
        // Headers last: others mine the block anew, which some headers never let.
        names.sort_by_key(|mutant| matches!(mutant.make, Make::Header(_)));
        if matches!(names[0].make, Make::Header(_)) {
            continue;
        }
        let mut bad = draft.clone();
        for mutant in names {
            let whole = bad.block.txdata.first().is_some_and(Transaction::is_coinbase);
            match mutant.make {
                Make::Block(change) | Make::Lone(change) | Make::Header(change) if whole => {
                    let _ = change(&mut bad);
                }
                _ => {}
            }
        }
        pair.set_label(format!("{seed}: {}, {}", names[0].name, names[1].name));
        pair.deliver(&bitcoin::consensus::serialize(&bad.block));
        let good = pair.deliver(&bitcoin::consensus::serialize(&draft.block));
        assert_eq!(good.fault(), None, "{}", pair.label());
        branch = draft.into_branch();
        // The block with faults may be none, and stay the tip.
        let next = good_draft(&branch, &wallet, 1_000_000 + seed);
        let outcome = pair.deliver(&bitcoin::consensus::serialize(&next.block));
        assert_eq!(outcome.fault(), None, "{}", pair.label());
        branch = next.into_branch();
        if seed % 100 == 99 {
            pair.check_coins();
            // Core's checks of the whole tree take longer and longer.
            counts += std::mem::take(&mut pair.counts);
            (pair, branch) = base(&wallet, "two faults");
        }
    }
    counts.print("two faults");
}
