//! Signing one input (`script/sign.cpp` of Bitcoin Core): bare, P2SH and witness forms of public
//! key, public key hash and multisig, and taproot by its key.
//!
//! Signatures that are there already are kept where they are right: every push of the input is tried
//! against every key that has to sign.

use std::collections::HashMap;

use bitcoin::ecdsa;
use bitcoin::hashes::Hash as _;
use bitcoin::key::{Keypair, TapTweak as _};
use bitcoin::script::{Builder, Instruction, PushBytesBuf};
use bitcoin::secp256k1::{All, Message, Secp256k1};
use bitcoin::sighash::{EcdsaSighashType, Prevouts, SighashCache, TapSighashType};
use bitcoin::{
    PrivateKey, PubkeyHash, PublicKey, Script, ScriptBuf, ScriptHash, Transaction, TxIn, TxOut,
    WScriptHash, Witness, taproot,
};

use super::key_scripts;
/// What a signature covers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum HashType {
    /// All, and in taproot's shorter form.
    Default,
    /// As it says.
    Named(EcdsaSighashType),
}

impl HashType {
    /// Returns the type of that name.
    pub(super) fn from_name(name: &str) -> Option<Self> {
        Some(Self::Named(match name {
            "DEFAULT" => return Some(Self::Default),
            "ALL" => EcdsaSighashType::All,
            "NONE" => EcdsaSighashType::None,
            "SINGLE" => EcdsaSighashType::Single,
            "ALL|ANYONECANPAY" => EcdsaSighashType::AllPlusAnyoneCanPay,
            "NONE|ANYONECANPAY" => EcdsaSighashType::NonePlusAnyoneCanPay,
            "SINGLE|ANYONECANPAY" => EcdsaSighashType::SinglePlusAnyoneCanPay,
            _ => return None,
        }))
    }

    /// Returns whether it covers only the output with the input's index, of a transaction that has
    /// fewer.
    const fn lacks_output(self, index: usize, outputs: usize) -> bool {
        use EcdsaSighashType::{Single, SinglePlusAnyoneCanPay};
        matches!(self, Self::Named(Single | SinglePlusAnyoneCanPay)) && index >= outputs
    }

    const fn ecdsa(self) -> EcdsaSighashType {
        match self {
            Self::Default => EcdsaSighashType::All,
            Self::Named(named) => named,
        }
    }

    const fn taproot(self) -> TapSighashType {
        match self {
            Self::Default => TapSighashType::Default,
            Self::Named(EcdsaSighashType::All) => TapSighashType::All,
            Self::Named(EcdsaSighashType::None) => TapSighashType::None,
            Self::Named(EcdsaSighashType::Single) => TapSighashType::Single,
            Self::Named(EcdsaSighashType::AllPlusAnyoneCanPay) => {
                TapSighashType::AllPlusAnyoneCanPay
            }
            Self::Named(EcdsaSighashType::NonePlusAnyoneCanPay) => {
                TapSighashType::NonePlusAnyoneCanPay
            }
            Self::Named(EcdsaSighashType::SinglePlusAnyoneCanPay) => {
                TapSighashType::SinglePlusAnyoneCanPay
            }
        }
    }
}

/// Keys, scripts by their hashes, and signatures that may be right.
#[derive(Debug, Default)]
pub(super) struct Keys {
    by_hash: HashMap<PubkeyHash, (PublicKey, Option<PrivateKey>)>,
    p2sh: HashMap<ScriptHash, ScriptBuf>,
    p2wsh: HashMap<WScriptHash, ScriptBuf>,
    signatures: Vec<ecdsa::Signature>,
    /// Witnesses of taproot inputs.
    witnesses: Vec<Witness>,
}

impl Keys {
    /// Adds a key.
    pub(super) fn add(&mut self, secp: &Secp256k1<All>, key: PrivateKey) {
        let public = key.public_key(secp);
        self.by_hash.insert(public.pubkey_hash(), (public, Some(key)));
    }

    /// Adds a script that others have the hash of.
    pub(super) fn add_script(&mut self, script: ScriptBuf) {
        self.p2wsh.insert(script.wscript_hash(), script.clone());
        self.p2sh.insert(script.script_hash(), script);
    }

