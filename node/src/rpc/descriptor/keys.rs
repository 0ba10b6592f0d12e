//! Key expressions of descriptors: hexadecimal, WIF and extended keys, with origin and path
//! (`ParsePubkey` in Bitcoin Core's `script/descriptor.cpp`).

use std::str::FromStr as _;
use std::sync::LazyLock;

use bitcoin::bip32::{ChildNumber, Xpriv, Xpub};
use bitcoin::hex::FromHex as _;
use bitcoin::key::Secp256k1;
use bitcoin::secp256k1::All;
use bitcoin::{Network, PrivateKey, PublicKey};

/// Bytes of a key in the short form.
const COMPRESSED_BYTES: usize = 33;

static SECP: LazyLock<Secp256k1<All>> = LazyLock::new(Secp256k1::new);

/// The forms of a key that its place allows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum KeyForm {
    /// Any.
    Any,
    /// 33 bytes.
    Compressed,
    /// 33 bytes, or 32 without the sign.
    XOnly,
}

/// A key, or a rule that gives one for each index.
#[derive(Clone, Debug)]
pub(super) struct KeyExpression {
    /// What stands in front of the path in the origin: fingerprint and path.
    origin: (String, Vec<ChildNumber>),
    key: Key,
    wildcard: Wildcard,
}

#[derive(Clone, Debug)]
enum Key {
    Single(PublicKey),
    Public(Xpub),
    Private(Xpriv),
    /// A hardened step from a public key: fit for a descriptor, but not to derive from.
    Underivable,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wildcard {
    None,
    Normal,
    Hardened,
}

/// A key at an index.
#[derive(Clone, Debug)]
pub(super) struct DerivedKey {
    pub(super) key: PublicKey,
    /// Fingerprint and path in brackets.
    origin: String,
}

impl DerivedKey {
    /// Returns the key as a script has it.
    pub(super) fn bytes(&self, x_only: bool) -> Vec<u8> {
        if x_only {
            return self.key.inner.x_only_public_key().0.serialize().to_vec();
        }
        self.key.to_bytes()
    }

    /// Returns the key as a descriptor shows it, with its origin.
    pub(super) fn text(&self, x_only: bool) -> String {
        if x_only {
            return format!("{}{}", self.origin, self.key.inner.x_only_public_key().0);
        }
        format!("{}{}", self.origin, self.key)
    }
}

impl KeyExpression {
    /// Reads a key expression.
    pub(super) fn parse(text: &str, network: Network, form: KeyForm) -> Result<Self, String> {
        let (origin, text) = match text.split_once(']') {
            Some((origin, key)) => (Some(parse_origin(origin)?), key),
            None => (None, text),
        };
        let mut parts = text.split('/');
        let first = parts.next().unwrap_or_default();
        let path: Vec<&str> = parts.collect();
        if first.is_empty() {
            return Err("No key provided".into());
        }
        if first.trim_ascii() != first {
            return Err(format!("Key '{first}' is invalid due to whitespace"));
        }
        if path.is_empty()
            && let Some(key) = parse_single(first, network, form)?
        {
            let origin = origin.unwrap_or_else(|| {
                let id = key.pubkey_hash();
                (id.to_string().get(..8).unwrap_or_default().to_owned(), Vec::new())
            });
            return Ok(Self { origin, key: Key::Single(key), wildcard: Wildcard::None });
        }
        let key = parse_extended(first, network)?;
        let (steps, wildcard) = parse_steps(&path)?;
        let mut origin = origin.unwrap_or_else(|| (fingerprint(&key), Vec::new()));
        let key = derive(key, &steps).unwrap_or(Key::Underivable);
        origin.1.extend(steps);
        Ok(Self { origin, key, wildcard })
    }

    /// Returns the number of bytes of its keys.
    pub(super) fn size(&self) -> usize {
        match &self.key {
            Key::Single(key) => key.to_bytes().len(),
            _ => COMPRESSED_BYTES,
        }
    }

    /// Returns whether it gives a key for each index.
    pub(super) fn is_range(&self) -> bool {
        self.wildcard != Wildcard::None
    }

