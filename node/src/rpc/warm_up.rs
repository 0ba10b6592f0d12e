//! What RPC answers before and while a node is ready: the state of its start, and the calls that run.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use serde_json::{Value, json};

use super::{Context, RpcError, code};

/// How far the node's start is; clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct WarmUp(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    status: Mutex<String>,
    context: OnceLock<Context>,
}

impl Default for Inner {
    fn default() -> Self {
        Self { status: Mutex::new("RPC server started".into()), context: OnceLock::new() }
    }
}

impl WarmUp {
    /// Says what the node is doing: in the log, and to callers.
    pub(crate) fn say(&self, text: &str) {
        tracing::info!("init message: {text}");
        text.clone_into(&mut self.0.status.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Lets calls run from now on.
    pub(crate) fn finish(&self, context: Context) {
        // Called once; a second context would change nothing.
        let _ = self.0.context.set(context);
        self.say("Done loading");
    }

    /// Returns what methods work on.
    ///
    /// # Errors
    ///
    /// Returns the state of the start while it goes on.
    pub(crate) fn context(&self) -> Result<&Context, RpcError> {
        self.0.context.get().ok_or_else(|| {
            let status = self.0.status.lock().unwrap_or_else(PoisonError::into_inner);
            RpcError::new(code::IN_WARMUP, status.clone())
        })
    }
}

/// The calls that run.
#[derive(Clone, Debug, Default)]
pub(crate) struct ActiveCalls(Arc<Mutex<Vec<(&'static str, Instant)>>>);

impl ActiveCalls {
    /// Adds a call until the value is dropped.
    pub(crate) fn enter(&self, method: &'static str) -> ActiveCall<'_> {
        let started = Instant::now();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((method, started));
        ActiveCall { calls: self, entry: (method, started) }
    }

    /// Lists them as `getrpcinfo` does, with their times in microseconds.
    pub(crate) fn list(&self) -> Value {
        let calls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let describe = |(method, started): &(&str, Instant)| {
            let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
            json!({"method": method, "duration": micros})
        };
        calls.iter().map(describe).collect()
    }
}

/// A call that runs.
#[derive(Debug)]
pub(crate) struct ActiveCall<'a> {
    calls: &'a ActiveCalls,
    entry: (&'static str, Instant),
}

impl Drop for ActiveCall<'_> {
    fn drop(&mut self) {
        let mut calls = self.calls.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = calls.iter().position(|entry| *entry == self.entry) {
            calls.swap_remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_hear_what_the_start_is_doing() {
        let warm_up = WarmUp::default();
        assert_eq!(warm_up.context().unwrap_err(), RpcError::new(-28, "RPC server started"));
        warm_up.say("Loading block index…");
        assert_eq!(warm_up.context().unwrap_err(), RpcError::new(-28, "Loading block index…"));
    }

    #[test]
    fn a_call_is_listed_while_it_runs() {
        let calls = ActiveCalls::default();
        let first = calls.enter("stop");
        let second = calls.enter("help");
        drop(first);
        assert_eq!(calls.list()[0]["method"], "help");
        drop(second);
        assert_eq!(calls.list(), json!([]));
    }
}
