//! Output descriptors: scripts for a descriptor, and the descriptor of a script (Bitcoin Core's
//! `script/descriptor.cpp`).
//!
//! `raw()`, `addr()`, `combo()`, `rawtr()` and all keys are read here; scripts of keys by the crate
//! `miniscript`, which is given each key as the text of a derived one.

mod checksum;
mod keys;
mod nesting;

use std::collections::{HashMap, HashSet};
use std::str::FromStr as _;

use bitcoin::address::NetworkUnchecked;
use bitcoin::hashes::{hash160, ripemd160, sha256};
use bitcoin::hex::{DisplayHex as _, FromHex as _};
use bitcoin::key::TweakedPublicKey;
use bitcoin::{Address, Network, PublicKey, Script, ScriptBuf, XOnlyPublicKey};
use miniscript::{Miniscript, Segwitv0, TranslateErr, Translator, hash256};

pub(crate) use self::checksum::{with_checksum, without_checksum};
use self::keys::{DerivedKey, KeyExpression, KeyForm};
use super::key_scripts::{is_compressed, is_plain, multisig, paid_key};
use super::{RpcError, code};

/// Texts that one with multipath keys (BIP-0389) stands for, at most.
const PATHS_MAX: usize = 100;

/// A descriptor that was read.
#[derive(Clone, Debug)]
pub(crate) struct Descriptor {
    network: Network,
    forms: Vec<Form>,
}

#[derive(Clone, Debug)]
enum Form {
    /// `raw()` and `addr()`.
    Script(ScriptBuf),
    Combo(KeyExpression),
    RawTr(KeyExpression),
    Keys {
        template: Box<miniscript::Descriptor<String>>,
        keys: HashMap<String, KeyExpression>,
        x_only: bool,
        /// The text, if keys of it are to be sorted.
        sorted: Option<String>,
    },
}

/// A script of a descriptor.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Derived {
    /// The script.
    pub(crate) script: ScriptBuf,
    /// The descriptor of this script alone, with keys' origins and the checksum.
    pub(crate) descriptor: String,
}

impl Descriptor {
    /// Reads a descriptor; the checksum may be left out.
    ///
    /// # Errors
    ///
    /// Returns what is wrong with it.
    pub(crate) fn parse(text: &str, network: Network) -> Result<Self, String> {
        let text = without_checksum(text)?;
        let forms: Result<Vec<Form>, String> =
            alternatives(text)?.iter().map(|text| Form::parse(text, network)).collect();
        Ok(Self { network, forms: forms? })
    }

    /// Returns whether it has scripts for each index.
    pub(crate) fn is_range(&self) -> bool {
        self.forms.iter().any(|form| match form {
            Form::Script(_) => false,
            Form::Combo(key) | Form::RawTr(key) => key.is_range(),
            Form::Keys { keys, .. } => keys.values().any(KeyExpression::is_range),
        })
    }

    /// Returns the scripts at an index.
    ///
    /// # Errors
    ///
    /// Returns `None` if a private key is needed for them.
    pub(crate) fn derive(&self, index: u32) -> Option<Vec<Derived>> {
        let mut all = Vec::new();
        for form in &self.forms {
            all.extend(form.derive(index, self.network)?);
        }
        Some(all)
    }
}

impl Form {
    fn parse(text: &str, network: Network) -> Result<Self, String> {
        let key = |text: &str, form| KeyExpression::parse(text, network, form);
        nesting::check(text, &|text, form| Ok(key(text, form)?.size()))?;
        let inner = |name: &str| text.strip_prefix(name)?.strip_prefix('(')?.strip_suffix(')');
        if let Some(hex) = inner("raw") {
            let bytes = Vec::from_hex(hex).ok().filter(|bytes| !bytes.is_empty());
            let bytes = bytes.ok_or("Raw script is not hex")?;
            return Ok(Self::Script(ScriptBuf::from_bytes(bytes)));
        }
        if let Some(text) = inner("addr") {
            return address(text, network).map(Self::Script).ok_or("Address is not valid".into());
        }
        if let Some(text) = inner("combo") {
            return Ok(Self::Combo(key(text, KeyForm::Any)?));
        }
        if let Some(text) = inner("rawtr") {
            return Ok(Self::RawTr(key(text, KeyForm::XOnly)?));
        }
        let template = Box::new(template_of(&without_sorting(text, &HashMap::new()))?);
        let sorted = text.contains(SORTED).then(|| text.to_owned());
        let x_only = matches!(*template, miniscript::Descriptor::Tr(_));
        let form = match template.desc_type().segwit_version() {
            None => KeyForm::Any,
            Some(_) if x_only => KeyForm::XOnly,
            Some(_) => KeyForm::Compressed,
        };
        let mut collector = Collector { network, form, keys: HashMap::new() };
        translate(&template, &mut collector)?;
        Ok(Self::Keys { template, keys: collector.keys, x_only, sorted })
    }