    /// Adds all that an input has: signatures, keys, scripts.
    pub(super) fn add_candidates(&mut self, input: &TxIn) {
        let pushes = input
            .script_sig
            .instructions()
            .filter_map(|instruction| Some(instruction.ok()?.push_bytes()?.as_bytes().to_vec()));
        let items: Vec<Vec<u8>> = pushes.chain(input.witness.iter().map(<[u8]>::to_vec)).collect();
        for item in &items {
            if let Ok(signature) = ecdsa::Signature::from_slice(item) {
                self.signatures.push(signature);
            } else if let Ok(key) = PublicKey::from_slice(item) {
                self.by_hash.entry(key.pubkey_hash()).or_insert((key, None));
            }
        }
        for last in
            items.last().into_iter().chain(input.witness.last().map(<[u8]>::to_vec).as_ref())
        {
            self.add_script(ScriptBuf::from_bytes(last.clone()));
        }
        if let [redeem] = input.script_sig.instructions().collect::<Vec<_>>().as_slice()
            && let Ok(Instruction::PushBytes(redeem)) = redeem
        {
            self.add_script(ScriptBuf::from_bytes(redeem.as_bytes().to_vec()));
        }
        self.witnesses.push(input.witness.clone());
    }
}

/// How much of an input could be signed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Signed {
    /// All signatures are there.
    All,
    /// Some of several.
    Some,
    /// None.
    None,
}

impl Signed {
    /// Returns what an incomplete input suffers from, in Bitcoin Core's words.
    pub(super) fn problem(self, script: &Script) -> &'static str {
        match self {
            Self::Some => {
                "CHECK(MULTI)SIG failing with non-zero signature (possibly need more signatures)"
            }
            _ if script.is_witness_program() => "Witness program was passed an empty witness",
            _ => "Unable to sign input, invalid stack size (possibly missing key)",
        }
    }
}

/// What goes into an input.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) script_sig: ScriptBuf,
    pub(super) witness: Witness,
    pub(super) signed: Signed,
}

/// Signs an input as far as the keys reach. `outputs` are those that all inputs spend, if they are
/// known: taproot covers them.
pub(super) fn sign_input(
    cache: &mut SighashCache<&Transaction>,
    index: usize,
    spent: &TxOut,
    outputs: Option<&[TxOut]>,
    keys: &Keys,
    hash_type: HashType,
) -> Outcome {
    let secp = Secp256k1::new();
    let before = cache.transaction().input.get(index).cloned().unwrap_or_default();
    if hash_type.lacks_output(index, cache.transaction().output.len()) {
        // What a legacy signature covers is the number one then: it would do for every other output
        // of the key.
        let TxIn { script_sig, witness, .. } = before;
        return Outcome { script_sig, witness, signed: Signed::None };
    }
    let mut all = Keys { by_hash: keys.by_hash.clone(), ..Keys::default() };
    all.p2sh.clone_from(&keys.p2sh);
    all.p2wsh.clone_from(&keys.p2wsh);
    all.signatures.clone_from(&keys.signatures);
    all.witnesses.clone_from(&keys.witnesses);
    all.add_candidates(&before);
    let mut signer = Signer { secp, cache, index, spent, outputs, keys: &all, hash_type };
    let (script_sig, witness, signed) = signer.sign();
    Outcome { script_sig, witness, signed }
}

/// What a script is run with: items that are pushed.
type Stack = Vec<Vec<u8>>;

struct Signer<'a, 'tx> {
    secp: Secp256k1<All>,
    cache: &'a mut SighashCache<&'tx Transaction>,
    index: usize,
    spent: &'a TxOut,
    outputs: Option<&'a [TxOut]>,
    keys: &'a Keys,
    hash_type: HashType,
}

impl Signer<'_, '_> {
    fn sign(&mut self) -> (ScriptBuf, Witness, Signed) {
        let script = self.spent.script_pubkey.clone();
        if script.is_p2tr() {
            return match self.sign_taproot(&script) {
                Some(witness) => (ScriptBuf::new(), witness, Signed::All),
                None => (ScriptBuf::new(), Witness::new(), Signed::None),
            };
        }
        let redeem = self.redeem_script(&script);
        let inner = redeem.as_ref().unwrap_or(&script);
        if script.is_p2sh() && redeem.is_none() {
            return (ScriptBuf::new(), Witness::new(), Signed::None);
        }
        let (mut stack, witness, signed) = if inner.is_p2wpkh() || inner.is_p2wsh() {
            let (items, signed) = self.sign_witness(&inner.clone());
            (Stack::new(), Witness::from_slice(&items), signed)
        } else {
            let (stack, signed) = self.sign_script(&inner.clone(), false);
            (stack, Witness::new(), signed)
        };
        if let Some(redeem) = redeem
            && (signed != Signed::None || !stack.is_empty())
        {
            stack.push(redeem.into_bytes());
        }
        (pushes(stack), witness, signed)
    }

