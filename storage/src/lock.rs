//! Locks without the standard library's poison flag.
//!
//! A thread that panics while it holds one of these locks poisons the *store* (see
//! `wal_buffered::health`), which says more than a panic in every other thread would.

use std::sync::PoisonError;
use std::time::Duration;

use crate::sync::{Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// How often a caller that waits for another thread looks whether that thread still lives.
const POLL: Duration = Duration::from_millis(20);

/// Takes a mutex.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes a lock for reading.
pub(crate) fn read<T>(rw_lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    rw_lock.read().unwrap_or_else(PoisonError::into_inner)
}

/// Takes a lock for writing.
pub(crate) fn write<T>(rw_lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    rw_lock.write().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for a notification.
pub(crate) fn wait<'a, T>(condition: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    condition.wait(guard).unwrap_or_else(PoisonError::into_inner)
}

/// Waits for a notification that a thread gives which may have panicked: returns now and then
/// without one. While schedules are explored it does not, so that a notification that is missing
/// is not made up for.
pub(crate) fn wait_polling<'a, T>(
    condition: &Condvar,
    guard: MutexGuard<'a, T>,
) -> MutexGuard<'a, T> {
    if cfg!(shuttle) {
        return wait(condition, guard);
    }
    condition.wait_timeout(guard, POLL).unwrap_or_else(PoisonError::into_inner).0
}
