//! Random blocks that follow all rules, many of them only just.

use bitcoin::absolute::LockTime;
use bitcoin::opcodes::all::OP_CHECKSIG;
use bitcoin::transaction::Version;
use bitcoin::{Amount, ScriptBuf, Sequence, TxOut};
use cofferdam_storage::testing::Random;

use crate::draft::{Branch, Draft, MATURITY, SIGOPS_COST_MAX, below, unsigned};
use crate::wallet::{KEYS, Lock, Owned, PLAIN, Wallet, data_output};

/// Coins of a branch that are kept in mind; others stay unspent for ever.
const COINS_MAX: usize = 800;
/// What spending a heavy coin costs at most: 3,800 signature operations in P2SH.
const HEAVY_COST_MAX: usize = 15_200;
/// Lock times below are heights, others are times.
const LOCKTIME_THRESHOLD: u32 = 500_000_000;
/// A relative lock time in units of 512 seconds (BIP-0068).
pub(crate) const SEQUENCE_TIME: u32 = 1 << 22;
/// No relative lock time.
const SEQUENCE_OFF: u32 = 1 << 31;
/// Bits of a relative lock time without a meaning.
const SEQUENCE_UNUSED: u32 = 0x7fbf_0000;

/// Makes the next block of `branch`; the same for the same seed.
pub(crate) fn random_block<'a>(branch: &Branch, wallet: &'a Wallet, seed: u64) -> Draft<'a> {
    let mut draft = Draft::new(branch, wallet, seed);
    let count = match draft.random.below(16) {
        0..4 => 0,
        4..14 => 1 + draft.random.below(5),
        14 => 20,
        _ => 60,
    };
    for _ in 0..count {
        add_transaction(&mut draft);
    }
    if draft.random.one_in(25) {
        fill_sigops(&mut draft, 0);
    }
    while draft.branch.coins.len() > COINS_MAX {
        let at = draft.random.below(draft.branch.coins.len());
        draft.branch.coins.swap_remove(at);
    }
    draft.finish();
    draft
}

/// What a transaction fixes for all its inputs.
#[derive(Clone, Copy)]
struct Terms {
    version: i32,
    /// Whether the lock time is a time.
    by_time: bool,
    /// The largest lock time of that kind which the block allows.
    lock_time_max: u32,
}

/// Adds a transaction that spends coins of the branch and of the block, if it finds some.
fn add_transaction(draft: &mut Draft<'_>) {
    let by_time = draft.random.one_in(3);
    let lock_time_max = if by_time { draft.median_time_past() } else { draft.height } - 1;
    let version = [2, 2, 2, 2, 1, 1, 0, 3, -1, i32::MIN][draft.random.below(10)];
    let terms = Terms { version, by_time, lock_time_max };
    // Not every coin that is picked can be spent.
    let picks = match draft.random.below(40) {
        0 => 200,
        1..20 => 1,
        _ => 1 + draft.random.below(4),
    };
    let (mut coins, mut sequences) = (Vec::new(), Vec::new());
    for _ in 0..picks {
        if let Some((coin, sequence)) = pick(draft, terms) {
            coins.push(coin);
            sequences.push(sequence);
        }
    }
    if coins.is_empty() {
        return;
    }
    let (outputs, locks) = outputs(draft, coins.iter().map(|coin| coin.output.value).sum());
    let mut tx = unsigned(&coins, outputs);
    tx.version = Version(version);
    for (input, sequence) in tx.input.iter_mut().zip(&sequences) {
        input.sequence = Sequence::from_consensus(*sequence);
    }
    let bound = coins.iter().any(|coin| matches!(coin.lock, Lock::Cltv(_)));
    let lock_time = match draft.random.below(4) {
        _ if bound => lock_time_max,
        // No input asks for it: the lock time may be any.
        0 if sequences.iter().all(|&s| s == u32::MAX) => u32::MAX,
        0 | 1 => lock_time_max,
        _ => 0,
    };
    tx.lock_time = LockTime::from_consensus(lock_time);
    draft.wallet.sign(&mut tx, &coins, &mut draft.random);
    let cost = draft.sigops_cost + draft.sigop_cost(&tx, &coins);
    if cost > SIGOPS_COST_MAX {
        draft.give_back(coins);
    } else {
        draft.push(tx, &coins, &locks);
    }
}

