//! `Flow`: whether a peer is sending, and how fast.
//!
//! Bytes of any kind count, for what a message is may not be known before its end. They count only in
//! such number that a block would end, and no more of them than a block has: whoever sends a byte now
//! and then, or everything but the block, is as silent as who sends nothing.

use std::time::Duration;

/// What comes in so long is looked at together; so long is a peer sending that has sent enough.
pub(super) const STRETCH: Duration = Duration::from_secs(10);

/// What has to come in a stretch from all that owe blocks together: at this rate the largest block
/// takes the ten minutes that Bitcoin Core gives it.
const ENOUGH_BYTES: u64 = 64 << 10;

/// What has to come from each of them at least, however many they are: pings are less.
const ENOUGH_BYTES_MIN: u64 = 4 << 10;

/// What may come from a peer until a block has: as much as two of the largest messages.
const BYTES_TO_A_BLOCK_MAX: u64 = 2 * 4_000_000;

/// Returns what a peer has to send in a stretch to be sending, if so many owe blocks.
pub(super) fn enough(owing: usize) -> u64 {
    let owing = u64::try_from(owing).unwrap_or(u64::MAX).max(1);
    (ENOUGH_BYTES / owing).max(ENOUGH_BYTES_MIN)
}

/// A moment, and how many bytes had come by then.
#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    at: Duration,
    total: u64,
}

/// What comes from a peer.
#[derive(Debug, Default)]
pub(super) struct Flow {
    /// Whether anything is known: what came before is no sign of life.
    is_known: bool,
    /// All bytes by now.
    total: u64,
    /// Those by the last block that came, or the moment when it was asked for one.
    block: u64,
    /// Since when it is waited for enough bytes.
    waiting: Mark,
    /// When enough had come.
    enough: Option<Duration>,
    /// When the present stretch began.
    stretch: Mark,
    /// Bytes a second in the last stretch, and in the best one of the last in which it sent enough: in
    /// some it may have had little to send.
    rate: u64,
    pace: u64,
}

impl Flow {
    /// Notes how many bytes have come by now; `enough` is what it has to send.
    pub(super) fn heard(&mut self, total: u64, enough: u64, now: Duration) {
        let mark = Mark { at: now, total };
        self.total = total;
        if !std::mem::replace(&mut self.is_known, true) {
            (self.block, self.waiting, self.stretch) = (total, mark, mark);
        }
        let may_be_block = total.saturating_sub(self.block) <= BYTES_TO_A_BLOCK_MAX;
        if may_be_block && total.saturating_sub(self.waiting.total) >= enough {
            self.enough = Some(now);
            self.waiting = mark;
        } else if now >= self.waiting.at + STRETCH {
            self.waiting = mark;
        }
        if now >= self.stretch.at + STRETCH {
            let bytes = total.saturating_sub(self.stretch.total);
            let seconds = now.saturating_sub(self.stretch.at).as_secs().max(1);
            self.rate = bytes / seconds;
            if bytes >= ENOUGH_BYTES {
                self.pace = self.rate.max(self.pace - self.pace / 4);
            }
            self.stretch = mark;
        }
    }

    /// Notes that it is asked for a block and owed none before.
    pub(super) fn begin(&mut self, now: Duration) {
        self.block = self.block.max(self.total);
        self.waiting = Mark { at: now, total: self.total };
    }

    /// Notes that a block of so many bytes came that it was asked for; those may not be counted yet.
    pub(super) fn block_came(&mut self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.block = self.block.saturating_add(bytes).max(self.total);
    }

    /// Returns whether it is sending.
    pub(super) fn is_sending(&self, now: Duration) -> bool {
        self.enough.is_some_and(|last| now < last + STRETCH)
    }

    /// Returns whether another sends much faster: so much that it cannot be the line that they share.
    pub(super) const fn is_outpaced_by(&self, other: &Self) -> bool {
        self.rate.saturating_mul(4) < other.pace
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Returns the last second in which a peer is sending that sends so many bytes each second, and
    /// blocks of that size.
    fn last_sending(bytes: u64, block: u64, seconds: u64) -> Option<u64> {
        let mut flow = Flow::default();
        flow.heard(1 << 30, enough(1), at(0));
        flow.begin(at(0));
        let is_sending = |second: &u64| {
            let sent = bytes * second;
            for _ in (sent - bytes) / block..sent / block {
                flow.block_came(usize::try_from(block).expect("small"));
            }
            flow.heard((1 << 30) + sent, enough(1), at(*second));
            flow.is_sending(at(*second))
        };
        (1..=seconds).filter(is_sending).max()
    }

    #[test]
    fn who_sends_what_may_be_a_block_is_sending_and_a_trickle_is_none() {
        assert_eq!(last_sending(7000, 4_000_000, 600), Some(600));
        assert_eq!(last_sending(30_000, 1_800_000, 600), Some(600));
        assert_eq!(last_sending(20_000_000, 4_000_000, 60), Some(60));
        assert_eq!(last_sending(100, u64::MAX, 600), None);
    }

    #[test]
    fn who_sends_everything_but_a_block_is_not_sending_for_long() {
        assert_eq!(last_sending(1_000_000, u64::MAX, 600), Some(8 + 9));
    }

    #[test]
    fn who_shares_the_line_has_to_send_a_part_of_it_only() {
        assert_eq!(enough(0), enough(1));
        assert_eq!(enough(8), enough(1) / 8);
        assert_eq!(enough(1000), ENOUGH_BYTES_MIN);
    }

    #[test]
    fn one_that_is_four_times_as_fast_does_not_share_its_line() {
        let with_rate = |bytes: u64| {
            let mut flow = Flow::default();
            for second in 0..=20 {
                flow.heard(bytes * second, enough(1), at(second));
            }
            flow
        };
        let (slow, fast) = (with_rate(20_000), with_rate(81_000));
        assert!(slow.is_outpaced_by(&fast));
        assert!(!fast.is_outpaced_by(&slow) && !with_rate(30_000).is_outpaced_by(&fast));
        // With nothing to do it is as fast as it was.
        let mut idle = fast;
        idle.heard(idle.total, enough(1), at(60));
        assert!(slow.is_outpaced_by(&idle));
    }
}
