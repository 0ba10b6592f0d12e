//! Connections that the node opens by itself, to addresses that it knows of.
//!
//! Eight for everything, two for blocks alone, and every two minutes one that only looks whether
//! somebody is there, besides what `extra_peers` asks for: each to another group of networks, so that
//! no single owner of many addresses has them all. The first addresses are those that the seeds'
//! names resolve to.

use std::collections::HashSet;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cofferdam_ibd::Network;

use super::addrman::group;
use super::dial::{BLOCK_RELAY_MAX, FULL_RELAY_MAX};
use super::extra_peers::ExtraPeers;
use super::manager::{PeerManager, random_nonce};
use super::peer::Kind;

/// Time between two looks at addresses, and between two attempts to connect.
const FEELER_INTERVAL: Duration = Duration::from_secs(120);
const ATTEMPT_INTERVAL: Duration = Duration::from_millis(500);

/// Addresses drawn for one connection before it is left for later.
const DRAWS_MAX: u32 = 100;
/// After so many draws addresses tried lately, and after so many those with unusual ports, will do.
const DRAWS_OF_RESTED: u32 = 30;
const DRAWS_OF_USUAL_PORT: u32 = 50;
const REST_SECONDS: u64 = 10 * 60;

/// Services without which a peer is of no use: blocks with their witnesses.
const WANTED_SERVICES: u64 = 1 | 8;

/// Addresses taken from one seed.
const SEED_ADDRESSES_MAX: usize = 32;

/// When to do what next.
#[derive(Debug)]
pub(super) struct Outbound {
    next_attempt: Instant,
    next_feeler: Duration,
    dialing: bool,
    pub(super) extra: ExtraPeers,
}

impl Default for Outbound {
    fn default() -> Self {
        Self {
            next_attempt: Instant::now(),
            next_feeler: Duration::ZERO,
            dialing: false,
            extra: ExtraPeers::default(),
        }
    }
}

/// Returns the names that resolve to nodes of a network, run by people of the trade (Core's
/// `chainparams.cpp`).
const fn seeds(network: Network) -> &'static [&'static str] {
    match network {
        Network::Mainnet => &[
            "dnsseed.bluematt.me.",
            "seed.bitcoin.jonasschnelli.ch.",
            "seed.btc.petertodd.net.",
            "seed.bitcoin.sprovoost.nl.",
            "dnsseed.emzy.de.",
            "seed.bitcoin.wiz.biz.",
            "seed.mainnet.achownodes.xyz.",
        ],
        Network::Testnet3 => &[
            "testnet-seed.bitcoin.jonasschnelli.ch.",
            "seed.tbtc.petertodd.net.",
            "seed.testnet.bitcoin.sprovoost.nl.",
            "testnet-seed.bluematt.me.",
            "seed.testnet.achownodes.xyz.",
        ],
        Network::Testnet4 => &["seed.testnet4.bitcoin.sprovoost.nl.", "seed.testnet4.wiz.biz."],
        Network::Signet => &["seed.signet.bitcoin.sprovoost.nl.", "seed.signet.achownodes.xyz."],
        Network::Regtest => &[],
    }
}

impl PeerManager {
    /// Asks the seeds for addresses, if there are none or the user wants it.
    pub(super) fn ask_seeds(self: &Arc<Self>) {
        let counts = self.with_addresses(|manager| manager.counts(None));
        let is_empty = counts.new + counts.tried == 0;
        let config = &self.config;
        if is_empty {
            for name in config.seed_nodes.clone() {
                let manager = Arc::clone(self);
                let started = self.spawn("p2p-seed", move || {
                    manager.connect_once(&name, Kind::AddrFetch, manager.config.v2_transport);
                });
                if let Err(error) = started {
                    tracing::warn!("asking a seed node failed: {error:#}");
                }
            }
        }
        let wanted = config.automatic && config.dns_seed && is_empty;
        let names = seeds(self.chain.params().network);
        if !(wanted || config.force_dns_seed) || names.is_empty() {
            return;
        }
        let manager = Arc::clone(self);
        let started = self.spawn("p2p-dnsseed", move || manager.resolve_seeds(names));
        if let Err(error) = started {
            tracing::warn!("asking the seeds failed: {error:#}");
        }
    }