    fn redeem_script(&self, script: &Script) -> Option<ScriptBuf> {
        if !script.is_p2sh() {
            return None;
        }
        let hash: [u8; 20] = script.as_bytes().get(2..22)?.try_into().ok()?;
        if let Some(redeem) = self.keys.p2sh.get(&ScriptHash::from_byte_array(hash)) {
            return Some(redeem.clone());
        }
        // That of a key alone needs not be told.
        let programs = self
            .keys
            .by_hash
            .values()
            .filter_map(|(key, _)| Some(ScriptBuf::new_p2wpkh(&key.wpubkey_hash().ok()?)));
        let mut programs = programs.filter(|program| program.to_p2sh() == *script);
        programs.next()
    }

    fn sign_witness(&mut self, program: &Script) -> (Stack, Signed) {
        let hash = program.as_bytes().get(2..).unwrap_or_default();
        if let Ok(hash) = <[u8; 20]>::try_from(hash) {
            let script = ScriptBuf::new_p2pkh(&PubkeyHash::from_byte_array(hash));
            return self.sign_script(&script, true);
        }
        let found = <[u8; 32]>::try_from(hash)
            .ok()
            .and_then(|hash| self.keys.p2wsh.get(&WScriptHash::from_byte_array(hash)).cloned());
        let Some(script) = found else { return (Stack::new(), Signed::None) };
        let (mut stack, signed) = self.sign_script(&script, true);
        if signed != Signed::None {
            stack.push(script.into_bytes());
        }
        (stack, signed)
    }

    /// Satisfies a script of one of the forms that are known.
    fn sign_script(&mut self, script: &Script, witness: bool) -> (Stack, Signed) {
        let nothing = (Stack::new(), Signed::None);
        if script.is_p2pk() {
            let signature =
                script.p2pk_public_key().and_then(|key| self.signature(&key, script, witness));
            return signature.map_or(nothing, |signature| (vec![signature], Signed::All));
        }
        if script.is_p2pkh() {
            let hash = script.as_bytes().get(3..23).and_then(|hash| hash.try_into().ok());
            let key = hash.and_then(|hash| {
                self.keys.by_hash.get(&PubkeyHash::from_byte_array(hash)).map(|(key, _)| *key)
            });
            let signed = key.and_then(|key| Some((self.signature(&key, script, witness)?, key)));
            return signed.map_or(nothing, |(signature, key)| {
                (vec![signature, key.to_bytes()], Signed::All)
            });
        }
        match multisig(script) {
            Some((required, keys)) => self.sign_multisig(script, required, &keys, witness),
            None => nothing,
        }
    }

    fn sign_multisig(
        &mut self,
        script: &Script,
        required: usize,
        keys: &[PublicKey],
        witness: bool,
    ) -> (Stack, Signed) {
        // One more is popped than there are signatures.
        let mut stack = vec![Vec::new()];
        for key in keys {
            if stack.len() <= required
                && let Some(signature) = self.signature(key, script, witness)
            {
                stack.push(signature);
            }
        }
        let signed = match stack.len() - 1 {
            0 => Signed::None,
            count if count < required => Signed::Some,
            _ => Signed::All,
        };
        stack.resize(required + 1, Vec::new());
        (stack, signed)
    }

    /// A signature by a key: an old one that is right, or a new one.
    fn signature(&mut self, key: &PublicKey, script: &Script, witness: bool) -> Option<Vec<u8>> {
        for candidate in &self.keys.signatures {
            let message = message(
                self.cache,
                self.index,
                self.spent,
                script,
                witness,
                candidate.sighash_type,
            )?;
            if self.secp.verify_ecdsa(&message, &candidate.signature, &key.inner).is_ok() {
                return Some(candidate.to_vec());
            }
        }
        // Relay policy lets only compressed keys into witness scripts.
        if witness && !key.compressed {
            return None;
        }
        let (_, private) = self.keys.by_hash.get(&key.pubkey_hash())?;
        let sighash_type = self.hash_type.ecdsa();
        let message = message(self.cache, self.index, self.spent, script, witness, sighash_type)?;
        let signature = self.secp.sign_ecdsa_low_r(&message, &private.as_ref()?.inner);
        Some(ecdsa::Signature { signature, sighash_type }.to_vec())
    }

