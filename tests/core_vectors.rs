//! Do Bitcoin Core's own vectors come out, as far as the kernel library's flags reach?
//!
//! The kernel takes the flags that consensus uses: `P2SH`, `DERSIG`, `NULLDUMMY`, `CHECKLOCKTIMEVERIFY`,
//! `CHECKSEQUENCEVERIFY`, `WITNESS` and `TAPROOT`. The vectors name eleven more, which are policy and
//! cannot be expressed: `CLEANSTACK`, `CONST_SCRIPTCODE`, `DISCOURAGE_UPGRADABLE_NOPS`,
//! `DISCOURAGE_UPGRADABLE_WITNESS_PROGRAM`, `LOW_S`, `MINIMALDATA`, `MINIMALIF`, `NULLFAIL`, `SIGPUSHONLY`,
//! `STRICTENC` and `WITNESS_PUBKEYTYPE`.
//!
//! A policy flag only ever adds a way to fail. So a case that has to pass is run with the flags that
//! can be expressed, and has to pass; a case that has to fail has to fail, unless its error is one
//! that a policy flag of the case raises: such a case is out of reach. Of `script_tests.json` that
//! leaves 1,093 cases of 1,222, of `tx_valid.json` all 121, of `tx_invalid.json` 79 of 93; the tests
//! assert these numbers. The kernel reports no script error, so errors are not compared.
//!
//! `sighash.json` is not needed: this project computes no signature hash itself.

use std::collections::{BTreeSet, HashMap};

use bitcoin::absolute::LockTime;
use bitcoin::hex::FromHex as _;
use bitcoin::key::{Secp256k1, XOnlyPublicKey};
use bitcoin::opcodes::Opcode;
use bitcoin::taproot::{LeafVersion, TaprootBuilder};
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness};
use cofferdam_ibd::tx;
use cofferdam_ibd::{Rejection, ScriptFlags};
use cofferdam_tests::data;
use cofferdam_tests::scripts::{failing, with_tx};
use serde_json::Value;

/// The flags that the kernel takes, by their names in the vectors.
const KERNEL_FLAGS: [&str; 7] = [
    "P2SH",
    "DERSIG",
    "NULLDUMMY",
    "CHECKLOCKTIMEVERIFY",
    "CHECKSEQUENCEVERIFY",
    "WITNESS",
    "TAPROOT",
];

/// Errors that a policy flag can raise, with the flag.
const POLICY_ERRORS: [(&str, &str); 17] = [
    ("SIG_DER", "STRICTENC"),
    ("SIG_DER", "LOW_S"),
    ("SIG_HASHTYPE", "STRICTENC"),
    ("PUBKEYTYPE", "STRICTENC"),
    ("SIG_HIGH_S", "LOW_S"),
    ("SIG_PUSHONLY", "SIGPUSHONLY"),
    ("MINIMALDATA", "MINIMALDATA"),
    ("UNKNOWN_ERROR", "MINIMALDATA"),
    ("SCRIPTNUM", "MINIMALDATA"),
    ("CLEANSTACK", "CLEANSTACK"),
    ("MINIMALIF", "MINIMALIF"),
    ("NULLFAIL", "NULLFAIL"),
    ("WITNESS_PUBKEYTYPE", "WITNESS_PUBKEYTYPE"),
    ("OP_CODESEPARATOR", "CONST_SCRIPTCODE"),
    ("SIG_FINDANDDELETE", "CONST_SCRIPTCODE"),
    ("DISCOURAGE_UPGRADABLE_NOPS", "DISCOURAGE_UPGRADABLE_NOPS"),
    ("DISCOURAGE_UPGRADABLE_WITNESS_PROGRAM", "DISCOURAGE_UPGRADABLE_WITNESS_PROGRAM"),
];

fn vectors(name: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(data::path(&format!("core-vectors/{name}")))
        .expect("in the repository");
    let all: Value = serde_json::from_str(&text).expect("JSON");
    // Lines with a single text are comments.
    let is_case = |case: &&Value| case.as_array().is_some_and(|case| case.len() > 1);
    all.as_array().expect("a list").iter().filter(is_case).cloned().collect()
}

fn names(flags: &str) -> Vec<&str> {
    flags.split(',').map(str::trim).filter(|name| !name.is_empty() && *name != "NONE").collect()
}

/// The flags among `names` that the kernel takes. As in Core's tests, CLEANSTACK asks for WITNESS, and
/// WITNESS for P2SH.
fn kernel_flags(names: &[&str]) -> ScriptFlags {
    let implied: &[&str] = if names.contains(&"CLEANSTACK") { &["P2SH", "WITNESS"] } else { &[] };
    kernel_flags_as_written(&[names, implied].concat())
}

