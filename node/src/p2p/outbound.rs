//! Connections that the node opens by itself, to addresses that it knows of.
//!
//! Eight for everything, two for blocks alone, and every two minutes one that only looks whether
//! somebody is there, besides what `extra_peers` asks for: each to another group of networks, so that
//! no single owner of many addresses has them all.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::dial::is_added;
use super::extra_peers::{ExtraPeers, is_due};
use super::manager::{PeerManager, random_nonce};
use super::peer::{Kind, Peer};
use super::seeds::WANTED_SERVICES;
use crate::config::Net;

/// Time between two looks at addresses, and between two attempts to connect.
const FEELER_INTERVAL: Duration = Duration::from_secs(120);
const ATTEMPT_INTERVAL: Duration = Duration::from_millis(500);

/// Addresses drawn for one connection before it is left for later.
const DRAWS_MAX: u32 = 100;
/// After so many draws addresses tried lately, and after so many those with unusual ports, will do.
const DRAWS_OF_RESTED: u32 = 30;
const DRAWS_OF_USUAL_PORT: u32 = 50;
const REST_SECONDS: u64 = 10 * 60;

/// Groups of networks with peers by which it is sure that this node is not offline.
const GROUPS_ONLINE: usize = 2;

/// When to do what next.
#[derive(Debug)]
pub(super) struct Outbound {
    next_attempt: Instant,
    next_feeler: Duration,
    dialing: bool,
    pub(super) extra: ExtraPeers,
    /// Peers for blocks alone of the last run.
    pub(super) anchors: Vec<SocketAddr>,
    /// Since when addresses may come from elsewhere, as long as the fixed seeds may be needed.
    pub(super) fixed_seeds_from: Option<Duration>,
}

impl Default for Outbound {
    fn default() -> Self {
        Self {
            next_attempt: Instant::now(),
            next_feeler: Duration::ZERO,
            dialing: false,
            extra: ExtraPeers::default(),
            anchors: Vec::new(),
            fixed_seeds_from: None,
        }
    }
}

impl PeerManager {
    /// Opens the connection that is missing, if it is time.
    pub(super) fn tick_outbound(self: &Arc<Self>) {
        if !self.config.automatic || !self.is_active() {
            return;
        }
        let now = self.clock.now();
        let mut outbound = self.outbound();
        let is_early = Instant::now() < outbound.next_attempt;
        if outbound.dialing || is_early || !self.has_automatic_room() {
            return;
        }
        outbound.next_attempt = Instant::now() + ATTEMPT_INTERVAL;
        let (kind, address) = if let Some(anchor) = self.next_anchor(&mut outbound) {
            tracing::debug!("Trying to make an anchor connection to {anchor}");
            (Kind::BlockRelayOnly, anchor)
        } else {
            let Some(kind) = self.missing_kind(&mut outbound, now) else { return };
            let Some(address) = self.choose_address(kind) else { return };
            (kind, address)
        };
        outbound.dialing = true;
        drop(outbound);
        let counts = self.is_surely_online();
        let manager = Arc::clone(self);
        let started = self.spawn("p2p-dial", move || {
            let v2 = manager.config.v2_transport;
            manager.try_once(&address.to_string(), kind, v2, counts);
            manager.outbound().dialing = false;
        });
        if started.is_err() {
            self.outbound().dialing = false;
        }
    }

    fn next_anchor(&self, outbound: &mut Outbound) -> Option<SocketAddr> {
        if self.count(Kind::BlockRelayOnly) >= self.limits().block_relay {
            return None;
        }
        outbound.anchors.pop().filter(|anchor| self.may_dial(anchor.ip()))
    }

    /// Returns whether a connection may be made to an address without being asked for.
    fn may_dial(&self, ip: IpAddr) -> bool {
        self.config.proxies.reaches_address(ip) && !self.is_shunned(ip)
    }

    fn count(&self, kind: Kind) -> usize {
        self.peers().iter().filter(|peer| peer.kind == kind).count()
    }