    /// Signs, or keeps the witness that is there where there is no key.
    fn sign_taproot(&mut self, script: &Script) -> Option<Witness> {
        let signed = self.taproot_signature(script);
        let mut there = self.keys.witnesses.iter().filter(|witness| !witness.is_empty());
        signed.or_else(|| there.next().cloned())
    }

    /// Signs for the output key itself, or for an internal key without scripts (BIP-0086).
    fn taproot_signature(&mut self, script: &Script) -> Option<Witness> {
        let output = script.as_bytes().get(2..).unwrap_or_default();
        let outputs = self.outputs?;
        let sighash_type = self.hash_type.taproot();
        for (_, private) in self.keys.by_hash.values() {
            let Some(private) = private else { continue };
            let pair = Keypair::from_secret_key(&self.secp, &private.inner);
            let tweaked = pair.tap_tweak(&self.secp, None).to_keypair();
            let fits = |pair: &&Keypair| pair.x_only_public_key().0.serialize() == output;
            let Some(pair) = [pair, tweaked].iter().find(fits).copied() else { continue };
            let prevouts = Prevouts::All(outputs);
            let hash =
                self.cache.taproot_key_spend_signature_hash(self.index, &prevouts, sighash_type);
            let message = Message::from_digest(hash.ok()?.to_byte_array());
            let signature = self.secp.sign_schnorr_no_aux_rand(&message, &pair);
            return Some(Witness::p2tr_key_spend(&taproot::Signature { signature, sighash_type }));
        }
        None
    }
}

fn message(
    cache: &mut SighashCache<&Transaction>,
    index: usize,
    spent: &TxOut,
    script: &Script,
    witness: bool,
    sighash_type: EcdsaSighashType,
) -> Option<Message> {
    let digest = if witness {
        let hash = cache.p2wsh_signature_hash(index, script, spent.value, sighash_type);
        hash.ok()?.to_byte_array()
    } else {
        let hash = cache.legacy_signature_hash(index, script, sighash_type.to_u32());
        hash.ok()?.to_byte_array()
    };
    Some(Message::from_digest(digest))
}

/// How many signatures by which keys a multisig asks for.
fn multisig(script: &Script) -> Option<(usize, Vec<PublicKey>)> {
    let key_scripts::Multisig { needed, keys } = key_scripts::multisig(script)?;
    let keys = keys.into_iter().filter_map(|key| PublicKey::from_slice(key).ok());
    Some((usize::from(needed), keys.collect()))
}

