//! Outbound peers beyond the usual number: one while our tip is stale, and now and then one for
//! blocks alone; and which peer goes when there is one too many.
//!
//! As in Bitcoin Core (`CheckForStaleTipAndEvictPeers`): whoever surrounds us with peers that hide
//! blocks is found out by a peer of another choice, and the peer that brought least news goes.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::BlockHash;
use cofferdam_ibd::sync::PeerId;

use super::dial::{BLOCK_RELAY_MAX, FULL_RELAY_MAX};
use super::manager::PeerManager;
use super::peer::{Kind, Peer};

/// How often the tip's age is looked at (Core's `STALE_CHECK_INTERVAL`), and how many blocks should
/// have come since it was new.
const TIP_CHECK_INTERVAL: Duration = Duration::from_secs(10 * 60);
const STALE_BLOCKS: u32 = 3;

/// How often it is looked whether there are too many (`EXTRA_PEER_CHECK_INTERVAL`).
const EVICTION_INTERVAL: Duration = Duration::from_secs(45);

/// How long a peer is left alone to show what it has (`MINIMUM_CONNECT_TIME`).
const CONNECTED_MIN: Duration = Duration::from_secs(30);

/// Time between two more peers for blocks alone (`EXTRA_BLOCK_RELAY_ONLY_PEER_INTERVAL`, which in Core
/// is the mean of random times).
const BLOCK_RELAY_INTERVAL: Duration = Duration::from_secs(5 * 60);

/// Returns whether it is time for what is due at most an interval ahead. If it is further ahead, the
/// clock went back: it would not be done until the clock is where it was.
pub(super) fn is_due(due: Duration, interval: Duration, now: Duration) -> bool {
    now > due || due > now + interval
}

/// When to have one peer more than usual.
#[derive(Debug, Default)]
pub(super) struct ExtraPeers {
    /// The tip, and when it was first seen.
    tip: Option<(BlockHash, Duration)>,
    next_tip_check: Duration,
    next_eviction: Duration,
    next_block_relay: Option<Duration>,
    /// Whether the tip is stale: one more peer may know better.
    wants_one: bool,
}

impl ExtraPeers {
    /// Returns what to open when all usual connections are there.
    pub(super) fn next(
        &mut self,
        full_relay: usize,
        is_synced: bool,
        now: Duration,
    ) -> Option<Kind> {
        if self.wants_one && full_relay <= FULL_RELAY_MAX {
            return Some(Kind::OutboundFullRelay);
        }
        if !is_synced {
            return None;
        }
        let due = *self.next_block_relay.get_or_insert(now + BLOCK_RELAY_INTERVAL);
        if !is_due(due, BLOCK_RELAY_INTERVAL, now) {
            return None;
        }
        self.next_block_relay = Some(now + BLOCK_RELAY_INTERVAL);
        Some(Kind::BlockRelayOnly)
    }

    /// Notes the tip; returns its age if it has turned out to be stale.
    fn look_at_tip(
        &mut self,
        tip: BlockHash,
        spacing: Duration,
        may_be_stale: bool,
        now: Duration,
    ) -> Option<Duration> {
        let since = match self.tip {
            Some((known, since)) if known == tip => since.min(now),
            _ => now,
        };
        self.tip = Some((tip, since));
        if !is_due(self.next_tip_check, TIP_CHECK_INTERVAL, now) {
            return None;
        }
        self.next_tip_check = now + TIP_CHECK_INTERVAL;
        let age = now.saturating_sub(since);
        self.wants_one = may_be_stale && age > spacing * STALE_BLOCKS;
        self.wants_one.then_some(age)
    }
}

/// A peer that may be one too many.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    id: PeerId,
    /// When it last brought news.
    news: Duration,
    /// Whether it is too early to judge it, or it is just sending a block.
    stays: bool,
}

/// Of the two youngest the one that less lately brought a block; none if that one stays.
fn least_useful_for_blocks(mut peers: Vec<Candidate>) -> Option<Candidate> {
    peers.sort_by_key(|peer| Reverse(peer.id));
    let mut youngest = peers.into_iter();
    let (first, second) = (youngest.next()?, youngest.next());
    let worst = second.filter(|second| first.news > second.news).unwrap_or(first);
    (!worst.stays).then_some(worst)
}

