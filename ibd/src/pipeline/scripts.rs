//! Stage: a block's scripts, verified on the pool while later blocks are connected.
//!
//! Invariants:
//! - a ticket's outcome is the failing input that comes first in the block, whatever was found
//!   first: the outcome does not depend on timing;
//! - a job owns what it reads (the block and the outputs it spends): it never looks at the store.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use bitcoin::TxOut;
use rayon::ThreadPool;
use rayon::iter::{IntoParallelIterator as _, ParallelIterator as _};

use crate::block::CheckedBlock;
use crate::error::{Error, Result};
use crate::script::{ScriptFlags, ScriptVerifier};

/// Inputs that one job verifies: at 30 us each some 2 ms, so that queueing costs nothing in
/// comparison and the last job of a block does not keep it waiting.
const INPUTS_PER_JOB: usize = 64;

/// An input whose script failed: index of the transaction in the block, and of the input in it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct FailedInput {
    pub(crate) tx: usize,
    pub(crate) input: usize,
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
}

impl ScriptTicket {
    /// Starts to verify `block`; `spent` has the outputs each transaction spends, in order (none for
    /// the coinbase).
    pub(crate) fn start(
        pool: &ThreadPool,
        verifier: &Arc<dyn ScriptVerifier>,
        block: &Arc<CheckedBlock>,
        spent: Vec<Vec<TxOut>>,
        flags: ScriptFlags,
    ) -> Self {
        let jobs = group(spent);
        let shared = Arc::new(Shared::default());
        shared.lock().jobs_left = jobs.len();
        for job in jobs {
            let (shared, verifier, block) =
                (Arc::clone(&shared), Arc::clone(verifier), Arc::clone(block));
            pool.spawn(move || {
                let run = std::panic::AssertUnwindSafe(|| {
                    if shared.cancelled.load(Ordering::Relaxed) {
                        return Ok(None);
                    }
                    verify(verifier.as_ref(), &block, job, flags)
                });
                let lost = |_| Err(Error::Corrupt { what: "a script check panicked".into() });
                shared.finish(std::panic::catch_unwind(run).unwrap_or_else(lost));
            });
        }
        Self { shared }
    }

    /// Waits for all scripts; returns the first failing input.
    ///
    /// # Errors
    ///
    /// Returns an error if the machine failed, not a script.
    pub(crate) fn wait(self) -> Result<Option<FailedInput>> {
        let mut outcome = self.shared.lock();
        while outcome.jobs_left > 0 {
            outcome = self.shared.done.wait(outcome).unwrap_or_else(PoisonError::into_inner);
        }
        outcome.error.take().map_or(Ok(outcome.failed), Err)
    }
}

impl Drop for ScriptTicket {
    /// A ticket that nobody waits for lost its purpose: jobs not begun are skipped.
    fn drop(&mut self) {
        self.shared.cancelled.store(true, Ordering::Relaxed);
    }
}

/// One job: transactions by their index in the block, each with the outputs it spends.
type Job = Vec<(usize, Vec<TxOut>)>;

fn group(spent: Vec<Vec<TxOut>>) -> Vec<Job> {
    let mut jobs = Vec::new();
    let mut job = Job::new();
    let mut inputs = 0;
    for (tx, spent) in spent.into_iter().enumerate().filter(|(_, spent)| !spent.is_empty()) {
        inputs += spent.len();
        job.push((tx, spent));
        if inputs >= INPUTS_PER_JOB {
            jobs.push(std::mem::take(&mut job));
            inputs = 0;
        }
    }
    if !job.is_empty() {
        jobs.push(job);
    }
    jobs
}

fn verify(
    verifier: &dyn ScriptVerifier,
    block: &CheckedBlock,
    job: Job,
    flags: ScriptFlags,
) -> Result<Option<FailedInput>> {
    for (index, spent) in job {
        let Some(tx) = block.block.txdata.get(index) else {
            continue;
        };
        let inputs = spent.len();
        let prepared = verifier.prepare(tx, spent, flags)?;
        let check = |input: usize| (!prepared.verify_input(input)).then_some(input);
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
