//! Faults of a block as a whole: `CheckBlock`, `ContextualCheckBlock`, and those of its descent.

use bitcoin::absolute::LockTime;
use bitcoin::consensus::{Encodable as _, serialize};
use bitcoin::hashes::{Hash as _, sha256d};
use bitcoin::opcodes::all::{OP_CHECKSIG, OP_RETURN};
use bitcoin::script::Builder;
use bitcoin::{Amount, ScriptBuf, Sequence, Transaction, TxMerkleNode, TxOut, Txid, Witness};

use crate::draft::{COMMITMENT_PREFIX, Draft, set_merkle_root, solve};
use crate::wallet::{Lock, push_bytes};

pub(super) fn merkle_root(draft: &mut Draft<'_>) -> Option<()> {
    draft.block.header.merkle_root = TxMerkleNode::from_byte_array([7; 32]);
    solve(&mut draft.block);
    Some(())
}

/// The transactions of a mined block change: its header is fine.
pub(super) fn transaction_left_out(draft: &mut Draft<'_>) -> Option<()> {
    draft.block.txdata.pop();
    Some(())
}

/// CVE-2012-2459: the last of an odd number twice, for the same root.
pub(super) fn duplicate_transaction(draft: &mut Draft<'_>) -> Option<()> {
    while draft.block.txdata.len() < 3 || draft.block.txdata.len().is_multiple_of(2) {
        add_payment(draft)?;
    }
    draft.seal();
    let last = draft.block.txdata.last()?.clone();
    draft.block.txdata.push(last);
    Some(())
}

/// Adds a valid transaction.
pub(super) fn add_payment(draft: &mut Draft<'_>) -> Option<()> {
    let coin = draft.take(Lock::Anyone)?;
    let coins = [coin];
    let tx = draft.spend(&coins);
    draft.push(tx, &coins, &[Some((Lock::Anyone, 0))]);
    Some(())
}

pub(super) fn no_transactions(draft: &mut Draft<'_>) -> Option<()> {
    draft.block.txdata.clear();
    draft.mine();
    Some(())
}

/// 1,000,001 bytes without witnesses.
pub(super) fn too_long(draft: &mut Draft<'_>) -> Option<()> {
    pad_to(draft, 1_000_001)
}

/// A transaction that is too long for any block, so that its block is found too long first.
pub(super) fn oversize_transaction(draft: &mut Draft<'_>) -> Option<()> {
    let output = TxOut { value: Amount::ZERO, script_pubkey: vec![0x6a; 1_000_001].into() };
    let coins = [draft.take(Lock::Anyone)?];
    let mut tx = draft.spend(&coins);
    tx.output.push(output);
    draft.push(tx, &coins, &[]);
    draft.seal();
    Some(())
}

/// As long as a block may be: it has no witness.
pub(super) fn just_short_enough(draft: &mut Draft<'_>) -> Option<()> {
    coinbase_alone(draft);
    draft.block.txdata[0].input[0].witness = Witness::new();
    pad_to(draft, 1_000_000)
}

/// Pads the coinbase with an output that is no coin until the block without witnesses has `len`
/// bytes.
fn pad_to(draft: &mut Draft<'_>, len: usize) -> Option<()> {
    let output = TxOut { value: Amount::ZERO, script_pubkey: vec![0x6a; 500_000].into() };
    draft.block.txdata[0].output.insert(0, output);
    let base: usize = draft.block.txdata.iter().map(Transaction::base_size).sum();
    // The header and the count of fewer than 253 transactions.
    let missing = len.checked_sub(base + 80 + 1)?;
    let padding = vec![0x6a; 500_000 + missing];
    draft.block.txdata[0].output[0].script_pubkey = ScriptBuf::from_bytes(padding);
    draft.seal();
    Some(())
}

pub(super) fn no_coinbase(draft: &mut Draft<'_>) -> Option<()> {
    add_payment(draft)?;
    draft.block.txdata.remove(0);
    draft.mine();
    Some(())
}

pub(super) fn coinbase_second(draft: &mut Draft<'_>) -> Option<()> {
    add_payment(draft)?;
    draft.block.txdata.swap(0, 1);
    draft.mine();
    Some(())
}

pub(super) fn two_coinbases(draft: &mut Draft<'_>) -> Option<()> {
    let mut second = draft.block.txdata[0].clone();
    second.output.truncate(1);
    second.input[0].witness = Witness::new();
    draft.block.txdata.push(second);
    draft.seal();
    Some(())
}

