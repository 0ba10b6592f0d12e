//! Amounts, scripts, transactions and headers as JSON, in Bitcoin Core's fields (`core_io.cpp`,
//! `rpc/blockchain.cpp`).

use bitcoin::hex::{DisplayHex as _, FromHex as _};
use bitcoin::opcodes::all as op;
use bitcoin::script::{Instruction, read_scriptint_non_minimal};
use bitcoin::{Address, Amount, Network, OutPoint, Script, Transaction, TxIn, Txid, opcodes};
use cofferdam_ibd::coin::is_unspendable;
use cofferdam_ibd::undo::TxUndo;
use cofferdam_ibd::{Chainstate, Coin, HeaderChain as _, HeaderRef};
use serde_json::{Map, Number, Value, json};

use super::call::{not_of_type, whole};
use super::key_scripts;
use super::{RpcError, code, descriptor, tx_bytes};

/// Returns an amount in bitcoins as a number with eight decimals. As in Core, amounts have a sign, and
/// those of outputs that are decoded may be below zero.
pub(crate) fn amount(amount: Amount) -> Value {
    signed_amount(amount.to_sat().cast_signed())
}

/// Returns an amount that may be negative, as [`amount`] does.
pub(crate) fn signed_amount(satoshis: i64) -> Value {
    let (sign, satoshis) = (if satoshis < 0 { "-" } else { "" }, satoshis.unsigned_abs());
    number(&format!("{sign}{}.{:08}", satoshis / 100_000_000, satoshis % 100_000_000))
}

/// Returns an element of an argument as a text.
pub(crate) fn string(value: &Value) -> Result<&str, RpcError> {
    value.as_str().ok_or_else(|| not_of_type(value, "string"))
}

/// Reads an output's place: an object with `txid` and `vout`.
pub(crate) fn outpoint(value: &Value) -> Result<OutPoint, RpcError> {
    let wrong = |message: &str| RpcError::new(code::INVALID_PARAMETER, message);
    let text = string(value.get("txid").unwrap_or(&Value::Null))?;
    let txid: Txid = text.parse().map_err(|_| {
        wrong(&if text.len() == 64 {
            format!("txid must be hexadecimal string (not '{text}')")
        } else {
            format!("txid must be of length 64 (not {}, for '{text}')", text.len())
        })
    })?;
    let vout = value.get("vout").filter(|vout| vout.is_number());
    let vout = vout.ok_or_else(|| wrong("Invalid parameter, missing vout key"))?;
    let vout = u32::try_from(whole::<i32>(vout)?)
        .map_err(|_| wrong("Invalid parameter, vout cannot be negative"))?;
    Ok(OutPoint { txid, vout })
}

/// Returns a number in the digits that C++ streams print at sixteen places (`%.16g`).
pub(crate) fn float(value: f64) -> Value {
    let scientific = format!("{value:.15e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let decimals = usize::try_from(15 - exponent).unwrap_or(0);
        let fixed = format!("{value:.decimals$}");
        let short =
            if decimals > 0 { fixed.trim_end_matches('0').trim_end_matches('.') } else { &fixed };
        return number(short);
    }
    let digits = digits.trim_end_matches('0').trim_end_matches('.');
    let sign = if exponent < 0 { '-' } else { '+' };
    number(&format!("{digits}e{sign}{:02}", exponent.unsigned_abs()))
}

fn number(text: &str) -> Value {
    text.parse::<Number>().map_or(Value::Null, Value::Number)
}

/// Returns the difficulty of a target, relative to the easiest of the main network.
pub(crate) fn difficulty(bits: u32) -> f64 {
    let mut difficulty = f64::from(0xffff_u32) / f64::from(bits & 0x00ff_ffff);
    let shift = bits >> 24;
    for _ in shift..29 {
        difficulty *= 256.0;
    }
    for _ in 29..shift {
        difficulty /= 256.0;
    }
    difficulty
}

