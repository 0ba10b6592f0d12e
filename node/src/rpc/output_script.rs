//! Methods about addresses, scripts and descriptors that need no chain.

use bitcoin::bip32::{Xpriv, Xpub};
use bitcoin::hex::{DisplayHex as _, FromHex as _};
use bitcoin::opcodes::all::OP_CHECKMULTISIG;
use bitcoin::script::Builder;
use bitcoin::secp256k1::Secp256k1;
use bitcoin::{Address, Network, PrivateKey, PublicKey, Script, ScriptBuf};
use serde_json::{Value, json};

use super::address;
use super::call::{Args, json as required, not_of_type, optional, optional_text, text, whole};
use super::descriptor::{Descriptor, alternatives, with_checksum, without_checksum};
use super::{Context, Method, RpcError, RpcResult, code};

/// Most keys of a multisignature script (Core's `MAX_PUBKEYS_PER_MULTISIG`).
const KEYS_MAX: usize = 20;

/// Longest script behind a hash (Core's `MAX_SCRIPT_ELEMENT_SIZE`).
const REDEEM_SCRIPT_BYTES_MAX: usize = 520;

/// Most addresses that one call derives.
const RANGE_MAX: i64 = 1_000_000;

pub(super) const METHODS: &[Method] = &[
    Method {
        name: "createmultisig",
        params: &[required("nrequired"), required("keys"), optional_text("address_type")],
        run: create_multisig,
    },
    Method {
        name: "deriveaddresses",
        params: &[text("descriptor"), optional("range")],
        run: derive_addresses,
    },
    Method { name: "getdescriptorinfo", params: &[text("descriptor")], run: get_descriptor_info },
    Method { name: "validateaddress", params: &[text("address")], run: validate_address },
];

fn network(context: &Context) -> Network {
    context.chain.params().network.to_bitcoin()
}

fn validate_address(context: &Context, args: &Args) -> RpcResult {
    let text = args.text(0)?;
    let script = match address::decode(text, network(context)) {
        Ok(script) => script,
        Err(fault) => {
            return Ok(json!({"isvalid": false, "error_locations": fault.at, "error": fault.text}));
        }
    };
    // As Core writes it: bech32 in small letters.
    let written = Address::from_script(&script, network(context));
    let written = written.map_or_else(|_| text.to_lowercase(), |address| address.to_string());
    let mut info = json!({
        "isvalid": true,
        "address": written,
        "scriptPubKey": script.as_bytes().as_hex().to_string(),
    });
    if let Some(fields) = info.as_object_mut() {
        for (name, value) in describe(&script) {
            fields.insert(name.to_owned(), value);
        }
    }
    Ok(info)
}

/// Core's `DescribeAddressVisitor`.
fn describe(script: &Script) -> Vec<(&'static str, Value)> {
    let (Some(version), Some(program)) = (script.witness_version(), script.as_bytes().get(2..))
    else {
        return vec![("isscript", json!(script.is_p2sh())), ("iswitness", json!(false))];
    };
    // A pay-to-anchor (BIP433) has a program that is no hash of anything.
    if script.as_bytes() == [0x51, 0x02, 0x4e, 0x73] {
        return vec![("isscript", json!(true)), ("iswitness", json!(true))];
    }
    let mut rows = Vec::new();
    if script.is_p2wpkh() || script.is_p2wsh() || script.is_p2tr() {
        rows.push(("isscript", json!(!script.is_p2wpkh())));
    }
    rows.push(("iswitness", json!(true)));
    rows.push(("witness_version", json!(version.to_num())));
    rows.push(("witness_program", json!(program.as_hex().to_string())));
    rows
}

fn create_multisig(context: &Context, args: &Args) -> RpcResult {
    let count: i32 = args.integer(0)?;
    let keys: Vec<PublicKey> = args
        .get(1)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .map(public_key)
        .collect::<Result<_, _>>()?;
    let bad = |text: String| Err(RpcError::new(code::INVALID_PARAMETER, text));
    let kind = args.optional_text(2)?.unwrap_or("legacy");
    if !["legacy", "p2sh-segwit", "bech32"].contains(&kind) {
        let text = if kind == "bech32m" {
            "createmultisig cannot create bech32m multisig addresses".to_owned()
        } else {
            format!("Unknown address type '{kind}'")
        };
        return Err(RpcError::new(code::INVALID_ADDRESS_OR_KEY, text));
    }
    let needed = usize::try_from(count).ok().filter(|count| *count > 0);
    let Some(needed) = needed else {
        return bad("a multisignature address must require at least one key to redeem".into());
    };
    if keys.len() < needed {
        return bad(format!(
            "not enough keys supplied (got {} keys, but need at least {needed} to redeem)",
            keys.len()
        ));
    }
    if keys.len() > KEYS_MAX {
        return bad(format!(
            "Number of keys involved in the multisignature address creation > {KEYS_MAX}\nReduce the number"
        ));
    }
    let script = multisig(count.into(), &keys);
    let is_compressed = keys.iter().all(|key| key.compressed);
    let used = if is_compressed { kind } else { "legacy" };
    if used == "legacy" && script.len() > REDEEM_SCRIPT_BYTES_MAX {
        return bad(format!(
            "redeemScript exceeds size limit: {} > {REDEEM_SCRIPT_BYTES_MAX}",
            script.len()
        ));
    }
    let names: Vec<String> = keys.iter().map(ToString::to_string).collect();
    let inner = format!("multi({needed},{})", names.join(","));
    let (output, descriptor) = match used {
        "legacy" => (script.to_p2sh(), format!("sh({inner})")),
        "bech32" => (script.to_p2wsh(), format!("wsh({inner})")),
        _ => (script.to_p2wsh().to_p2sh(), format!("sh(wsh({inner}))")),
    };
    let address = Address::from_script(&output, network(context));
    let mut info = json!({
        "address": address.map(|address| address.to_string()).unwrap_or_default(),
        "redeemScript": script.as_bytes().as_hex().to_string(),
        "descriptor": with_checksum(&descriptor),
    });
    if used != kind
        && let Some(fields) = info.as_object_mut()
    {
        let text = "Unable to make chosen address type, please ensure no uncompressed public keys are present.";
        fields.insert("warnings".into(), json!([text]));
    }
    Ok(info)
}

