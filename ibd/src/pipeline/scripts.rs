//! Stage: a block's scripts, verified on the pool while later blocks are connected.
//!
//! Invariants:
//! - a ticket's outcome is the failing input that comes first in the block, whatever was found
//!   first: the outcome does not depend on timing;
//! - a job owns what it reads (the block and the outputs it spends): it never looks at the store;
//! - who gives up waiting waits for no input but those that are being verified: one input can take a
//!   second, a block of them minutes.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rayon::ThreadPool;
use rayon::iter::{IntoParallelIterator as _, ParallelIterator as _};

use super::spent::{SpentCoins, SpentOutputs};
use crate::block::CheckedBlock;
use crate::error::{Error, Result};
use crate::rejection::Rejection;
use crate::script::{ScriptFlags, ScriptVerifier, explain, place};
use crate::wire::TxRef;

/// Inputs that one job verifies: at 30 us each some 2 ms, so that queueing costs nothing in
/// comparison and the last job of a block does not keep it waiting.
const INPUTS_PER_JOB: usize = 64;

/// An input whose script failed: index of the transaction in the block, and of the input in it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct FailedInput {
    pub(crate) tx: usize,
    pub(crate) input: usize,
}

/// A block whose scripts are to be run, with all that they are run against.
#[derive(Debug)]
pub(crate) struct BlockScripts {
    pub(crate) block: Arc<CheckedBlock>,
    pub(crate) spent: SpentCoins,
    pub(crate) flags: ScriptFlags,
}

impl BlockScripts {
    /// Says which rule an input broke, and where it is.
    ///
    /// # Errors
    ///
    /// Returns an error if the machine failed.
    pub(crate) fn describe(
        &self,
        verifier: &dyn ScriptVerifier,
        failed: FailedInput,
    ) -> Result<Rejection> {
        let rejection = Rejection::consensus("block-script-verify-flag-failed");
        let txs = self.block.txs();
        let Some(tx) = txs.get(failed.tx) else { return Ok(rejection) };
        let coinbase_inputs = txs.first().map_or(0, TxRef::input_count);
        let first = tx.first_input() - coinbase_inputs;
        let mut outputs = SpentOutputs::default();
        self.spent.read_outputs(first, tx.input_count(), &mut outputs)?;
        let reason = explain(verifier, tx, &outputs.refs(), failed.input, self.flags)?;
        Ok(rejection.with_reason(reason).with_detail(place(tx, failed.input)))
    }
}

/// How long it may take until a wish to stop is noticed by who waits for scripts.
const GLANCE: Duration = Duration::from_millis(20);

/// How waiting for a block's scripts ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ScriptsEnd {
    /// All of them hold.
    Passed,
    /// This input is the first that does not.
    Failed(FailedInput),
    /// It was asked to stop before all had run.
    Stopped,
}

#[derive(Debug, Default)]
struct Outcome {
    jobs_left: usize,
    failed: Option<FailedInput>,
    error: Option<Error>,
}

#[derive(Debug, Default)]
struct Shared {
    outcome: Mutex<Outcome>,
    done: Condvar,
    cancelled: AtomicBool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Outcome> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn finish(&self, result: Result<Option<FailedInput>>) {
        let mut outcome = self.lock();
        match result {
            Ok(Some(failed)) => {
                outcome.failed = Some(outcome.failed.map_or(failed, |first| first.min(failed)));
            }
            Ok(None) => {}
            Err(error) => outcome.error = Some(error),
        }
        outcome.jobs_left -= 1;
        self.done.notify_all();
    }
}

/// The running verification of one block's scripts.
#[derive(Debug)]
pub(crate) struct ScriptTicket {
    shared: Arc<Shared>,
    work: Arc<BlockScripts>,
}

