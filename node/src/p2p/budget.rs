//! `ReceiveBudget`: memory of all messages that are being received or handled, together.
//!
//! Each connection alone may hold one message of four megabytes. Many that hold one each must not
//! hold the node's memory, so of those that may be refused the one goes whose message began first:
//! who sends a byte a second loses, who sends a block is done long before. Who holds little stays:
//! a question for blocks is held until its answer has been read, and without it nothing would be
//! free.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use cofferdam_ibd::sync::PeerId;

/// Most bytes of messages from peers that connected to us. Those that we chose are few, and are
/// not refused: with one message each they add some 80 MB at the very most.
const INBOUND_BYTES_MAX: usize = 64 << 20;

/// A peer that holds no more than this stays. A thousand of them are within the bound, and each
/// has as much again to read into.
const SPARED_BYTES: usize = 64 << 10;

#[derive(Debug, Default)]
struct Held {
    bytes: usize,
    /// Rises with every message that begins.
    began: u64,
}

#[derive(Debug, Default)]
struct State {
    held: HashMap<PeerId, Held>,
    total: usize,
    messages: u64,
}

/// What inbound peers hold.
#[derive(Debug, Default)]
pub(super) struct ReceiveBudget(Mutex<State>);

impl ReceiveBudget {
    /// Counts bytes of a peer's present message; returns the peers that have to go for it.
    pub(super) fn take(&self, peer: PeerId, bytes: usize) -> Vec<PeerId> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.messages += 1;
        let message = state.messages;
        let held = state.held.entry(peer).or_insert(Held { bytes: 0, began: message });
        held.bytes += bytes;
        state.total += bytes;
        let mut losers = Vec::new();
        while state.total > INBOUND_BYTES_MAX {
            let large = state.held.iter().filter(|(_, held)| held.bytes > SPARED_BYTES);
            let Some(loser) = large.min_by_key(|(_, held)| held.began).map(|(id, _)| *id) else {
                break;
            };
            // What it holds is free as soon as its thread hears of it.
            let freed = state.held.remove(&loser).map_or(0, |held| held.bytes);
            state.total -= freed;
            losers.push(loser);
        }
        losers
    }

    /// Gives back what a peer holds, after its message was handled or the connection ended.
    pub(super) fn give_back(&self, peer: PeerId) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let freed = state.held.remove(&peer).map_or(0, |held| held.bytes);
        state.total -= freed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_that_began_first_goes_when_memory_runs_out() {
        let budget = ReceiveBudget::default();
        assert!(budget.take(1, 1).is_empty());
        for peer in 2..18 {
            assert!(budget.take(peer, 4_000_000).is_empty());
        }
        assert_eq!(budget.take(99, 4_000_000), [2]);
        assert_eq!(budget.take(100, 4_000_000), [3]);
        budget.give_back(4);
        assert!(budget.take(101, 4_000_000).is_empty());
    }

    #[test]
    fn who_holds_little_stays_however_long() {
        let budget = ReceiveBudget::default();
        // Each waits until it has read what it asked for.
        for peer in 0..100 {
            assert!(budget.take(peer, 600).is_empty());
        }
        let losers: Vec<PeerId> = (0..64_000).flat_map(|_| budget.take(100, 4000)).collect();
        assert_eq!(losers, [100; 3]);
        budget.give_back(100);
        for peer in 200..2000 {
            assert!(budget.take(peer, 64 << 10).is_empty());
        }
    }

    #[test]
    fn what_was_handled_is_free_again() {
        let budget = ReceiveBudget::default();
        for _ in 0..1000 {
            assert!(budget.take(1, 4_000_000).is_empty());
            budget.give_back(1);
        }
        assert_eq!(budget.0.lock().unwrap().total, 0);
    }
}
