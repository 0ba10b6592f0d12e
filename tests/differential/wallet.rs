//! `Wallet`: coins under every standard kind of script, and the signatures that spend them.

use bitcoin::hashes::Hash as _;
use bitcoin::key::TapTweak as _;
use bitcoin::opcodes::all::{
    OP_CHECKMULTISIG, OP_CHECKSIG, OP_CLTV, OP_CSV, OP_DROP, OP_ENDIF, OP_IF, OP_PUSHNUM_1,
    OP_RETURN,
};
use bitcoin::script::{Builder, PushBytes, PushBytesBuf};
use bitcoin::secp256k1::{All, Keypair, Message, Secp256k1, SecretKey};
use bitcoin::sighash::{EcdsaSighashType, Prevouts, SighashCache, TapSighashType};
use bitcoin::taproot::{LeafVersion, TapLeafHash, TaprootBuilder, TaprootSpendInfo};
use bitcoin::{OutPoint, PublicKey, Script, ScriptBuf, Transaction, TxOut, Witness};
use cofferdam_storage::testing::Random;

/// Keys of the wallet.
pub(crate) const KEYS: usize = 5;
/// `OP_CHECKMULTISIG`s in a heavy script: more than 201 operations are not allowed.
const HEAVY_OPS: usize = 190;

/// How a coin is locked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Lock {
    /// `OP_TRUE`.
    Anyone,
    P2pk,
    P2pkUncompressed,
    P2pkh,
    /// 2 of 3, bare.
    Multisig,
    P2shMultisig,
    P2wpkh,
    P2wshMultisig,
    P2shP2wpkh,
    P2shP2wsh,
    P2trKey,
    P2trScript,
    /// P2SH, not before this lock time.
    Cltv(u32),
    /// P2WSH, with at least this relative lock time.
    Csv(u32),
    /// P2SH with 3,800 signature operations that never run.
    P2shHeavy,
    /// The same as P2WSH.
    P2wshHeavy,
}

/// The locks that need nothing but a signature or less.
pub(crate) const PLAIN: [Lock; 14] = [
    Lock::Anyone,
    Lock::P2pk,
    Lock::P2pkUncompressed,
    Lock::P2pkh,
    Lock::Multisig,
    Lock::P2shMultisig,
    Lock::P2wpkh,
    Lock::P2wshMultisig,
    Lock::P2shP2wpkh,
    Lock::P2shP2wsh,
    Lock::P2trKey,
    Lock::P2trScript,
    Lock::P2shHeavy,
    Lock::P2wshHeavy,
];

/// A coin that the wallet can spend.
#[derive(Clone, Debug)]
pub(crate) struct Owned {
    pub(crate) outpoint: OutPoint,
    pub(crate) output: TxOut,
    pub(crate) lock: Lock,
    pub(crate) key: usize,
    /// Of the block that made it.
    pub(crate) height: u32,
    pub(crate) coinbase: bool,
}

/// A few keys, the same in every run.
pub(crate) struct Wallet {
    secp: Secp256k1<All>,
    keys: Vec<Keypair>,
}

impl Wallet {
    pub(crate) fn new() -> Self {
        let secp = Secp256k1::new();
        let secret = |n| SecretKey::from_slice(&[n; 32]).expect("a key");
        let keys = (1..).take(KEYS).map(|n| Keypair::from_secret_key(&secp, &secret(n))).collect();
        Self { secp, keys }
    }

    fn public(&self, key: usize) -> PublicKey {
        PublicKey::new(self.keys[key % KEYS].public_key())
    }

