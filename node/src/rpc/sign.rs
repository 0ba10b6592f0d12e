//! `signrawtransactionwithkey` and `combinerawtransaction`.

use bitcoin::hex::DisplayHex as _;
use bitcoin::secp256k1::Secp256k1;
use bitcoin::sighash::SighashCache;
use bitcoin::{Amount, OutPoint, PrivateKey, Script, ScriptBuf, Transaction, TxIn, TxOut};
use serde_json::{Map, Value, json};

use super::call::{
    Args, check_types, json as required, optional, optional_text, parse_hash, text, whole,
};
use super::raw_tx::coins;
use super::signer::{HashType, Keys, sign_input};
use super::tx_bytes::{Form, decode, encode_hex};
use super::{Context, Method, RpcError, RpcResult, amounts, code, tx_json};

pub(super) const METHODS: &[Method] = &[
    Method { name: "combinerawtransaction", params: &[required("txs")], run: combine },
    Method {
        name: "signrawtransactionwithkey",
        params: &[
            text("hexstring"),
            required("privkeys"),
            optional("prevtxs"),
            optional_text("sighashtype"),
        ],
        run: sign_with_key,
    },
];

const DECODE_FAILED: &str = "TX decode failed. Make sure the tx has at least one input.";

/// Outputs that are spent, as far as they are known; without an amount where none was told.
type Spent = Vec<Option<(ScriptBuf, Option<Amount>)>>;

fn sign_with_key(context: &Context, args: &Args) -> RpcResult {
    let mut tx = decode(args.text(0)?, Form::Any)
        .ok_or_else(|| RpcError::new(code::DESERIALIZATION_ERROR, DECODE_FAILED))?;
    let mut keys = Keys::default();
    for key in args.array(1)? {
        let key = PrivateKey::from_wif(tx_json::string(key)?)
            .ok()
            .filter(|key| key.network == context.chain.params().network.to_bitcoin().into());
        let key =
            key.ok_or_else(|| RpcError::new(code::INVALID_ADDRESS_OR_KEY, "Invalid private key"))?;
        keys.add(&Secp256k1::new(), key);
    }
    let found = coins(context, &tx)?.into_iter();
    let mut spent: Spent =
        found.map(|coin| coin.map(|coin| (coin.script_pubkey, Some(coin.value)))).collect();
    if args.get(2).is_some() {
        for value in args.array(2)? {
            previous(value, &tx, &mut spent, &mut keys)?;
        }
    }
    let hash_type = hash_type(args.optional_text(3)?)?;
    sign(context, &mut tx, &spent, &keys, hash_type)
}

fn hash_type(text: Option<&str>) -> Result<HashType, RpcError> {
    let Some(text) = text else { return Ok(HashType::Default) };
    HashType::from_name(text).ok_or_else(|| {
        let message = format!("'{text}' is not a valid sighash parameter.");
        RpcError::new(code::INVALID_PARAMETER, message)
    })
}

/// Takes in what the caller says of a spent output (`ParsePrevouts`).
fn previous(
    value: &Value,
    tx: &Transaction,
    spent: &mut Spent,
    keys: &mut Keys,
) -> Result<(), RpcError> {
    let undecodable = |message: &str| RpcError::new(code::DESERIALIZATION_ERROR, message);
    let fields = value
        .as_object()
        .ok_or_else(|| undecodable("expected object with {\"txid'\",\"vout\",\"scriptPubKey\"}"))?;
    let types = [("scriptPubKey", "string"), ("txid", "string"), ("vout", "number")];
    check_types(fields, &types, false)?;
    let field = |name: &str| fields.get(name).unwrap_or(&Value::Null);
    let txid = parse_hash("txid", field("txid").as_str().unwrap_or_default())?;
    let vout = u32::try_from(whole::<i32>(field("vout"))?)
        .map_err(|_| undecodable("vout cannot be negative"))?;
    let outpoint = OutPoint { txid, vout };
    let script = hex_field(value, "scriptPubKey")?.unwrap_or_default();
    let amount = value.get("amount").map(amounts::amount).transpose()?;
    let amount = amount.map(|satoshis| Amount::from_sat(satoshis.unsigned_abs()));
    for (input, known) in tx.input.iter().zip(spent) {
        if input.previous_output != outpoint {
            continue;
        }
        if let Some((before, _)) = known
            && *before != script
        {
            let (before, now) = (tx_json::asm(before, false), tx_json::asm(&script, false));
            return Err(undecodable(&format!(
                "Previous output scriptPubKey mismatch:\n{before}\nvs:\n{now}"
            )));
        }
        *known = Some((script.clone(), amount));
    }
    wrapped_scripts(value, &script, keys)
}