/// Returns the fields of a header.
pub(crate) fn header(chain: &Chainstate, at: HeaderRef) -> Map<String, Value> {
    let headers = chain.headers();
    let entry = headers.entry(at);
    let tip = headers.entry(chain.tip_ref());
    let next = chain.is_connected(at).then(|| chain.block_at(entry.height + 1)).flatten();
    let confirmations = if chain.is_connected(at) {
        i64::from(tip.height) - i64::from(entry.height) + 1
    } else {
        -1
    };
    let header = entry.header;
    let version = header.version.to_consensus();
    let bits = header.bits.to_consensus();
    let mut fields = Map::new();
    let mut put = |name: &str, value: Value| fields.insert(name.to_owned(), value);
    put("hash", json!(entry.hash.to_string()));
    put("confirmations", json!(confirmations));
    put("height", json!(entry.height));
    put("version", json!(version));
    put("versionHex", json!(format!("{version:08x}")));
    put("merkleroot", json!(header.merkle_root.to_string()));
    put("time", json!(header.time));
    put("mediantime", json!(headers.median_time_past(at)));
    put("nonce", json!(header.nonce));
    put("bits", json!(format!("{bits:08x}")));
    put("target", json!(header.target().to_be_bytes().to_lower_hex_string()));
    put("difficulty", float(difficulty(bits)));
    put("chainwork", json!(entry.chain_work.to_be_bytes().to_lower_hex_string()));
    put("nTx", json!(entry.tx_count));
    if entry.parent.is_some() {
        put("previousblockhash", json!(header.prev_blockhash.to_string()));
    }
    if let Some(next) = next {
        put("nextblockhash", json!(next.hash.to_string()));
    }
    debug_assert_eq!(headers.chain(at).height(), entry.height);
    fields
}

/// Returns the fields of a block's coinbase that `getblock` shows on top.
pub(crate) fn coinbase(transaction: &Transaction) -> Value {
    let Some(input) = transaction.input.first() else {
        return Value::Null;
    };
    let mut fields = json!({
        "version": transaction.version.0.cast_unsigned(),
        "locktime": transaction.lock_time.to_consensus_u32(),
        "sequence": input.sequence.0,
        "coinbase": input.script_sig.to_hex_string(),
    });
    if let (Some(item), Some(fields)) = (input.witness.nth(0), fields.as_object_mut()) {
        fields.insert("witness".into(), json!(item.to_lower_hex_string()));
    }
    fields
}

/// What is shown of the coins that a transaction spends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Spent<'a> {
    /// Nothing: they are not known, or there are none.
    Unknown,
    /// The fee that follows from them.
    Fee(&'a TxUndo),
    /// The fee, and each coin with its input.
    Coins(&'a TxUndo),
}

impl<'a> Spent<'a> {
    const fn coins(self) -> Option<&'a TxUndo> {
        match self {
            Self::Unknown => None,
            Self::Fee(undo) | Self::Coins(undo) => Some(undo),
        }
    }
}

/// Returns the fields of a transaction.
pub(crate) fn transaction(transaction: &Transaction, spent: Spent<'_>, network: Network) -> Value {
    let coin = |index: usize| match spent {
        Spent::Coins(undo) => undo.0.get(index),
        _ => None,
    };
    let inputs = transaction.input.iter().enumerate();
    let inputs: Vec<Value> = inputs
        .map(|(index, txin)| input(txin, transaction.is_coinbase(), coin(index), network))
        .collect();
    let outputs = transaction.output.iter().enumerate().map(|(n, output)| {
        let script = script(&output.script_pubkey, network);
        json!({"value": amount(output.value), "n": n, "scriptPubKey": script})
    });
    let outputs: Vec<Value> = outputs.collect();
    let txid = transaction.compute_txid().to_string();
    let bytes = tx_bytes::encode(transaction);
    // One without inputs has no witness, though the library counts the marker of one.
    let (hash, size, weight) = if transaction.input.is_empty() {
        (txid.clone(), bytes.len(), bytes.len() * 4)
    } else {
        let weight = transaction.base_size() * 3 + bytes.len();
        (transaction.compute_wtxid().to_string(), bytes.len(), weight)
    };
    let mut fields = json!({
        "txid": txid,
        "hash": hash,
        "version": transaction.version.0.cast_unsigned(),
        "size": size,
        "vsize": weight.div_ceil(4),
        "weight": weight,
        "locktime": transaction.lock_time.to_consensus_u32(),
        "vin": inputs,
        "vout": outputs,
    });
    if let Some(fields) = fields.as_object_mut() {
        if let Some(undo) = spent.coins() {
            let paid: Amount = undo.0.iter().map(|coin| coin.output.value).sum();
            let kept: Amount = transaction.output.iter().map(|output| output.value).sum();
            // A connected block's transactions pay no less than they keep.
            let fee = paid.checked_sub(kept).unwrap_or_default();
            fields.insert("fee".into(), amount(fee));
        }
        fields.insert("hex".into(), json!(bytes.to_lower_hex_string()));
    }
    fields
}