    /// Returns the key at an index; `None` if that needs a private key.
    pub(super) fn derive(&self, index: u32) -> Option<DerivedKey> {
        let step = match self.wildcard {
            Wildcard::None => None,
            Wildcard::Normal => Some(ChildNumber::from_normal_idx(index).ok()?),
            Wildcard::Hardened => Some(ChildNumber::from_hardened_idx(index).ok()?),
        };
        let steps: Vec<ChildNumber> = step.into_iter().collect();
        let key = match derive(self.key.clone(), &steps).ok()? {
            Key::Underivable => return None,
            Key::Single(key) => key,
            Key::Public(key) => PublicKey::new(key.public_key),
            Key::Private(key) => PublicKey::new(Xpub::from_priv(&SECP, &key).public_key),
        };
        let mut origin = format!("[{}", self.origin.0);
        for step in self.origin.1.iter().chain(&steps) {
            origin.push('/');
            origin.push_str(&step_text(*step));
        }
        origin.push(']');
        Some(DerivedKey { key, origin })
    }
}

fn step_text(step: ChildNumber) -> String {
    match step {
        ChildNumber::Normal { index } => index.to_string(),
        ChildNumber::Hardened { index } => format!("{index}h"),
    }
}

fn parse_origin(text: &str) -> Result<(String, Vec<ChildNumber>), String> {
    let inner = text.strip_prefix('[').ok_or_else(|| {
        let found = text.chars().next().unwrap_or(']');
        format!("Key origin start '[ character expected but not found, got '{found}' instead")
    })?;
    let mut parts = inner.split('/');
    let fingerprint = parts.next().unwrap_or_default();
    if fingerprint.len() != 8 {
        return Err(format!(
            "Fingerprint is not 4 bytes ({} characters instead of 8 characters)",
            fingerprint.len()
        ));
    }
    if <[u8; 4]>::from_hex(fingerprint).is_err() {
        return Err(format!("Fingerprint '{fingerprint}' is not hex"));
    }
    let path: Result<Vec<ChildNumber>, String> = parts.map(parse_step).collect();
    Ok((fingerprint.to_lowercase(), path?))
}

/// Reads a single key; `None` if it has to be an extended one.
fn parse_single(text: &str, network: Network, form: KeyForm) -> Result<Option<PublicKey>, String> {
    if let Ok(bytes) = Vec::from_hex(text) {
        let bytes = match bytes.len() {
            32 if form == KeyForm::XOnly => [vec![2], bytes].concat(),
            _ => bytes,
        };
        if bytes.len() == 65 && matches!(bytes.first(), Some(6 | 7)) {
            return Err("Hybrid public keys are not allowed".into());
        }
        let key = PublicKey::from_slice(&bytes);
        let key = key.map_err(|_| format!("Pubkey '{text}' is invalid"))?;
        return fit(key, form).map(Some);
    }
    let key = PrivateKey::from_wif(text).ok();
    let key = key.filter(|key| key.network == network.into());
    key.map(|key| fit(key.public_key(&SECP), form)).transpose()
}

fn fit(key: PublicKey, form: KeyForm) -> Result<PublicKey, String> {
    if key.compressed || form == KeyForm::Any {
        Ok(key)
    } else {
        Err("Uncompressed keys are not allowed".into())
    }
}

fn parse_extended(text: &str, network: Network) -> Result<Key, String> {
    let invalid = || format!("key '{text}' is not valid");
    let (key, kind) = match (Xpriv::from_str(text), Xpub::from_str(text)) {
        (Ok(key), _) => (Key::Private(key), key.network),
        (_, Ok(key)) => (Key::Public(key), key.network),
        _ => return Err(invalid()),
    };
    if kind == network.into() { Ok(key) } else { Err(invalid()) }
}

fn parse_steps(path: &[&str]) -> Result<(Vec<ChildNumber>, Wildcard), String> {
    let (path, wildcard) = match path.split_last() {
        Some((&"*", path)) => (path, Wildcard::Normal),
        Some((&("*'" | "*h"), path)) => (path, Wildcard::Hardened),
        _ => (path, Wildcard::None),
    };
    let steps: Result<Vec<ChildNumber>, String> =
        path.iter().map(|step| parse_step(step)).collect();
    Ok((steps?, wildcard))
}

pub(super) fn parse_step(text: &str) -> Result<ChildNumber, String> {
    let number = text.strip_suffix(['h', '\'']);
    let digits = number.unwrap_or(text);
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let index: u64 = digits
        .parse()
        .ok()
        .filter(|_| plain)
        .ok_or_else(|| format!("Key path value '{digits}' is not a valid uint32"))?;
    let index = u32::try_from(index).ok().filter(|index| *index < 1 << 31);
    let index = index.ok_or_else(|| format!("Key path value {digits} is out of range"))?;
    let step = match number {
        Some(_) => ChildNumber::from_hardened_idx(index),
        None => ChildNumber::from_normal_idx(index),
    };
    step.map_err(|_| format!("Key path value {digits} is out of range"))
}

fn fingerprint(key: &Key) -> String {
    match key {
        Key::Single(_) | Key::Underivable => String::new(),
        Key::Public(key) => key.fingerprint().to_string(),
        Key::Private(key) => key.fingerprint(&SECP).to_string(),
    }
}

fn derive(key: Key, steps: &[ChildNumber]) -> Result<Key, ()> {
    Ok(match key {
        Key::Single(_) | Key::Underivable => key,
        Key::Public(key) => Key::Public(key.derive_pub(&SECP, &steps).map_err(|_| ())?),
        Key::Private(key) => Key::Private(key.derive_priv(&SECP, &steps).map_err(|_| ())?),
    })
}
