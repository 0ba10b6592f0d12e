//! Rules that other implementations read otherwise than Bitcoin Core does, and split over.

use bitcoin::opcodes::all::{OP_CHECKSIG, OP_DROP};
use bitcoin::script::{Builder, PushBytesBuf};
use bitcoin::secp256k1::{PublicKey, Scalar, Secp256k1, SecretKey, constants};
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::transaction::Version;
use bitcoin::{Amount, Block, OutPoint, ScriptBuf, Sequence, Transaction, TxOut};
use cofferdam_ibd::testing::{ModelChain, transfer};
use cofferdam_storage::BackendKind;

use super::{anyones, give, invalid, with};

/// btcd read a transaction's version with its sign, and so took -1 for less than 2: no relative lock
/// times. They hold for all but versions 0 and 1 (BIP-0068).
#[test]
fn cve_2024_34478_a_negative_version_has_relative_lock_times() {
    let dir = tempfile::tempdir().expect("temporary");
    let (mut model, base) = ModelChain::funded(24);
    let mut chainstate = with(BackendKind::Memory, dir.path(), &base);
    let coin = model.spendable(true).swap_remove(0);
    let parent = transfer(std::slice::from_ref(&coin), vec![anyones(5000)]);
    let young = (OutPoint::new(parent.compute_txid(), 0), anyones(5000));
    let block = model.block(1, vec![parent]);
    give(&mut chainstate, std::slice::from_ref(&block));
    model.connect(&block);
    let with_version = |model: &ModelChain, version: i32, sequence: u32| -> Block {
        let mut tx = transfer(std::slice::from_ref(&young), vec![anyones(4000)]);
        tx.version = Version(version);
        tx.input[0].sequence = Sequence::from_consensus(sequence);
        model.block(2, vec![tx])
    };
    for version in [-1, i32::MIN, i32::MAX, 2, 3] {
        let block = with_version(&model, version, 2);
        assert_eq!(invalid(&mut chainstate, &block), "bad-txns-nonfinal", "version {version}");
    }
    // One block later it is old enough; and versions 0 and 1 have no such locks at all.
    for (version, sequence) in [(-1, 1), (i32::MIN, 1), (0, 2), (1, 2)] {
        let dir = tempfile::tempdir().expect("temporary");
        let mut chainstate = with(BackendKind::Memory, dir.path(), &base);
        give(&mut chainstate, &[block.clone(), with_version(&model, version, sequence)]);
    }
}

/// One divided by a number, as the order of the curve counts: the number to the order less two.
fn inverse(number: &SecretKey) -> SecretKey {
    let mut exponent = constants::CURVE_ORDER;
    exponent[31] -= 2;
    let mut result: Option<SecretKey> = None;
    for bit in exponent.iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1)) {
        let square = result.map(|it| it.mul_tweak(&Scalar::from(it)).expect("not zero"));
        let factor = (bit == 1).then_some(*number);
        result = match (square, factor) {
            (Some(square), Some(factor)) => {
                Some(square.mul_tweak(&Scalar::from(factor)).expect("not zero"))
            }
            (square, factor) => square.or(factor),
        };
    }
    result.expect("not zero")
}

/// A signature that is made before what it signs: both its numbers are the first coordinate of the
/// generator.
struct Signature {
    number: SecretKey,
    bytes: Vec<u8>,
}

impl Signature {
    fn new() -> Self {
        let number = SecretKey::from_slice(&constants::GENERATOR_X).expect("in range");
        let der = [&[0x02, 32][..], &constants::GENERATOR_X].concat();
        let mut bytes = vec![0x30, 68];
        bytes.extend([&der[..], &der[..], &[1]].concat());
        Self { number, bytes }
    }

    /// The key that has signed this hash by it. With r = s, and a nonce of one: (s - hash) / r.
    fn key(&self, hash: [u8; 32]) -> PublicKey {
        let hash = SecretKey::from_slice(&hash).expect("a hash is in range").negate();
        let difference = self.number.add_tweak(&Scalar::from(hash)).expect("not zero");
        let secret = difference.mul_tweak(&Scalar::from(inverse(&self.number))).expect("not zero");
        secret.public_key(&Secp256k1::new())
    }
}

fn push(bytes: &[u8]) -> PushBytesBuf {
    PushBytesBuf::try_from(bytes.to_vec()).expect("short")
}

/// btcd took whatever contains the signature out of the script before it hashed it. Only a push of
/// the signature and nothing else goes.
#[test]
fn cve_2024_38365_what_contains_a_signature_stays_in_the_script_that_is_signed() {
    let signature = Signature::new();
    let contains = [&signature.bytes[..], &[0]].concat();
    let rest =
        |builder: Builder| builder.push_opcode(OP_DROP).push_opcode(OP_CHECKSIG).into_script();
    let without = Builder::new().push_opcode(OP_DROP).push_opcode(OP_CHECKSIG).into_script();
    let with_more = rest(Builder::new().push_slice(push(&contains)));
    let with_it = rest(Builder::new().push_slice(push(&signature.bytes)));
    // The script, what of it is signed, and whether that is right.
    for (script, signed, is_valid) in [
        (&with_more, &with_more, true),
        (&with_more, &without, false),
        (&with_it, &without, true),
        (&with_it, &with_it, false),
    ] {
        check_signed(&signature, script, signed, is_valid);
    }
}

fn check_signed(signature: &Signature, script: &ScriptBuf, signed: &ScriptBuf, is_valid: bool) {
    let dir = tempfile::tempdir().expect("temporary");
    let (mut model, base) = ModelChain::funded(24);
    let mut chainstate = with(BackendKind::Memory, dir.path(), &base);
    let coin = model.spendable(true).swap_remove(0);
    let locked = TxOut { value: Amount::from_sat(5000), script_pubkey: script.clone() };
    let parent = transfer(std::slice::from_ref(&coin), vec![locked.clone()]);
    let outpoint = OutPoint::new(parent.compute_txid(), 0);
    let block = model.block(1, vec![parent]);
    give(&mut chainstate, std::slice::from_ref(&block));
    model.connect(&block);
    let mut tx: Transaction = transfer(&[(outpoint, locked)], vec![anyones(4000)]);
    let all = EcdsaSighashType::All.to_u32();
    let hash = SighashCache::new(&tx).legacy_signature_hash(0, signed, all).expect("an input");
    let key = signature.key(*hash.as_ref());
    tx.input[0].script_sig =
        Builder::new().push_slice(push(&signature.bytes)).push_slice(key.serialize()).into_script();
    let block = model.block(2, vec![tx]);
    if is_valid {
        give(&mut chainstate, &[block]);
    } else {
        assert_eq!(invalid(&mut chainstate, &block), "block-script-verify-flag-failed");
    }
}
