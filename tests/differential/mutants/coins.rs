//! Faults that show against the coins: `CheckTxInputs` and `ConnectBlock` without the scripts.

use bitcoin::hashes::Hash as _;
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, Sequence, Txid, Witness};

use super::blocks::coinbase_alone;

use crate::draft::{Draft, MATURITY};
use crate::generator::{SEQUENCE_TIME, fill_sigops, relative_max};
use crate::wallet::{Lock, Owned, data_output};

/// Adds a transaction that spends `coins` whatever they are.
fn spend(draft: &mut Draft<'_>, coins: &[Owned]) -> Option<()> {
    let tx = draft.spend(coins);
    draft.push(tx, coins, &[Some((Lock::Anyone, 0))]);
    Some(())
}

pub(super) fn unknown_coin(draft: &mut Draft<'_>) -> Option<()> {
    let mut coin = draft.take(Lock::Anyone)?;
    coin.outpoint = OutPoint::new(Txid::hash(b"nothing"), 0);
    spend(draft, &[coin])?;
    draft.seal();
    Some(())
}

pub(super) fn unknown_output(draft: &mut Draft<'_>) -> Option<()> {
    let mut coin = draft.take(Lock::Anyone)?;
    coin.outpoint.vout = 1_000;
    spend(draft, &[coin])?;
    draft.seal();
    Some(())
}

pub(super) fn coin_spent_twice(draft: &mut Draft<'_>) -> Option<()> {
    let coin = draft.take(Lock::Anyone)?;
    spend(draft, std::slice::from_ref(&coin))?;
    let mut again = draft.spend(std::slice::from_ref(&coin));
    again.output[0].script_pubkey = vec![0x52].into();
    draft.push(again, &[coin], &[]);
    draft.seal();
    Some(())
}

/// A coin that an earlier block spent: one that the tip's transactions have as input.
pub(super) fn coin_spent_before(draft: &mut Draft<'_>) -> Option<()> {
    let spent = draft.branch.last_transactions.last()?.input[0].previous_output;
    let mut coin = draft.take(Lock::Anyone)?;
    coin.outpoint = spent;
    spend(draft, &[coin])?;
    draft.seal();
    Some(())
}

/// The spender stands before the transaction that makes its coin.
pub(super) fn spender_first(draft: &mut Draft<'_>) -> Option<()> {
    let coin = draft.take(Lock::Anyone)?;
    spend(draft, &[coin])?;
    let child = [draft.created.pop()?];
    spend(draft, &child)?;
    let last = draft.block.txdata.len() - 1;
    draft.block.txdata.swap(last - 1, last);
    draft.seal();
    Some(())
}

/// The coinbase of the block itself.
pub(super) fn own_coinbase(draft: &mut Draft<'_>) -> Option<()> {
    let coins = [draft.take(Lock::Anyone)?];
    let mut tx = draft.spend(&coins);
    // Without a commitment its id is that in the block, which has no witness.
    coinbase_alone(draft);
    draft.block.txdata[0].input[0].witness = Witness::new();
    tx.output[0].value = Amount::ONE_SAT;
    tx.input[0].previous_output = OutPoint::new(draft.block.txdata[0].compute_txid(), 0);
    draft.block.txdata.push(tx);
    draft.mine();
    Some(())
}

/// Data outputs are no coins.
pub(super) fn data_output_spent(draft: &mut Draft<'_>) -> Option<()> {
    let coins = [draft.take(Lock::Anyone)?];
    let mut tx = draft.spend(&coins);
    tx.output[0].script_pubkey = data_output(b"data");
    draft.push(tx, &coins, &[Some((Lock::Anyone, 0))]);
    let child = [draft.created.pop()?];
    spend(draft, &child)?;
    draft.seal();
    Some(())
}

/// Nor are outputs with a script that is too long to run.
pub(super) fn long_script_spent(draft: &mut Draft<'_>) -> Option<()> {
    long_script(draft, 10_001)
}

pub(super) fn longest_script_spent(draft: &mut Draft<'_>) -> Option<()> {
    long_script(draft, 10_000)
}

/// Spends an output whose script has `len` bytes, most of them data that are pushed and dropped.
fn long_script(draft: &mut Draft<'_>, len: usize) -> Option<()> {
    let coins = [draft.take(Lock::Anyone)?];
    let mut tx = draft.spend(&coins);
    // OP_PUSHDATA2 of 520 bytes and OP_DROP, over and over.
    let mut script = [&[0x4d, 0x08, 0x02], &[0; 520][..], &[0x75]].concat().repeat(19);
    script.resize(len, 0x51);
    // Only the last bytes are operations; few enough.
    let rest = len - 19 * 524;
    assert!(rest < 100 && script.len() == len);
    tx.output[0].script_pubkey = script.into();
    draft.push(tx, &coins, &[Some((Lock::Anyone, 0))]);
    let child = [draft.created.pop()?];
    spend(draft, &child)?;
    draft.seal();
    Some(())
}

/// A coinbase one block before its time.
pub(super) fn young_coinbase(draft: &mut Draft<'_>) -> Option<()> {
    coinbase_of(draft, MATURITY - 1)
}

/// And one that is just mature.
pub(super) fn mature_coinbase(draft: &mut Draft<'_>) -> Option<()> {
    coinbase_of(draft, MATURITY)
}

