//! Faults of scripts, for each flag of the interpreter that a soft fork has switched on, and
//! scripts that look wrong and are right.

use bitcoin::absolute::LockTime;
use bitcoin::opcodes::OP_0;
use bitcoin::opcodes::all::{
    OP_CHECKMULTISIG, OP_CHECKSIG, OP_CLTV, OP_CSV, OP_DROP, OP_ENDIF, OP_IF, OP_PUSHNUM_1,
};
use bitcoin::script::Builder;
use bitcoin::taproot::LeafVersion;
use bitcoin::transaction::Version;
use bitcoin::{ScriptBuf, Sequence, Transaction, Witness};

use crate::draft::Draft;
use crate::wallet::{Lock, push_bytes, pushes};

/// Adds a transaction that pays to `script_pubkey` and one that spends it, changed by `change`.
fn through(
    draft: &mut Draft<'_>,
    script_pubkey: ScriptBuf,
    change: impl FnOnce(&mut Transaction),
) -> Option<()> {
    let coins = [draft.take(Lock::Anyone)?];
    let mut fund = draft.spend(&coins);
    fund.output[0].script_pubkey = script_pubkey;
    draft.push(fund, &coins, &[Some((Lock::Anyone, 0))]);
    let coins = [draft.created.pop()?];
    let mut tx = draft.spend(&coins);
    change(&mut tx);
    draft.push(tx, &coins, &[]);
    draft.seal();
    Some(())
}

/// Adds a signed transaction that spends a coin of the wallet, changed by `change`.
fn signed(draft: &mut Draft<'_>, lock: Lock, change: impl FnOnce(&mut Transaction)) -> Option<()> {
    let coins = [draft.take(lock)?];
    let mut tx = draft.spend(&coins);
    change(&mut tx);
    draft.push(tx, &coins, &[]);
    draft.seal();
    Some(())
}

/// Changes a witness item.
fn change_item(tx: &mut Transaction, item: usize, change: impl FnOnce(&mut Vec<u8>)) {
    let mut items = tx.input[0].witness.to_vec();
    change(&mut items[item]);
    tx.input[0].witness = Witness::from_slice(&items);
}

/// The last byte of a signature's second number: its form stays right.
fn flip_before_last(bytes: &mut [u8]) {
    let at = bytes.len() - 2;
    bytes[at] ^= 1;
}

pub(super) fn signature(draft: &mut Draft<'_>) -> Option<()> {
    signed(draft, Lock::P2pk, |tx| {
        let mut script = tx.input[0].script_sig.to_bytes();
        flip_before_last(&mut script);
        tx.input[0].script_sig = script.into();
    })
}

pub(super) fn signature_left_out(draft: &mut Draft<'_>) -> Option<()> {
    signed(draft, Lock::P2pkh, |tx| tx.input[0].script_sig = ScriptBuf::new())
}

pub(super) fn redeem_script_is_false(draft: &mut Draft<'_>) -> Option<()> {
    let redeem = Builder::new().push_opcode(OP_0).into_script();
    let script_sig = pushes(&[redeem.as_bytes()]);
    through(draft, redeem.to_p2sh(), |tx| tx.input[0].script_sig = script_sig)
}

pub(super) fn redeem_script_by_more_than_pushes(draft: &mut Draft<'_>) -> Option<()> {
    let redeem = Builder::new().push_opcode(OP_PUSHNUM_1).into_script();
    let script_sig = [&[0x61], pushes(&[redeem.as_bytes()]).as_bytes()].concat();
    through(draft, redeem.to_p2sh(), |tx| tx.input[0].script_sig = script_sig.into())
}

/// A first number with a byte of zero too many: fine before BIP66.
pub(super) fn padded_signature(draft: &mut Draft<'_>) -> Option<()> {
    signed(draft, Lock::P2pk, |tx| {
        let mut script = tx.input[0].script_sig.to_bytes();
        // The push, 0x30, the length, 0x02, the first number's length, the number.
        script[0] += 1;
        script[2] += 1;
        script[4] += 1;
        script.insert(5, 0);
        tx.input[0].script_sig = script.into();
    })
}

/// `lock`, `op`, and true, spent with `change`.
fn locked(
    draft: &mut Draft<'_>,
    op: bitcoin::Opcode,
    lock: i64,
    change: impl FnOnce(&mut Transaction),
) -> Option<()> {
    let builder = Builder::new().push_int(lock).push_opcode(op).push_opcode(OP_DROP);
    through(draft, builder.push_opcode(OP_PUSHNUM_1).into_script(), change)
}

