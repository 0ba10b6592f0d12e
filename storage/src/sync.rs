//! Locks, conditions, threads and the clock they wait by: the standard library's, or under
//! `--cfg shuttle` those of a scheduler that walks through interleavings.
//!
//! Only what blocks has to come from here. `Arc`, `OnceLock` and relaxed counters do not.

#[cfg(not(shuttle))]
pub(crate) use std::{
    sync::{Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard},
    thread,
    time::Instant,
};

#[cfg(shuttle)]
pub(crate) use self::explored::Instant;
#[cfg(shuttle)]
pub(crate) use shuttle::{
    sync::{Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard},
    thread,
};

use std::time::Duration;

/// Waits for a notification, at most `timeout`; `mutex` is that of the guard.
#[cfg(not(shuttle))]
pub(crate) fn wait_timeout<'a, T>(
    condition: &Condvar,
    _mutex: &'a Mutex<T>,
    guard: MutexGuard<'a, T>,
    timeout: Duration,
) -> MutexGuard<'a, T> {
    condition.wait_timeout(guard, timeout).unwrap_or_else(std::sync::PoisonError::into_inner).0
}

/// Returns as soon as the scheduler likes: for a notification, for none, or since time is over.
#[cfg(shuttle)]
pub(crate) fn wait_timeout<'a, T>(
    _condition: &Condvar,
    mutex: &'a Mutex<T>,
    guard: MutexGuard<'a, T>,
    timeout: Duration,
) -> MutexGuard<'a, T> {
    use shuttle::rand::Rng as _;

    drop(guard);
    thread::yield_now();
    if shuttle::rand::thread_rng().gen_bool(0.5) {
        Instant::pass(timeout);
    }
    crate::lock::lock(mutex)
}

/// A clock that stands still until somebody has waited.
#[cfg(shuttle)]
mod explored {
    use std::cell::Cell;
    use std::ops::Add;
    use std::time::Duration;

    thread_local! {
        /// All threads of an execution are coroutines of one thread.
        static NOW: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    }

    /// As the standard library's.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    pub(crate) struct Instant(Duration);

    impl Instant {
        pub(crate) fn now() -> Self {
            Self(NOW.get())
        }

        /// Lets time pass.
        pub(super) fn pass(time: Duration) {
            NOW.set(NOW.get() + time);
        }

        pub(crate) fn checked_duration_since(&self, earlier: Self) -> Option<Duration> {
            self.0.checked_sub(earlier.0)
        }

        pub(crate) fn elapsed(&self) -> Duration {
            NOW.get().saturating_sub(self.0)
        }
    }

    impl Add<Duration> for Instant {
        type Output = Self;

        fn add(self, duration: Duration) -> Self {
            Self(self.0 + duration)
        }
    }
}