impl ScriptTicket {
    /// Starts to verify a block's scripts.
    pub(crate) fn start(
        pool: &ThreadPool,
        verifier: &Arc<dyn ScriptVerifier>,
        work: &Arc<BlockScripts>,
    ) -> Self {
        let jobs = group(&work.block);
        let shared = Arc::new(Shared::default());
        shared.lock().jobs_left = jobs.len();
        for job in jobs {
            let (shared, verifier, work) =
                (Arc::clone(&shared), Arc::clone(verifier), Arc::clone(work));
            pool.spawn(move || {
                let run = std::panic::AssertUnwindSafe(|| {
                    if shared.cancelled.load(Ordering::Relaxed) {
                        return Ok(None);
                    }
                    verify(verifier.as_ref(), &work, job, &shared.cancelled)
                });
                let lost = |_| Err(Error::Corrupt { what: "a script check panicked".into() });
                shared.finish(std::panic::catch_unwind(run).unwrap_or_else(lost));
            });
        }
        Self { shared, work: Arc::clone(work) }
    }

    /// Returns what is verified.
    pub(crate) fn work(&self) -> Arc<BlockScripts> {
        Arc::clone(&self.work)
    }

    /// Returns whether [`ScriptTicket::wait`] would not wait.
    pub(crate) fn is_done(&self) -> bool {
        self.shared.lock().jobs_left == 0
    }

    /// Waits for all scripts, or until `stop` is set.
    ///
    /// # Errors
    ///
    /// Returns an error if the machine failed, not a script.
    pub(crate) fn wait(self, stop: &AtomicBool) -> Result<ScriptsEnd> {
        let mut outcome = self.shared.lock();
        while outcome.jobs_left > 0 {
            if stop.load(Ordering::Relaxed) {
                return Ok(ScriptsEnd::Stopped);
            }
            let waited = self.shared.done.wait_timeout(outcome, GLANCE);
            outcome = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        match (outcome.error.take(), outcome.failed) {
            (Some(error), _) => Err(error),
            (None, Some(failed)) => Ok(ScriptsEnd::Failed(failed)),
            (None, None) => Ok(ScriptsEnd::Passed),
        }
    }
}

impl Drop for ScriptTicket {
    /// A ticket that nobody waits for lost its purpose: inputs not begun are skipped.
    fn drop(&mut self) {
        self.shared.cancelled.store(true, Ordering::Relaxed);
    }
}

/// Splits a block into runs of transactions with about [`INPUTS_PER_JOB`] inputs each.
fn group(block: &CheckedBlock) -> Vec<Range<usize>> {
    let mut jobs = Vec::new();
    let (mut first, mut inputs) = (1, 0);
    for (index, tx) in block.txs().iter().enumerate().skip(1) {
        inputs += tx.input_count();
        if inputs >= INPUTS_PER_JOB {
            jobs.push(first..index + 1);
            (first, inputs) = (index + 1, 0);
        }
    }
    if inputs > 0 {
        jobs.push(first..block.txs().len());
    }
    jobs
}

fn verify(
    verifier: &dyn ScriptVerifier,
    work: &BlockScripts,
    job: Range<usize>,
    cancelled: &AtomicBool,
) -> Result<Option<FailedInput>> {
    let txs = work.block.txs();
    // The coinbase has one input, which spends nothing.
    let coinbase_inputs = txs.first().map_or(0, TxRef::input_count);
    let mut outputs = SpentOutputs::default();
    for index in job {
        let Some(tx) = txs.get(index) else {
            continue;
        };
        let inputs = tx.input_count();
        work.spent.read_outputs(tx.first_input() - coinbase_inputs, inputs, &mut outputs)?;
        let spent = outputs.refs();
        let prepared = verifier.prepare(tx, &spent, work.flags)?;
        let holds = |input| cancelled.load(Ordering::Relaxed) || prepared.verify_input(input);
        let check = |input: usize| (!holds(input)).then_some(input);
        let failed = if inputs <= INPUTS_PER_JOB {
            (0..inputs).find_map(check)
        } else {
            (0..inputs).into_par_iter().filter_map(check).min()
        };
        if let Some(input) = failed {
            return Ok(Some(FailedInput { tx: index, input }));
        }
    }
    Ok(None)
}