fn input(txin: &TxIn, is_coinbase: bool, coin: Option<&Coin>, network: Network) -> Value {
    let mut fields = Map::new();
    if is_coinbase {
        fields.insert("coinbase".into(), json!(txin.script_sig.to_hex_string()));
    } else {
        fields.insert("txid".into(), json!(txin.previous_output.txid.to_string()));
        fields.insert("vout".into(), json!(txin.previous_output.vout));
        let hex = txin.script_sig.to_hex_string();
        let script_sig = json!({"asm": asm(&txin.script_sig, true), "hex": hex});
        fields.insert("scriptSig".into(), script_sig);
    }
    if !txin.witness.is_empty() {
        let items = txin.witness.iter().map(|item| item.to_lower_hex_string());
        fields.insert("txinwitness".into(), json!(items.collect::<Vec<String>>()));
    }
    if let Some(coin) = coin {
        let prevout = json!({
            "generated": coin.coinbase,
            "height": coin.height,
            "value": amount(coin.output.value),
            "scriptPubKey": script(&coin.output.script_pubkey, network),
        });
        fields.insert("prevout".into(), prevout);
    }
    fields.insert("sequence".into(), json!(txin.sequence.0));
    Value::Object(fields)
}

/// Returns the fields of an output script.
pub(crate) fn script(script: &Script, network: Network) -> Value {
    let mut fields = json!({
        "asm": asm(script, false),
        "desc": descriptor::infer(script, network),
        "hex": script.to_hex_string(),
    });
    let kind = script_type(script);
    if let Some(fields) = fields.as_object_mut() {
        if let Ok(address) = Address::from_script(script, network)
            && kind != "pubkey"
        {
            fields.insert("address".into(), json!(address.to_string()));
        }
        fields.insert("type".into(), json!(kind));
    }
    fields
}

fn script_type(script: &Script) -> &'static str {
    /// BIP-0433.
    const ANCHOR: [u8; 4] = [0x51, 0x02, 0x4e, 0x73];
    if script.is_p2sh() {
        "scripthash"
    } else if script.is_p2wpkh() {
        "witness_v0_keyhash"
    } else if script.is_p2wsh() {
        "witness_v0_scripthash"
    } else if script.is_p2tr() {
        "witness_v1_taproot"
    } else if script.as_bytes() == ANCHOR {
        "anchor"
    } else if script.witness_version().is_some_and(|version| version.to_num() > 0) {
        "witness_unknown"
    } else if script.is_op_return() && is_push_only_after_first(script) {
        "nulldata"
    } else if key_scripts::paid_key(script).is_some() {
        "pubkey"
    } else if script.is_p2pkh() {
        "pubkeyhash"
    } else if key_scripts::multisig(script).is_some() {
        "multisig"
    } else {
        "nonstandard"
    }
}

fn is_push_only_after_first(script: &Script) -> bool {
    script.as_bytes().get(1..).is_some_and(|rest| Script::from_bytes(rest).is_push_only())
}

/// Returns a script in words (`ScriptToAsmStr`); in input scripts the hash type of signatures is
/// named.
pub(crate) fn asm(script: &Script, name_hash_types: bool) -> String {
    let mut words = Vec::new();
    for instruction in script.instructions() {
        match instruction {
            Ok(Instruction::PushBytes(data)) if data.len() <= 4 => {
                words.push(
                    read_scriptint_non_minimal(data.as_bytes()).unwrap_or_default().to_string(),
                );
            }
            Ok(Instruction::PushBytes(data)) => {
                let signature = if name_hash_types && !is_unspendable(script) {
                    signature_words(data.as_bytes())
                } else {
                    None
                };
                words.push(signature.unwrap_or_else(|| data.as_bytes().to_lower_hex_string()));
            }
            Ok(Instruction::Op(opcode)) => words.push(opcode_name(opcode)),
            Err(_) => {
                words.push("[error]".into());
                break;
            }
        }
    }
    words.join(" ")
}

fn signature_words(data: &[u8]) -> Option<String> {
    let (hash_type, signature) = data.split_last()?;
    let name = match hash_type {
        0x01 => "ALL",
        0x02 => "NONE",
        0x03 => "SINGLE",
        0x81 => "ALL|ANYONECANPAY",
        0x82 => "NONE|ANYONECANPAY",
        0x83 => "SINGLE|ANYONECANPAY",
        _ => return None,
    };
    if !key_scripts::is_signature(data) {
        return None;
    }
    Some(format!("{}[{name}]", signature.to_lower_hex_string()))
}