fn wrapped_scripts(value: &Value, script: &Script, keys: &mut Keys) -> Result<(), RpcError> {
    let invalid = |message: &str| RpcError::new(code::INVALID_PARAMETER, message);
    if !script.is_p2sh() && !script.is_p2wsh() {
        return Ok(());
    }
    let redeem = hex_field(value, "redeemScript")?;
    let witness = hex_field(value, "witnessScript")?;
    let inner = witness
        .clone()
        .or_else(|| redeem.clone())
        .ok_or_else(|| invalid("Missing redeemScript/witnessScript"))?;
    let program = inner.to_p2wsh();
    if let (Some(witness), Some(redeem)) = (&witness, &redeem)
        && witness != redeem
        && *redeem != program
    {
        return Err(invalid("redeemScript does not correspond to witnessScript"));
    }
    let fits = if script.is_p2sh() {
        [&inner, &program].iter().any(|inside| inside.to_p2sh() == *script)
    } else {
        program == *script
    };
    if !fits {
        return Err(invalid("redeemScript/witnessScript does not match scriptPubKey"));
    }
    keys.add_script(program);
    keys.add_script(inner);
    Ok(())
}

fn hex_field(value: &Value, name: &str) -> Result<Option<ScriptBuf>, RpcError> {
    let Some(field) = value.get(name).filter(|field| !field.is_null()) else {
        return Ok(None);
    };
    let text = field.as_str().ok_or_else(|| {
        let found = super::call::type_name(field);
        let message =
            format!("JSON value of type {found} for field {name} is not of expected type string");
        RpcError::new(code::TYPE_ERROR, message)
    })?;
    let bytes = tx_json::bytes(text).filter(|_| !text.is_empty() || name == "scriptPubKey");
    bytes.map(|bytes| Some(ScriptBuf::from_bytes(bytes))).ok_or_else(|| {
        let message = format!("{name} must be hexadecimal string (not '{text}')");
        RpcError::new(code::INVALID_PARAMETER, message)
    })
}

fn sign(
    context: &Context,
    tx: &mut Transaction,
    spent: &Spent,
    keys: &Keys,
    hash_type: HashType,
) -> RpcResult {
    let known: Vec<Option<TxOut>> = spent
        .iter()
        .map(|spent| {
            let (script_pubkey, value) = spent.clone()?;
            Some(TxOut { value: value.unwrap_or(Amount::MAX_MONEY), script_pubkey })
        })
        .collect();
    let outputs: Option<Vec<TxOut>> = known.iter().cloned().collect();
    let unsigned = tx.clone();
    let mut errors = Vec::new();
    for (index, (known, told)) in known.iter().zip(spent).enumerate() {
        let problem = match known {
            None => Some("Input not found or already spent".to_owned()),
            // What satisfies its script is left as it is, whoever signed it.
            Some(spent) if is_satisfied(context, tx, index, spent, outputs.as_deref())? => None,
            Some(spent) => {
                let mut cache = SighashCache::new(&unsigned);
                let outcome =
                    sign_input(&mut cache, index, spent, outputs.as_deref(), keys, hash_type);
                let has_amount = told.as_ref().is_some_and(|(_, amount)| amount.is_some());
                // Signatures in a witness cover it; an input that has none needs no amount.
                if !outcome.witness.is_empty() && !has_amount {
                    return Err(missing_amount(spent));
                }
                let signed = outcome.signed;
                if let Some(input) = tx.input.get_mut(index) {
                    input.script_sig = outcome.script_sig;
                    input.witness = outcome.witness;
                }
                let holds = verify(context, tx, index, spent, outputs.as_deref())?;
                (!holds).then(|| signed.problem(&spent.script_pubkey).to_owned())
            }
        };
        if let (Some(problem), Some(input)) = (problem, tx.input.get(index)) {
            errors.push(describe(input, &problem));
        }
    }
    let mut fields = Map::new();
    fields.insert("hex".into(), json!(encode_hex(tx)));
    fields.insert("complete".into(), json!(errors.is_empty()));
    if !errors.is_empty() {
        fields.insert("errors".into(), Value::Array(errors));
    }
    Ok(Value::Object(fields))
}