fn lock_time(lock_time: u32, sequence: u32) -> impl FnOnce(&mut Transaction) {
    move |tx| {
        tx.lock_time = LockTime::from_consensus(lock_time);
        tx.input[0].sequence = Sequence::from_consensus(sequence);
    }
}

pub(super) fn lock_time_later(draft: &mut Draft<'_>) -> Option<()> {
    let height = draft.height - 1;
    locked(draft, OP_CLTV, i64::from(height) + 1, lock_time(height, 0xffff_fffe))
}

pub(super) fn lock_time_reached(draft: &mut Draft<'_>) -> Option<()> {
    let height = draft.height - 1;
    locked(draft, OP_CLTV, i64::from(height), lock_time(height, 0xffff_fffe))
}

pub(super) fn lock_time_switched_off(draft: &mut Draft<'_>) -> Option<()> {
    locked(draft, OP_CLTV, 1, lock_time(1, u32::MAX))
}

pub(super) fn lock_time_of_other_kind(draft: &mut Draft<'_>) -> Option<()> {
    let time = draft.median_time_past() - 1;
    locked(draft, OP_CLTV, 1, lock_time(time, 0))
}

pub(super) fn lock_time_negative(draft: &mut Draft<'_>) -> Option<()> {
    locked(draft, OP_CLTV, -1, lock_time(1, 0))
}

pub(super) fn sequence_too_low(draft: &mut Draft<'_>) -> Option<()> {
    locked(draft, OP_CSV, 1, lock_time(0, 0))
}

pub(super) fn sequence_high_enough(draft: &mut Draft<'_>) -> Option<()> {
    locked(draft, OP_CSV, 0, lock_time(0, 0))
}

pub(super) fn sequence_switched_off(draft: &mut Draft<'_>) -> Option<()> {
    locked(draft, OP_CSV, 0, lock_time(0, u32::MAX))
}

pub(super) fn sequence_of_other_kind(draft: &mut Draft<'_>) -> Option<()> {
    locked(draft, OP_CSV, 1 << 22, lock_time(0, 0))
}

pub(super) fn sequence_of_version_1(draft: &mut Draft<'_>) -> Option<()> {
    locked(draft, OP_CSV, 0, |tx| {
        tx.version = Version::ONE;
        tx.input[0].sequence = Sequence::ZERO;
    })
}

/// A required sequence with the bit that switches it off.
pub(super) fn sequence_not_required(draft: &mut Draft<'_>) -> Option<()> {
    locked(draft, OP_CSV, 1 << 31, lock_time(0, u32::MAX))
}

pub(super) fn dummy_not_empty(draft: &mut Draft<'_>) -> Option<()> {
    signed(draft, Lock::Multisig, |tx| {
        let script = tx.input[0].script_sig.as_bytes();
        tx.input[0].script_sig = [&[OP_PUSHNUM_1.to_u8()], &script[1..]].concat().into();
    })
}

pub(super) fn witness_signature(draft: &mut Draft<'_>) -> Option<()> {
    signed(draft, Lock::P2wpkh, |tx| change_item(tx, 0, |item| flip_before_last(item)))
}

pub(super) fn nested_witness_signature(draft: &mut Draft<'_>) -> Option<()> {
    signed(draft, Lock::P2shP2wpkh, |tx| change_item(tx, 0, |item| flip_before_last(item)))
}

pub(super) fn witness_missing(draft: &mut Draft<'_>) -> Option<()> {
    signed(draft, Lock::P2wpkh, |tx| tx.input[0].witness = Witness::new())
}

pub(super) fn other_witness_script(draft: &mut Draft<'_>) -> Option<()> {
    signed(draft, Lock::P2wshMultisig, |tx| change_item(tx, 3, |item| item.push(0x61)))
}

pub(super) fn script_sig_of_witness_program(draft: &mut Draft<'_>) -> Option<()> {
    signed(draft, Lock::P2wpkh, |tx| tx.input[0].script_sig = vec![0x51].into())
}