    fn derive(&self, index: u32, network: Network) -> Option<Vec<Derived>> {
        match self {
            Self::Script(script) => {
                let descriptor = infer(script, network);
                Some(vec![Derived { script: script.clone(), descriptor }])
            }
            Self::Combo(key) => Some(combo(&key.derive(index)?)),
            Self::RawTr(key) => {
                let key = key.derive(index)?;
                let output =
                    TweakedPublicKey::dangerous_assume_tweaked(key.key.inner.x_only_public_key().0);
                let descriptor = with_checksum(&format!("rawtr({})", key.text(true)));
                Some(vec![Derived { script: ScriptBuf::new_p2tr_tweaked(output), descriptor }])
            }
            Self::Keys { template, keys, x_only, sorted } => {
                let derived: Option<HashMap<&str, DerivedKey>> = keys
                    .iter()
                    .map(|(text, key)| Some((text.as_str(), key.derive(index)?)))
                    .collect();
                let derived = derived?;
                let sorted = sorted.as_deref().map(|text| without_sorting(text, &derived));
                let sorted = sorted.map(|text| template_of(&text)).transpose().ok()?;
                let template = sorted.as_ref().unwrap_or(template);
                let script = translate(template, &mut Keys(&derived)).ok()?.script_pubkey();
                let named = translate(template, &mut Names(&derived, *x_only)).ok()?;
                let text = named.to_string();
                let text = without_checksum(&text).ok()?;
                Some(vec![Derived { script, descriptor: with_checksum(text) }])
            }
        }
    }
}

/// The scripts of `combo()`; a key in the long form has no segwit ones.
fn combo(key: &DerivedKey) -> Vec<Derived> {
    let text = key.text(false);
    let mut scripts = vec![
        (ScriptBuf::new_p2pk(&key.key), format!("pk({text})")),
        (ScriptBuf::new_p2pkh(&key.key.pubkey_hash()), format!("pkh({text})")),
    ];
    if let Ok(hash) = key.key.wpubkey_hash() {
        let segwit = ScriptBuf::new_p2wpkh(&hash);
        let nested = ScriptBuf::new_p2sh(&segwit.script_hash());
        scripts.push((segwit, format!("wpkh({text})")));
        scripts.push((nested, format!("sh(wpkh({text}))")));
    }
    let derived =
        |(script, text): (ScriptBuf, String)| Derived { script, descriptor: with_checksum(&text) };
    scripts.into_iter().map(derived).collect()
}

/// Name of a multisignature whose keys are sorted once they are derived; `_a` may follow.
const SORTED: &str = "sortedmulti";

/// Returns a text with `multi` in the place of `sortedmulti`, which the crate does not know everywhere,
/// and its keys in their order as far as they are `derived`: a script does not show that they were
/// sorted.
fn without_sorting(text: &str, derived: &HashMap<&str, DerivedKey>) -> String {
    let mut pieces = text.split(SORTED);
    let mut all = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (arguments, after) = piece.split_at(piece.find(')').unwrap_or(piece.len()));
        let mut arguments = arguments.split(',');
        let threshold = arguments.next().unwrap_or_default();
        let mut keys: Vec<&str> = arguments.collect();
        let is_x_only = threshold.starts_with('_');
        keys.sort_by_cached_key(|text| derived.get(text).map(|key| key.bytes(is_x_only)));
        all.push_str(&format!("multi{threshold}"));
        for key in keys {
            all.push(',');
            all.push_str(key);
        }
        all.push_str(after);
    }
    all
}

fn template_of(text: &str) -> Result<miniscript::Descriptor<String>, String> {
    miniscript::Descriptor::from_str(text).map_err(|error| error.to_string())
}