/// 20,001 signature operations in outputs.
pub(super) fn sigops(draft: &mut Draft<'_>) -> Option<()> {
    let coins = [draft.take(Lock::Anyone)?];
    let mut tx = draft.spend(&coins);
    let script_pubkey = vec![OP_CHECKSIG.to_u8(); 20_001].into();
    tx.output.push(TxOut { value: Amount::ZERO, script_pubkey });
    draft.push(tx, &coins, &[]);
    draft.seal();
    Some(())
}

fn coinbase_script(draft: &mut Draft<'_>, script_sig: ScriptBuf) -> Option<()> {
    draft.block.txdata[0].input[0].script_sig = script_sig;
    draft.seal();
    Some(())
}

/// The height alone: two bytes at least, from height 17 on.
pub(super) fn shortest_coinbase_script(draft: &mut Draft<'_>) -> Option<()> {
    let script = Builder::new().push_int(i64::from(draft.height)).into_script();
    coinbase_script(draft, script)
}

pub(super) fn one_byte_coinbase_script(draft: &mut Draft<'_>) -> Option<()> {
    coinbase_script(draft, vec![0x51].into())
}

pub(super) fn longest_coinbase_script(draft: &mut Draft<'_>) -> Option<()> {
    long_coinbase_script(draft, 100)
}

pub(super) fn too_long_coinbase_script(draft: &mut Draft<'_>) -> Option<()> {
    long_coinbase_script(draft, 101)
}

fn long_coinbase_script(draft: &mut Draft<'_>, len: usize) -> Option<()> {
    let mut script = Builder::new().push_int(i64::from(draft.height)).into_bytes();
    script.resize(len, 0x61);
    coinbase_script(draft, script.into())
}

pub(super) fn other_height(draft: &mut Draft<'_>) -> Option<()> {
    let script = Builder::new().push_int(i64::from(draft.height) + 1).push_int(0).into_script();
    coinbase_script(draft, script)
}

/// The right height with a zero byte that it does not need.
pub(super) fn padded_height(draft: &mut Draft<'_>) -> Option<()> {
    let [low, high, ..] = draft.height.to_le_bytes();
    let script = Builder::new().push_slice(push_bytes(&[low, high, 0])).into_script();
    coinbase_script(draft, script)
}

/// The right height, pushed by `OP_PUSHDATA1`.
pub(super) fn height_in_other_push(draft: &mut Draft<'_>) -> Option<()> {
    let push = Builder::new().push_int(i64::from(draft.height)).into_bytes();
    coinbase_script(draft, [&[0x4c], &push[..]].concat().into())
}

fn lock_time(draft: &mut Draft<'_>, lock_time: u32) -> Option<()> {
    let coins = [draft.take(Lock::Anyone)?];
    let mut tx = draft.spend(&coins);
    tx.input[0].sequence = Sequence::from_consensus(u32::MAX - 1);
    tx.lock_time = LockTime::from_consensus(lock_time);
    draft.push(tx, &coins, &[]);
    draft.seal();
    Some(())
}

pub(super) fn lock_height(draft: &mut Draft<'_>) -> Option<()> {
    lock_time(draft, draft.height)
}

pub(super) fn lock_time_of_median(draft: &mut Draft<'_>) -> Option<()> {
    lock_time(draft, draft.median_time_past())
}

/// The coinbase, too, has a lock time, and its sequence does not switch it off.
pub(super) fn locked_coinbase(draft: &mut Draft<'_>) -> Option<()> {
    draft.block.txdata[0].lock_time = LockTime::from_consensus(draft.height);
    draft.block.txdata[0].input[0].sequence = Sequence::ZERO;
    draft.seal();
    Some(())
}

/// The witness of a coinbase that has a commitment.
fn reserved_value(draft: &mut Draft<'_>, items: &[Vec<u8>]) -> Option<()> {
    draft.block.txdata[0].input[0].witness = Witness::from_slice(items);
    Some(())
}

pub(super) fn no_reserved_value(draft: &mut Draft<'_>) -> Option<()> {
    reserved_value(draft, &[])
}

pub(super) fn short_reserved_value(draft: &mut Draft<'_>) -> Option<()> {
    reserved_value(draft, &[vec![0; 31]])
}

pub(super) fn two_reserved_values(draft: &mut Draft<'_>) -> Option<()> {
    let value = draft.block.txdata[0].input[0].witness.nth(0)?.to_vec();
    reserved_value(draft, &[value, vec![0; 32]])
}

pub(super) fn other_reserved_value(draft: &mut Draft<'_>) -> Option<()> {
    reserved_value(draft, &[vec![9; 32]])
}