fn public_key(value: &Value) -> Result<PublicKey, RpcError> {
    let Some(text) = value.as_str() else {
        return Err(not_of_type(value, "string"));
    };
    let bad = |what: &str| {
        RpcError::new(code::INVALID_ADDRESS_OR_KEY, format!("Pubkey \"{text}\" must {what}"))
    };
    let bytes = Vec::from_hex(text).ok().filter(|bytes| !bytes.is_empty());
    let bytes = bytes.ok_or_else(|| bad("be a hex string"))?;
    if bytes.len() != 33 && bytes.len() != 65 {
        return Err(bad("have a length of either 33 or 65 bytes"));
    }
    PublicKey::from_slice(&bytes).map_err(|_| bad("be cryptographically valid."))
}

fn multisig(needed: i64, keys: &[PublicKey]) -> ScriptBuf {
    let mut builder = Builder::new().push_int(needed);
    for key in keys {
        builder = builder.push_key(key);
    }
    let total = i64::try_from(keys.len()).unwrap_or(i64::MAX);
    builder.push_int(total).push_opcode(OP_CHECKMULTISIG).into_script()
}

fn bad_descriptor(text: impl Into<String>) -> RpcError {
    RpcError::new(code::INVALID_ADDRESS_OR_KEY, text)
}

fn get_descriptor_info(context: &Context, args: &Args) -> RpcResult {
    let payload = without_checksum(args.text(0)?).map_err(bad_descriptor)?;
    let descriptor = Descriptor::parse(payload, network(context)).map_err(bad_descriptor)?;
    let forms: Vec<String> = alternatives(payload)
        .map_err(bad_descriptor)?
        .iter()
        .map(|form| with_checksum(&public_text(form)))
        .collect();
    let mut info = json!({"descriptor": forms.first()});
    if let Some(fields) = info.as_object_mut() {
        if forms.len() > 1 {
            fields.insert("multipath_expansion".into(), json!(forms));
        }
        let checksum = with_checksum(payload).rsplit('#').next().unwrap_or_default().to_owned();
        fields.insert("checksum".into(), json!(checksum));
        fields.insert("isrange".into(), json!(descriptor.is_range()));
        let is_solvable = !payload.starts_with("raw(") && !payload.starts_with("addr(");
        fields.insert("issolvable".into(), json!(is_solvable));
        let has_private_keys = !public_text(payload).eq_ignore_ascii_case(payload);
        fields.insert("hasprivatekeys".into(), json!(has_private_keys));
    }
    Ok(info)
}

/// Writes a descriptor with public keys in the place of private ones, and digits in small letters.
fn public_text(text: &str) -> String {
    let x_only = text.starts_with("tr(") || text.starts_with("rawtr(");
    let mut public = String::new();
    for piece in text.split_inclusive(['(', ')', ',', '{', '}']) {
        let token = piece.trim_end_matches(['(', ')', ',', '{', '}']);
        let end = piece.get(token.len()..).unwrap_or_default();
        let start = token.rfind(']').map_or(0, |at| at + 1);
        let (origin, key) = token.split_at_checked(start).unwrap_or(("", token));
        let (key, path) = key.split_at(key.find('/').unwrap_or(key.len()));
        public.push_str(&origin.to_ascii_lowercase());
        let is_hex = key.bytes().all(|byte| byte.is_ascii_hexdigit());
        let plain = || if is_hex { key.to_lowercase() } else { key.to_owned() };
        public.push_str(&public_key_text(key, x_only).unwrap_or_else(plain));
        public.push_str(path);
        public.push_str(end);
    }
    public
}

/// Returns the public key of a private one; `None` for any other text.
fn public_key_text(key: &str, x_only: bool) -> Option<String> {
    let secp = Secp256k1::signing_only();
    if let Ok(key) = key.parse::<Xpriv>() {
        return Some(Xpub::from_priv(&secp, &key).to_string());
    }
    let key = PrivateKey::from_wif(key).ok()?.public_key(&secp);
    Some(if x_only { key.inner.x_only_public_key().0.to_string() } else { key.to_string() })
}