/// The flags among `names` that the kernel takes, and no others.
fn kernel_flags_as_written(names: &[&str]) -> ScriptFlags {
    let known = names.iter().filter_map(|name| ScriptFlags::from_name(name));
    known.fold(ScriptFlags::NONE, ScriptFlags::union)
}

fn is_expressible(names: &[&str]) -> bool {
    names.iter().all(|name| KERNEL_FLAGS.contains(name))
}

/// Every name of an opcode, with and without `OP_`, as `ParseOpcode` in Core's `core_io.cpp` has them.
fn opcodes() -> HashMap<String, u8> {
    let mut opcodes = HashMap::new();
    for byte in 0x50..=0xff_u8 {
        let name = match byte {
            0xb1 => "OP_CHECKLOCKTIMEVERIFY".to_owned(),
            0xb2 => "OP_CHECKSEQUENCEVERIFY".to_owned(),
            _ => Opcode::from(byte).to_string(),
        };
        opcodes.insert(name.trim_start_matches("OP_").to_owned(), byte);
        opcodes.insert(name, byte);
    }
    opcodes
}

fn push(script: &mut Vec<u8>, bytes: &[u8]) {
    match bytes.len() {
        length @ 0..=0x4b => script.push(u8::try_from(length).expect("bounded")),
        length @ 0x4c..=0xff => script.extend([0x4c, u8::try_from(length).expect("bounded")]),
        length => {
            script.push(0x4d);
            script.extend(u16::try_from(length).expect("a short vector").to_le_bytes());
        }
    }
    script.extend(bytes);
}

/// Reads a script as the vectors write it (`ParseScript` in Core's `core_io.cpp`).
fn parse_script(text: &str, opcodes: &HashMap<String, u8>) -> ScriptBuf {
    let mut script = Vec::new();
    for word in text.split_ascii_whitespace() {
        if let Ok(number) = word.parse::<i64>() {
            match number {
                0 => script.push(0),
                -1 | 1..=16 => script.push(u8::try_from(number + 0x50).expect("an opcode")),
                _ => script.extend(bitcoin::script::Builder::new().push_int(number).as_bytes()),
            }
        } else if let Some(hex) = word.strip_prefix("0x") {
            script.extend(Vec::<u8>::from_hex(hex).expect("hex"));
        } else if let Some(quoted) = word.strip_prefix('\'') {
            push(&mut script, quoted.strip_suffix('\'').expect("closed").as_bytes());
        } else {
            script.push(
                *opcodes.get(word).unwrap_or_else(|| panic!("unknown word {word} in {text}")),
            );
        }
    }
    script.into()
}

/// Fills the places that a taproot case leaves open: leaf script, control block, output key. The
/// internal key is the point that nobody has a key of (BIP-0341).
fn fill_taproot(
    items: &[&str],
    script_pubkey: &str,
    opcodes: &HashMap<String, u8>,
) -> (Vec<Vec<u8>>, String) {
    const NUMS: &str = "50929b74c1a04954b78b4b6035e97a5e078a5a0f28ec96d547bfee9ace803ac0";
    let leaf = items
        .iter()
        .find_map(|item| item.strip_prefix("#SCRIPT#"))
        .map(|text| parse_script(text, opcodes));
    let built = leaf.map(|leaf| {
        let key =
            XOnlyPublicKey::from_slice(&Vec::from_hex(NUMS).expect("hex")).expect("on the curve");
        let builder = TaprootBuilder::new().add_leaf(0, leaf.clone()).expect("one leaf");
        (builder.finalize(&Secp256k1::verification_only(), key).expect("complete"), leaf)
    });
    let item = |text: &&str| match (&built, *text) {
        (Some((_, leaf)), text) if text.starts_with("#SCRIPT#") => leaf.to_bytes(),
        (Some((info, leaf)), "#CONTROLBLOCK#") => {
            let place = (leaf.clone(), LeafVersion::TapScript);
            info.control_block(&place).expect("of the leaf").serialize()
        }
        (_, hex) => Vec::from_hex(hex).expect("hex"),
    };
    let items = items.iter().map(item).collect();
    let key = built.map(|(info, _)| info.output_key().to_string()).unwrap_or_default();
    (items, script_pubkey.replace("#TAPROOTOUTPUT#", &format!("0x{key}")))
}

