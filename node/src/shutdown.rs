//! `Shutdown`: one flag that every part of a node watches, and the reason it was raised.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// The wish to stop; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Shutdown(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    flag: Arc<AtomicBool>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    requested: bool,
    fatal: Option<String>,
}

impl Shutdown {
    /// Asks all parts to stop.
    pub fn request(&self) {
        self.raise(None);
    }

    /// Asks all parts to stop because the machine failed; the first reason counts.
    pub fn fail(&self, reason: &str) {
        self.raise(Some(reason));
    }

    /// Returns whether it was asked.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.0.flag.load(Ordering::Relaxed)
    }

    /// Returns the flag itself, for long work that looks at it.
    #[must_use]
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0.flag)
    }

    /// Returns why the machine failed, if it did.
    #[must_use]
    pub fn fatal(&self) -> Option<String> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner).fatal.clone()
    }

    /// Waits until it is asked.
    pub fn wait(&self) {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        while !state.requested {
            state = self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits until it is asked or `time` has passed; returns whether it was asked.
    #[must_use]
    pub fn wait_for(&self, time: Duration) -> bool {
        let state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.0.changed.wait_timeout_while(state, time, |state| !state.requested);
        waited.unwrap_or_else(PoisonError::into_inner).0.requested
    }

    /// Makes SIGTERM and SIGINT ask for it.
    ///
    /// # Errors
    ///
    /// Returns an error if the system refuses the handlers.
    pub fn on_signals(&self) -> Result<()> {
        let mut signals = Signals::new([SIGTERM, SIGINT]).context("installing signal handlers")?;
        let shutdown = self.clone();
        std::thread::Builder::new()
            .name("signals".into())
            .spawn(move || {
                for signal in signals.forever() {
                    tracing::info!("signal {signal}: shutting down");
                    shutdown.request();
                }
            })
            .context("starting the signal thread")?;
        Ok(())
    }

    fn raise(&self, reason: Option<&str>) {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.requested = true;
        if let (None, Some(reason)) = (&state.fatal, reason) {
            state.fatal = Some(reason.to_owned());
        }
        self.0.flag.store(true, Ordering::Relaxed);
        drop(state);
        self.0.changed.notify_all();
    }
}

/// Makes SIGHUP run `reopen`: whoever rotates logs sends it.
///
/// # Errors
///
/// Returns an error if the system refuses the handler.
pub(crate) fn on_hangup(reopen: impl Fn() + Send + 'static) -> Result<()> {
    let mut signals = Signals::new([SIGHUP]).context("installing signal handlers")?;
    std::thread::Builder::new()
        .name("hangup".into())
        .spawn(move || {
            for _ in signals.forever() {
                reopen();
            }
        })
        .context("starting the signal thread")?;
    Ok(())
}
