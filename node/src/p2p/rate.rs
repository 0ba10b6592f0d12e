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

    /// Takes one out; returns how long to wait first.
    fn take(&mut self, now: Instant) -> Duration {
        let elapsed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.filled = now;
        self.tokens =
            self.limit.per_second.mul_add(elapsed, self.tokens).min(self.limit.burst) - 1.0;
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

    /// Returns how long a message has to wait.
    pub(super) fn wait(&mut self, command: &str, now: Instant) -> Duration {
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
        if is_costly { self.costly.take(now) } else { self.cheap.take(now) }
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
            assert_eq!(limit.wait("getheaders", start), Duration::ZERO);
        }
        assert_eq!(limit.wait("getheaders", start), Duration::from_millis(5));
        assert_eq!(limit.wait("ping", start), Duration::ZERO);
        for _ in 0..2000 {
            assert_eq!(limit.wait("getdata", start), Duration::ZERO, "a sync of early blocks");
        }
        for _ in 0..1_000_000 {
            assert!(limit.wait("getheaders", start) <= WAIT_MAX);
        }
        let later = start + Duration::from_secs(12);
        for _ in 0..2000 {
            assert_eq!(limit.wait("getheaders", later), Duration::ZERO);
        }
    }
}