/// The transaction that creates the output, and the one that spends it (`BuildCreditingTransaction`
/// and `BuildSpendingTransaction` in Core's `test/util/transaction_utils.cpp`).
fn spend(
    script_pubkey: ScriptBuf,
    script_sig: ScriptBuf,
    witness: Vec<Vec<u8>>,
    value: Amount,
) -> (Transaction, TxOut) {
    let transaction = |previous_output, script_sig, witness: Vec<Vec<u8>>, output| Transaction {
        version: Version::ONE,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output,
            script_sig,
            sequence: Sequence::MAX,
            witness: Witness::from_slice(&witness),
        }],
        output: vec![output],
    };
    let output = TxOut { value, script_pubkey };
    let credit = transaction(OutPoint::null(), vec![0, 0].into(), Vec::new(), output.clone());
    let to = TxOut { value, script_pubkey: ScriptBuf::new() };
    (transaction(OutPoint::new(credit.compute_txid(), 0), script_sig, witness, to), output)
}

#[test]
fn script_tests() {
    let opcodes = opcodes();
    let (mut passed, mut failed, mut unreachable) = (0, 0, 0);
    for case in vectors("script_tests.json") {
        let mut fields = case.as_array().expect("a case").as_slice();
        let mut items = Vec::new();
        let mut value = Amount::ZERO;
        if let Some(Value::Array(witness)) = fields.first() {
            let (amount, texts) = witness.split_last().expect("has an amount");
            value = Amount::from_btc(amount.as_f64().expect("a number")).expect("an amount");
            items = texts.iter().map(|item| item.as_str().expect("a text")).collect();
            fields = &fields[1..];
        }
        let texts: Vec<&str> = fields.iter().map(|field| field.as_str().expect("a text")).collect();
        let [script_sig, script_pubkey, flags, error, ..] = texts.as_slice() else {
            panic!("{case}")
        };
        let names = names(flags);
        let (witness, script_pubkey) = fill_taproot(&items, script_pubkey, &opcodes);
        let (tx, output) = spend(
            parse_script(&script_pubkey, &opcodes),
            parse_script(script_sig, &opcodes),
            witness,
            value,
        );
        let verifies = || all_verify(&tx, std::slice::from_ref(&output), kernel_flags(&names));
        let is_policy = |&(policy, flag): &(&str, &str)| policy == *error && names.contains(&flag);
        if *error == "OK" {
            assert!(verifies(), "has to pass: {case}");
            passed += 1;
        } else if POLICY_ERRORS.iter().any(is_policy)
            && !(*error == "SIG_DER" && names.contains(&"DERSIG"))
        {
            unreachable += 1;
        } else {
            assert!(!verifies(), "has to fail: {case}");
            failed += 1;
        }
    }
    assert_eq!((passed, failed, unreachable), (675, 418, 129));
}

/// A transaction of the vectors with the outputs it spends; `None` if it does not parse.
fn transaction(
    case: &Value,
    opcodes: &HashMap<String, u8>,
) -> (Option<Transaction>, HashMap<OutPoint, TxOut>) {
    let mut outputs = HashMap::new();
    for previous in case[0].as_array().expect("inputs") {
        let txid: Txid = previous[0].as_str().expect("a hash").parse().expect("a hash");
        let index = previous[1].as_i64().expect("an index");
        let vout = u32::try_from(index).unwrap_or(u32::MAX);
        let script_pubkey = parse_script(previous[2].as_str().expect("a script"), opcodes);
        let value = Amount::from_sat(previous[3].as_u64().unwrap_or(0));
        outputs.insert(OutPoint { txid, vout }, TxOut { value, script_pubkey });
    }
    let raw = Vec::from_hex(case[1].as_str().expect("hex")).expect("hex");
    (bitcoin::consensus::deserialize(&raw).ok(), outputs)
}

fn spent(tx: &Transaction, outputs: &HashMap<OutPoint, TxOut>) -> Vec<TxOut> {
    tx.input.iter().map(|input| outputs[&input.previous_output].clone()).collect()
}

fn check_transaction(tx: &Transaction) -> Result<(), Rejection> {
    with_tx(tx, tx::check_transaction)
}

/// Returns whether all inputs verify.
fn all_verify(tx: &Transaction, spent: &[TxOut], flags: ScriptFlags) -> bool {
    failing(tx, spent, flags).is_empty()
}

/// WITNESS is nothing without P2SH (`TrimFlags` in Core's `transaction_tests.cpp`).
fn trim(flags: ScriptFlags) -> ScriptFlags {
    if flags.contains(ScriptFlags::P2SH) { flags } else { flags.difference(ScriptFlags::WITNESS) }
}