    fn missing_kind(&self, outbound: &mut Outbound, now: Duration) -> Option<Kind> {
        let limits = self.limits();
        let full_relay = self.count(Kind::OutboundFullRelay);
        if full_relay < limits.full_relay {
            return Some(Kind::OutboundFullRelay);
        }
        if self.count(Kind::BlockRelayOnly) < limits.block_relay {
            return Some(Kind::BlockRelayOnly);
        }
        let is_synced = !self.chain.view().initial_download;
        if let Some(kind) = outbound.extra.next(full_relay, is_synced, now) {
            return Some(kind);
        }
        let is_due = is_due(outbound.next_feeler, FEELER_INTERVAL, now);
        if is_due {
            outbound.next_feeler = now + FEELER_INTERVAL;
        }
        is_due.then_some(Kind::Feeler)
    }

    /// Returns whether a connection that fails does so for the address's sake: lasting connections
    /// to several groups tell that this node is not cut off.
    fn is_surely_online(&self) -> bool {
        let mut lasting = self.peers();
        lasting.retain(|peer| {
            let kind = peer.kind;
            matches!(kind, Kind::Manual | Kind::OutboundFullRelay | Kind::BlockRelayOnly)
        });
        // Where groups say nothing of the way to a peer, each is one.
        let has_group = |peer: &Arc<Peer>| {
            !peer.through_onion && self.host(peer.address.ip()).net() != Some(Net::Cjdns)
        };
        let (public, private): (Vec<_>, Vec<_>) = lasting.into_iter().partition(has_group);
        let groups = public.iter().map(|peer| self.group_of(peer.address.ip()));
        is_online(groups, private.len(), self.config.max_connections)
    }

    fn choose_address(&self, kind: Kind) -> Option<SocketAddr> {
        let peers = self.peers();
        let outbound = peers.iter().filter(|peer| !peer.is_inbound());
        let groups: HashSet<Vec<u8>> =
            outbound.map(|peer| self.group_of(peer.address.ip())).collect();
        let added = self.added_addresses();
        let now = self.clock.now().as_secs();
        self.with_addresses(|manager| {
            let choices = manager.choices();
            for draw in 0..DRAWS_MAX {
                let entry = choices.select(kind == Kind::Feeler, now, random_nonce)?;
                let address = entry.address.socket()?;
                let is_taken = groups.contains(&self.groups.group(&entry.address.host))
                    || peers.iter().any(|peer| peer.address.ip() == address.ip())
                    // They would be connected to twice, or in the place of another.
                    || added.iter().any(|added| is_added(*added, address));
                let is_useful = entry.services & WANTED_SERVICES == WANTED_SERVICES;
                let is_rested = now.saturating_sub(entry.last_try) >= REST_SECONDS;
                let is_usual = address.port() == self.default_port;
                if !is_taken
                    && self.may_dial(address.ip())
                    && is_useful
                    && (is_rested || draw >= DRAWS_OF_RESTED)
                    && (is_usual || draw >= DRAWS_OF_USUAL_PORT)
                {
                    return Some(address);
                }
            }
            None
        })
    }
}

/// Returns whether these groups of lasting peers, and so many that have none, are enough to be sure
/// of the network, or as many as there may be.
fn is_online(
    groups: impl Iterator<Item = Vec<u8>>,
    without_group: usize,
    max_connections: usize,
) -> bool {
    let groups: HashSet<Vec<u8>> = groups.collect();
    groups.len() + without_group >= GROUPS_ONLINE.min(max_connections.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    #[test]
    fn peers_of_two_groups_tell_that_the_node_is_online() {
        let is_online = |groups: &[u8], without, max| {
            super::is_online(groups.iter().map(|group| vec![*group]), without, max)
        };
        assert!(!is_online(&[], 0, 125));
        assert!(!is_online(&[1, 1, 1], 0, 125), "all of one network, the local one perhaps");
        assert!(is_online(&[1, 2], 0, 125) && is_online(&[1], 1, 125) && is_online(&[], 2, 125));
        assert!(is_online(&[1], 0, 2) && is_online(&[], 0, 1), "there are never more");
    }
}