/// Another witness than the one committed to; ids and header are the same.
pub(super) fn other_witness(draft: &mut Draft<'_>) -> Option<()> {
    let mut inputs = draft.block.txdata.iter_mut().skip(1).flat_map(|tx| &mut tx.input);
    inputs.find(|input| !input.witness.is_empty())?.witness.push([1]);
    Some(())
}

pub(super) fn witness_left_out(draft: &mut Draft<'_>) -> Option<()> {
    let mut inputs = draft.block.txdata.iter_mut().skip(1).flat_map(|tx| &mut tx.input);
    inputs.find(|input| !input.witness.is_empty())?.witness = Witness::new();
    Some(())
}

/// The last output that looks like a commitment is the one.
pub(super) fn commitment_after_the_right_one(draft: &mut Draft<'_>) -> Option<()> {
    let script_pubkey = [&COMMITMENT_PREFIX[..], &[0; 32]].concat().into();
    draft.block.txdata[0].output.push(TxOut { value: Amount::ZERO, script_pubkey });
    draft.mine();
    Some(())
}

/// More bytes may follow a commitment.
pub(super) fn long_commitment(draft: &mut Draft<'_>) -> Option<()> {
    let is_commitment =
        |output: &&mut TxOut| output.script_pubkey.as_bytes().starts_with(&COMMITMENT_PREFIX);
    let output = draft.block.txdata[0].output.iter_mut().rev().find(is_commitment)?;
    output.script_pubkey = [output.script_pubkey.as_bytes(), &[1, 2, 3]].concat().into();
    draft.mine();
    Some(())
}

fn remove_commitments(draft: &mut Draft<'_>) {
    let is_commitment =
        |output: &TxOut| output.script_pubkey.as_bytes().starts_with(&COMMITMENT_PREFIX);
    draft.block.txdata[0].output.retain(|output| !is_commitment(output));
}

pub(super) fn no_commitment(draft: &mut Draft<'_>) -> Option<()> {
    remove_commitments(draft);
    draft.block.txdata[0].input[0].witness = Witness::new();
    draft.mine();
    Some(())
}

pub(super) fn witness_of_coinbase_alone(draft: &mut Draft<'_>) -> Option<()> {
    coinbase_alone(draft);
    draft.mine();
    Some(())
}

/// Leaves the coinbase, without commitment; it pays less than the subsidy.
pub(super) fn coinbase_alone(draft: &mut Draft<'_>) {
    remove_commitments(draft);
    draft.block.txdata.truncate(1);
    draft.block.txdata[0].output.iter_mut().for_each(|output| output.value = Amount::ONE_SAT);
}

/// 4,000,001 units of weight, most of it a witness.
pub(super) fn too_heavy(draft: &mut Draft<'_>) -> Option<()> {
    weigh(draft, 4_000_001)
}

pub(super) fn just_light_enough(draft: &mut Draft<'_>) -> Option<()> {
    weigh(draft, 4_000_000)
}

/// Brings the block to a weight by a witness in a program of a future version, which nobody reads.
fn weigh(draft: &mut Draft<'_>, weight: usize) -> Option<()> {
    let coins = [draft.take(Lock::Anyone)?];
    let mut fund = draft.spend(&coins);
    fund.output[0].script_pubkey = vec![0x52, 0x02, 7, 7].into();
    draft.push(fund, &coins, &[Some((Lock::Anyone, 0))]);
    let coins = [draft.created.pop()?];
    let mut tx = draft.spend(&coins);
    tx.input[0].witness = Witness::from_slice(&[vec![0; 100_000]]);
    draft.push(tx, &coins, &[]);
    let rest = weight.checked_sub(usize::try_from(draft.block.weight().to_wu()).ok()?)?;
    draft.block.txdata.last_mut()?.input[0].witness =
        Witness::from_slice(&[vec![0; 100_000 + rest]]);
    draft.seal();
    Some(())
}

/// A witness item of more than four megabytes: a block that can be read, and never fits.
pub(super) fn huge_witness_item(draft: &mut Draft<'_>) -> Option<Vec<u8>> {
    weigh(draft, 4_600_000)?;
    Some(serialize(&draft.block))
}