/// Takes a coin that the block may spend, with a sequence that lets it.
fn pick(draft: &mut Draft<'_>, terms: Terms) -> Option<(Owned, u32)> {
    let in_block = draft.random.one_in(3);
    let pool = if in_block { &draft.created } else { &draft.branch.coins };
    let from = draft.random.below(pool.len());
    // Coinbases that are just mature go first, now and then.
    let edge = draft.height.checked_sub(MATURITY).filter(|_| draft.random.one_in(4));
    let on_edge = |coin: &Owned| coin.coinbase && Some(coin.height) == edge;
    let at = pool.iter().position(on_edge).unwrap_or(from);
    let coin = pool.get(at)?.clone();
    let heavy = matches!(coin.lock, Lock::P2shHeavy | Lock::P2wshHeavy);
    if !draft.is_mature(&coin) || (heavy && !draft.random.one_in(8)) {
        return None;
    }
    let sequence = sequence(draft, terms, &coin)?;
    let pool = if in_block { &mut draft.created } else { &mut draft.branch.coins };
    Some((pool.swap_remove(at), sequence))
}

/// A sequence with which the coin can be spent in this block; `None` if there is none.
fn sequence(draft: &mut Draft<'_>, terms: Terms, coin: &Owned) -> Option<u32> {
    let relative = terms.version.cast_unsigned() >= 2;
    let unused = if draft.random.one_in(4) { SEQUENCE_UNUSED } else { 0 };
    match coin.lock {
        Lock::Cltv(time) => {
            let kind = time >= LOCKTIME_THRESHOLD;
            (kind == terms.by_time && time <= terms.lock_time_max).then_some(u32::MAX - 1)
        }
        Lock::Csv(least) => {
            let kind = least & SEQUENCE_TIME;
            let max = relative_max(draft, coin, kind != 0);
            (relative && least & 0xffff <= max).then_some(kind | max | unused)
        }
        _ => Some(match draft.random.below(6) {
            0 => u32::MAX - 1,
            1 => SEQUENCE_OFF | (draft.random.next() >> 33) as u32,
            2 | 3 if relative => {
                let kind = [0, SEQUENCE_TIME][draft.random.below(2)];
                kind | relative_max(draft, coin, kind != 0) | unused
            }
            2 | 3 => (draft.random.next() >> 32) as u32,
            _ => u32::MAX,
        }),
    }
}

/// The largest relative lock time of the coin that has passed.
pub(crate) fn relative_max(draft: &Draft<'_>, coin: &Owned, by_time: bool) -> u32 {
    let passed = if by_time {
        let from = draft.branch.median_time_past(coin.height.saturating_sub(1));
        (draft.median_time_past() - from) / 512
    } else {
        draft.height - coin.height
    };
    passed.min(0xffff)
}

type Outputs = (Vec<TxOut>, Vec<Option<(Lock, usize)>>);

/// Divides a value among random outputs and a fee.
fn outputs(draft: &mut Draft<'_>, total: Amount) -> Outputs {
    let fee = [0, 1, 1_000, draft.random.next() % 100_000][draft.random.below(4)];
    let mut rest = total.to_sat() - fee.min(total.to_sat());
    let count = match draft.random.below(60) {
        0 => 150,
        1..20 => 1,
        20..40 => 2,
        _ => 3 + draft.random.below(3),
    };
    let (mut outputs, mut locks) = (Vec::new(), Vec::new());
    for left in (0..count).rev() {
        let share = draft.random.next() % (2 * rest / (left as u64 + 2) + 1);
        let value = if left == 0 { rest } else { share };
        rest -= value;
        let (script_pubkey, lock) = output_script(draft);
        outputs.push(TxOut { value: Amount::from_sat(value), script_pubkey });
        locks.push(lock);
    }
    (outputs, locks)
}

fn output_script(draft: &mut Draft<'_>) -> (ScriptBuf, Option<(Lock, usize)>) {
    let (height, time) = (draft.height, draft.median_time_past());
    let random = &mut draft.random;
    let lock = match random.below(100) {
        0..3 => Lock::Cltv(1 + below(random, height + 1)),
        3..6 => Lock::Cltv(time - 1_000 + below(random, 2_000)),
        6..9 => Lock::Csv(below(random, 4)),
        9..12 => Lock::Csv(SEQUENCE_TIME | below(random, 4)),
        12..16 => {
            let len = random.below(80);
            return (data_output(&random.bytes(len)), None);
        }
        // The longest script that can be a coin, and one that cannot.
        16 if random.one_in(8) => return (vec![0x61; 10_000 + random.below(2)].into(), None),
        17 => return (random_script(random), None),
        _ => PLAIN[random.below(PLAIN.len())],
    };
    let key = random.below(KEYS);
    (draft.wallet.script_pubkey(lock, key), Some((lock, key)))
}