/// WITNESS asks for P2SH (`FillFlags` there).
fn fill(flags: ScriptFlags) -> ScriptFlags {
    if flags.contains(ScriptFlags::WITNESS) { flags.union(ScriptFlags::P2SH) } else { flags }
}

fn each_kernel_flag() -> impl Iterator<Item = ScriptFlags> {
    KERNEL_FLAGS.into_iter().filter_map(ScriptFlags::from_name)
}

/// The third field names the flags that must be off: the transaction is valid with all others, with
/// fewer, and with none of the named ones on as well.
#[test]
fn tx_valid() {
    let opcodes = opcodes();
    let all = kernel_flags(&KERNEL_FLAGS);
    let (mut valid, mut maximal) = (0, 0);
    for case in vectors("tx_valid.json") {
        let (tx, outputs) = transaction(&case, &opcodes);
        let tx = tx.expect("parses");
        check_transaction(&tx).expect("valid without context");
        let spent = spent(&tx, &outputs);
        let off = kernel_flags_as_written(&names(case[2].as_str().expect("flags")));
        let on = all.difference(off);
        assert!(all_verify(&tx, &spent, on), "has to pass: {case}");
        valid += 1;
        for flag in each_kernel_flag() {
            let fewer = trim(on.difference(flag));
            assert!(all_verify(&tx, &spent, fewer), "has to pass with {fewer:?}: {case}");
            if off.contains(flag) {
                let more = all.difference(trim(off.difference(flag)));
                assert!(!all_verify(&tx, &spent, more), "has to fail with {more:?}: {case}");
                maximal += 1;
            }
        }
    }
    assert_eq!((valid, maximal), (121, 10));
}

/// The third field names the flags with which the transaction fails, or `BADTX` if it fails without
/// any script. With one of the flags off it passes: so a case with flags that cannot be expressed has
/// to pass with the rest of them.
#[test]
fn tx_invalid() {
    let opcodes = opcodes();
    let (mut bad, mut invalid, mut minimal, mut unreachable) = (0, 0, 0, 0);
    for case in vectors("tx_invalid.json") {
        let (tx, outputs) = transaction(&case, &opcodes);
        let names = names(case[2].as_str().expect("flags"));
        if names.contains(&"BADTX") {
            let is_bad = tx.is_none_or(|tx| check_transaction(&tx).is_err());
            assert!(is_bad, "has to be bad: {case}");
            bad += 1;
            continue;
        }
        let tx = tx.expect("parses");
        check_transaction(&tx).expect("valid without context");
        let spent = spent(&tx, &outputs);
        let flags = kernel_flags_as_written(&names);
        if !is_expressible(&names) {
            assert!(all_verify(&tx, &spent, flags), "has to pass with {flags:?}: {case}");
            unreachable += 1;
            continue;
        }
        assert!(!all_verify(&tx, &spent, flags), "has to fail: {case}");
        invalid += 1;
        for flag in each_kernel_flag() {
            let more = fill(flags.union(flag));
            assert!(!all_verify(&tx, &spent, more), "has to fail with {more:?}: {case}");
            if flags.contains(flag) {
                let fewer = trim(flags.difference(flag));
                assert!(all_verify(&tx, &spent, fewer), "has to pass with {fewer:?}: {case}");
                minimal += 1;
            }
        }
    }
    assert_eq!((bad, invalid, minimal, unreachable), (9, 70, 70, 14));
}

/// The flags that the vectors name and the kernel does not take.
#[test]
fn inexpressible_flags() {
    let named = |name: &str, field: usize| {
        let flags = |case: &Value| {
            let field =
                if case[0].is_array() && name == "script_tests.json" { field + 1 } else { field };
            case[field].as_str().expect("flags").to_owned()
        };
        vectors(name).iter().map(flags).collect::<Vec<_>>().join(",")
    };
    let all =
        [named("script_tests.json", 2), named("tx_valid.json", 2), named("tx_invalid.json", 2)]
            .join(",");
    let others =
        names(&all).into_iter().filter(|name| !KERNEL_FLAGS.contains(name) && *name != "BADTX");
    let others: BTreeSet<&str> = others.collect();
    let expected = [
        "CLEANSTACK",
        "CONST_SCRIPTCODE",
        "DISCOURAGE_UPGRADABLE_NOPS",
        "DISCOURAGE_UPGRADABLE_WITNESS_PROGRAM",
        "LOW_S",
        "MINIMALDATA",
        "MINIMALIF",
        "NULLFAIL",
        "SIGPUSHONLY",
        "STRICTENC",
        "WITNESS_PUBKEYTYPE",
    ];
    assert!(others.into_iter().eq(expected));
}