/// A transaction without inputs and outputs: `00 00` between version and lock time. One with
/// outputs cannot be written, for a count of no inputs is the mark of the extended format.
pub(super) fn empty_transaction(draft: &mut Draft<'_>) -> Option<Vec<u8>> {
    let empty = [2, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    with_second(draft, &empty, &empty)
}

/// The mark of the extended format, and no inputs that could have a witness.
pub(super) fn extended_without_inputs(draft: &mut Draft<'_>) -> Option<Vec<u8>> {
    let plain = [2, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    with_second(draft, &plain, &[2, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0])
}

/// A block of a coinbase and a second transaction, as it is hashed and as it is written.
fn with_second(draft: &mut Draft<'_>, hashed: &[u8], written: &[u8]) -> Option<Vec<u8>> {
    draft.block.txdata.truncate(1);
    let coinbase = &draft.block.txdata[0];
    let ids = [coinbase.compute_txid(), Txid::hash(hashed)];
    let root = sha256d::Hash::hash(&ids.map(Txid::to_byte_array).concat());
    draft.block.header.merkle_root = TxMerkleNode::from_byte_array(root.to_byte_array());
    solve(&mut draft.block);
    let mut raw = serialize(&draft.block.header);
    raw.push(2);
    draft.block.txdata[0].consensus_encode(&mut raw).ok()?;
    raw.extend_from_slice(written);
    Some(raw)
}

pub(super) fn bytes_after_the_end(draft: &mut Draft<'_>) -> Option<Vec<u8>> {
    Some([serialize(&draft.block), vec![0]].concat())
}

pub(super) fn byte_missing(draft: &mut Draft<'_>) -> Option<Vec<u8>> {
    let mut raw = serialize(&draft.block);
    raw.pop();
    Some(raw)
}

/// The count of transactions in three bytes instead of one.
pub(super) fn long_count(draft: &mut Draft<'_>) -> Option<Vec<u8>> {
    let raw = serialize(&draft.block);
    Some([&raw[..80], &[253, raw[80], 0], &raw[81..]].concat())
}

/// The mark of the extended format, and no witness.
pub(super) fn superfluous_witness_mark(draft: &mut Draft<'_>) -> Option<Vec<u8>> {
    coinbase_alone(draft);
    draft.block.txdata[0].input[0].witness = Witness::new();
    draft.mine();
    let raw = serialize(&draft.block);
    // The header, the count, the version; then the mark; then no items for the only input.
    let (front, rest) = raw.split_at(80 + 1 + 4);
    let (middle, lock_time) = rest.split_at(rest.len() - 4);
    Some([front, &[0, 1], middle, &[0], lock_time].concat())
}

/// A block that fails when it is connected, twice.
pub(super) fn known_invalid(draft: &mut Draft<'_>) -> Option<Vec<Vec<u8>>> {
    super::coins::greedy_coinbase(draft)?;
    let raw = serialize(&draft.block);
    Some(vec![raw.clone(), raw])
}

/// The same for one that fails before its transactions are looked up.
pub(super) fn known_without_height(draft: &mut Draft<'_>) -> Option<Vec<Vec<u8>>> {
    other_height(draft)?;
    let raw = serialize(&draft.block);
    Some(vec![raw.clone(), raw])
}

pub(super) fn child_of_invalid(draft: &mut Draft<'_>) -> Option<Vec<Vec<u8>>> {
    super::coins::greedy_coinbase(draft)?;
    with_child(draft)
}

pub(super) fn child_of_wrong_height(draft: &mut Draft<'_>) -> Option<Vec<Vec<u8>>> {
    other_height(draft)?;
    with_child(draft)
}

fn with_child(draft: &Draft<'_>) -> Option<Vec<Vec<u8>>> {
    let raw = serialize(&draft.block);
    let branch = draft.clone().into_branch();
    let mut child = Draft::new(&branch, draft.wallet, 7);
    child.finish();
    Some(vec![raw, serialize(&child.block)])
}

/// Rebuilds what only a merkle root of all transactions gives.
pub(super) fn reordered(draft: &mut Draft<'_>) -> Option<()> {
    add_payment(draft)?;
    add_payment(draft)?;
    draft.seal();
    let last = draft.block.txdata.len() - 1;
    draft.block.txdata.swap(last - 1, last);
    let mined = draft.block.header;
    set_merkle_root(&mut draft.block);
    assert_ne!(mined.merkle_root, draft.block.header.merkle_root);
    draft.block.header = mined;
    Some(())
}

/// An output script of an operation that ends it: the shortest that is no coin.
pub(super) fn short_data_output(draft: &mut Draft<'_>) -> Option<()> {
    let script_pubkey = vec![OP_RETURN.to_u8()].into();
    draft.block.txdata[0].output.insert(0, TxOut { value: Amount::ZERO, script_pubkey });
    draft.seal();
    Some(())
}