pub(super) fn script_sig_of_nested_program(draft: &mut Draft<'_>) -> Option<()> {
    signed(draft, Lock::P2shP2wsh, |tx| {
        let script = tx.input[0].script_sig.as_bytes();
        tx.input[0].script_sig = [&[0x51], script].concat().into();
    })
}

pub(super) fn witness_not_asked_for(draft: &mut Draft<'_>) -> Option<()> {
    signed(draft, Lock::P2pkh, |tx| tx.input[0].witness.push([1]))
}

pub(super) fn witness_program_of_3_bytes(draft: &mut Draft<'_>) -> Option<()> {
    through(draft, vec![0x00, 0x03, 1, 2, 3].into(), |_| {})
}

/// Spends P2WSH with `items` before the script.
fn witness_script(draft: &mut Draft<'_>, script: Builder, items: &[Vec<u8>]) -> Option<()> {
    let script = script.into_script();
    let items = [items, &[script.to_bytes()]].concat();
    through(draft, script.to_p2wsh(), |tx| tx.input[0].witness = Witness::from_slice(&items))
}

pub(super) fn witness_leaves_two_items(draft: &mut Draft<'_>) -> Option<()> {
    let script = Builder::new().push_opcode(OP_PUSHNUM_1);
    witness_script(draft, script, &[vec![1]])
}

pub(super) fn witness_item_of_521_bytes(draft: &mut Draft<'_>) -> Option<()> {
    let script = Builder::new().push_opcode(OP_DROP).push_opcode(OP_PUSHNUM_1);
    witness_script(draft, script, &[vec![1; 521]])
}

pub(super) fn witness_item_of_520_bytes(draft: &mut Draft<'_>) -> Option<()> {
    let script = Builder::new().push_opcode(OP_DROP).push_opcode(OP_PUSHNUM_1);
    witness_script(draft, script, &[vec![1; 520]])
}

pub(super) fn taproot_signature(draft: &mut Draft<'_>) -> Option<()> {
    signed(draft, Lock::P2trKey, |tx| change_item(tx, 0, |item| item[40] ^= 1))
}

/// The default type has no byte.
pub(super) fn taproot_default_type_written(draft: &mut Draft<'_>) -> Option<()> {
    signed(draft, Lock::P2trKey, |tx| {
        change_item(tx, 0, |item| {
            item.truncate(64);
            item.push(0);
        });
    })
}

pub(super) fn taproot_unknown_type(draft: &mut Draft<'_>) -> Option<()> {
    signed(draft, Lock::P2trKey, |tx| {
        change_item(tx, 0, |item| {
            item.truncate(64);
            item.push(4);
        });
    })
}

pub(super) fn taproot_witness_missing(draft: &mut Draft<'_>) -> Option<()> {
    signed(draft, Lock::P2trKey, |tx| tx.input[0].witness = Witness::new())
}

pub(super) fn taproot_control_block(draft: &mut Draft<'_>) -> Option<()> {
    signed(draft, Lock::P2trScript, |tx| change_item(tx, 2, |item| item[0] ^= 1))
}

pub(super) fn taproot_control_block_length(draft: &mut Draft<'_>) -> Option<()> {
    signed(draft, Lock::P2trScript, |tx| change_item(tx, 2, |item| item.push(0)))
}

pub(super) fn taproot_script_signature(draft: &mut Draft<'_>) -> Option<()> {
    signed(draft, Lock::P2trScript, |tx| change_item(tx, 0, |item| item[40] ^= 1))
}

/// Spends an output with one leaf by `items`.
fn leaf(draft: &mut Draft<'_>, script: ScriptBuf, version: u8, items: &[Vec<u8>]) -> Option<()> {
    let version = LeafVersion::from_consensus(version).ok()?;
    let (script_pubkey, control) = draft.wallet.leaf_output(&script, version);
    let items = [items, &[script.to_bytes(), control]].concat();
    through(draft, script_pubkey, |tx| tx.input[0].witness = Witness::from_slice(&items))
}

const TAPSCRIPT: u8 = 0xc0;

pub(super) fn tapscript_if_of_2(draft: &mut Draft<'_>) -> Option<()> {
    let script = Builder::new().push_opcode(OP_IF).push_opcode(OP_ENDIF);
    let script = script.push_opcode(OP_PUSHNUM_1).into_script();
    leaf(draft, script, TAPSCRIPT, &[vec![2]])
}

