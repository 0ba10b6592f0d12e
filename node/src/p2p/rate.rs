//! How many messages of a kind a peer may send in a time before its next one has to wait.
//!
//! Nobody is disconnected for it: a peer that sends faster is read more slowly. The limits are far
//! above what an honest peer ever needs, and count by the machine's time, as they guard the machine.

use std::time::{Duration, Instant};

/// Messages that cost us no more than they cost the peer, and those that the chain's thread has to
/// work for: how many may come at once, and how many a second after that. `getdata` is among the
/// former: Bitcoin Core asks for early blocks one by one, thousands a second, and what is sent for it
/// has a limit of its own.
const CHEAP: Limit = Limit { burst: 10_000.0, per_second: 2_000.0 };
const COSTLY: Limit = Limit { burst: 2_000.0, per_second: 200.0 };

/// Bytes of a message that count as one message more: a long list costs us for each of its items.
const BYTES_A_TOKEN: f64 = 131_072.0;

/// The longest wait for one message.
const WAIT_MAX: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug)]
struct Limit {
    burst: f64,
    per_second: f64,
}

#[derive(Debug)]
struct Bucket {
    limit: Limit,
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    const fn new(limit: Limit, now: Instant) -> Self {
        Self { limit, tokens: limit.burst, filled: now }
    }

    /// Takes some out; returns how long to wait first.
    fn take(&mut self, tokens: f64, now: Instant) -> Duration {
        let elapsed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.filled = now;
        self.tokens =
            self.limit.per_second.mul_add(elapsed, self.tokens).min(self.limit.burst) - tokens;
        if self.tokens >= 0.0 {
            return Duration::ZERO;
        }
        let wait = Duration::from_secs_f64(-self.tokens / self.limit.per_second).min(WAIT_MAX);
        // The debt is never more than the longest wait pays.
        self.tokens = self.tokens.max(-self.limit.per_second * WAIT_MAX.as_secs_f64());
        wait
    }
}

/// The limits of one peer.
#[derive(Debug)]
pub(super) struct RateLimit {
    cheap: Bucket,
    costly: Bucket,
}

impl RateLimit {
    pub(super) const fn new(now: Instant) -> Self {
        Self { cheap: Bucket::new(CHEAP, now), costly: Bucket::new(COSTLY, now) }
    }

    /// Returns how long a message of so many bytes has to wait.
    pub(super) fn wait(&mut self, command: &str, bytes: usize, now: Instant) -> Duration {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let tokens = 1.0 + (f64::from(bytes) / BYTES_A_TOKEN).floor();
        let is_costly = matches!(
            command,
            "getheaders"
                | "getblocks"
                | "headers"
                | "inv"
                | "getblocktxn"
                | "cmpctblock"
                | "getcfilters"
                | "getcfheaders"
                | "getcfcheckpt"
                | "getaddr"
                | "mempool"
        );
        if is_costly { self.costly.take(tokens, now) } else { self.cheap.take(tokens, now) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_slowed_down_and_what_is_usual_is_not() {
        let start = Instant::now();
        let mut limit = RateLimit::new(start);
        for _ in 0..2000 {
            assert_eq!(limit.wait("getheaders", 100, start), Duration::ZERO);
        }
        assert_eq!(limit.wait("getheaders", 100, start), Duration::from_millis(5));
        assert_eq!(limit.wait("ping", 100, start), Duration::ZERO);
        for _ in 0..2000 {
            assert_eq!(limit.wait("getdata", 100, start), Duration::ZERO, "a sync of early blocks");
        }
        for _ in 0..1_000_000 {
            assert!(limit.wait("getheaders", 100, start) <= WAIT_MAX);
        }
        let later = start + Duration::from_secs(12);
        for _ in 0..2000 {
            assert_eq!(limit.wait("getheaders", 100, later), Duration::ZERO);
        }
    }

    #[test]
    fn a_long_list_counts_for_as_many_messages_as_it_is_long() {
        let start = Instant::now();
        let mut limit = RateLimit::new(start);
        // 50,000 items: 14 messages each.
        let count = (0..1000).take_while(|_| limit.wait("inv", 1_800_003, start).is_zero()).count();
        assert_eq!(count, 2000 / 14);
        // All headers of mainnet, looked at and then fetched, pass at once.
        let mut limit = RateLimit::new(start);
        let count = (0..1000).take_while(|_| limit.wait("headers", 162_003, start).is_zero());
        assert!(count.count() * 2000 >= 2 * 950_000);
    }
}