/// A script that pushes the items, the shortest way.
fn pushes(stack: Stack) -> ScriptBuf {
    let mut builder = Builder::new();
    for item in stack {
        builder = match item.as_slice() {
            [] => builder.push_int(0),
            _ => match PushBytesBuf::try_from(item) {
                Ok(bytes) => builder.push_slice(bytes),
                Err(_) => builder,
            },
        };
    }
    builder.into_script()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::absolute::LockTime;
    use bitcoin::consensus::serialize;
    use bitcoin::transaction::Version;
    use bitcoin::{Amount, OutPoint, Sequence, WPubkeyHash};
    use cofferdam_ibd::wire::{OutputRef, Transactions};
    use cofferdam_ibd::{KernelVerifier, ScriptFlags, ScriptVerifier as _};

    fn key(number: u8) -> PrivateKey {
        let secret = bitcoin::secp256k1::SecretKey::from_slice(&[number; 32]).unwrap();
        PrivateKey::new(secret, bitcoin::Network::Regtest)
    }

    fn public(number: u8) -> PublicKey {
        key(number).public_key(&Secp256k1::new())
    }

    fn keys(numbers: &[u8], scripts: &[&ScriptBuf]) -> Keys {
        let mut keys = Keys::default();
        for number in numbers {
            keys.add(&Secp256k1::new(), key(*number));
        }
        for script in scripts {
            keys.add_script((*script).clone());
        }
        keys
    }

    fn unsigned() -> Transaction {
        Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input: vec![TxIn {
                previous_output: OutPoint::null(),
                script_sig: ScriptBuf::new(),
                sequence: Sequence::MAX,
                witness: Witness::new(),
            }],
            output: vec![TxOut { value: Amount::from_sat(5), script_pubkey: ScriptBuf::new() }],
        }
    }

    /// Signs what is there of a transaction, and asks Core's interpreter.
    fn sign(
        tx: &mut Transaction,
        script: &ScriptBuf,
        keys: &Keys,
        kind: HashType,
    ) -> (Signed, bool) {
        let spent = TxOut { value: Amount::from_sat(7), script_pubkey: script.clone() };
        let before = tx.clone();
        let mut cache = SighashCache::new(&before);
        let outputs = std::slice::from_ref(&spent);
        let outcome = sign_input(&mut cache, 0, &spent, Some(outputs), keys, kind);
        tx.input[0].script_sig = outcome.script_sig;
        tx.input[0].witness = outcome.witness;
        let txs = Transactions::of_transaction(serialize(tx)).unwrap();
        let outputs = [OutputRef { value: 7, script }];
        let view = txs.first().unwrap();
        let failed = KernelVerifier.verify_transaction(view, &outputs, ScriptFlags::ALL).unwrap();
        (outcome.signed, failed.is_none())
    }

    fn multisig_of(required: i64, numbers: &[u8]) -> ScriptBuf {
        let mut builder = Builder::new().push_int(required);
        for number in numbers {
            builder = builder.push_key(&public(*number));
        }
        let count = i64::try_from(numbers.len()).unwrap();
        builder.push_int(count).push_opcode(bitcoin::opcodes::all::OP_CHECKMULTISIG).into_script()
    }

    #[test]
    fn every_form_of_one_key_is_signed_so_that_core_agrees() {
        let secp = Secp256k1::new();
        let wpkh = ScriptBuf::new_p2wpkh(&public(1).wpubkey_hash().unwrap());
        let pkh = ScriptBuf::new_p2pkh(&public(1).pubkey_hash());
        let pk = ScriptBuf::new_p2pk(&public(1));
        let x_only = public(1).inner.x_only_public_key().0;
        let rawtr = ScriptBuf::new_p2tr_tweaked(
            bitcoin::key::TweakedPublicKey::dangerous_assume_tweaked(x_only),
        );
        let forms = [
            (pk.clone(), vec![]),
            (pkh.clone(), vec![]),
            (wpkh.clone(), vec![]),
            (wpkh.to_p2sh(), vec![]),
            (pk.to_p2wsh(), vec![&pk]),
            (pkh.to_p2sh(), vec![&pkh]),
            (rawtr, vec![]),
            (ScriptBuf::new_p2tr(&secp, x_only, None), vec![]),
        ];
        for (script, scripts) in &forms {
            for name in ["DEFAULT", "ALL", "NONE|ANYONECANPAY", "SINGLE"] {
                let kind = HashType::from_name(name).unwrap();
                let (mut tx, keys) = (unsigned(), keys(&[1], scripts));
                assert_eq!(sign(&mut tx, script, &keys, kind), (Signed::All, true), "{script}");
                // Signed again without a key, it keeps what it has.
                let signed = tx.clone();
                let _ = sign(&mut tx, script, &Keys::default(), HashType::Default);
                assert_eq!(tx, signed, "{script}");
            }
            let mut tx = unsigned();
            let outcome = sign(&mut tx, script, &keys(&[2], scripts), HashType::Default);
            assert_eq!(outcome, (Signed::None, false), "{script}: another key");
        }
        assert_eq!(HashType::from_name("all"), None);
    }

    #[test]
    fn a_single_output_that_is_not_there_is_not_signed_for() {
        let x_only = public(1).inner.x_only_public_key().0;
        let forms = [
            ScriptBuf::new_p2pkh(&public(1).pubkey_hash()),
            ScriptBuf::new_p2wpkh(&public(1).wpubkey_hash().unwrap()),
            ScriptBuf::new_p2tr(&Secp256k1::new(), x_only, None),
        ];
        for script_pubkey in forms {
            for name in ["SINGLE", "SINGLE|ANYONECANPAY"] {
                let mut tx = unsigned();
                tx.output.clear();
                tx.input[0].script_sig = ScriptBuf::from_bytes(vec![0x51]);
                let spent =
                    TxOut { value: Amount::from_sat(7), script_pubkey: script_pubkey.clone() };
                let (outputs, kind) = (std::slice::from_ref(&spent), HashType::from_name(name));
                let mut cache = SighashCache::new(&tx);
                let outcome = sign_input(
                    &mut cache,
                    0,
                    &spent,
                    Some(outputs),
                    &keys(&[1], &[]),
                    kind.unwrap(),
                );
                assert_eq!(outcome.signed, Signed::None, "{script_pubkey}");
                assert_eq!(outcome.script_sig, tx.input[0].script_sig, "as it was");
                assert!(outcome.witness.is_empty(), "{script_pubkey}");
            }
        }
    }

    #[test]
    fn what_a_change_made_wrong_is_signed_again() {
        let x_only = public(1).inner.x_only_public_key().0;
        let forms = [
            ScriptBuf::new_p2pkh(&public(1).pubkey_hash()),
            ScriptBuf::new_p2wpkh(&public(1).wpubkey_hash().unwrap()),
            ScriptBuf::new_p2tr(&Secp256k1::new(), x_only, None),
        ];
        for script in &forms {
            let (mut tx, keys) = (unsigned(), keys(&[1], &[]));
            assert_eq!(sign(&mut tx, script, &keys, HashType::Default), (Signed::All, true));
            tx.output[0].value = Amount::from_sat(4);
            let again = sign(&mut tx, script, &keys, HashType::Default);
            assert_eq!(again, (Signed::All, true), "{script}");
        }
    }

    #[test]
    fn a_key_that_is_not_compressed_signs_no_witness() {
        let secp = Secp256k1::new();
        let long = PrivateKey::new_uncompressed(key(1).inner, bitcoin::Network::Regtest);
        let hash = long.public_key(&secp).pubkey_hash();
        let pk = ScriptBuf::new_p2pk(&long.public_key(&secp));
        let mut keys = keys(&[], &[&pk]);
        keys.add(&secp, long);
        let wpkh = ScriptBuf::new_p2wpkh(&WPubkeyHash::from_byte_array(hash.to_byte_array()));
        for script in [wpkh, pk.to_p2wsh()] {
            let mut tx = unsigned();
            let outcome = sign(&mut tx, &script, &keys, HashType::Default);
            assert_eq!(outcome, (Signed::None, false), "{script}");
            assert!(tx.input[0].witness.is_empty(), "{script}");
        }
        let legacy = ScriptBuf::new_p2pkh(&hash);
        let outcome = sign(&mut unsigned(), &legacy, &keys, HashType::Default);
        assert_eq!(outcome, (Signed::All, true));
    }

    #[test]
    fn a_multisig_is_signed_key_by_key() {
        let inner = multisig_of(2, &[1, 2, 3]);
        let program = inner.to_p2wsh();
        for script in [inner.clone(), inner.to_p2sh(), program.clone(), program.to_p2sh()] {
            let scripts = [&inner, &program];
            let mut tx = unsigned();
            let partly = sign(&mut tx, &script, &keys(&[3], &scripts), HashType::Default);
            assert_eq!(partly, (Signed::Some, false), "{script}");
            let whole = sign(&mut tx, &script, &keys(&[1], &scripts), HashType::Default);
            assert_eq!(whole, (Signed::All, true), "{script}");
            // Three keys make no more than two signatures.
            let mut tx = unsigned();
            let whole = sign(&mut tx, &script, &keys(&[1, 2, 3], &scripts), HashType::Default);
            assert_eq!(whole, (Signed::All, true), "{script}");
        }
    }

    #[test]
    fn a_multisig_of_twenty_keys_is_signed_in_two_goes() {
        let numbers: Vec<u8> = (1..=20).collect();
        let inner = multisig_of(16, &numbers);
        let program = inner.to_p2wsh();
        let scripts = [&inner, &program];
        let mut tx = unsigned();
        let partly = sign(&mut tx, &program, &keys(&numbers[..15], &scripts), HashType::Default);
        assert_eq!(partly, (Signed::Some, false));
        let whole = sign(&mut tx, &program, &keys(&[20], &scripts), HashType::Default);
        assert_eq!(whole, (Signed::All, true));
    }

    #[test]
    fn what_is_missing_is_named_as_in_core() {
        let pkh = ScriptBuf::new_p2pkh(&public(1).pubkey_hash());
        assert!(Signed::None.problem(&pkh).contains("possibly missing key"));
        assert!(Signed::None.problem(&pkh.to_p2wsh()).contains("empty witness"));
        assert!(Signed::Some.problem(&pkh).contains("possibly need more signatures"));
    }
}