    /// The output script of a coin.
    pub(crate) fn script_pubkey(&self, lock: Lock, key: usize) -> ScriptBuf {
        let public = self.public(key);
        let inner = || self.inner_script(lock, key);
        let wpkh = || public.wpubkey_hash().expect("compressed");
        match lock {
            Lock::Anyone => Builder::new().push_opcode(OP_PUSHNUM_1).into_script(),
            Lock::P2pk => ScriptBuf::new_p2pk(&public),
            Lock::P2pkUncompressed => {
                ScriptBuf::new_p2pk(&PublicKey::new_uncompressed(public.inner))
            }
            Lock::P2pkh => ScriptBuf::new_p2pkh(&public.pubkey_hash()),
            Lock::Multisig => inner(),
            Lock::P2shMultisig | Lock::Cltv(_) | Lock::P2shHeavy => inner().to_p2sh(),
            Lock::P2wpkh => ScriptBuf::new_p2wpkh(&wpkh()),
            Lock::P2wshMultisig | Lock::Csv(_) | Lock::P2wshHeavy => inner().to_p2wsh(),
            Lock::P2shP2wpkh => ScriptBuf::new_p2wpkh(&wpkh()).to_p2sh(),
            Lock::P2shP2wsh => inner().to_p2wsh().to_p2sh(),
            Lock::P2trKey => {
                let internal = self.keys[key % KEYS].x_only_public_key().0;
                ScriptBuf::new_p2tr(&self.secp, internal, None)
            }
            Lock::P2trScript => ScriptBuf::new_p2tr_tweaked(self.tree(key).output_key()),
        }
    }

    /// The script that a hash stands for, or that is the output's own.
    pub(crate) fn inner_script(&self, lock: Lock, key: usize) -> ScriptBuf {
        let builder = Builder::new();
        let builder = match lock {
            Lock::Multisig | Lock::P2shMultisig | Lock::P2wshMultisig | Lock::P2shP2wsh => (0..3)
                .fold(builder.push_int(2), |builder, n| builder.push_key(&self.public(key + n)))
                .push_int(3)
                .push_opcode(OP_CHECKMULTISIG),
            Lock::Cltv(time) => builder
                .push_int(i64::from(time))
                .push_opcode(OP_CLTV)
                .push_opcode(OP_DROP)
                .push_key(&self.public(key))
                .push_opcode(OP_CHECKSIG),
            Lock::Csv(sequence) => builder
                .push_int(i64::from(sequence))
                .push_opcode(OP_CSV)
                .push_opcode(OP_DROP)
                .push_key(&self.public(key))
                .push_opcode(OP_CHECKSIG),
            // The key makes the script, and so its hash, another for each.
            Lock::P2shHeavy | Lock::P2wshHeavy => (0..HEAVY_OPS)
                .fold(
                    builder
                        .push_slice(self.public(key).wpubkey_hash().expect("compressed"))
                        .push_opcode(OP_DROP)
                        .push_int(0)
                        .push_opcode(OP_IF),
                    |builder, _| builder.push_opcode(OP_CHECKMULTISIG),
                )
                .push_opcode(OP_ENDIF)
                .push_opcode(OP_PUSHNUM_1),
            Lock::P2trScript => builder
                .push_x_only_key(&self.keys[(key + 1) % KEYS].x_only_public_key().0)
                .push_opcode(OP_CHECKSIG),
            _ => builder,
        };
        builder.into_script()
    }

    fn tree(&self, key: usize) -> TaprootSpendInfo {
        self.tree_of(key, self.inner_script(Lock::P2trScript, key), LeafVersion::TapScript)
    }

    fn tree_of(&self, key: usize, leaf: ScriptBuf, version: LeafVersion) -> TaprootSpendInfo {
        let builder = TaprootBuilder::new().add_leaf_with_ver(0, leaf, version).expect("a leaf");
        let internal = self.keys[key % KEYS].x_only_public_key().0;
        builder.finalize(&self.secp, internal).expect("a tree")
    }

    /// An output script with one leaf, and the control block that shows it.
    pub(crate) fn leaf_output(
        &self,
        leaf: &ScriptBuf,
        version: LeafVersion,
    ) -> (ScriptBuf, Vec<u8>) {
        let tree = self.tree_of(0, leaf.clone(), version);
        let control = tree.control_block(&(leaf.clone(), version)).expect("in the tree");
        (ScriptBuf::new_p2tr_tweaked(tree.output_key()), control.serialize())
    }

    /// Signs all inputs, which spend `coins` in this order.
    pub(crate) fn sign(&self, tx: &mut Transaction, coins: &[Owned], random: &mut Random) {
        let prevouts: Vec<TxOut> = coins.iter().map(|coin| coin.output.clone()).collect();
        let signed: Vec<_> = (0..coins.len())
            .map(|index| Signer { wallet: self, tx, index, coin: &coins[index] })
            .map(|signer| signer.sign(&prevouts, random))
            .collect();
        for (input, (script_sig, witness)) in tx.input.iter_mut().zip(signed) {
            (input.script_sig, input.witness) = (script_sig, witness);
        }
    }
}