/// The one that least lately announced a block, of several the youngest; none if that one stays.
fn least_useful(peers: Vec<Candidate>) -> Option<Candidate> {
    let worst = peers.into_iter().min_by_key(|peer| (peer.news, Reverse(peer.id)))?;
    (!worst.stays).then_some(worst)
}

impl PeerManager {
    /// Looks whether the tip is stale and whether a peer is one too many.
    pub(super) fn tick_extra_peers(&self) {
        let now = self.clock.now();
        let is_due = {
            let extra = &mut self.outbound().extra;
            let is_due = is_due(extra.next_eviction, EVICTION_INTERVAL, now);
            if is_due {
                extra.next_eviction = now + EVICTION_INTERVAL;
            }
            is_due
        };
        if is_due {
            self.evict_extra(now);
            self.check_tip(now);
        }
    }

    fn check_tip(&self, now: Duration) {
        let spacing = Duration::from_secs(self.chain.params().pow_target_spacing.into());
        let may_be_stale = !self.chain.is_loading()
            && self.is_active()
            && self.config.automatic
            && self.sync().download.in_flight() == 0;
        let tip = self.chain.view().tip.hash;
        let stale = self.outbound().extra.look_at_tip(tip, spacing, may_be_stale, now);
        if let Some(age) = stale {
            let seconds = age.as_secs();
            tracing::info!(
                "Potential stale tip detected, will try using extra outbound peer (last tip update: {seconds} seconds ago)"
            );
        }
    }

    fn evict_extra(&self, now: Duration) {
        let of_kind = |kind| {
            let mut peers = self.peers();
            peers.retain(|peer| peer.kind == kind && !peer.is_closing());
            peers
        };
        let block_relay = of_kind(Kind::BlockRelayOnly);
        if block_relay.len() > BLOCK_RELAY_MAX {
            let candidates = block_relay.iter().map(|peer| {
                let news = peer.state().last_block;
                self.extra_candidate(peer, news, now)
            });
            if let Some(worst) = least_useful_for_blocks(candidates.collect()) {
                let news = worst.news.as_secs();
                let text = "disconnecting extra block-relay-only peer";
                self.close_extra(
                    worst.id,
                    &format!("{text}={} (last block received at time {news})", worst.id),
                );
            }
        }
        let full_relay = of_kind(Kind::OutboundFullRelay);
        if full_relay.len() > FULL_RELAY_MAX {
            let mut families: Vec<bool> = full_relay.iter().map(|peer| family(peer)).collect();
            families.extend(of_kind(Kind::Manual).iter().map(|peer| family(peer)));
            let is_alone =
                |peer: &Peer| families.iter().filter(|other| **other == family(peer)).count() <= 1;
            let candidates = full_relay
                .iter()
                .filter(|peer| !peer.link().chain_sync.is_protected && !is_alone(peer))
                .map(|peer| {
                    let news = peer.link().chain_sync.last_announcement;
                    self.extra_candidate(peer, news, now)
                });
            if let Some(worst) = least_useful(candidates.collect()) {
                let news = worst.news.as_secs();
                let text = "disconnecting extra outbound peer";
                self.close_extra(
                    worst.id,
                    &format!(
                        "{text}={} (last block announcement received at time {news})",
                        worst.id
                    ),
                );
                // Until the tip is stale again there is no more reason for one.
                self.outbound().extra.wants_one = false;
            }
        }
    }

    fn extra_candidate(&self, peer: &Arc<Peer>, news: Duration, now: Duration) -> Candidate {
        let owes = !self.sync().download.owed_by(peer.id).is_empty();
        let stays = owes || now.abs_diff(peer.connected_at) <= CONNECTED_MIN;
        Candidate { id: peer.id, news, stays }
    }

    fn close_extra(&self, id: PeerId, text: &str) {
        tracing::debug!("{text}");
        if let Some(peer) = self.peer(id) {
            peer.close();
        }
    }
}

/// Tells IPv4 from IPv6.
fn family(peer: &Peer) -> bool {
    super::unmapped(peer.address.ip()).is_ipv4()
}