pub(super) fn tapscript_multisig(draft: &mut Draft<'_>) -> Option<()> {
    let script = Builder::new().push_int(0).push_int(0).push_int(0);
    leaf(draft, script.push_opcode(OP_CHECKMULTISIG).into_script(), TAPSCRIPT, &[])
}

pub(super) fn tapscript_empty_key(draft: &mut Draft<'_>) -> Option<()> {
    let script = Builder::new().push_int(0).push_opcode(OP_CHECKSIG).into_script();
    leaf(draft, script, TAPSCRIPT, &[vec![1]])
}

/// More checks of signatures than the witness pays for.
pub(super) fn tapscript_sigops(draft: &mut Draft<'_>) -> Option<()> {
    // A key of an unknown kind: any signature is fine, and counts.
    let check = |builder: Builder| {
        builder
            .push_slice(push_bytes(&[1]))
            .push_slice(push_bytes(&[9; 33]))
            .push_opcode(OP_CHECKSIG)
            .push_opcode(OP_DROP)
    };
    let script = (0..60).fold(Builder::new(), |builder, _| check(builder));
    // 60 times 38 bytes allow for 46 checks and one more.
    leaf(draft, script.push_opcode(OP_PUSHNUM_1).into_script(), TAPSCRIPT, &[])
}

pub(super) fn tapscript_unknown_key(draft: &mut Draft<'_>) -> Option<()> {
    let script = Builder::new().push_slice(push_bytes(&[9; 33])).push_opcode(OP_CHECKSIG);
    leaf(draft, script.into_script(), TAPSCRIPT, &[vec![1]])
}

/// An operation for a later soft fork: whatever else there is.
pub(super) fn tapscript_success(draft: &mut Draft<'_>) -> Option<()> {
    leaf(draft, vec![0x00, 0x69, 0x50].into(), TAPSCRIPT, &[])
}

pub(super) fn unknown_leaf_version(draft: &mut Draft<'_>) -> Option<()> {
    leaf(draft, vec![0x00].into(), 0xc2, &[])
}

pub(super) fn annex(draft: &mut Draft<'_>) -> Option<()> {
    let version = LeafVersion::from_consensus(0xc4).ok()?;
    let script = ScriptBuf::from_bytes(vec![0x00]);
    let (script_pubkey, control) = draft.wallet.leaf_output(&script, version);
    let items = [script.to_bytes(), control, vec![0x50, 1, 2, 3]];
    through(draft, script_pubkey, |tx| tx.input[0].witness = Witness::from_slice(&items))
}

pub(super) fn future_witness_version(draft: &mut Draft<'_>) -> Option<()> {
    let script = [&[0x60, 40], &[7; 40][..]].concat();
    through(draft, script.into(), |tx| tx.input[0].witness.push([7; 1_000]))
}

pub(super) fn future_version_with_script_sig(draft: &mut Draft<'_>) -> Option<()> {
    let script = [&[0x60, 40], &[7; 40][..]].concat();
    through(draft, script.into(), |tx| tx.input[0].script_sig = vec![0x51].into())
}

/// Taproot's version with another length is free for a later soft fork.
pub(super) fn version_1_of_33_bytes(draft: &mut Draft<'_>) -> Option<()> {
    through(draft, [&[0x51, 33], &[7; 33][..]].concat().into(), |_| {})
}

/// So is taproot's program within P2SH.
pub(super) fn nested_taproot(draft: &mut Draft<'_>) -> Option<()> {
    let program = ScriptBuf::from_bytes([&[0x51, 32], &[7; 32][..]].concat());
    let script_sig = pushes(&[program.as_bytes()]);
    through(draft, program.to_p2sh(), |tx| tx.input[0].script_sig = script_sig)
}

pub(super) fn pay_to_anchor(draft: &mut Draft<'_>) -> Option<()> {
    through(draft, vec![0x51, 0x02, 0x4e, 0x73].into(), |_| {})
}

pub(super) fn disabled_operation(draft: &mut Draft<'_>) -> Option<()> {
    // OP_CAT, where it is not even run.
    through(draft, vec![0x00, 0x63, 0x7e, 0x68, 0x51].into(), |_| {})
}

pub(super) fn reserved_operation_not_run(draft: &mut Draft<'_>) -> Option<()> {
    // OP_RESERVED.
    through(draft, vec![0x00, 0x63, 0x50, 0x68, 0x51].into(), |_| {})
}
