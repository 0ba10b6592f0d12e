//! `Health`: the first failure of a store, after which nothing is written.

use std::sync::OnceLock;

use tracing::error;

use crate::error::{Error, Result};
use crate::mutation::{Mutation, mutated};

/// Whether the store may still write.
///
/// After a failed write or fsync nobody knows what the disk holds, and a second fsync may answer
/// "done" though bytes were dropped. So the first failure is final until the store is opened
/// again: nothing is acknowledged, nothing that depends on the failed write is written. Reads go
/// on.
#[derive(Debug, Default)]
pub(crate) struct Health {
    cause: OnceLock<String>,
}

impl Health {
    /// Fails if the store was poisoned.
    pub(crate) fn check(&self) -> Result<()> {
        match self.cause.get() {
            None => Ok(()),
            Some(cause) => Err(Error::Poisoned { cause: cause.clone() }),
        }
    }

    /// Runs an operation that changes the disk; its failure poisons.
    pub(crate) fn guard<T>(&self, operation: impl FnOnce() -> Result<T>) -> Result<T> {
        if !mutated(Mutation::PoisonIgnored) {
            self.check()?;
        }
        operation().inspect_err(|error| self.poison(&error.chain()))
    }

    /// Refuses all writes from now on.
    pub(crate) fn poison(&self, cause: &str) {
        if self.cause.set(cause.to_owned()).is_ok() {
            error!(cause, "the store is poisoned: it refuses writes until it is opened again");
        }
    }
}

/// Held by a thread of the store: if the thread panics, the store is poisoned rather than waited
/// for.
pub(crate) struct PanicGuard<'a>(pub(crate) &'a Health);

impl Drop for PanicGuard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.poison("a thread of the store panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_is_final_and_named() {
        let health = Health::default();
        assert_eq!(health.guard(|| Ok(1)).unwrap(), 1);
        health.guard(|| Err::<(), _>(Error::misuse("first"))).unwrap_err();
        let error = health.guard(|| -> Result<()> { panic!("not reached") }).unwrap_err();
        assert!(matches!(error, Error::Poisoned { cause } if cause == "misuse: first"));
    }
}