fn missing_amount(spent: &TxOut) -> RpcError {
    let script = spent.script_pubkey.to_hex_string();
    let start: String = script.chars().take(30).collect();
    let message =
        format!("Missing amount for CTxOut(nValue=21000000.00000000, scriptPubKey={start})");
    RpcError::new(code::TYPE_ERROR, message)
}

fn describe(input: &TxIn, problem: &str) -> Value {
    let witness = input.witness.iter().map(|item| json!(item.to_lower_hex_string()));
    json!({
        "txid": input.previous_output.txid.to_string(),
        "vout": input.previous_output.vout,
        "witness": witness.collect::<Value>(),
        "scriptSig": input.script_sig.to_hex_string(),
        "sequence": input.sequence.0,
        "error": problem,
    })
}

/// Whether an input has something, and it satisfies the script.
fn is_satisfied(
    context: &Context,
    tx: &Transaction,
    index: usize,
    spent: &TxOut,
    outputs: Option<&[TxOut]>,
) -> Result<bool, RpcError> {
    let is_bare = |input: &TxIn| input.script_sig.is_empty() && input.witness.is_empty();
    if tx.input.get(index).is_none_or(is_bare) {
        return Ok(false);
    }
    verify(context, tx, index, spent, outputs)
}

/// Asks the script whether an input satisfies it.
fn verify(
    context: &Context,
    tx: &Transaction,
    index: usize,
    spent: &TxOut,
    outputs: Option<&[TxOut]>,
) -> Result<bool, RpcError> {
    // Where not all outputs are known, scripts have no need of the others but for taproot, of which
    // no signature was made then.
    let outputs = match outputs {
        Some(outputs) => outputs.to_vec(),
        None => vec![spent.clone(); tx.input.len()],
    };
    let tx = tx.clone();
    Ok(context.chain.query(move |chain| chain.verify_input(&tx, &outputs, index))??)
}

fn combine(context: &Context, args: &Args) -> RpcResult {
    let texts = args.array(0)?;
    if texts.len() < 2 {
        let message = "Missing transactions. At least two transactions required.";
        return Err(RpcError::new(code::DESERIALIZATION_ERROR, message));
    }
    let mut variants = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        let tx = decode(tx_json::string(text)?, Form::Any).ok_or_else(|| {
            let message = format!(
                "TX decode failed for tx {index}. Make sure the tx has at least one input."
            );
            RpcError::new(code::DESERIALIZATION_ERROR, message)
        })?;
        variants.push(tx);
    }
    let bare = |tx: &Transaction| {
        let mut tx = tx.clone();
        for input in &mut tx.input {
            input.script_sig = ScriptBuf::new();
        }
        tx.compute_txid()
    };
    let Some(mut merged) = variants.first().cloned() else {
        return Err(RpcError::new(code::DESERIALIZATION_ERROR, DECODE_FAILED));
    };
    let id = bare(&merged);
    if let Some(index) = variants.iter().position(|tx| bare(tx) != id) {
        let message =
            format!("Transaction number {} not compatible with first transaction", index + 1);
        return Err(RpcError::new(code::INVALID_PARAMETER, message));
    }
    let coins: Option<Vec<TxOut>> = coins(context, &merged)?.into_iter().collect();
    let coins = coins
        .ok_or_else(|| RpcError::new(code::VERIFY_ERROR, "Input not found or already spent"))?;
    for (index, coin) in coins.iter().enumerate() {
        let mut keys = Keys::default();
        let mut complete = None;
        for variant in &variants {
            let Some(input) = variant.input.get(index) else { continue };
            if is_satisfied(context, variant, index, coin, Some(&coins))? {
                complete = complete.or_else(|| Some(input.clone()));
            }
            keys.add_candidates(input);
        }
        if let (Some(complete), Some(input)) = (complete, merged.input.get_mut(index)) {
            *input = complete;
            continue;
        }
        let unsigned = merged.clone();
        let mut cache = SighashCache::new(&unsigned);
        let outcome = sign_input(&mut cache, index, coin, Some(&coins), &keys, HashType::Default);
        if let Some(input) = merged.input.get_mut(index) {
            input.script_sig = outcome.script_sig;
            input.witness = outcome.witness;
        }
    }
    Ok(json!(encode_hex(&merged)))
}