fn coinbase_of(draft: &mut Draft<'_>, depth: u32) -> Option<()> {
    let height = draft.height.checked_sub(depth)?;
    let found = draft.branch.coins.iter().position(|c| c.coinbase && c.height == height)?;
    let coin = draft.branch.coins.swap_remove(found);
    // Of P2SH and witness programs the sizes differ, not the rule.
    spend(draft, &[coin])?;
    draft.seal();
    Some(())
}

pub(super) fn output_above_input(draft: &mut Draft<'_>) -> Option<()> {
    let coins = [draft.take(Lock::Anyone)?];
    let mut tx = draft.spend(&coins);
    tx.output[0].value += Amount::ONE_SAT;
    draft.block.txdata.push(tx);
    draft.seal();
    Some(())
}

/// One satoshi more than subsidy and fees.
pub(super) fn greedy_coinbase(draft: &mut Draft<'_>) -> Option<()> {
    pay_coinbase(draft, 1)
}

/// All of it.
pub(super) fn full_coinbase(draft: &mut Draft<'_>) -> Option<()> {
    pay_coinbase(draft, 0)
}

fn pay_coinbase(draft: &mut Draft<'_>, beyond: u64) -> Option<()> {
    let outputs = &draft.block.txdata[0].output;
    let paid: u64 = outputs.iter().map(|output| output.value.to_sat()).sum();
    let more = Amount::from_sat(draft.reward().checked_sub(paid)? + beyond);
    draft.block.txdata[0].output[0].value += more;
    draft.seal();
    Some(())
}

/// A transaction of the block before, again: its outputs are there and unspent.
pub(super) fn overwritten_coin(draft: &mut Draft<'_>) -> Option<()> {
    let coins = &draft.branch.coins;
    let unspent = |tx: &&bitcoin::Transaction| {
        let txid = tx.compute_txid();
        coins.iter().any(|coin| coin.outpoint.txid == txid)
    };
    let tx = draft.branch.last_transactions.iter().find(unspent)?.clone();
    draft.block.txdata.push(tx);
    draft.seal();
    Some(())
}

/// Spends a coin with a relative lock time `beyond` what has passed.
fn relative(draft: &mut Draft<'_>, kind: u32, beyond: u32) -> Option<()> {
    let coin = draft.take(Lock::Anyone)?;
    let lock = relative_max(draft, &coin, kind != 0) + beyond;
    let coins = [coin];
    let mut tx = draft.spend(&coins);
    tx.version = Version::TWO;
    tx.input[0].sequence = Sequence::from_consensus(kind | lock);
    draft.push(tx, &coins, &[]);
    draft.seal();
    Some(())
}

pub(super) fn relative_height(draft: &mut Draft<'_>) -> Option<()> {
    relative(draft, 0, 1)
}

pub(super) fn relative_time(draft: &mut Draft<'_>) -> Option<()> {
    relative(draft, SEQUENCE_TIME, 1)
}

pub(super) fn reached_relative_height(draft: &mut Draft<'_>) -> Option<()> {
    relative(draft, 0, 0)
}

pub(super) fn reached_relative_time(draft: &mut Draft<'_>) -> Option<()> {
    relative(draft, SEQUENCE_TIME, 0)
}

/// A coin of the same block has no age.
pub(super) fn relative_height_in_block(draft: &mut Draft<'_>) -> Option<()> {
    let coin = draft.take(Lock::Anyone)?;
    spend(draft, &[coin])?;
    let coins = [draft.created.pop()?];
    let mut tx = draft.spend(&coins);
    tx.input[0].sequence = Sequence::from_consensus(1);
    draft.push(tx, &coins, &[]);
    draft.seal();
    Some(())
}

/// The version counts without its sign.
pub(super) fn relative_height_of_negative_version(draft: &mut Draft<'_>) -> Option<()> {
    relative(draft, 0, 1)?;
    draft.block.txdata.last_mut()?.version = Version(-1);
    draft.seal();
    Some(())
}

/// Version 1 has no relative lock times.
pub(super) fn relative_height_of_version_1(draft: &mut Draft<'_>) -> Option<()> {
    relative(draft, 0, 1)?;
    draft.block.txdata.last_mut()?.version = Version::ONE;
    draft.seal();
    Some(())
}

/// Few enough signature operations in outputs, too many with those of redeem scripts.
pub(super) fn sigops_of_redeem_scripts(draft: &mut Draft<'_>) -> Option<()> {
    heavy(draft, Lock::P2shHeavy, 1)
}

pub(super) fn sigops_of_witness_scripts(draft: &mut Draft<'_>) -> Option<()> {
    heavy(draft, Lock::P2wshHeavy, 1)
}

pub(super) fn just_few_enough_sigops(draft: &mut Draft<'_>) -> Option<()> {
    heavy(draft, Lock::P2shHeavy, 0)
}

fn heavy(draft: &mut Draft<'_>, lock: Lock, beyond: usize) -> Option<()> {
    let coin = draft.take(lock)?;
    let mut others = Vec::new();
    // Only this one, so that what is counted is known.
    draft.branch.coins.retain(|coin| {
        let keep = !matches!(coin.lock, Lock::P2shHeavy | Lock::P2wshHeavy);
        if !keep {
            others.push(coin.clone());
        }
        keep
    });
    draft.branch.coins.push(coin);
    fill_sigops(draft, beyond);
    draft.branch.coins.append(&mut others);
    draft.seal();
    Some(())
}
