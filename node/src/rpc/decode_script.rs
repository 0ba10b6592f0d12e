//! `decodescript`: a script in words, and the addresses that wrap it.

use bitcoin::hashes::Hash as _;
use bitcoin::opcodes::Class;
use bitcoin::opcodes::ClassifyContext;
use bitcoin::opcodes::all::OP_CHECKSIGADD;
use bitcoin::script::Instruction;
use bitcoin::{Network, Script, ScriptBuf, WPubkeyHash};
use cofferdam_ibd::coin::is_unspendable;
use serde_json::{Value, json};

use super::call::Args;
use super::key_scripts::{is_compressed, multisig, paid_key};
use super::raw_tx::address_of;
use super::tx_bytes::has_valid_ops;
use super::{Context, RpcError, RpcResult, code, descriptor, tx_json};

pub(super) fn decode_script(context: &Context, args: &Args) -> RpcResult {
    let hex = args.text(0)?;
    let script = tx_json::bytes(hex).map(ScriptBuf::from_bytes).ok_or_else(|| {
        let message = format!("argument must be hexadecimal string (not '{hex}')");
        RpcError::new(code::INVALID_PARAMETER, message)
    })?;
    let network = context.chain.params().network.to_bitcoin();
    let mut decoded = tx_json::script(&script, network);
    let Some(fields) = decoded.as_object_mut() else { return Ok(decoded) };
    // Not by exchange with the last field: they keep their order.
    fields.shift_remove("hex");
    let kind = fields.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
    if !can_wrap(&script, &kind) {
        return Ok(decoded);
    }
    fields.insert("p2sh".into(), json!(p2sh_address(&script, network)));
    if let Some(segwit) = segwit_script(&script, &kind) {
        let mut inner = tx_json::script(&segwit, network);
        if let Some(inner) = inner.as_object_mut() {
            if let Some(text) = descriptor::infer_witness(&script).filter(|_| segwit.is_p2wsh()) {
                inner.insert("desc".into(), json!(text));
            }
            inner.insert("p2sh-segwit".into(), json!(p2sh_address(&segwit, network)));
        }
        fields.insert("segwit".into(), inner);
    }
    Ok(decoded)
}

fn p2sh_address(script: &Script, network: Network) -> Option<String> {
    address_of(&ScriptBuf::new_p2sh(&script.script_hash()), network)
}

fn can_wrap(script: &Script, kind: &str) -> bool {
    let is_kind = matches!(
        kind,
        "multisig"
            | "nonstandard"
            | "pubkey"
            | "pubkeyhash"
            | "witness_v0_keyhash"
            | "witness_v0_scripthash"
    );
    let has_tapscript_ops = script.instructions().any(|instruction| match instruction {
        Ok(Instruction::Op(op)) => {
            op == OP_CHECKSIGADD || op.classify(ClassifyContext::TapScript) == Class::SuccessOp
        }
        _ => false,
    });
    is_kind && has_valid_ops(script) && !is_unspendable(script) && !has_tapscript_ops
}

/// The witness program for a script; `None` if a witness cannot satisfy it.
fn segwit_script(script: &Script, kind: &str) -> Option<ScriptBuf> {
    match kind {
        "pubkey" => {
            let key = paid_key(script).filter(|key| is_compressed(key))?;
            Some(ScriptBuf::new_p2wpkh(&WPubkeyHash::hash(key)))
        }
        "pubkeyhash" => {
            let hash: [u8; 20] = script.as_bytes().get(3..23)?.try_into().ok()?;
            Some(ScriptBuf::new_p2wpkh(&WPubkeyHash::from_byte_array(hash)))
        }
        "multisig" => {
            let keys = multisig(script)?.keys;
            keys.into_iter().all(is_compressed).then(|| script.to_p2wsh())
        }
        "nonstandard" => Some(script.to_p2wsh()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_witness_needs_short_keys_whether_they_are_on_the_curve_or_not() {
        let (short, long) = (format!("21{}", "02".repeat(33)), format!("41{}", "04".repeat(65)));
        for (script, kind, program) in [
            (format!("{short}ac"), "pubkey", Some("witness_v0_keyhash")),
            (format!("{long}ac"), "pubkey", None),
            (format!("51{short}{short}52ae"), "multisig", Some("witness_v0_scripthash")),
            (format!("51{short}{long}52ae"), "multisig", None),
            (format!("51{short}7dae"), "nonstandard", Some("witness_v0_scripthash")),
        ] {
            let script = ScriptBuf::from_hex(&script).unwrap();
            let kind_of =
                |script: &Script| tx_json::script(script, Network::Regtest)["type"].clone();
            assert_eq!(kind_of(&script), kind, "{script}");
            let segwit = segwit_script(&script, kind).map(|segwit| kind_of(&segwit));
            assert_eq!(segwit, program.map(Value::from), "{script}");
        }
        let multi = ScriptBuf::from_hex(&format!("51{short}51ae")).unwrap();
        let text = format!("wsh(multi(1,{}))", "02".repeat(33));
        let expected = Some(descriptor::with_checksum(&text));
        assert_eq!(descriptor::infer_witness(&multi), expected);
    }
}