    fn resolve_seeds(&self, names: &[&str]) {
        let mut found = 0;
        for name in names {
            if self.shutdown.is_requested() {
                return;
            }
            tracing::info!("Loading addresses from DNS seed {name}");
            // Seeds filter by services if asked so: x9 is blocks with witnesses.
            let query = (format!("x{WANTED_SERVICES:x}.{name}"), self.default_port);
            let Ok(addresses) = query.to_socket_addrs() else { continue };
            let now = self.clock.now().as_secs();
            let addresses: Vec<SocketAddr> = addresses.take(SEED_ADDRESSES_MAX).collect();
            let Some(source) = addresses.first().map(SocketAddr::ip) else { continue };
            for address in addresses {
                // Three to seven days old: whoever is told of by peers goes first.
                let age = 3 * 24 * 60 * 60 + random_nonce() % (4 * 24 * 60 * 60);
                let told = (address, WANTED_SERVICES, now.saturating_sub(age));
                let added = self.with_addresses(|manager| manager.add(told, source, 0, now));
                found += usize::from(added);
            }
        }
        tracing::info!("{found} addresses found from DNS seeds");
    }

    /// Opens the connection that is missing, if it is time.
    pub(super) fn tick_outbound(self: &Arc<Self>) {
        if !self.config.automatic || !self.is_active() {
            return;
        }
        let now = self.clock.now();
        let mut outbound = self.outbound();
        if outbound.dialing || Instant::now() < outbound.next_attempt {
            return;
        }
        outbound.next_attempt = Instant::now() + ATTEMPT_INTERVAL;
        let Some(kind) = self.missing_kind(&mut outbound, now) else { return };
        let Some(address) = self.choose_address(kind) else { return };
        outbound.dialing = true;
        drop(outbound);
        self.with_addresses(|manager| manager.attempt(address, now.as_secs()));
        let manager = Arc::clone(self);
        let started = self.spawn("p2p-dial", move || {
            manager.connect_once(&address.to_string(), kind, manager.config.v2_transport);
            manager.outbound().dialing = false;
        });
        if started.is_err() {
            self.outbound().dialing = false;
        }
    }

    fn missing_kind(&self, outbound: &mut Outbound, now: Duration) -> Option<Kind> {
        let peers = self.peers();
        let count = |kind| peers.iter().filter(|peer| peer.kind == kind).count();
        let full_relay = count(Kind::OutboundFullRelay);
        if full_relay < FULL_RELAY_MAX {
            return Some(Kind::OutboundFullRelay);
        }
        if count(Kind::BlockRelayOnly) < BLOCK_RELAY_MAX {
            return Some(Kind::BlockRelayOnly);
        }
        let is_synced = !self.chain.view().initial_download;
        if let Some(kind) = outbound.extra.next(full_relay, is_synced, now) {
            return Some(kind);
        }
        let is_due = now >= outbound.next_feeler;
        if is_due {
            outbound.next_feeler = now + FEELER_INTERVAL;
        }
        is_due.then_some(Kind::Feeler)
    }

    fn choose_address(&self, kind: Kind) -> Option<SocketAddr> {
        let peers = self.peers();
        let outbound = peers.iter().filter(|peer| !peer.is_inbound());
        let groups: HashSet<Vec<u8>> = outbound.map(|peer| group(peer.address.ip())).collect();
        let now = self.clock.now().as_secs();
        self.with_addresses(|manager| {
            for draw in 0..DRAWS_MAX {
                let entry = manager.select(kind == Kind::Feeler, now, random_nonce)?;
                let address = entry.address;
                let is_taken = groups.contains(&group(address.ip()))
                    || peers.iter().any(|peer| peer.address.ip() == address.ip());
                let is_useful = entry.services & WANTED_SERVICES == WANTED_SERVICES;
                let is_rested = now.saturating_sub(entry.last_try) >= REST_SECONDS;
                let is_usual = address.port() == self.default_port;
                if !is_taken
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