fn derive_addresses(context: &Context, args: &Args) -> RpcResult {
    let range = args.get(1).map(range).transpose()?;
    let text = args.text(0)?;
    let payload = without_checksum(text).map_err(bad_descriptor)?;
    if payload == text {
        return Err(bad_descriptor("Missing checksum"));
    }
    let paths: Vec<Descriptor> = alternatives(payload)
        .map_err(bad_descriptor)?
        .iter()
        .map(|path| Descriptor::parse(path, network(context)))
        .collect::<Result<_, _>>()
        .map_err(bad_descriptor)?;
    let bad = |text: &str| Err(RpcError::new(code::INVALID_PARAMETER, text));
    let is_range = paths.iter().any(Descriptor::is_range);
    if !is_range && args.len() > 1 {
        return bad("Range should not be specified for an un-ranged descriptor");
    }
    if is_range && args.len() == 1 {
        return bad("Range must be specified for a ranged descriptor");
    }
    let range = range.unwrap_or_default();
    let mut all = Vec::new();
    for path in &paths {
        all.push(Value::Array(addresses(path, range, network(context))?));
    }
    if all.len() == 1 { Ok(all.pop().unwrap_or_default()) } else { Ok(Value::Array(all)) }
}

fn addresses(
    descriptor: &Descriptor,
    (begin, end): (u32, u32),
    network: Network,
) -> Result<Vec<Value>, RpcError> {
    let mut addresses = Vec::new();
    for index in begin..=end {
        let derived = descriptor.derive(index);
        let derived =
            derived.ok_or_else(|| bad_descriptor("Cannot derive script without private keys"))?;
        let is_only = derived.len() == 1;
        for script in derived.into_iter().map(|derived| derived.script) {
            match Address::from_script(&script, network) {
                Ok(address) => addresses.push(json!(address.to_string())),
                // A combo() has an output to the bare key besides.
                Err(_) if !is_only && script.is_p2pk() => {}
                Err(_) => {
                    let text = "Descriptor does not have a corresponding address";
                    return Err(bad_descriptor(text));
                }
            }
        }
    }
    Ok(addresses)
}

/// Core's `ParseDescriptorRange`.
fn range(value: &Value) -> Result<(u32, u32), RpcError> {
    let bad = |text: &str| Err(RpcError::new(code::INVALID_PARAMETER, text));
    let (low, high): (i64, i64) = match value {
        Value::Number(_) => (0, whole(value)?),
        Value::Array(pair) => match pair.as_slice() {
            [low @ Value::Number(_), high @ Value::Number(_)] => (whole(low)?, whole(high)?),
            _ => return bad("Range must be specified as end or as [begin,end]"),
        },
        _ => return bad("Range must be specified as end or as [begin,end]"),
    };
    if value.is_array() && low > high {
        return bad("Range specified as [begin,end] must not have begin after end");
    }
    if low < 0 {
        return bad("Range should be greater or equal than 0");
    }
    if high >> 31 != 0 {
        return bad("End of range is too high");
    }
    if high >= low.saturating_add(RANGE_MAX) {
        return bad("Range is too large");
    }
    Ok((u32::try_from(low).unwrap_or_default(), u32::try_from(high).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the documentation of descriptors in Bitcoin Core.
    #[test]
    fn private_keys_are_not_shown() {
        let key = "cTpB4YiyKiBcPxnefsDpbnDxFDffjqJob8wGCEDXxgQ7zQoMXJdH";
        let public = public_text(&format!("wpkh([d34db33f/84h]{key})"));
        assert!(
            public.starts_with("wpkh([d34db33f/84h]0") && public.len() == 5 + 14 + 66 + 1,
            "{public}"
        );
        let text = "sh(multi(2,tpubD6NzVbkrYhZ4WaWSyoBvQwbpLkojyoTZPRsgXELWz3Popb3qkjcJyJUGLnL4qHHoQvao8ESaAstxYSnhyswJ76uZPStJRJCTKvosUCJZL5B/1/*h,02))";
        assert_eq!(public_text(text), text);
    }

    #[test]
    fn ranges_are_checked_as_core_does() {
        assert_eq!(range(&json!(2)), Ok((0, 2)));
        assert_eq!(range(&json!([1, 2])), Ok((1, 2)));
        for (value, text) in [
            (json!([2, 1]), "must not have begin after end"),
            (json!(-1), "End of range is too high"),
            (json!([-1, 0]), "greater or equal than 0"),
            (json!([0, 2_147_483_648_i64]), "End of range is too high"),
            (json!([0, 1_000_000]), "Range is too large"),
            (json!([1]), "must be specified as end or as"),
            (json!("1"), "must be specified as end or as"),
        ] {
            let error = range(&value).unwrap_err();
            assert!(error.message.contains(text), "{value}: {}", error.message);
        }
    }
}
