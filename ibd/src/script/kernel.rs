//! `KernelVerifier`: scripts run by Bitcoin Core's own code, from its kernel library.

use std::fmt;

use bitcoin::consensus::encode::serialize;
use bitcoin::{Transaction, TxOut};
use bitcoinkernel::core::verify::ScriptVerifyError;
use bitcoinkernel::{KernelError, PrecomputedTransactionData, ScriptPubkey, verify};

use super::{PreparedTransaction, ScriptFlags, ScriptVerifier, is_taproot};
use crate::error::{Error, Result};

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
    fn prepare(
        &self,
        tx: &Transaction,
        spent: Vec<TxOut>,
        flags: ScriptFlags,
    ) -> Result<Box<dyn PreparedTransaction>> {
        if spent.len() != tx.input.len() {
            let (spent, inputs) = (spent.len(), tx.input.len());
            return Err(script_error(format!("{spent} spent outputs for {inputs} inputs")));
        }
        if flags.contains(ScriptFlags::WITNESS) && !flags.contains(ScriptFlags::P2SH) {
            return Err(script_error("WITNESS without P2SH"));
        }
        let amounts: std::result::Result<Vec<i64>, _> =
            spent.iter().map(|output| i64::try_from(output.value.to_sat())).collect();
        let amounts = amounts.map_err(|_| script_error("an amount above 63 bits"))?;
        let tx = bitcoinkernel::Transaction::new(&serialize(tx)).map_err(script_error)?;

        // Every call of the library copies all of the precomputed data, the spent outputs with it:
        // the time grows with the square of the inputs. The outputs are used for native taproot
        // inputs only, and so is the flag; without such an input both are left out, and the verdict
        // is the same.
        let needs_outputs = flags.contains(ScriptFlags::TAPROOT) && spent.iter().any(is_taproot);
        let (flags, outputs) = if needs_outputs {
            let outputs = spent.iter().zip(&amounts).map(|(output, &amount)| {
                let script = ScriptPubkey::new(output.script_pubkey.as_bytes())?;
                Ok(bitcoinkernel::TxOut::new(&script, amount))
            });
            let outputs: std::result::Result<Vec<_>, KernelError> = outputs.collect();
            (flags, outputs.map_err(script_error)?)
        } else {
            (flags.difference(ScriptFlags::TAPROOT), Vec::new())
        };
        let shared = PrecomputedTransactionData::new(&tx, &outputs).map_err(script_error)?;
        Ok(Box::new(Prepared { tx, shared, spent, amounts, flags }))
    }
}

struct Prepared {
    tx: bitcoinkernel::Transaction,
    shared: PrecomputedTransactionData,
    spent: Vec<TxOut>,
    amounts: Vec<i64>,
    flags: ScriptFlags,
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The library's transaction has nothing to show.
        f.debug_struct("Prepared")
            .field("spent", &self.spent)
            .field("flags", &self.flags)
            .finish_non_exhaustive()
    }
}

impl PreparedTransaction for Prepared {
    fn input_count(&self) -> usize {
        self.spent.len()
    }

    fn verify_input(&self, input: usize) -> bool {
        let spent = self.spent.get(input).zip(self.amounts.get(input));
        let (output, &amount) = spent.expect("the caller asks for an input that exists");
        let script = ScriptPubkey::new(output.script_pubkey.as_bytes());
        let script = script.expect("the library copies any bytes");
        let flags = Some(self.flags.bits());
        match verify(&script, Some(amount), &self.tx, input, flags, &self.shared) {
            Ok(()) => true,
            Err(KernelError::ScriptVerify(ScriptVerifyError::Invalid)) => false,
            Err(error) => panic!("what prepare() checked is not so: {error}"),
        }
    }
}

fn script_error(what: impl ToString) -> Error {
    Error::Script { what: what.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{outpoint, payment};
    use bitcoin::hex::FromHex as _;
    use bitcoin::{Amount, ScriptBuf};

    fn output(script: &str) -> TxOut {
        let script_pubkey = ScriptBuf::from_hex(script).unwrap();
        TxOut { value: Amount::from_sat(1), script_pubkey }
    }

    const ALL: ScriptFlags =
        ScriptFlags::P2SH.union(ScriptFlags::WITNESS).union(ScriptFlags::TAPROOT);

    #[track_caller]
    fn check(script: &str, script_sig: &str, flags: ScriptFlags, ok: bool) {
        let mut tx = payment(&[outpoint(1)], &[1]);
        tx.input[0].script_sig = ScriptBuf::from_bytes(Vec::from_hex(script_sig).unwrap());
        let failing = KernelVerifier.verify_transaction(&tx, vec![output(script)], flags);
        assert_eq!(failing.unwrap(), (!ok).then_some(0), "{script}");
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
        let spent = vec![output("51"), output(&native)];
        let prepared = KernelVerifier.prepare(&tx, spent, ALL).unwrap();
        assert_eq!(prepared.input_count(), 2);
        assert!(prepared.verify_input(0) && !prepared.verify_input(1));
    }

    #[test]
    fn what_the_library_cannot_do_is_an_error() {
        let tx = payment(&[outpoint(1)], &[1]);
        let prepare = |spent, flags| KernelVerifier.prepare(&tx, spent, flags).map(drop);
        assert!(prepare(vec![output("51")], ScriptFlags::WITNESS).is_err());
        assert!(prepare(vec![], ScriptFlags::NONE).is_err());
        assert!(prepare(vec![output("51"); 2], ALL).is_err());
        let negative = TxOut { value: Amount::from_sat(u64::MAX), ..output("51") };
        assert!(prepare(vec![negative], ALL).is_err());
    }
}
