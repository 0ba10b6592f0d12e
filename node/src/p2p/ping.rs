//! `Ping`: when a peer is asked for a sign of life, and how soon the answer comes.
//!
//! All times are the node's clock: tests move it, and see what would happen in twenty minutes.

use std::time::Duration;

/// How often a ping is sent (Bitcoin Core's `PING_INTERVAL`).
const INTERVAL: Duration = Duration::from_secs(120);

/// How long an answer may take (Core's `TIMEOUT_INTERVAL`).
pub(super) const TIMEOUT: Duration = Duration::from_secs(20 * 60);

/// The ping that was sent last, and how fast pongs come.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ping {
    /// Nonce of a ping without a pong; 0: none.
    nonce: u64,
    /// When a ping was last sent.
    start: Duration,
    /// Whether the user asked for one.
    pub(crate) queued: bool,
    /// Round trip of the last pong.
    pub(crate) last: Option<Duration>,
    /// The shortest round trip.
    pub(crate) min: Option<Duration>,
}

impl Ping {
    /// Returns how long a ping has been waiting, if it is too long.
    pub(super) fn overdue(&self, now: Duration) -> Option<Duration> {
        self.waiting(now).filter(|time| *time > TIMEOUT)
    }

    /// Returns how long a ping has been waiting for its pong.
    pub(crate) fn waiting(&self, now: Duration) -> Option<Duration> {
        (self.nonce != 0).then(|| now.saturating_sub(self.start))
    }

    /// Returns whether to send one with this nonce now, and notes it as sent.
    pub(super) fn due(&mut self, nonce: u64, now: Duration) -> bool {
        let is_due = self.queued || (self.nonce == 0 && now > self.start + INTERVAL);
        if is_due {
            *self = Self { nonce, start: now, queued: false, ..*self };
        }
        is_due
    }

    /// Takes an answer in; returns what is wrong with it, for the log.
    pub(super) fn pong(&mut self, payload: &[u8], now: Duration) -> Option<String> {
        let expected = self.nonce;
        let received = payload.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
        let problem = match received {
            None => {
                self.nonce = 0;
                "Short payload"
            }
            Some(_) if expected == 0 => "Unsolicited pong without ping",
            Some(nonce) if nonce == expected => {
                let time = now.saturating_sub(self.start);
                self.nonce = 0;
                self.last = Some(time);
                self.min = Some(self.min.map_or(time, |min| min.min(time)));
                return None;
            }
            Some(0) => {
                // Most likely a bug of the other side: the ping is taken back.
                self.nonce = 0;
                "Nonce zero"
            }
            Some(_) => "Nonce mismatch",
        };
        let (received, bytes) = (received.unwrap_or(0), payload.len());
        Some(format!("{problem}, {expected:x} expected, {received:x} received, {bytes} bytes"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn a_ping_goes_out_at_once_and_every_two_minutes_after_its_pong() {
        let mut ping = Ping::default();
        assert!(ping.due(7, seconds(1000)));
        assert!(!ping.due(8, seconds(9000)));
        assert_eq!(ping.waiting(seconds(1003)), Some(seconds(3)));
        assert_eq!(ping.pong(&7_u64.to_le_bytes(), seconds(1009)), None);
        assert_eq!((ping.last, ping.min), (Some(seconds(9)), Some(seconds(9))));
        assert!(!ping.due(9, seconds(1120)));
        assert!(ping.due(9, seconds(1121)));
        assert_eq!(ping.overdue(seconds(2321)), None);
        assert_eq!(ping.overdue(seconds(2322)), Some(seconds(1201)));
        ping.queued = true;
        assert!(ping.due(10, seconds(1122)));
    }

    #[test]
    fn each_wrong_pong_is_named_as_core_names_it() {
        let mut ping = Ping::default();
        let pong = |ping: &mut Ping, bytes: &[u8]| ping.pong(bytes, seconds(1)).unwrap();
        let text = "Unsolicited pong without ping, 0 expected, 0 received, 8 bytes";
        assert_eq!(pong(&mut ping, &[0; 8]), text);
        assert!(ping.due(0x1f, seconds(1000)));
        let text = "Nonce mismatch, 1f expected, 1e received, 8 bytes";
        assert_eq!(pong(&mut ping, &0x1e_u64.to_le_bytes()), text);
        assert!(ping.waiting(seconds(1001)).is_some());
        assert_eq!(pong(&mut ping, &[0; 8]), "Nonce zero, 1f expected, 0 received, 8 bytes");
        assert!(ping.waiting(seconds(1001)).is_none());
        ping.queued = true;
        assert!(ping.due(0x1f, seconds(1000)));
        assert_eq!(pong(&mut ping, &[]), "Short payload, 1f expected, 0 received, 0 bytes");
        assert!(ping.waiting(seconds(1001)).is_none());
    }
}