fn opcode_name(opcode: opcodes::Opcode) -> String {
    /// The last opcode that has a name in Bitcoin Core, `OP_CHECKSIGADD`.
    const LAST_NAMED: u8 = 0xba;
    let byte = opcode.to_u8();
    match opcode {
        op::OP_PUSHNUM_NEG1 => "-1".into(),
        op::OP_CLTV => "OP_CHECKLOCKTIMEVERIFY".into(),
        op::OP_CSV => "OP_CHECKSEQUENCEVERIFY".into(),
        _ if (op::OP_PUSHNUM_1.to_u8()..=op::OP_PUSHNUM_16.to_u8()).contains(&byte) => {
            (byte - op::OP_PUSHNUM_1.to_u8() + 1).to_string()
        }
        op::OP_INVALIDOPCODE => "OP_INVALIDOPCODE".into(),
        _ if byte > LAST_NAMED => "OP_UNKNOWN".into(),
        _ => opcode.to_string(),
    }
}

/// Decodes hexadecimal digits.
pub(crate) fn bytes(hex: &str) -> Option<Vec<u8>> {
    Vec::from_hex(hex).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_have_eight_decimals() {
        for (satoshis, text) in
            [(0, "0.00000000"), (1, "0.00000001"), (5_000_000_000, "50.00000000")]
        {
            assert_eq!(amount(Amount::from_sat(satoshis)).to_string(), text);
        }
        // The same bytes of an output with a sign.
        assert_eq!(amount(Amount::from_sat(u64::MAX)).to_string(), "-0.00000001");
        assert_eq!(amount(Amount::from_sat(1 << 63)).to_string(), "-92233720368.54775808");
    }

    #[test]
    fn a_coinbase_has_the_version_of_its_bytes() {
        let mut coinbase = bitcoin::constants::genesis_block(Network::Regtest).txdata.remove(0);
        coinbase.version.0 = -1;
        assert_eq!(super::coinbase(&coinbase)["version"], u32::MAX);
        let fields = transaction(&coinbase, Spent::Unknown, Network::Regtest);
        assert_eq!(fields["version"], u32::MAX);
    }

    #[test]
    fn numbers_read_as_in_core() {
        assert_eq!(float(difficulty(0x1d00_ffff)).to_string(), "1");
        assert_eq!(float(difficulty(0x207f_ffff)).to_string(), "4.656542373906925e-10");
        assert_eq!(float(difficulty(0x1b04_04cb)).to_string(), "16307.42093852398");
        assert_eq!(float(0.0).to_string(), "0");
    }

    #[test]
    fn hash_types_are_named_behind_signatures_alone() {
        let words = |hex: &str| asm(&bitcoin::ScriptBuf::from_hex(hex).unwrap(), true);
        assert_eq!(words("09300602010102010101"), "3006020101020101[ALL]");
        assert_eq!(words("09300602010102010183"), "3006020101020101[SINGLE|ANYONECANPAY]");
        // No such type; a number below zero; nothing that is ever run.
        assert_eq!(words("09300602010102010104"), "300602010102010104");
        assert_eq!(words("09300602018002010101"), "300602018002010101");
        assert_eq!(words("6a09300602010102010101"), "OP_RETURN 300602010102010101");
    }

    #[test]
    fn scripts_have_cores_words_and_types() {
        let check = |hex: &str, words: &str, kind: &str| {
            let script = bitcoin::ScriptBuf::from_hex(hex).unwrap();
            assert_eq!(
                (asm(&script, false).as_str(), script_type(&script)),
                (words, kind),
                "{hex}"
            );
        };
        check("", "", "nonstandard");
        check("51", "1", "nonstandard");
        check("4f0100", "-1 0", "nonstandard");
        check("6a04deadbeef", "OP_RETURN -1874767326", "nulldata");
        check("b1b275", "OP_CHECKLOCKTIMEVERIFY OP_CHECKSEQUENCEVERIFY OP_DROP", "nonstandard");
        check("fe", "OP_UNKNOWN", "nonstandard");
        check("ff", "OP_INVALIDOPCODE", "nonstandard");
        check("05ab", "[error]", "nonstandard");
        check(
            "76a9142b4569203694fc997e13f2c0a1383b9e16c77a0d88ac",
            "OP_DUP OP_HASH160 2b4569203694fc997e13f2c0a1383b9e16c77a0d OP_EQUALVERIFY OP_CHECKSIG",
            "pubkeyhash",
        );
        check("51024e73", "1 29518", "anchor");
    }
}
