//! `SendQueue`: what waits to be sent on one connection, and the thread that sends it.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io::Write as _;
use std::net::TcpStream;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// With so much waiting beyond what makes a peer wait it is given up: a block that was read while
/// there was room, and what may be announced on top.
const BEYOND_PAUSE_BYTES: usize = 11_000_000;

/// Messages waiting that are given up on; far more than any burst of announcements.
const MESSAGES_MAX: usize = 10_000;

/// With more messages than this waiting the peer's next one is not read either, however short they
/// are: more than the smallest blocks that the default of a megabyte holds.
const PAUSE_MESSAGES: usize = MESSAGES_MAX / 2;

/// A message that waits; bytes without a command go out as they are, before any message.
#[derive(Debug)]
struct Outgoing {
    command: Option<Cow<'static, str>>,
    payload: Vec<u8>,
}

#[derive(Debug, Default)]
struct Waiting {
    frames: VecDeque<Outgoing>,
    bytes: usize,
    /// Whether messages wait until the transport has its keys.
    held: bool,
    closed: bool,
}

/// Messages that wait to be sent.
#[derive(Debug)]
pub(crate) struct SendQueue {
    /// With more than this waiting, the peer's next message is not read: a peer that asks and does
    /// not read waits for itself.
    pause_bytes: usize,
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

impl SendQueue {
    /// Creates a queue in which more than that many bytes make whoever asks for much wait.
    pub(crate) fn new(pause_bytes: usize) -> Self {
        Self { pause_bytes, waiting: Mutex::default(), changed: Condvar::new() }
    }

    /// Adds a message; returns false if the peer is too slow, or gone. Never waits.
    pub(crate) fn push(&self, command: Cow<'static, str>, payload: Vec<u8>) -> bool {
        self.add(Outgoing { command: Some(command), payload })
    }

    /// Adds bytes of the transport's own handshake.
    pub(crate) fn push_raw(&self, bytes: Vec<u8>) -> bool {
        self.add(Outgoing { command: None, payload: bytes })
    }

    /// Lets messages wait, or go.
    pub(crate) fn hold(&self, held: bool) {
        self.waiting().held = held;
        self.changed.notify_all();
    }

    fn add(&self, outgoing: Outgoing) -> bool {
        let mut waiting = self.waiting();
        let bytes = waiting.bytes + outgoing.payload.len();
        let bytes_max = self.pause_bytes.saturating_add(BEYOND_PAUSE_BYTES);
        // One message alone may be larger: a user sends what they like.
        let fits = (bytes <= bytes_max || waiting.frames.is_empty())
            && waiting.frames.len() < MESSAGES_MAX;
        if waiting.closed || !fits {
            return false;
        }
        waiting.bytes = bytes;
        waiting.frames.push_back(outgoing);
        self.changed.notify_all();
        true
    }

    /// Waits until little enough waits to be sent; returns false if the connection is closed.
    pub(crate) fn wait_for_room(&self) -> bool {
        let waiting = self.waiting();
        let full = |waiting: &mut Waiting| self.is_full(waiting);
        let waiting =
            self.changed.wait_while(waiting, full).unwrap_or_else(PoisonError::into_inner);
        !waiting.closed
    }

    /// Waits until all has been sent, or the connection is closed.
    pub(crate) fn wait_until_sent(&self) {
        let busy = |waiting: &mut Waiting| waiting.bytes > 0 && !waiting.closed;
        drop(self.changed.wait_while(self.waiting(), busy));
    }

    /// Ends the thread that sends; what waits is dropped.
    pub(crate) fn close(&self) {
        self.waiting().closed = true;
        self.changed.notify_all();
    }

    /// Sends until the queue is closed or the connection fails: `encode` makes a frame of command
    /// and payload, `sent` hears of what has gone out. Whoever does not read has the frame held for
    /// as long as that takes, and so the payload, which it replaces, is not kept beside it.
    pub(crate) fn drain(
        &self,
        mut stream: &TcpStream,
        encode: impl Fn(&str, Vec<u8>) -> Vec<u8>,
        sent: impl Fn(Option<&str>, usize),
    ) {
        while let Some(Outgoing { command, payload }) = self.next() {
            let size = payload.len();
            let command = command.as_deref();
            let frame = match command {
                Some(command) => encode(command, payload),
                None => payload,
            };
            let is_sent = stream.write_all(&frame).is_ok();
            if is_sent {
                sent(command, frame.len());
            }
            let mut waiting = self.waiting();
            waiting.bytes = waiting.bytes.saturating_sub(size);
            waiting.closed |= !is_sent;
            self.changed.notify_all();
        }
    }

    fn next(&self) -> Option<Outgoing> {
        let ready = |waiting: &Waiting| {
            waiting.frames.iter().position(|next| !waiting.held || next.command.is_none())
        };
        let idle = |waiting: &mut Waiting| ready(waiting).is_none() && !waiting.closed;
        let waiting = self.changed.wait_while(self.waiting(), idle);
        let mut waiting = waiting.unwrap_or_else(PoisonError::into_inner);
        if waiting.closed {
            return None;
        }
        let index = ready(&waiting)?;
        waiting.frames.remove(index)
    }

    fn is_full(&self, waiting: &Waiting) -> bool {
        let is_much = waiting.bytes > self.pause_bytes || waiting.frames.len() > PAUSE_MESSAGES;
        is_much && !waiting.closed
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
        let queue = SendQueue::new(1_000_000);
        let mut pushed = 0;
        while queue.push("block".into(), vec![0; 100_000]) {
            pushed += 1;
        }
        assert_eq!(pushed, (1_000_000 + BEYOND_PAUSE_BYTES) / 100_000);
        queue.close();
        assert!(!queue.wait_for_room());
        assert!(!queue.push("ping".into(), vec![0]));
    }

    #[test]
    fn a_block_fits_behind_as_much_as_the_user_lets_wait() {
        for pause_bytes in [5000, 11_000_000, 50_000_000] {
            let queue = SendQueue::new(pause_bytes);
            assert!(queue.push("block".into(), vec![0; pause_bytes]));
            assert!(queue.wait_for_room());
            assert!(queue.push("block".into(), vec![0; 4_000_000]), "{pause_bytes}");
        }
        assert!(SendQueue::new(usize::MAX).push("block".into(), vec![0]));
    }

    #[test]
    fn small_blocks_wait_for_room_before_there_are_too_many() {
        let queue = SendQueue::new(50_000_000);
        while !queue.is_full(&queue.waiting()) {
            assert!(queue.push("block".into(), vec![0; 215]));
        }
    }

    #[test]
    fn there_is_room_until_more_waits_than_the_user_allows() {
        let queue = SendQueue::new(1000);
        assert!(queue.push("block".into(), vec![0; 1000]));
        assert!(queue.wait_for_room());
        assert!(queue.push("block".into(), vec![0; 1]));
        assert!(queue.is_full(&queue.waiting()));
        queue.close();
        assert!(!queue.wait_for_room());
    }
}