/// Writes a text with multipath keys, `<0;1>`, once for each of their values.
pub(crate) fn alternatives(text: &str) -> Result<Vec<String>, String> {
    let mut all = vec![String::new()];
    let mut rest = text;
    let (mut count, mut is_first) = (1, true);
    while let Some((before, values, after)) = specifier(rest) {
        let values: Vec<&str> = values.split(';').collect();
        // All in front of the specifier.
        let front = text.strip_suffix(rest).unwrap_or_default().len() + before.len();
        let front = text.get(..front).unwrap_or_default();
        let told = |fault: &str| nesting::of_key(front, fault);
        if values.len() < 2 || values.len() > PATHS_MAX {
            return Err(told("Multipath key path specifiers must have at least two items"));
        }
        if key_has_another(before, is_first) {
            return Err(told("Multiple multipath key path specifiers found"));
        }
        is_first = false;
        if let Some(value) = repeated(&values) {
            let fault = format!("Duplicated key path value {value} in multipath specifier");
            return Err(told(&fault));
        }
        if count > 1 && values.len() != count {
            return Err(nesting::mismatch(front));
        }
        if count == 1 {
            count = values.len();
            let first = all.first().cloned().unwrap_or_default();
            all = vec![first; count];
        }
        for (text, value) in all.iter_mut().zip(values) {
            text.push_str(before);
            text.push_str(value);
        }
        rest = after;
    }
    all.iter_mut().for_each(|text| text.push_str(rest));
    Ok(all)
}

/// Splits a text at its first multipath specifier, a step of a path: in front of it, in it, behind it.
fn specifier(text: &str) -> Option<(&str, &str, &str)> {
    text.match_indices("/<").find_map(|(at, _)| {
        let (before, rest) = text.split_at_checked(at + 1)?;
        let end = rest.find(['/', ',', '(', ')', '{', '}']).unwrap_or(rest.len());
        let (step, after) = rest.split_at_checked(end)?;
        Some((before, step.strip_prefix('<')?.strip_suffix('>')?, after))
    })
}

/// Returns whether what stands between two multipath specifiers is of one key.
fn key_has_another(between: &str, is_first: bool) -> bool {
    !is_first && !between.contains([',', '(', ')', '{', '}'])
}

/// Returns a step that is listed twice, in whichever spelling, as the number that Core makes of it.
fn repeated(values: &[&str]) -> Option<u32> {
    let mut seen = HashSet::new();
    let steps = values.iter().filter_map(|value| keys::parse_step(value).ok());
    steps.map(u32::from).find(|step| !seen.insert(*step))
}

fn translate<T>(
    template: &miniscript::Descriptor<String>,
    translator: &mut T,
) -> Result<miniscript::Descriptor<T::TargetPk>, String>
where
    T: Translator<String, Error = String>,
{
    template.translate_pk(translator).map_err(|error| match error {
        TranslateErr::TranslatorErr(text) => text,
        TranslateErr::OuterError(error) => error.to_string(),
    })
}

/// Reads the keys of a template.
struct Collector {
    network: Network,
    form: KeyForm,
    keys: HashMap<String, KeyExpression>,
}

/// Puts keys in the place of their expressions.
struct Keys<'a>(&'a HashMap<&'a str, DerivedKey>);

/// Puts keys' texts in the place of their expressions, without their signs if so.
struct Names<'a>(&'a HashMap<&'a str, DerivedKey>, bool);

fn unknown() -> String {
    "unknown key".into()
}

/// Hashes stay the texts that they are.
macro_rules! hashes_as_text {
    () => {
        hashes_as_text!(sha256 hash256 ripemd160 hash160);
    };
    ($($name:ident)*) => {
        $(fn $name(&mut self, hash: &String) -> Result<String, String> {
            Ok(hash.clone())
        })*
    };
}

impl Translator<String> for Collector {
    type TargetPk = String;
    type Error = String;

    fn pk(&mut self, text: &String) -> Result<String, String> {
        let key = KeyExpression::parse(text, self.network, self.form)?;
        self.keys.insert(text.clone(), key);
        Ok(text.clone())
    }

    hashes_as_text!();
}

impl Translator<String> for Names<'_> {
    type TargetPk = String;
    type Error = String;

    fn pk(&mut self, text: &String) -> Result<String, String> {
        self.0.get(text.as_str()).map(|key| key.text(self.1)).ok_or_else(unknown)
    }

    hashes_as_text!();
}

