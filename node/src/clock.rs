//! `Clock`: the one reader of the wall clock, which tests may set.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The time of day; clones share the pretended time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clock {
    /// Seconds since 1970 to pretend; 0: none.
    mock: Arc<AtomicU32>,
}

impl Clock {
    /// Returns the time since 1970.
    pub(crate) fn now(&self) -> Duration {
        match self.mock.load(Ordering::Relaxed) {
            0 => real_time(),
            mock => Duration::from_secs(u64::from(mock)),
        }
    }

    /// Returns the time in whole seconds, as block headers count it.
    pub(crate) fn seconds(&self) -> u32 {
        u32::try_from(self.now().as_secs()).unwrap_or(u32::MAX)
    }

    /// Pretends that it is `time`; 0 goes back to the real time.
    pub(crate) fn set_mock(&self, time: u32) {
        self.mock.store(time, Ordering::Relaxed);
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place where the time is read")]
fn real_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
