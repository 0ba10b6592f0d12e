//! `-maxuploadtarget`: how much is sent in a day before old blocks are no longer served.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The time over which is counted (Bitcoin Core's `MAX_UPLOAD_TIMEFRAME`).
pub(crate) const TIMEFRAME: Duration = Duration::from_secs(24 * 60 * 60);

/// Blocks older than this are historical (Core's `HISTORICAL_BLOCK_AGE`).
pub(crate) const HISTORICAL_AGE_SECONDS: u32 = 7 * 24 * 60 * 60;

/// What is kept back for each block that may still come in the time left.
const BLOCK_BYTES_MAX: u64 = 4_000_000;
const BLOCK_SPACING_SECONDS: u64 = 600;

#[derive(Debug, Default)]
struct Cycle {
    began: Duration,
    sent: u64,
    total: u64,
}

/// Bytes sent, and the limit.
#[derive(Debug)]
pub(crate) struct Upload {
    target: u64,
    cycle: Mutex<Cycle>,
}

impl Upload {
    /// Counts toward a target; 0: none.
    pub(crate) fn new(target: u64) -> Self {
        Self { target, cycle: Mutex::default() }
    }

    /// Counts bytes that were sent.
    pub(crate) fn sent(&self, bytes: u64, now: Duration) {
        let mut cycle = self.cycle();
        cycle.total = cycle.total.saturating_add(bytes);
        if cycle.began + TIMEFRAME < now {
            cycle.began = now;
            cycle.sent = 0;
        }
        cycle.sent = cycle.sent.saturating_add(bytes);
    }

    /// Returns all bytes sent since the start.
    pub(crate) fn total(&self) -> u64 {
        self.cycle().total
    }

    /// Returns the target.
    pub(crate) const fn target(&self) -> u64 {
        self.target
    }

    /// Returns whether the target is reached.
    pub(crate) fn is_reached(&self) -> bool {
        self.target != 0 && self.cycle().sent >= self.target
    }

    /// Returns whether old blocks are no longer served, so that new ones can be.
    pub(crate) fn is_reached_for_history(&self, now: Duration) -> bool {
        if self.target == 0 {
            return false;
        }
        let slots = self.time_left(now).as_secs() / BLOCK_SPACING_SECONDS;
        let reserve = slots.saturating_mul(BLOCK_BYTES_MAX);
        reserve >= self.target || self.cycle().sent >= self.target - reserve
    }

    /// Returns the bytes left in this timeframe.
    pub(crate) fn bytes_left(&self) -> u64 {
        self.target.saturating_sub(self.cycle().sent)
    }

    /// Returns what is left of the timeframe.
    pub(crate) fn time_left(&self, now: Duration) -> Duration {
        let began = self.cycle().began;
        match (self.target, began.is_zero()) {
            (0, _) => Duration::ZERO,
            (_, true) => TIMEFRAME,
            (_, false) => (began + TIMEFRAME).saturating_sub(now),
        }
    }

    fn cycle(&self) -> MutexGuard<'_, Cycle> {
        self.cycle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_blocks_give_way_before_new_ones_and_a_day_later_all_is_well() {
        let now = Duration::from_secs(1_700_000_000);
        let upload = Upload::new(800_000_000);
        assert!(!upload.is_reached_for_history(now));
        upload.sent(224_000_000, now);
        assert!(upload.is_reached_for_history(now));
        assert!(!upload.is_reached());
        assert_eq!(upload.bytes_left(), 576_000_000);
        upload.sent(576_000_000, now);
        assert!(upload.is_reached());
        let next_day = now + TIMEFRAME + Duration::from_secs(1);
        upload.sent(1, next_day);
        assert!(!upload.is_reached_for_history(next_day));
        assert_eq!(upload.total(), 800_000_001);
        let unlimited = Upload::new(0);
        unlimited.sent(u64::MAX, now);
        assert!(!unlimited.is_reached() && !unlimited.is_reached_for_history(now));
    }
}
