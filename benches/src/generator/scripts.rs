//! Outputs by kind, and the signatures that spend them.

use bitcoin::hashes::Hash as _;
use bitcoin::key::{Keypair, TapTweak as _, TweakedKeypair};
use bitcoin::opcodes::OP_TRUE;
use bitcoin::opcodes::all::{OP_CHECKMULTISIG, OP_CHECKSIG, OP_DROP};
use bitcoin::script::{Builder, PushBytesBuf};
use bitcoin::secp256k1::{All, Message, Secp256k1, SecretKey};
use bitcoin::sighash::{EcdsaSighashType, Prevouts, SighashCache, TapSighashType};
use bitcoin::taproot::{LeafVersion, TapLeafHash, TaprootBuilder, TaprootSpendInfo};
use bitcoin::{Amount, CompressedPublicKey, ScriptBuf, Transaction, TxOut, Witness};
use cofferdam_storage::testing::Random;

use super::coins::Coin;

/// Keys that outputs pay to: as many as make one that repeats rare within a block's neighbours.
const KEYS: u32 = 512;

/// What kind of output a coin is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Pay to a public key's hash.
    Pkh,
    /// Pay to a public key's hash in a witness.
    Wpkh,
    /// The same, wrapped into a script hash.
    ShWpkh,
    /// Two of three keys, in a witness.
    Multisig,
    /// Taproot, spent by its key.
    TaprootKey,
    /// Taproot, spent by a script.
    TaprootScript,
    /// A witness script that costs nothing to verify, different for every coin.
    Free,
}

impl Kind {
    /// Chooses as the main chain's outputs of 2024 and 2025 do, roughly.
    pub(super) fn random(random: &mut Random) -> Self {
        match random.below(100) {
            0..15 => Self::Pkh,
            15..57 => Self::Wpkh,
            57..66 => Self::ShWpkh,
            66..72 => Self::Multisig,
            72..97 => Self::TaprootKey,
            _ => Self::TaprootScript,
        }
    }
}

#[derive(Debug)]
struct Key {
    secret: SecretKey,
    public: CompressedPublicKey,
    /// The key of the output, by which it is spent.
    tweaked: TweakedKeypair,
    internal: Keypair,
    leaf: ScriptBuf,
    tree: TaprootSpendInfo,
}

/// All keys, and what is made of them.
#[derive(Debug)]
pub struct Keys {
    secp: Secp256k1<All>,
    keys: Vec<Key>,
}

impl Keys {
    /// Makes the keys of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let secp = Secp256k1::new();
        let mut random = Random::new(seed);
        let keys = (0..KEYS).map(|_| Key::new(&secp, &mut random)).collect();
        Self { secp, keys }
    }

    /// Chooses what an output of this kind pays to.
    pub(super) fn choose(kind: Kind, random: &mut Random) -> u32 {
        let choices = if kind == Kind::Free { u32::MAX } else { KEYS };
        u32::try_from(random.next() % u64::from(choices)).expect("below")
    }

    fn key(&self, number: u32) -> &Key {
        &self.keys[(number % KEYS) as usize]
    }

    /// Returns the script of an output.
    #[must_use]
    pub fn script(&self, kind: Kind, number: u32) -> ScriptBuf {
        let key = self.key(number);
        match kind {
            Kind::Pkh => ScriptBuf::new_p2pkh(&key.public.pubkey_hash()),
            Kind::Wpkh => ScriptBuf::new_p2wpkh(&key.public.wpubkey_hash()),
            Kind::ShWpkh => key.redeem_script().to_p2sh(),
            Kind::Multisig => self.multisig(number).to_p2wsh(),
            Kind::TaprootKey => {
                let (output, _) = key.tweaked.to_keypair().x_only_public_key();
                let output = bitcoin::key::TweakedPublicKey::dangerous_assume_tweaked(output);
                ScriptBuf::new_p2tr_tweaked(output)
            }
            Kind::TaprootScript => ScriptBuf::new_p2tr_tweaked(key.tree.output_key()),
            Kind::Free => free(number).to_p2wsh(),
        }
    }

    fn multisig(&self, number: u32) -> ScriptBuf {
        let mut script = Builder::new().push_int(2);
        for place in 0..3 {
            script = script.push_key(&self.key(number + place).public.into());
        }
        script.push_int(3).push_opcode(OP_CHECKMULTISIG).into_script()
    }

    /// Signs every input of a transaction, which spends `coins` in this order.
    pub fn sign(&self, tx: &mut Transaction, coins: &[Coin]) {
        let spent: Vec<TxOut> = coins
            .iter()
            .map(|coin| TxOut {
                value: Amount::from_sat(coin.value),
                script_pubkey: self.script(coin.kind, coin.key),
            })
            .collect();
        // Signatures are no part of what is signed, so one cache serves all inputs.
        let unsigned = tx.clone();
        let mut signer = Signer { keys: self, cache: SighashCache::new(&unsigned), spent: &spent };
        for (index, coin) in coins.iter().enumerate() {
            let (script_sig, witness) = signer.satisfy(index, *coin);
            tx.input[index].script_sig = script_sig;
            tx.input[index].witness = witness;
        }
    }
}

