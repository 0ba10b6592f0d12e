//! `KernelVerifier`: scripts run by Bitcoin Core's own code, from its kernel library.

use std::fmt;

use bitcoinkernel::core::verify::ScriptVerifyError;
use bitcoinkernel::{KernelError, PrecomputedTransactionData, ScriptPubkey, verify};

use super::{PreparedTransaction, ScriptFlags, ScriptVerifier, is_taproot};
use crate::error::{Error, Result};
use crate::wire::{OutputRef, TxRef};

// The library ends the process at a bit it does not know: this type has none but its own.
const _: () = assert!(
    bitcoinkernel::VERIFY_ALL
        == ScriptFlags::P2SH.bits()
            | ScriptFlags::DERSIG.bits()
            | ScriptFlags::NULLDUMMY.bits()
            | ScriptFlags::CHECKLOCKTIMEVERIFY.bits()
            | ScriptFlags::CHECKSEQUENCEVERIFY.bits()
            | ScriptFlags::WITNESS.bits()
            | ScriptFlags::TAPROOT.bits()
);

/// Verifies scripts with Bitcoin Core's kernel library.
#[derive(Clone, Copy, Debug, Default)]
pub struct KernelVerifier;

impl ScriptVerifier for KernelVerifier {
    fn prepare<'a>(
        &self,
        tx: TxRef<'a>,
        spent: &'a [OutputRef<'a>],
        flags: ScriptFlags,
    ) -> Result<Box<dyn PreparedTransaction + 'a>> {
        Ok(Box::new(Prepared::new(tx, spent, flags)?))
    }
}

/// The amount as the library takes it; [`Prepared::new`] has looked at it.
fn amount(output: &OutputRef<'_>) -> i64 {
    output.value.cast_signed()
}

/// What inputs of one kind are verified with.
struct Rules {
    shared: PrecomputedTransactionData,
    flags: ScriptFlags,
}

struct Prepared<'a> {
    tx: bitcoinkernel::Transaction,
    spent: &'a [OutputRef<'a>],
    /// For inputs that spend a native taproot output, if there are any and taproot is in force.
    taproot: Option<Rules>,
    /// For the others, if there are any.
    plain: Option<Rules>,
}

impl<'a> Prepared<'a> {
    /// Every call of the library copies all of the precomputed data, the spent outputs with it: the
    /// time grows with the number of calls times the bytes of all spent scripts. But outputs and flag
    /// are for native taproot inputs only: a call for another input leaves both out, and its verdict
    /// is the same. Nothing else asks for the flag (a program of version 1 within P2SH is not
    /// taproot's), and no other signature is over other outputs than the one that it spends.
    fn new(tx: TxRef<'a>, spent: &'a [OutputRef<'a>], flags: ScriptFlags) -> Result<Self> {
        if spent.len() != tx.input_count() {
            let (spent, inputs) = (spent.len(), tx.input_count());
            return Err(script_error(format!("{spent} spent outputs for {inputs} inputs")));
        }
        if flags.contains(ScriptFlags::WITNESS) && !flags.contains(ScriptFlags::P2SH) {
            return Err(script_error("WITNESS without P2SH"));
        }
        if spent.iter().any(|output| i64::try_from(output.value).is_err()) {
            return Err(script_error("an amount above 63 bits"));
        }
        let tx = bitcoinkernel::Transaction::new(tx.bytes()).map_err(script_error)?;
        let rules = |outputs: &[bitcoinkernel::TxOut], flags| -> Result<Rules> {
            let shared = PrecomputedTransactionData::new(&tx, outputs).map_err(script_error)?;
            Ok(Rules { shared, flags })
        };
        let in_force = flags.contains(ScriptFlags::TAPROOT);
        let is_plain = |output: &OutputRef<'_>| !in_force || !is_taproot(output);
        let taproot = (!spent.iter().all(is_plain)).then(|| rules(&kernel_outputs(spent)?, flags));
        let without = flags.difference(ScriptFlags::TAPROOT);
        let plain = spent.iter().any(is_plain).then(|| rules(&[], without));
        let (taproot, plain) = (taproot.transpose()?, plain.transpose()?);
        Ok(Self { tx, spent, taproot, plain })
    }

    fn rules(&self, output: &OutputRef<'_>) -> &Rules {
        let taproot = self.taproot.as_ref().filter(|_| is_taproot(output));
        taproot.or(self.plain.as_ref()).expect("there are rules for each kind of input there is")
    }
}

fn kernel_outputs(spent: &[OutputRef<'_>]) -> Result<Vec<bitcoinkernel::TxOut>> {
    let outputs = spent.iter().map(|output| {
        let script = ScriptPubkey::new(output.script.as_bytes())?;
        Ok(bitcoinkernel::TxOut::new(&script, amount(output)))
    });
    let outputs: std::result::Result<Vec<_>, KernelError> = outputs.collect();
    outputs.map_err(script_error)
}

impl fmt::Debug for Prepared<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The library's transaction has nothing to show.
        f.debug_struct("Prepared").field("spent", &self.spent).finish_non_exhaustive()
    }
}