/// An output that nobody can spend, and that is no coin.
pub(crate) fn data_output(data: &[u8]) -> ScriptBuf {
    Builder::new().push_opcode(OP_RETURN).push_slice(push_bytes(data)).into_script()
}

/// Bytes as one push.
pub(crate) fn push_bytes(data: &[u8]) -> PushBytesBuf {
    PushBytesBuf::try_from(data.to_vec()).expect("shorter than 4 GiB")
}

/// One input that is being signed.
struct Signer<'a> {
    wallet: &'a Wallet,
    tx: &'a Transaction,
    index: usize,
    coin: &'a Owned,
}

impl Signer<'_> {
    fn sign(&self, prevouts: &[TxOut], random: &mut Random) -> (ScriptBuf, Witness) {
        let (lock, key) = (self.coin.lock, self.coin.key);
        let inner = self.wallet.inner_script(lock, key);
        let own = &self.coin.output.script_pubkey;
        let (key_bytes, value) = (self.wallet.public(key).to_bytes(), random.next());
        let legacy = |script: &Script, n| self.legacy(script, key + n, value);
        let segwit = |script: &Script, n| self.segwit(script, key + n, value);
        let empty = Witness::new;
        match lock {
            Lock::Anyone => (ScriptBuf::new(), empty()),
            Lock::P2pk | Lock::P2pkUncompressed => (pushes(&[&legacy(own, 0)]), empty()),
            Lock::P2pkh => (pushes(&[&legacy(own, 0), &key_bytes]), empty()),
            Lock::Multisig => (pushes(&[&[], &legacy(own, 0), &legacy(own, 2)]), empty()),
            Lock::P2shMultisig => {
                let signatures = [legacy(&inner, 0), legacy(&inner, 1)];
                (pushes(&[&[], &signatures[0], &signatures[1], inner.as_bytes()]), empty())
            }
            Lock::Cltv(_) => (pushes(&[&legacy(&inner, 0), inner.as_bytes()]), empty()),
            Lock::P2shHeavy => (pushes(&[inner.as_bytes()]), empty()),
            Lock::P2wpkh => (ScriptBuf::new(), Witness::from_slice(&[segwit(own, 0), key_bytes])),
            Lock::P2wshMultisig => (ScriptBuf::new(), two_of_three(&segwit, &inner)),
            Lock::Csv(_) => {
                (ScriptBuf::new(), Witness::from_slice(&[segwit(&inner, 0), inner.to_bytes()]))
            }
            Lock::P2wshHeavy => (ScriptBuf::new(), Witness::from_slice(&[inner.as_bytes()])),
            Lock::P2shP2wpkh => {
                let hash = self.wallet.public(key).wpubkey_hash().expect("compressed");
                let program = ScriptBuf::new_p2wpkh(&hash);
                let witness = Witness::from_slice(&[segwit(&program, 0), key_bytes]);
                (pushes(&[program.as_bytes()]), witness)
            }
            Lock::P2shP2wsh => {
                (pushes(&[inner.to_p2wsh().as_bytes()]), two_of_three(&segwit, &inner))
            }
            Lock::P2trKey => {
                let witness = Witness::from_slice(&[self.taproot(None, prevouts, value)]);
                (ScriptBuf::new(), witness)
            }
            Lock::P2trScript => {
                let script = (inner.clone(), LeafVersion::TapScript);
                let signature = self.taproot(Some(&inner), prevouts, value);
                let control = self.wallet.tree(key).control_block(&script).expect("in the tree");
                let witness = [signature, inner.to_bytes(), control.serialize()];
                (ScriptBuf::new(), Witness::from_slice(&witness))
            }
        }
    }

    /// A signature over the old hash; the last byte is a type, any of 256.
    fn legacy(&self, script: &Script, key: usize, choice: u64) -> Vec<u8> {
        // Unknown types count as SIGHASH_ALL, and SIGHASH_SINGLE may lack its output.
        const TYPES: [u8; 10] = [1, 1, 1, 2, 3, 0x81, 0x82, 0x83, 0, 0x45];
        let hash_type = TYPES[(choice % 10) as usize];
        let cache = SighashCache::new(self.tx);
        let hash = cache.legacy_signature_hash(self.index, script, u32::from(hash_type));
        self.ecdsa(hash.expect("an input").to_byte_array(), key, hash_type)
    }

    fn segwit(&self, script: &Script, key: usize, choice: u64) -> Vec<u8> {
        const TYPES: [EcdsaSighashType; 6] = [
            EcdsaSighashType::All,
            EcdsaSighashType::None,
            EcdsaSighashType::Single,
            EcdsaSighashType::AllPlusAnyoneCanPay,
            EcdsaSighashType::NonePlusAnyoneCanPay,
            EcdsaSighashType::SinglePlusAnyoneCanPay,
        ];
        let hash_type = TYPES[(choice % 6) as usize];
        let mut cache = SighashCache::new(self.tx);
        let value = self.coin.output.value;
        let hash = if script.is_p2wpkh() {
            cache.p2wpkh_signature_hash(self.index, script, value, hash_type).expect("an input")
        } else {
            cache.p2wsh_signature_hash(self.index, script, value, hash_type).expect("an input")
        };
        self.ecdsa(hash.to_byte_array(), key, u8::try_from(hash_type.to_u32()).expect("a byte"))
    }

    fn ecdsa(&self, hash: [u8; 32], key: usize, hash_type: u8) -> Vec<u8> {
        let secret = self.wallet.keys[key % KEYS].secret_key();
        let signature = self.wallet.secp.sign_ecdsa(&Message::from_digest(hash), &secret);
        let mut bytes = signature.serialize_der().to_vec();
        bytes.push(hash_type);
        bytes
    }

    fn taproot(&self, leaf: Option<&Script>, prevouts: &[TxOut], choice: u64) -> Vec<u8> {
        const TYPES: [TapSighashType; 7] = [
            TapSighashType::Default,
            TapSighashType::All,
            TapSighashType::None,
            TapSighashType::Single,
            TapSighashType::AllPlusAnyoneCanPay,
            TapSighashType::NonePlusAnyoneCanPay,
            TapSighashType::SinglePlusAnyoneCanPay,
        ];
        let mut hash_type = TYPES[(choice % 7) as usize];
        let single = [TapSighashType::Single, TapSighashType::SinglePlusAnyoneCanPay];
        // Here SIGHASH_SINGLE needs its output.
        if single.contains(&hash_type) && self.index >= self.tx.output.len() {
            hash_type = TapSighashType::Default;
        }
        let mut cache = SighashCache::new(self.tx);
        let prevouts = Prevouts::All(prevouts);
        let wallet = self.wallet;
        let (hash, key) = if let Some(script) = leaf {
            let leaf = TapLeafHash::from_script(script, LeafVersion::TapScript);
            let hash =
                cache.taproot_script_spend_signature_hash(self.index, &prevouts, leaf, hash_type);
            (hash.expect("an input"), wallet.keys[(self.coin.key + 1) % KEYS])
        } else {
            let hash = cache.taproot_key_spend_signature_hash(self.index, &prevouts, hash_type);
            let key = wallet.keys[self.coin.key % KEYS].tap_tweak(&wallet.secp, None);
            (hash.expect("an input"), key.to_keypair())
        };
        let message = Message::from_digest(hash.to_byte_array());
        let signature = wallet.secp.sign_schnorr_no_aux_rand(&message, &key);
        let mut bytes = signature.serialize().to_vec();
        if hash_type != TapSighashType::Default {
            bytes.push(hash_type as u8);
        }
        bytes
    }
}

fn two_of_three(sign: &impl Fn(&Script, usize) -> Vec<u8>, script: &ScriptBuf) -> Witness {
    Witness::from_slice(&[vec![], sign(script, 0), sign(script, 2), script.to_bytes()])
}

/// A script of pushes.
pub(crate) fn pushes(items: &[&[u8]]) -> ScriptBuf {
    let push = |builder: Builder, item: &&[u8]| {
        builder.push_slice(<&PushBytes>::try_from(*item).expect("shorter than 4 GiB"))
    };
    items.iter().fold(Builder::new(), push).into_script()
}
