//! The first addresses: from names that resolve to nodes, and from nodes that the user names.
//!
//! As in Bitcoin Core: nodes of `-seednode` are asked one by one until there are two peers; the
//! seeds' names are resolved at once if no address is known, and else only if the known ones have
//! led to no peers for a while, a few names at a time. Who runs a seed learns who asks.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::manager::{PeerManager, random_nonce};
use super::peer::Kind;

/// Peers with which nothing more is asked (Core's `SEED_OUTBOUND_CONNECTION_THRESHOLD`).
const PEERS_ENOUGH: usize = 2;

/// Time between two nodes of the user, and how long they go before the names (`ADD_NEXT_SEEDNODE`,
/// `SEEDNODE_TIMEOUT`).
const NODE_INTERVAL: Duration = Duration::from_secs(10);
const NODES_FIRST: Duration = Duration::from_secs(30);

/// How long known addresses are tried before a name is resolved, with few and with many
/// (`DNSSEEDS_DELAY_FEW_PEERS`, `DNSSEEDS_DELAY_MANY_PEERS`, `DNSSEEDS_DELAY_PEER_THRESHOLD`).
const WAIT_WITH_FEW: Duration = Duration::from_secs(11);
const WAIT_WITH_MANY: Duration = Duration::from_secs(5 * 60);
const MANY_ADDRESSES: usize = 1000;

/// Names resolved at a time (`DNSSEEDS_TO_QUERY_AT_ONCE`), and addresses taken from one.
const NAMES_AT_ONCE: usize = 3;
const ADDRESSES_MAX: usize = 32;

/// How often the number of peers is looked at.
const GLANCE: Duration = Duration::from_millis(500);

/// Services without which a peer is of no use: blocks with their witnesses.
pub(super) const WANTED_SERVICES: u64 = 1 | 8;

impl PeerManager {
    /// Starts asking for first addresses, as far as the user wants it.
    pub(super) fn ask_seeds(self: &Arc<Self>) {
        let config = &self.config;
        if config.automatic && !config.seed_nodes.is_empty() {
            let manager = Arc::clone(self);
            self.spawn_asker("p2p-seednode", move || manager.ask_seed_nodes());
        }
        if !config.dns_seed {
            tracing::info!("DNS seeding disabled");
            return;
        }
        let manager = Arc::clone(self);
        self.spawn_asker("p2p-dnsseed", move || manager.ask_names());
    }

    fn spawn_asker(&self, name: &str, run: impl FnOnce() + Send + 'static) {
        if let Err(error) = self.spawn(name, run) {
            tracing::warn!("asking for addresses failed: {error:#}");
        }
    }

    /// Asks the nodes of the user: the first at once if no address is known, and the next whenever
    /// there are too few peers.
    fn ask_seed_nodes(self: &Arc<Self>) {
        let mut last = Instant::now();
        let mut is_due = self.known_addresses() == 0;
        let mut nodes = self.config.seed_nodes.iter().peekable();
        while nodes.peek().is_some() {
            if let Some(name) = nodes.next_if(|_| is_due) {
                last = Instant::now();
                let wait = NODE_INTERVAL.as_secs();
                let why = if self.known_addresses() == 0 {
                    "Empty addrman, adding".to_owned()
                } else {
                    format!("Couldn't connect to peers from addrman after {wait} seconds. Adding")
                };
                tracing::info!("{why} seednode ({name}) to addrfetch");
                self.fetch_addresses(name);
            }
            if self.shutdown.wait_for(GLANCE) {
                return;
            }
            is_due = last.elapsed() > NODE_INTERVAL && !self.has_peers();
        }
    }

    /// Resolves the names of the network, as long as there is need.
    fn ask_names(self: &Arc<Self>) {
        if !self.config.seed_nodes.is_empty() && self.waits_for_peers(NODES_FIRST) {
            return;
        }
        let names = self.chain.params().dns_seeds;
        let has_need = self.config.force_dns_seed || self.known_addresses() == 0;
        let mut at_once = if has_need { names.len() } else { 0 };
        let mut found = 0;
        // Each begins with another.
        let first = usize::try_from(random_nonce() % 1024).unwrap_or(0);
        for name in names.iter().cycle().skip(first).take(names.len()) {
            if at_once == 0 {
                at_once = NAMES_AT_ONCE;
                let known = self.known_addresses();
                let wait = if known < MANY_ADDRESSES { WAIT_WITH_FEW } else { WAIT_WITH_MANY };
                if known > 0 {
                    tracing::info!("Waiting {} seconds before querying DNS seeds.", wait.as_secs());
                }
                if known > 0 && self.waits_for_peers(wait) {
                    return;
                }
            }
            at_once -= 1;
            while !self.is_active() {
                if self.shutdown.wait_for(GLANCE) {
                    return;
                }
            }
            if self.shutdown.is_requested() {
                return;
            }
            tracing::info!("Loading addresses from DNS seed {name}");
            found += self.resolve(name);
        }
        tracing::info!("{found} addresses found from DNS seeds");
    }

    /// Waits for peers; returns true if there are enough before the time is over, or the node stops.
    fn waits_for_peers(&self, time: Duration) -> bool {
        let end = Instant::now() + time;
        while Instant::now() < end {
            if self.has_peers() {
                tracing::info!("P2P peers available. Skipped DNS seeding.");
                return true;
            }
            if self.shutdown.wait_for(GLANCE) {
                return true;
            }
        }
        false
    }

    /// Takes the addresses in that a name resolves to; returns how many are new.
    fn resolve(self: &Arc<Self>, name: &str) -> usize {
        // Such names lead nowhere by definition (RFC 6761); regtest has one.
        if name.ends_with(".invalid.") {
            return 0;
        }
        if self.config.proxies.of_names().is_some() {
            // Whoever resolves names sees who asks: the proxy does it.
            self.fetch_addresses(name);
            return 0;
        }
        // Seeds filter by services if asked so: x9 is blocks with witnesses.
        let query = (format!("x{WANTED_SERVICES:x}.{name}"), self.default_port);
        let resolved = query.to_socket_addrs().map(|addresses| addresses.take(ADDRESSES_MAX));
        let addresses: Vec<SocketAddr> = resolved.into_iter().flatten().collect();
        let Some(source) = addresses.first().map(SocketAddr::ip) else {
            // Perhaps it does not filter: one of its nodes knows others.
            self.fetch_addresses(name);
            return 0;
        };
        let now = self.clock.now().as_secs();
        let mut added = 0;
        for address in addresses {
            // Three to seven days old: whoever is told of by peers goes first.
            let age = 3 * 24 * 60 * 60 + random_nonce() % (4 * 24 * 60 * 60);
            let told = (address.into(), WANTED_SERVICES, now.saturating_sub(age));
            let is_new = self.with_addresses(|manager| manager.add(told, source.into(), 0, now));
            added += usize::from(is_new);
        }
        added
    }

    fn has_peers(&self) -> bool {
        let peers = self.peers();
        let full = peers.iter().filter(|peer| peer.kind == Kind::OutboundFullRelay);
        full.filter(|peer| peer.is_ready()).count() >= PEERS_ENOUGH
    }

    fn known_addresses(&self) -> usize {
        let counts = self.with_addresses(|manager| manager.counts(None));
        counts.new + counts.tried
    }
}
