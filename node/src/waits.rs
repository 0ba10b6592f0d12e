//! What a node does while its store waits for free space: says so, and lets a stop end the wait.

use std::ops::ControlFlow;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use cofferdam_storage::{Error, FileSystem as _, NoSpaceHook, StdFileSystem};

use crate::shutdown::Shutdown;
use crate::terminal;

/// How long the free space is not looked at again.
const ASK_INTERVAL: Duration = Duration::from_millis(500);
/// Who is not asked for so long is not waited for any more.
const PAUSE_OVER: Duration = Duration::from_secs(5);

/// A stop ended a wait, and with it what was under way: no failure, and nothing is lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EndedByStop(String);

impl std::fmt::Display for EndedByStop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for EndedByStop {}

impl EndedByStop {
    /// Tells whether `error` is a wait's end, and not a failure.
    pub(crate) fn from_error(error: &cofferdam_ibd::Error, shutdown: &Shutdown) -> Option<Self> {
        let cofferdam_ibd::Error::Storage(error) = error else {
            return None;
        };
        match error {
            _ if !shutdown.is_requested() => None,
            Error::NoSpace { .. } => Some(Self(format!(
                "stopped while waiting for free space; the next start continues ({error})"
            ))),
            _ => None,
        }
    }
}

/// Waits for free space until a stop is asked for.
pub(crate) fn wait_for_space(shutdown: Shutdown) -> NoSpaceHook {
    let pause = Mutex::new(None);
    NoSpaceHook::new(move |error| {
        let mut pause = pause.lock().unwrap_or_else(PoisonError::into_inner);
        if shutdown.is_requested() {
            return ControlFlow::Break(());
        }
        // What is needed may have shrunk unseen by this function, and the pause ended with that.
        if pause.is_none_or(|asked: Instant| asked.elapsed() > PAUSE_OVER) {
            let text = format!("paused: {error}; waiting for free space");
            tracing::warn!("{text}");
            terminal::print_warning(&text);
        }
        let stop = shutdown.wait_for(ASK_INTERVAL);
        *pause = Some(Instant::now());
        if stop {
            return ControlFlow::Break(());
        }
        if has_room(error) {
            *pause = None;
            tracing::info!("space again: going on");
        }
        ControlFlow::Continue(())
    })
}

fn has_room(error: &Error) -> bool {
    let Error::NoSpace { path, wanted_bytes, .. } = error else {
        return false;
    };
    matches!(StdFileSystem.free_bytes(path), Ok(Some(free_bytes)) if free_bytes >= *wanted_bytes)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn no_space() -> cofferdam_ibd::Error {
        let path = Path::new("/").to_owned();
        cofferdam_ibd::Error::Storage(Error::NoSpace {
            path,
            free_bytes: 1,
            wanted_bytes: u64::MAX,
        })
    }

    #[test]
    fn a_wait_is_ended_by_a_stop_only() {
        let shutdown = Shutdown::default();
        assert_eq!(EndedByStop::from_error(&no_space(), &shutdown), None);
        shutdown.request();
        let ended = EndedByStop::from_error(&no_space(), &shutdown).unwrap().to_string();
        assert!(ended.starts_with("stopped while waiting for free space"), "{ended}");
        let other = Error::UnknownTree { id: 1 }.into();
        assert_eq!(EndedByStop::from_error(&other, &shutdown), None, "a failure stays one");
    }
}
