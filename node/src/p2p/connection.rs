//! `SendQueue`: what waits to be sent on one connection, and the thread that sends it.

use std::collections::VecDeque;
use std::io::Write as _;
use std::net::TcpStream;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// With more than this waiting, the peer's next message is not read (Bitcoin Core's
/// `DEFAULT_MAXSENDBUFFER`): a peer that asks and does not read waits for itself.
const PAUSE_BYTES: usize = 1_000_000;

/// With more than this waiting the peer is given up: a block and what may be announced on top.
const BYTES_MAX: usize = 12_000_000;

/// Messages waiting that are given up on; far more than any burst of announcements.
const MESSAGES_MAX: usize = 10_000;

#[derive(Debug, Default)]
struct Waiting {
    frames: VecDeque<Vec<u8>>,
    bytes: usize,
    closed: bool,
}

/// Frames that wait to be sent.
#[derive(Debug, Default)]
pub(crate) struct SendQueue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

impl SendQueue {
    /// Adds a frame; returns false if the peer is too slow, or gone. Never waits.
    pub(crate) fn push(&self, frame: Vec<u8>) -> bool {
        let mut waiting = self.waiting();
        let fits = waiting.bytes + frame.len() <= BYTES_MAX && waiting.frames.len() < MESSAGES_MAX;
        if waiting.closed || !fits {
            return false;
        }
        waiting.bytes += frame.len();
        waiting.frames.push_back(frame);
        self.changed.notify_all();
        true
    }

    /// Waits until little enough waits to be sent; returns false if the connection is closed.
    pub(crate) fn wait_for_room(&self) -> bool {
        let waiting = self.waiting();
        let full = |waiting: &mut Waiting| waiting.bytes > PAUSE_BYTES && !waiting.closed;
        let waiting =
            self.changed.wait_while(waiting, full).unwrap_or_else(PoisonError::into_inner);
        !waiting.closed
    }

    /// Ends the thread that sends; what waits is dropped.
    pub(crate) fn close(&self) {
        self.waiting().closed = true;
        self.changed.notify_all();
    }

    /// Sends frames until the queue is closed or the connection fails.
    pub(crate) fn drain(&self, mut stream: &TcpStream) {
        while let Some(frame) = self.next() {
            let sent = stream.write_all(&frame).is_ok();
            let mut waiting = self.waiting();
            waiting.bytes = waiting.bytes.saturating_sub(frame.len());
            waiting.closed |= !sent;
            self.changed.notify_all();
        }
    }

    fn next(&self) -> Option<Vec<u8>> {
        let empty = |waiting: &mut Waiting| waiting.frames.is_empty() && !waiting.closed;
        let waiting = self.changed.wait_while(self.waiting(), empty);
        let mut waiting = waiting.unwrap_or_else(PoisonError::into_inner);
        if waiting.closed { None } else { waiting.frames.pop_front() }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_does_not_read_is_given_up_with_bounded_memory() {
        let queue = SendQueue::default();
        let mut pushed = 0;
        while queue.push(vec![0; 100_000]) {
            pushed += 1;
        }
        assert_eq!(pushed, BYTES_MAX / 100_000);
        queue.close();
        assert!(!queue.wait_for_room());
        assert!(!queue.push(vec![0]));
    }
}
