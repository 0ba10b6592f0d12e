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

    /// Returns the time that is pretended, if one is.
    pub(crate) fn mock(&self) -> Option<Duration> {
        let time = self.mock.load(Ordering::Relaxed);
        (time != 0).then(|| Duration::from_secs(u64::from(time)))
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

/// Returns a time since 1970 as `2009-01-03T18:15:05Z`.
pub(crate) fn iso8601(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Howard Hinnant, "chrono-compatible low-level date algorithms": days count from 0000-03-01,
    // so that a leap day is the last of its year.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, next_year) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = year_of_era + era * 400 + next_year;
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_231_006_505, "2009-01-03T18:15:05Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(iso8601(seconds), text);
        }
    }
}