impl PreparedTransaction for Prepared<'_> {
    fn input_count(&self) -> usize {
        self.spent.len()
    }

    fn verify_input(&self, input: usize) -> bool {
        let output = self.spent.get(input).expect("the caller asks for an input that exists");
        let script = ScriptPubkey::new(output.script.as_bytes());
        let script = script.expect("the library copies any bytes");
        let Rules { shared, flags } = self.rules(output);
        let (amount, flags) = (Some(amount(output)), Some(flags.bits()));
        match verify(&script, amount, &self.tx, input, flags, shared) {
            Ok(()) => true,
            Err(KernelError::ScriptVerify(ScriptVerifyError::Invalid)) => false,
            Err(error) => panic!("what Prepared::new() checked is not so: {error}"),
        }
    }
}

fn script_error(what: impl ToString) -> Error {
    Error::Script { what: what.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{outpoint, parsed, payment};
    use bitcoin::hex::FromHex as _;
    use bitcoin::{Script, ScriptBuf, Transaction};

    fn script(hex: &str) -> ScriptBuf {
        ScriptBuf::from_hex(hex).unwrap()
    }

    fn output(script: &Script) -> OutputRef<'_> {
        OutputRef { value: 1, script }
    }

    /// Which inputs of a transaction fail, given the scripts of the outputs it spends.
    fn failing(tx: &Transaction, scripts: &[ScriptBuf], flags: ScriptFlags) -> Result<Vec<usize>> {
        let spent: Vec<_> = scripts.iter().map(|script| output(script)).collect();
        let txs = parsed(tx);
        let prepared = KernelVerifier.prepare(txs.first().unwrap(), &spent, flags)?;
        Ok((0..prepared.input_count()).filter(|&input| !prepared.verify_input(input)).collect())
    }

    const ALL: ScriptFlags =
        ScriptFlags::P2SH.union(ScriptFlags::WITNESS).union(ScriptFlags::TAPROOT);

    #[track_caller]
    fn check(spent: &str, script_sig: &str, flags: ScriptFlags, ok: bool) {
        let mut tx = payment(&[outpoint(1)], &[1]);
        tx.input[0].script_sig = ScriptBuf::from_bytes(Vec::from_hex(script_sig).unwrap());
        let failing = failing(&tx, &[script(spent)], flags).unwrap();
        assert_eq!(failing.is_empty(), ok, "{spent}");
    }

    #[test]
    fn scripts_run() {
        check("51", "", ALL, true);
        check("00", "", ALL, false);
        check("", "51", ScriptFlags::NONE, true);
        check("", "", ScriptFlags::NONE, false);
    }

    #[test]
    fn taproot_is_asked_for_exactly_where_it_applies() {
        let key = "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";
        let native = format!("5120{key}");
        check(&native, "", ALL, false);
        check(&native, "", ALL.difference(ScriptFlags::TAPROOT), true);
        // Another version or length has no rules yet, and taproot within P2SH none at all.
        check(&format!("5220{key}"), "", ALL, true);
        check(&format!("511f{}", &key[2..]), "", ALL, true);
        let redeem = ScriptBuf::from_hex(&native).unwrap();
        let nested = ScriptBuf::new_p2sh(&redeem.script_hash()).to_hex_string();
        check(&nested, &format!("22{native}"), ALL, true);
    }

    #[test]
    fn a_taproot_output_beside_others_keeps_its_rules() {
        let tx = payment(&[outpoint(1), outpoint(2)], &[1]);
        let native = format!("5120{}", "79".repeat(32));
        assert_eq!(failing(&tx, &[script("51"), script(&native)], ALL).unwrap(), [1]);
    }

    /// Otherwise one taproot input made each of thousands of others pay for a copy of all scripts.
    #[test]
    fn only_taproot_inputs_are_given_all_outputs() {
        let tx = payment(&[outpoint(1), outpoint(2), outpoint(3)], &[1]);
        let native = script(&format!("5120{}", "79".repeat(32)));
        let scripts = [script("51"), native, script(&format!("5220{}", "79".repeat(32)))];
        let spent: Vec<_> = scripts.iter().map(|script| output(script)).collect();
        let txs = parsed(&tx);
        let with_outputs = |flags| {
            let prepared = Prepared::new(txs.first().unwrap(), &spent, flags).unwrap();
            let taproot = |output| prepared.rules(output).flags.contains(ScriptFlags::TAPROOT);
            (prepared.taproot.is_some(), spent.iter().map(taproot).collect::<Vec<_>>())
        };
        assert_eq!(with_outputs(ALL), (true, vec![false, true, false]));
        assert_eq!(with_outputs(ScriptFlags::P2SH), (false, vec![false; 3]));
        assert_eq!(failing(&tx, &scripts, ALL).unwrap(), [1]);
    }

    #[test]
    fn what_the_library_cannot_do_is_an_error() {
        let tx = payment(&[outpoint(1)], &[1]);
        let fails = |scripts: &[&str], flags| {
            let scripts: Vec<_> = scripts.iter().map(|hex| script(hex)).collect();
            failing(&tx, &scripts, flags).is_err()
        };
        assert!(fails(&["51"], ScriptFlags::WITNESS));
        assert!(fails(&[], ScriptFlags::NONE));
        assert!(fails(&["51", "51"], ALL));
        assert!(!fails(&["51"], ALL));
        let (script, txs) = (script("51"), parsed(&tx));
        let negative = [OutputRef { value: u64::MAX, script: &script }];
        assert!(KernelVerifier.prepare(txs.first().unwrap(), &negative, ALL).is_err());
    }
}