/// A script that may be anything: coins are stored compressed, and come back as they were.
fn random_script(random: &mut Random) -> ScriptBuf {
    let len = random.below(70);
    let mut bytes = random.bytes(len);
    // What looks like a pay-to-key script and has no point behind it.
    match random.below(4) {
        0 => bytes = [&[0x21, 2], &random.bytes(32)[..], &[0xac]].concat(),
        1 => bytes = [&[0x41, 4], &random.bytes(64)[..], &[0xac]].concat(),
        _ => {}
    }
    // Operations that are counted as signature checks would fill the block.
    bytes.iter_mut().filter(|byte| (0xac..=0xaf).contains(*byte)).skip(1).for_each(|b| *b = 0x61);
    bytes.into()
}

/// Adds a transaction that fills the block with signature operations, and `beyond` more.
pub(crate) fn fill_sigops(draft: &mut Draft<'_>, beyond: usize) {
    let heavy = |coin: &Owned| matches!(coin.lock, Lock::P2shHeavy | Lock::P2wshHeavy);
    let Some(mut left) = SIGOPS_COST_MAX.checked_sub(draft.sigops_cost) else { return };
    let mut coins = Vec::new();
    while left > HEAVY_COST_MAX {
        let found = draft.branch.coins.iter().position(|c| heavy(c) && draft.is_mature(c));
        let Some(at) = found else { break };
        let coin = draft.branch.coins.swap_remove(at);
        left -= if coin.lock == Lock::P2shHeavy { HEAVY_COST_MAX } else { 3_800 };
        coins.push(coin);
    }
    let value = Amount::ZERO;
    let mut outputs = Vec::new();
    let mut count = left / 4 + beyond;
    while count > 0 {
        let len = count.min(9_000);
        outputs.push(TxOut { value, script_pubkey: vec![OP_CHECKSIG.to_u8(); len].into() });
        count -= len;
    }
    if coins.is_empty() {
        let anyone = |c: &Owned| c.lock == Lock::Anyone && draft.is_mature(c);
        let Some(at) = draft.branch.coins.iter().position(anyone) else { return };
        coins.push(draft.branch.coins.swap_remove(at));
    }
    let locks = vec![None; outputs.len()];
    let mut tx = unsigned(&coins, outputs);
    draft.wallet.sign(&mut tx, &coins, &mut draft.random);
    draft.push(tx, &coins, &locks);
}

/// What is never made is never compared.
#[test]
fn random_blocks_spend_every_kind_of_coin_at_every_edge() {
    let wallet = Wallet::new();
    let mut branch = Branch::genesis();
    let mut seen = std::collections::BTreeMap::<String, u32>::new();
    for seed in 0..500 {
        let draft = random_block(&branch, &wallet, seed);
        let mut see = |what: &str| *seen.entry(what.to_owned()).or_default() += 1;
        for coin in &draft.spent {
            match coin.lock {
                Lock::Cltv(time) if time < LOCKTIME_THRESHOLD => see("Cltv by height"),
                Lock::Cltv(_) => see("Cltv by time"),
                Lock::Csv(lock) if lock & SEQUENCE_TIME == 0 => see("Csv by height"),
                Lock::Csv(_) => see("Csv by time"),
                lock => see(&format!("{lock:?}")),
            }
            if coin.coinbase && coin.height + MATURITY == draft.height {
                see("coinbase that is just mature");
            }
            if coin.height == draft.height {
                see("coin of the same block");
            }
        }
        let last = LockTime::from_consensus(draft.median_time_past() - 1);
        for tx in &draft.block.txdata[1..] {
            let rules = [
                (tx.input.len() >= 50, "50 inputs"),
                (tx.output.len() >= 150, "150 outputs"),
                (tx.lock_time == last, "lock time just passed"),
                (tx.lock_time.to_consensus_u32() == draft.height - 1, "lock height just passed"),
            ];
            rules.iter().filter(|(is, _)| *is).for_each(|(_, what)| see(what));
        }
        if draft.sigops_cost > SIGOPS_COST_MAX - 4 {
            see("all signature operations");
        }
        branch = draft.into_branch();
    }
    let kinds = PLAIN.len() + 4 + 2 + 4 + 1;
    assert!(seen.len() == kinds && seen.values().all(|&times| times >= 5), "{kinds}: {seen:#?}");
}