impl Key {
    fn new(secp: &Secp256k1<All>, random: &mut Random) -> Self {
        let secret = SecretKey::from_slice(&random.bytes(32)).expect("all but none are in range");
        let internal = Keypair::from_secret_key(secp, &secret);
        let (x_only, _) = internal.x_only_public_key();
        let leaf = Builder::new().push_x_only_key(&x_only).push_opcode(OP_CHECKSIG).into_script();
        let tree = TaprootBuilder::new().add_leaf(0, leaf.clone()).expect("one leaf");
        Self {
            secret,
            public: CompressedPublicKey(internal.public_key()),
            tweaked: internal.tap_tweak(secp, None),
            tree: tree.finalize(secp, x_only).expect("a whole tree"),
            internal,
            leaf,
        }
    }

    fn redeem_script(&self) -> ScriptBuf {
        ScriptBuf::new_p2wpkh(&self.public.wpubkey_hash())
    }
}

/// The witness script of [`Kind::Free`].
fn free(number: u32) -> ScriptBuf {
    let number = PushBytesBuf::from(number.to_le_bytes());
    Builder::new().push_slice(number).push_opcode(OP_DROP).push_opcode(OP_TRUE).into_script()
}

struct Signer<'a> {
    keys: &'a Keys,
    cache: SighashCache<&'a Transaction>,
    spent: &'a [TxOut],
}

impl Signer<'_> {
    fn satisfy(&mut self, index: usize, coin: Coin) -> (ScriptBuf, Witness) {
        let key = self.keys.key(coin.key);
        match coin.kind {
            Kind::Pkh => (self.legacy(index, key), Witness::new()),
            Kind::Wpkh => (ScriptBuf::new(), self.witness_key_hash(index, key)),
            Kind::ShWpkh => {
                let redeem = PushBytesBuf::try_from(key.redeem_script().into_bytes());
                let redeem = Builder::new().push_slice(redeem.expect("short"));
                (redeem.into_script(), self.witness_key_hash(index, key))
            }
            Kind::Multisig => (ScriptBuf::new(), self.multisig(index, coin.key)),
            Kind::TaprootKey => {
                let message = self.taproot(index, None);
                let pair = key.tweaked.as_keypair();
                let signature = self.keys.secp.sign_schnorr_no_aux_rand(&message, pair);
                (ScriptBuf::new(), Witness::from_slice(&[signature.as_ref()]))
            }
            Kind::TaprootScript => (ScriptBuf::new(), self.taproot_script(index, key)),
            Kind::Free => (ScriptBuf::new(), Witness::from_slice(&[free(coin.key)])),
        }
    }

    fn ecdsa(&self, message: Message, secret: &SecretKey) -> bitcoin::ecdsa::Signature {
        // Of 71 bytes, as wallets make them.
        let signature = self.keys.secp.sign_ecdsa_low_r(&message, secret);
        bitcoin::ecdsa::Signature { signature, sighash_type: EcdsaSighashType::All }
    }

    fn legacy(&self, index: usize, key: &Key) -> ScriptBuf {
        let (script, all) = (&self.spent[index].script_pubkey, EcdsaSighashType::All.to_u32());
        let hash = self.cache.legacy_signature_hash(index, script, all).expect("an input");
        let signature = self.ecdsa(Message::from(hash), &key.secret);
        Builder::new().push_slice(signature.serialize()).push_key(&key.public.into()).into_script()
    }

    fn witness_key_hash(&mut self, index: usize, key: &Key) -> Witness {
        let (script, value) = (key.redeem_script(), self.spent[index].value);
        let all = EcdsaSighashType::All;
        let hash = self.cache.p2wpkh_signature_hash(index, &script, value, all);
        let signature = self.ecdsa(Message::from(hash.expect("an input")), &key.secret);
        Witness::p2wpkh(&signature, &key.public.0)
    }

    fn multisig(&mut self, index: usize, number: u32) -> Witness {
        let (script, value) = (self.keys.multisig(number), self.spent[index].value);
        let all = EcdsaSighashType::All;
        let hash = self.cache.p2wsh_signature_hash(index, &script, value, all);
        let message = Message::from(hash.expect("an input"));
        let mut witness = Witness::from_slice(&[&[][..]]);
        // By two of the three, in the order of the keys.
        for place in [0, 2] {
            let signature = self.ecdsa(message, &self.keys.key(number + place).secret);
            witness.push(signature.serialize());
        }
        witness.push(script);
        witness
    }

    fn taproot(&mut self, index: usize, leaf: Option<TapLeafHash>) -> Message {
        let (spent, sighash) = (Prevouts::All(self.spent), TapSighashType::Default);
        let hash = match leaf {
            None => self.cache.taproot_key_spend_signature_hash(index, &spent, sighash),
            Some(leaf) => {
                self.cache.taproot_script_spend_signature_hash(index, &spent, leaf, sighash)
            }
        };
        Message::from_digest(hash.expect("an input").to_byte_array())
    }

    fn taproot_script(&mut self, index: usize, key: &Key) -> Witness {
        let leaf = (key.leaf.clone(), LeafVersion::TapScript);
        let message = self.taproot(index, Some(TapLeafHash::from_script(&leaf.0, leaf.1)));
        let signature = self.keys.secp.sign_schnorr_no_aux_rand(&message, &key.internal);
        let control = key.tree.control_block(&leaf).expect("the only leaf");
        let mut witness = Witness::from_slice(&[signature.as_ref()]);
        witness.push(&key.leaf);
        witness.push(control.serialize());
        witness
    }
}