#[cfg(test)]
mod tests {
    use bitcoin::hashes::Hash as _;

    use super::*;

    const SPACING: Duration = Duration::from_secs(600);

    fn block(number: u8) -> BlockHash {
        BlockHash::from_byte_array([number; 32])
    }

    const fn at(minutes: u64) -> Duration {
        Duration::from_secs(1_000_000 + minutes * 60)
    }

    #[test]
    fn a_tip_of_half_an_hour_calls_for_one_more_peer_until_the_next_block() {
        let mut extra = ExtraPeers::default();
        assert_eq!(extra.look_at_tip(block(1), SPACING, true, at(0)), None);
        assert_eq!(extra.next(FULL_RELAY_MAX, true, at(1)), None);
        assert_eq!(extra.look_at_tip(block(1), SPACING, true, at(29)), None);
        let age = extra.look_at_tip(block(1), SPACING, true, at(41));
        assert_eq!(age, Some(Duration::from_secs(41 * 60)));
        assert_eq!(extra.next(FULL_RELAY_MAX, false, at(41)), Some(Kind::OutboundFullRelay));
        assert_eq!(extra.next(FULL_RELAY_MAX + 1, false, at(41)), None);
        assert_eq!(extra.look_at_tip(block(2), SPACING, true, at(52)), None);
        assert_eq!(extra.next(FULL_RELAY_MAX, false, at(52)), None);
        // While blocks are on their way the tip is not stale.
        assert_eq!(extra.look_at_tip(block(2), SPACING, false, at(120)), None);
    }

    #[test]
    fn once_synced_one_more_for_blocks_is_tried_every_five_minutes() {
        let mut extra = ExtraPeers::default();
        assert_eq!(extra.next(FULL_RELAY_MAX, false, at(0)), None);
        assert_eq!(extra.next(FULL_RELAY_MAX, true, at(1)), None);
        assert_eq!(extra.next(FULL_RELAY_MAX, true, at(7)), Some(Kind::BlockRelayOnly));
        assert_eq!(extra.next(FULL_RELAY_MAX, true, at(8)), None);
    }

    #[test]
    fn a_clock_that_goes_back_puts_nothing_off() {
        let mut extra = ExtraPeers::default();
        assert_eq!(extra.look_at_tip(block(1), SPACING, true, at(1000)), None);
        assert_eq!(extra.next(FULL_RELAY_MAX, true, at(1000)), None);
        assert_eq!(extra.next(FULL_RELAY_MAX, true, at(0)), Some(Kind::BlockRelayOnly));
        assert_eq!(extra.look_at_tip(block(1), SPACING, true, at(0)), None);
        let age = extra.look_at_tip(block(1), SPACING, true, at(41));
        assert_eq!(age, Some(Duration::from_secs(41 * 60)));
        let (due, second) = (at(60), Duration::from_secs(1));
        assert!(
            !is_due(due, EVICTION_INTERVAL, due) && is_due(due, EVICTION_INTERVAL, due + second)
        );
        assert!(!is_due(due, EVICTION_INTERVAL, due - EVICTION_INTERVAL));
        assert!(is_due(due, EVICTION_INTERVAL, due - EVICTION_INTERVAL - second));
    }

    #[test]
    fn the_peer_that_brought_least_news_goes() {
        let peer = |id, news| Candidate { id, news: at(news), stays: false };
        let blocks = |peers: &[Candidate]| least_useful_for_blocks(peers.to_vec()).map(|p| p.id);
        assert_eq!(blocks(&[peer(1, 0), peer(2, 5), peer(3, 5)]), Some(3));
        assert_eq!(blocks(&[peer(1, 0), peer(2, 5), peer(3, 6)]), Some(2));
        let any = |peers: &[Candidate]| least_useful(peers.to_vec()).map(|p| p.id);
        assert_eq!(any(&[peer(1, 4), peer(2, 3), peer(3, 3), peer(4, 9)]), Some(3));
        let early = Candidate { stays: true, ..peer(3, 0) };
        assert_eq!(any(&[peer(1, 4), early]), None);
        assert_eq!(blocks(&[peer(1, 4), early]), None);
    }
}
