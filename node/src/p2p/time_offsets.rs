//! `TimeOffsets`: how far the clocks of peers that we chose are ahead of ours, and whether ours is to
//! be doubted (Bitcoin Core's class of that name).

use std::collections::VecDeque;

use super::manager::PeerManager;
use crate::notify::CLOCK_WARNING;

/// Peers that are remembered, the last ones, whether they are still there or not.
const SAMPLES_MAX: usize = 50;
/// Fewer say nothing: they may be wrong themselves.
const SAMPLES_MIN: usize = 5;
/// By how much the clocks may differ; [`CLOCK_WARNING`] names it.
const TOLERATED_SECONDS: u64 = 10 * 60;

/// How far the clocks of peers that we chose are ahead of ours, in seconds.
#[derive(Debug, Default)]
pub(super) struct TimeOffsets(VecDeque<i64>);

impl TimeOffsets {
    /// Adds what a peer's clock says.
    fn add(&mut self, offset: i64) {
        if self.0.len() >= SAMPLES_MAX {
            self.0.pop_front();
        }
        self.0.push_back(offset);
        let count = self.0.len();
        tracing::debug!("Added time offset {offset:+}s, total samples {count}");
    }

    /// Returns the one in the middle; 0 if they are too few.
    fn median(&self) -> i64 {
        let mut sorted: Vec<i64> = self.0.iter().copied().collect();
        sorted.sort_unstable();
        let middle = sorted.get(sorted.len() / 2).copied().unwrap_or(0);
        if sorted.len() < SAMPLES_MIN { 0 } else { middle }
    }

    /// Returns whether our clock is to be doubted.
    fn is_alarming(&self) -> bool {
        self.median().unsigned_abs() > TOLERATED_SECONDS
    }
}

impl PeerManager {
    /// Notes how far the clock of a peer is ahead; who connected to us is not asked, lest anybody
    /// could raise the warning.
    pub(super) fn note_clock(&self, offset: i64) {
        let mut offsets = self.time_offsets();
        offsets.add(offset);
        let is_off = offsets.is_alarming();
        if is_off {
            tracing::warn!("{CLOCK_WARNING}");
        }
        // Under the lock: the last peer's word stands.
        self.warnings.set_clock_is_off(is_off);
    }

    /// Returns how far the clocks of peers that we chose are ahead; 0 if they are too few to say.
    pub(crate) fn time_offset(&self) -> i64 {
        self.time_offsets().median()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(groups: &[(usize, i64)]) -> TimeOffsets {
        let mut offsets = TimeOffsets::default();
        let all = groups.iter().flat_map(|(count, offset)| std::iter::repeat_n(*offset, *count));
        all.for_each(|offset| offsets.add(offset));
        offsets
    }

    #[test]
    fn the_median_is_of_the_last_fifty_and_of_five_at_least() {
        assert_eq!(TimeOffsets::default().median(), 0);
        let four = [(1, -1), (1, -2), (1, -3), (1, -4)];
        assert_eq!(of(&four).median(), 0);
        assert_eq!(of(&[&four[..], &[(1, 0)]].concat()).median(), -2);
        assert_eq!(of(&[&four[..], &[(1, 0), (4, 5)]].concat()).median(), 0);
        assert_eq!(of(&[(4, -1), (46, 10), (24, 15)]).median(), 10);
        assert_eq!(of(&[(4, -1), (46, 10), (25, 15)]).median(), 15);
        assert_eq!(of(&[(50, 1), (50, 2)]).0.len(), SAMPLES_MAX);
    }

    #[test]
    fn only_more_than_ten_minutes_either_way_are_alarming() {
        assert!(!of(&[(4, 3600)]).is_alarming());
        assert!(!of(&[(100, 180)]).is_alarming());
        for (offset, is_alarming) in [(600, false), (601, true), (i64::MAX, true)] {
            assert_eq!(of(&[(5, offset)]).is_alarming(), is_alarming, "{offset}");
            assert_eq!(of(&[(5, -offset)]).is_alarming(), is_alarming, "-{offset}");
        }
        assert!(of(&[(5, i64::MIN)]).is_alarming());
        assert!(of(&[(1, -3600), (1, -2400), (1, -1800), (1, 0), (1, 600)]).is_alarming());
    }
}
