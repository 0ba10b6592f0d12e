//! Which inbound peer gives its place to a new one when all places are taken.
//!
//! As in Bitcoin Core (`node/eviction.cpp`): a few peers are protected for each of several things
//! that are hard to forge, half of the rest for having stayed long, and of those left the youngest
//! goes that shares its network group with the most others.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use cofferdam_ibd::sync::PeerId;

/// How many peers each property protects.
const PROTECTED_BY_GROUP: usize = 4;
const PROTECTED_BY_PING: usize = 8;
const PROTECTED_BLOCK_RELAYERS: usize = 8;
const PROTECTED_BY_BLOCK: usize = 4;

/// What is known of an inbound peer that has no permission to stay.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) id: PeerId,
    pub(super) connected: Duration,
    pub(super) ping_min: Option<Duration>,
    pub(super) last_block: Duration,
    /// Whether it offers the services that we want of a peer.
    pub(super) is_useful: bool,
    pub(super) relays_transactions: bool,
    /// Its network group, keyed: which groups are protected cannot be known from outside.
    pub(super) group: u64,
    /// Whether it is a peer of this machine, or hidden behind the onion service.
    pub(super) is_disadvantaged: bool,
    /// Whether its address is discouraged.
    pub(super) go_first: bool,
}

/// Returns the peer to disconnect, if any may be.
pub(super) fn select(mut candidates: Vec<Candidate>) -> Option<PeerId> {
    let all = |_: &Candidate| true;
    protect(&mut candidates, PROTECTED_BY_GROUP, |peer| peer.group, all);
    protect(&mut candidates, PROTECTED_BY_PING, |peer| Reverse(ping(peer)), all);
    let relayer = |peer: &Candidate| (!peer.relays_transactions, block_time(peer));
    let is_relayer = |peer: &Candidate| !peer.relays_transactions && peer.is_useful;
    protect(&mut candidates, PROTECTED_BLOCK_RELAYERS, relayer, is_relayer);
    protect(&mut candidates, PROTECTED_BY_BLOCK, block_time, all);
    let half = candidates.len() / 2;
    let before = candidates.len();
    let disadvantaged = |peer: &Candidate| (peer.is_disadvantaged, Reverse(peer.connected));
    protect(&mut candidates, half / 2, disadvantaged, |peer| peer.is_disadvantaged);
    let left = half - (before - candidates.len());
    protect(&mut candidates, left, |peer| Reverse(peer.connected), all);
    if candidates.iter().any(|peer| peer.go_first) {
        candidates.retain(|peer| peer.go_first);
    }
    let mut groups: BTreeMap<u64, Vec<&Candidate>> = BTreeMap::new();
    for peer in &candidates {
        groups.entry(peer.group).or_default().push(peer);
    }
    let largest = groups
        .values()
        .max_by_key(|group| (group.len(), youngest(group).map(|peer| peer.connected)));
    largest.and_then(|group| youngest(group)).map(|peer| peer.id)
}

fn youngest<'a>(group: &[&'a Candidate]) -> Option<&'a Candidate> {
    group.iter().max_by_key(|peer| peer.connected).copied()
}

/// Takes out those of the `count` best by `key` that `may` be protected.
fn protect<K: Ord>(
    candidates: &mut Vec<Candidate>,
    count: usize,
    key: impl Fn(&Candidate) -> K,
    may: impl Fn(&Candidate) -> bool,
) {
    candidates.sort_by_key(|peer| key(peer));
    let best = candidates.split_off(candidates.len().saturating_sub(count));
    candidates.extend(best.into_iter().filter(|peer| !may(peer)));
}

fn ping(peer: &Candidate) -> Duration {
    peer.ping_min.unwrap_or(Duration::MAX)
}

fn block_time(peer: &Candidate) -> (Duration, bool, Reverse<Duration>) {
    (peer.last_block, peer.is_useful, Reverse(peer.connected))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Peers that came one after the other, each of a group of its own.
    fn peers(count: u64) -> Vec<Candidate> {
        let peer = |id| Candidate {
            id,
            connected: Duration::from_secs(1000 + id),
            ping_min: None,
            last_block: Duration::ZERO,
            is_useful: true,
            relays_transactions: true,
            group: id,
            is_disadvantaged: false,
            go_first: false,
        };
        (0..count).map(peer).collect()
    }

    /// Whether a peer with this change is never the one to go, however all the others are.
    fn protects(change: impl Fn(&mut Candidate)) -> bool {
        let mut peers = peers(60);
        // The one that would go.
        let victim = select(peers.clone()).unwrap();
        change(&mut peers[usize::try_from(victim).unwrap()]);
        select(peers) != Some(victim)
    }

    #[test]
    fn each_property_that_is_hard_to_forge_protects() {
        assert!(!protects(|_| ()));
        assert!(protects(|peer| peer.group = u64::MAX));
        assert!(protects(|peer| peer.ping_min = Some(Duration::from_millis(1))));
        assert!(protects(|peer| peer.last_block = Duration::from_secs(1)));
        assert!(protects(|peer| peer.relays_transactions = false));
        assert!(protects(|peer| peer.connected = Duration::from_secs(1)));
        assert!(protects(|peer| peer.is_disadvantaged = true));
    }

    #[test]
    fn few_peers_are_all_protected_and_a_crowd_of_one_group_is_not() {
        assert_eq!(select(peers(16)), None);
        let mut crowd = peers(60);
        for peer in crowd.iter_mut().filter(|peer| peer.id % 2 == 0) {
            peer.group = 7;
        }
        assert_eq!(select(crowd).map(|id| id % 2), Some(0));
    }

    #[test]
    fn a_discouraged_peer_goes_before_others() {
        let mut peers = peers(60);
        peers[45].go_first = true;
        assert_eq!(select(peers), Some(45));
    }
}
