//! A limit to what one place of the code may write when nobody asked for it with `-debug`: a peer
//! that makes the node complain must not fill the disk (Bitcoin Core's `LogRateLimiter`).

use std::collections::HashMap;
use std::time::Duration;

/// Bytes that a place may write in a window.
pub(super) const PLACE_BYTES_MAX: usize = 1 << 20;
/// After this time every place may write again.
pub(super) const WINDOW: Duration = Duration::from_secs(3600);

/// A place of the code: file and line.
pub(super) type Place = (&'static str, u32);

/// What becomes of a line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// It is written.
    Write,
    /// It is the last one that is written for a while.
    WriteLast,
    /// It is not written.
    Drop,
}

/// What every place has written in this window. There are as many places as calls in the code.
#[derive(Debug, Default)]
pub(super) struct RateLimiter {
    /// When the window began, in time since 1970.
    since: Duration,
    places: HashMap<Place, Written>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Written {
    bytes: usize,
    dropped_bytes: usize,
}

impl RateLimiter {
    /// Counts a line of so many bytes.
    pub(super) fn consume(&mut self, place: Place, bytes: usize) -> Verdict {
        let written = self.places.entry(place).or_default();
        if bytes <= PLACE_BYTES_MAX - written.bytes {
            written.bytes += bytes;
            return if written.dropped_bytes == 0 { Verdict::Write } else { Verdict::Drop };
        }
        let first = written.dropped_bytes == 0;
        written.bytes = PLACE_BYTES_MAX;
        written.dropped_bytes += bytes;
        if first { Verdict::WriteLast } else { Verdict::Drop }
    }

    /// Begins a new window if the last one is over; returns the places that were cut off, and how
    /// many bytes each lost.
    pub(super) fn renew(&mut self, now: Duration) -> Vec<(Place, usize)> {
        if now.checked_sub(self.since).is_some_and(|age| age < WINDOW) {
            return Vec::new();
        }
        self.since = now;
        let places = self.places.drain().map(|(place, written)| (place, written.dropped_bytes));
        places.filter(|(_, dropped_bytes)| *dropped_bytes > 0).collect()
    }

    /// Returns whether some place is cut off.
    pub(super) fn is_active(&self) -> bool {
        self.places.values().any(|written| written.dropped_bytes > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_writes_too_much_is_cut_off_until_the_hour_is_over() {
        let mut limiter = RateLimiter::default();
        let (loud, quiet) = (("a.rs", 1), ("a.rs", 2));
        let start = Duration::from_secs(1_000_000);
        assert!(limiter.renew(start).is_empty());
        for _ in 0..4 {
            assert_eq!(limiter.consume(loud, PLACE_BYTES_MAX / 4), Verdict::Write);
        }
        assert!(!limiter.is_active());
        assert_eq!(limiter.consume(loud, 10), Verdict::WriteLast);
        assert_eq!(limiter.consume(loud, 20), Verdict::Drop);
        assert!(limiter.is_active());
        assert_eq!(limiter.consume(quiet, 10), Verdict::Write);
        assert!(limiter.renew(start + WINDOW - Duration::from_secs(1)).is_empty());
        assert_eq!(limiter.renew(start + WINDOW), [(loud, 30)]);
        assert!(!limiter.is_active());
        assert_eq!(limiter.consume(loud, 10), Verdict::Write);
    }
}
