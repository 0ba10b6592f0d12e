//! What a node does while its store waits: for free space, or for the end of a replay.
//!
//! The store asks a function now and then. These say what is going on, and let a stop end the wait.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use cofferdam_storage::{
    Error, FileSystem as _, NoSpaceHook, ReplayHook, ReplayProgress, StdFileSystem,
    wait_for_free_bytes,
};

use crate::shutdown::Shutdown;
use crate::terminal;

/// How long the free space is not looked at again.
const ASK_INTERVAL: Duration = Duration::from_millis(500);
/// Who is not asked for so long is not waited for any more.
const PAUSE_OVER: Duration = Duration::from_secs(5);
/// Time between two lines about a replay, and before the first.
const LINE_INTERVAL: Duration = Duration::from_secs(1);

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
    /// The end of what only reads, and is begun anew by the next start.
    pub(crate) fn amid(what: &str) -> Self {
        Self(format!("interrupted while {what}"))
    }

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
            Error::Interrupted => Some(Self(
                "interrupted while replaying the log; the next start continues".to_owned(),
            )),
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

/// What an index keeps free on its disk, as the chain's log does on its own.
#[derive(Debug)]
pub(crate) struct Reserve {
    dir: PathBuf,
    bytes: u64,
    hook: NoSpaceHook,
    shutdown: Shutdown,
}

impl Reserve {
    /// The reserve of the disk that holds `dir`; none if it has no bytes.
    pub(crate) fn new(dir: &Path, bytes: u64, shutdown: &Shutdown) -> Self {
        let (dir, shutdown) = (dir.to_owned(), shutdown.clone());
        Self { dir, bytes, hook: wait_for_space(shutdown.clone()), shutdown }
    }

    /// What ends a wait.
    pub(crate) const fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }

    /// Waits until so many bytes can be written.
    ///
    /// # Errors
    ///
    /// Returns [`EndedByStop`] if a stop was asked for, and another error if the system cannot tell
    /// what is free.
    pub(crate) fn wait_for(&self, bytes: usize) -> anyhow::Result<()> {
        if self.bytes == 0 {
            return Ok(());
        }
        let wanted = self.bytes.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        let waited = wait_for_free_bytes(&StdFileSystem, &self.dir, wanted, &self.hook);
        waited.map_err(|error| {
            let error = cofferdam_ibd::Error::from(error);
            match EndedByStop::from_error(&error, &self.shutdown) {
                Some(ended) => ended.into(),
                None => error.into(),
            }
        })
    }
}

/// Logs how far a replay is, and ends it when a stop is asked for.
pub(crate) fn watch_replay(shutdown: Shutdown) -> ReplayHook {
    let lines = Lines::default();
    ReplayHook::new(move |progress| {
        if shutdown.is_requested() {
            return ControlFlow::Break(());
        }
        if lines.is_due(Instant::now()) {
            tracing::info!("{}", replay_line(progress));
        }
        ControlFlow::Continue(())
    })
}

/// When the last line was written; at first, when the first question came.
#[derive(Default)]
struct Lines(Mutex<Option<Instant>>);

impl Lines {
    fn is_due(&self, now: Instant) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = now.duration_since(*last.get_or_insert(now)) >= LINE_INTERVAL;
        if due {
            *last = Some(now);
        }
        due
    }
}

fn replay_line(progress: ReplayProgress) -> String {
    let ReplayProgress { done_bytes, total_bytes, lsn } = progress;
    let percent = done_bytes.saturating_mul(100).checked_div(total_bytes).unwrap_or(100);
    format!("replaying the log: {percent} % (record {lsn})")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use cofferdam_storage::{
        Batch, Database as _, MemoryDatabase, NoAttachments, WalBuffered, WalOptions,
    };

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

    #[test]
    fn an_index_waits_until_there_is_room_or_a_stop() {
        let shutdown = Shutdown::default();
        let dir = Path::new("/");
        Reserve::new(dir, 1, &shutdown).wait_for(1).unwrap();
        Reserve::new(dir, 0, &shutdown).wait_for(usize::MAX).unwrap();
        let full = Reserve::new(dir, u64::MAX, &shutdown);
        let waiting = std::thread::Builder::new()
            .name("pause".into())
            .spawn(move || full.wait_for(1))
            .unwrap();
        assert!(!shutdown.wait_for(Duration::from_millis(100)) && !waiting.is_finished());
        shutdown.request();
        let error = waiting.join().unwrap().unwrap_err();
        assert!(error.is::<EndedByStop>(), "{error:#}");
        assert_eq!(shutdown.fatal(), None);
    }

    #[test]
    fn an_interrupted_replay_is_no_failure_after_a_stop() {
        let (shutdown, error) = (Shutdown::default(), Error::Interrupted.into());
        assert_eq!(EndedByStop::from_error(&error, &shutdown), None);
        shutdown.request();
        let ended = EndedByStop::from_error(&error, &shutdown).unwrap().to_string();
        assert_eq!(ended, "interrupted while replaying the log; the next start continues");
    }

    #[test]
    fn the_line_about_a_replay_has_its_share() {
        let progress = ReplayProgress { done_bytes: 12, total_bytes: 100, lsn: 7 };
        assert_eq!(replay_line(progress), "replaying the log: 12 % (record 7)");
        assert_eq!(replay_line(ReplayProgress::default()), "replaying the log: 100 % (record 0)");
    }

    /// Lines are for replays of more than a second: the first call is too early for one.
    #[test]
    fn a_replay_is_told_of_once_a_second() {
        let said = Lines::default();
        let start = Instant::now();
        assert!(!said.is_due(start));
        let second = start.checked_add(LINE_INTERVAL).unwrap();
        assert!(said.is_due(second));
        assert!(!said.is_due(second));
        assert!(said.is_due(second.checked_add(LINE_INTERVAL).unwrap()));
    }

    /// A log of 24 MiB over an empty database, as a crash leaves it.
    #[test]
    fn a_stop_ends_a_real_replay_and_the_next_start_continues() {
        let dir = tempfile::tempdir().unwrap();
        let open = |shutdown: &Shutdown| {
            let options = WalOptions {
                replay_hook: Some(watch_replay(shutdown.clone())),
                ..WalOptions::default()
            };
            let backend = MemoryDatabase::new(cofferdam_ibd::TREES);
            let fs = Arc::new(StdFileSystem);
            WalBuffered::open(options, fs, dir.path(), backend, Arc::new(NoAttachments))
        };
        let tree = cofferdam_ibd::TREES[0];
        let (store, _) = open(&Shutdown::default()).unwrap();
        for key in 0..24_u8 {
            let mut batch = Batch::new();
            batch.put(tree, &[key], &vec![key; 1 << 20]);
            store.apply(&batch).unwrap();
        }
        drop(store);
        let stop = Shutdown::default();
        stop.request();
        let error = open(&stop).map(|_| ()).unwrap_err();
        assert!(matches!(error, Error::Interrupted), "{error}");
        let (store, recovery) = open(&Shutdown::default()).unwrap();
        assert_eq!(recovery.records, 24);
        assert_eq!(store.get(tree, &[23]).unwrap(), Some(vec![23; 1 << 20]));
    }
}
