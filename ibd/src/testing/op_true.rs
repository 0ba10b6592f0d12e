//! `OpTrueVerifier`: verdicts on the few scripts of [`ModelChain`](super::ModelChain), for builds
//! without Bitcoin Core's interpreter.

use super::model_chain::{anyone, witness_anyone};
use crate::error::Result;
use crate::script::{PreparedTransaction, ScriptFlags, ScriptVerifier};
use crate::wire::{InputRef, OutputRef, TxRef};

/// Accepts what spends `OP_TRUE`, or the witness program of `OP_TRUE` with that witness, and
/// nothing else. On these outputs Bitcoin Core says the same.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpTrueVerifier;

impl ScriptVerifier for OpTrueVerifier {
    fn prepare<'a>(
        &self,
        tx: TxRef<'a>,
        spent: &'a [OutputRef<'a>],
        _: ScriptFlags,
    ) -> Result<Box<dyn PreparedTransaction + 'a>> {
        let (bare, program) = (anyone(), witness_anyone());
        let verdict = |(input, output): (InputRef<'_>, &OutputRef<'_>)| {
            let witness: Vec<&[u8]> = input.witness().items().collect();
            let witnessed = *output.script == *program && witness == [bare.as_bytes()];
            let is_bare = *output.script == *bare && witness.is_empty();
            input.script_sig().is_empty() && (is_bare || witnessed)
        };
        Ok(Box::new(Verdicts(tx.inputs().zip(spent).map(verdict).collect())))
    }
}

#[derive(Debug)]
struct Verdicts(Vec<bool>);

impl PreparedTransaction for Verdicts {
    fn input_count(&self) -> usize {
        self.0.len()
    }

    fn verify_input(&self, input: usize) -> bool {
        self.0.get(input).copied().unwrap_or(false)
    }
}