impl Translator<String> for Keys<'_> {
    type TargetPk = PublicKey;
    type Error = String;

    fn pk(&mut self, text: &String) -> Result<PublicKey, String> {
        self.0.get(text.as_str()).map(|key| key.key).ok_or_else(unknown)
    }

    fn sha256(&mut self, hash: &String) -> Result<sha256::Hash, String> {
        hash.parse().map_err(|_| unknown())
    }

    fn hash256(&mut self, hash: &String) -> Result<hash256::Hash, String> {
        hash.parse().map_err(|_| unknown())
    }

    fn ripemd160(&mut self, hash: &String) -> Result<ripemd160::Hash, String> {
        hash.parse().map_err(|_| unknown())
    }

    fn hash160(&mut self, hash: &String) -> Result<hash160::Hash, String> {
        hash.parse().map_err(|_| unknown())
    }
}

/// Returns the script that a block is to pay to (`getScriptFromDescriptor`).
pub(crate) fn parse(text: &str, network: Network) -> Result<ScriptBuf, RpcError> {
    let error = |text: &str| RpcError::new(code::INVALID_ADDRESS_OR_KEY, text);
    let descriptor = Descriptor::parse(text, network).map_err(|text| error(&text))?;
    let unfit = if descriptor.forms.len() > 1 {
        Some("Multipath descriptor not accepted")
    } else if descriptor.is_range() {
        Some("Ranged descriptor not accepted. Maybe pass through deriveaddresses first?")
    } else {
        None
    };
    if let Some(text) = unfit {
        return Err(RpcError::new(code::INVALID_PARAMETER, text));
    }
    let scripts = descriptor.derive(0);
    let scripts = scripts.ok_or_else(|| error("Cannot derive script without private keys"))?;
    // Of a key's scripts the one that is usual: P2WPKH, or P2PKH for a key in the long form.
    let usual = match scripts.len() {
        4 => scripts.get(2),
        2 => scripts.get(1),
        _ => scripts.first(),
    };
    usual.map(|derived| derived.script.clone()).ok_or_else(|| error("No script"))
}

/// Returns the script that an address of the network pays to.
pub(crate) fn address(text: &str, network: Network) -> Option<ScriptBuf> {
    let address = Address::<NetworkUnchecked>::from_str(text).ok()?;
    Some(address.require_network(network).ok()?.script_pubkey())
}

/// Returns the descriptor of a script, as Core's `InferDescriptor` without keys.
pub(crate) fn infer(script: &Script, network: Network) -> String {
    let descriptor = if let Some(key) = paid_key(script).filter(|key| is_plain(key)) {
        format!("pk({})", key.as_hex())
    } else if let Some(text) = multi(script, is_plain) {
        text
    } else if let Some(key) = output_key(script) {
        format!("rawtr({key})")
    } else if let Ok(address) = Address::from_script(script, network) {
        format!("addr({address})")
    } else {
        format!("raw({})", script.as_bytes().as_hex())
    };
    with_checksum(&descriptor)
}

/// Returns the descriptor of a multisignature script whose keys are all `fit`.
fn multi(script: &Script, fit: fn(&[u8]) -> bool) -> Option<String> {
    let multisig = multisig(script).filter(|multisig| multisig.keys.iter().all(|key| fit(key)))?;
    let keys: Vec<String> = multisig.keys.iter().map(|key| key.to_lower_hex_string()).collect();
    Some(format!("multi({},{})", multisig.needed, keys.join(",")))
}

/// The key of a taproot output, if it is one.
fn output_key(script: &Script) -> Option<XOnlyPublicKey> {
    let key = script.as_bytes().get(2..).filter(|_| script.is_p2tr())?;
    XOnlyPublicKey::from_slice(key).ok()
}

/// Returns the descriptor of a P2WSH script whose inner one is known; `None` if it tells nothing.
pub(crate) fn infer_witness(inner: &Script) -> Option<String> {
    if let Some(multi) = multi(inner, is_compressed) {
        return Some(with_checksum(&format!("wsh({multi})")));
    }
    let inner = Miniscript::<PublicKey, Segwitv0>::decode(inner).ok()?.to_string();
    // A key that is known by its hash alone has no text.
    (!inner.contains("expr_raw")).then(|| with_checksum(&format!("wsh({inner})")))
}

#[cfg(test)]
mod tests;
