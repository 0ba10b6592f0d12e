//! `PeerManager`: who is connected, and what all connections share.
//!
//! Threads: one listens on each address; each connection has one that reads and handles messages
//! in order and one that sends; `p2p-tick` watches the time. A thread that handles a block waits
//! for the chain's thread: that slows down its own peer and nobody else.
//!
//! Locks (`peers`, `sync`, `wanted`, a peer's state) are held for a few lines, one at a time, and
//! never across a job of the chain's thread.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use cofferdam_ibd::params::Network;
use cofferdam_ibd::sync::PeerId;

use super::SyncState;
use super::addresses::AddressBook;
use super::bans::BanList;
use super::budget::ReceiveBudget;
use super::dial::{Reconnect, Wanted};
use super::filters::COMPACT_FILTERS;
use super::net_addr::Host;
use super::net_group::NetGroups;
use super::outbound::Outbound;
use super::peer::{Kind, NewPeer, Peer, Totals};
use super::permissions::Permissions;
use super::recent::Recent;
use super::subnet::Subnet;
use super::time_offsets::TimeOffsets;
use super::upload::Upload;
use crate::chain::ChainHandle;
use crate::clock::Clock;
use crate::config::{P2pConfig, ProxyConfig, PruneMode};
use crate::data_dir::random_bytes;
use crate::index::Indexes;
use crate::notify::Warnings;
use crate::shutdown::Shutdown;

/// How often the time is looked at.
pub(super) const TICK: Duration = Duration::from_millis(100);

/// Services offered: all blocks, with witnesses, and so the last two days' as well (BIP-0144,
/// BIP-0159).
const SERVICES: u64 = 1 | 1 << 3 | 1 << 10;

/// The encrypted transport (BIP-0324).
const P2P_V2: u64 = 1 << 11;

/// All connections.
#[derive(Debug)]
pub(crate) struct PeerManager {
    pub(super) config: P2pConfig,
    pub(super) chain: ChainHandle,
    pub(super) clock: Clock,
    pub(super) sync: Arc<Mutex<SyncState>>,
    /// The tip, for all who ask for it.
    pub(super) recent: Recent,
    /// Where filters are that are served.
    pub(super) filters: Option<Arc<Indexes>>,
    pub(super) addresses: AddressBook,
    /// The folder of the network's files.
    chain_dir: PathBuf,
    outbound: Mutex<Outbound>,
    time_offsets: Mutex<TimeOffsets>,
    /// Where it is said that our clock is off.
    pub(super) warnings: Warnings,
    pub(super) shutdown: Shutdown,
    pub(super) default_port: u16,
    pub(super) totals: Arc<Totals>,
    pub(super) budget: ReceiveBudget,
    /// Who is banned, and who misbehaved.
    pub(crate) bans: BanList,
    pub(super) wanted: Mutex<Vec<Wanted>>,
    pub(super) reconnects: Mutex<Vec<Reconnect>>,
    pub(super) bound: Mutex<Vec<SocketAddr>>,
    /// Tells which group of networks an address is of.
    pub(super) groups: Arc<NetGroups>,
    /// Keys the groups of who comes in: nobody can choose one that is protected.
    pub(super) group_key: u64,
    active: AtomicBool,
    peers: Mutex<BTreeMap<PeerId, Arc<Peer>>>,
    next_id: AtomicU64,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// What is known of a connection when its socket is there.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) kind: Kind,
    pub(super) name: String,
    /// Where the peer is, if the connection goes to a proxy.
    pub(super) proxied: Option<SocketAddr>,
    pub(super) permissions: Permissions,
    pub(super) through_onion: bool,
    pub(super) discouraged: bool,
    pub(super) use_v2: bool,
}

impl PeerManager {
    /// Listens, starts connecting, and follows the chain.
    pub(crate) fn start(
        config: P2pConfig,
        chain: ChainHandle,
        (clock, warnings): (Clock, Warnings),
        filters: Option<Arc<Indexes>>,
        shutdown: Shutdown,
        chain_dir: &Path,
    ) -> Result<Arc<Self>> {
        let default_port = chain.params().default_port;
        let upload = Upload::new(config.max_upload_bytes);
        let active = config.network_active;
        tracing::info!("SetNetworkActive: {active}");
        let map = config.address_map.as_deref();
        let groups = Arc::new(NetGroups::load(map, chain_dir).map_err(anyhow::Error::msg)?);
        tracing::info!("init message: Loading banlist…");
        let bans = BanList::open(chain_dir.join("banlist.json"), seconds(clock.now()));
        let sync = Arc::new(Mutex::new(SyncState::new(chain.busy().clone())));
        let manager = Arc::new(Self {
            wanted: Mutex::new(Wanted::of(&config)),
            config,
            chain,
            clock,
            sync,
            recent: Recent::default(),
            filters,
            addresses: AddressBook::new(random_bytes()?),
            chain_dir: chain_dir.to_owned(),
            outbound: Mutex::new(Outbound::default()),
            time_offsets: Mutex::default(),
            warnings,
            shutdown,
            default_port,
            totals: Arc::new(Totals { received: AtomicU64::new(0), upload }),
            budget: ReceiveBudget::default(),
            bans,
            reconnects: Mutex::new(Vec::new()),
            bound: Mutex::new(Vec::new()),
            groups,
            group_key: u64::from_le_bytes(random_bytes()?),
            active: AtomicBool::new(active),
            peers: Mutex::new(BTreeMap::new()),
            next_id: AtomicU64::new(0),
            threads: Mutex::new(Vec::new()),
        });
        let follower = Arc::downgrade(&manager);
        manager.chain.subscribe(Box::new(move |event| {
            if let Some(manager) = follower.upgrade() {
                manager.chain_event(event);
            }
        }))?;
        tracing::info!("init message: Loading P2P addresses…");
        manager.open_addresses(chain_dir).map_err(anyhow::Error::msg)?;
        manager.listen_all()?;
        // Last of what may stop the start: their file is gone then.
        if manager.config.automatic {
            manager.take_anchors(chain_dir);
        }
        manager.watch_for_addresses();
        manager.ask_seeds();
        let ticker = Arc::clone(&manager);
        manager.spawn("p2p-tick", move || ticker.run_tick())?;
        Ok(manager)
    }

    /// Closes all connections and ends all threads.
    pub(crate) fn stop(&self) {
        self.save_addresses();
        if self.config.automatic {
            self.save_anchors(&self.chain_dir);
        }
        self.wake_listeners();
        for peer in self.peers() {
            peer.close();
        }
        loop {
            // A thread that is joined may be the one that adds the next.
            let threads = std::mem::take(&mut *self.threads());
            if threads.is_empty() {
                return;
            }
            for thread in threads {
                let _ = thread.join();
            }
            for peer in self.peers() {
                peer.close();
            }
        }
    }

    /// Returns the autonomous system of an address, if the user has a map of them.
    pub(crate) fn system(&self, host: &Host) -> Option<u32> {
        self.groups.system(host)
    }

    /// Returns all connections, the oldest first.
    pub(crate) fn peers(&self) -> Vec<Arc<Peer>> {
        self.peer_table().values().cloned().collect()
    }

    /// Returns a connection.
    pub(crate) fn peer(&self, id: PeerId) -> Option<Arc<Peer>> {
        self.peer_table().get(&id).cloned()
    }

    /// Returns the machines that say what to ask whom for.
    pub(super) fn sync(&self) -> MutexGuard<'_, SyncState> {
        self.sync.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the time as it counts for what comes from peers ([`SyncState::line_time`]).
    pub(super) fn line_time(&self) -> Duration {
        self.clock.now().saturating_sub(self.chain.busy().away())
    }

    /// Returns what was sent and received in all.
    pub(crate) fn totals(&self) -> &Totals {
        &self.totals
    }

    /// Returns the services offered to everybody.
    pub(crate) fn services(&self) -> u64 {
        let v2 = if self.config.v2_transport { P2P_V2 } else { 0 };
        // Who prunes has the last blocks only, which is not `NODE_NETWORK`.
        let prunes = self.chain.prune_mode() != PruneMode::Off;
        let services = if prunes { SERVICES & !1 } else { SERVICES };
        services | v2 | self.filters.as_ref().map_or(0, |_| COMPACT_FILTERS)
    }

    /// Returns whether the encrypted transport is offered.
    pub(crate) const fn offers_v2(&self) -> bool {
        self.config.v2_transport
    }

    /// Returns whether transactions are asked for, and so whether a block may be put together of what
    /// waits here. They are of no use here; suites that were written for `bitcoind` see on regtest what
    /// it says, and peers elsewhere save the traffic.
    pub(crate) fn relays_transactions(&self) -> bool {
        self.chain.params().network == Network::Regtest && !self.config.blocks_only
    }

    /// Returns through what connections go.
    pub(crate) const fn proxies(&self) -> &ProxyConfig {
        &self.config.proxies
    }

    /// Returns the seconds that `setban` bans for unless told.
    pub(crate) const fn ban_seconds(&self) -> i64 {
        self.config.ban_seconds
    }

    /// Returns whether there may be connections.
    pub(crate) fn is_active(&self) -> bool {
        self.active.load(Ordering::Relaxed)
    }

    /// Allows connections, or ends all.
    pub(crate) fn set_active(&self, active: bool) {
        tracing::info!("SetNetworkActive: {active}");
        self.active.store(active, Ordering::Relaxed);
        if !active {
            for peer in self.peers() {
                peer.disconnect("Network not active");
            }
        }
    }

    /// Returns whether the user has banned an address, or a peer there misbehaved: it is neither
    /// connected to by ourselves nor told of.
    pub(super) fn is_shunned(&self, ip: IpAddr) -> bool {
        self.bans.is_discouraged(ip) || self.bans.is_banned(ip, seconds(self.clock.now()))
    }

    /// Disconnects everybody in a range; returns whether anybody was there.
    pub(crate) fn disconnect_range(&self, subnet: &Subnet) -> bool {
        let peers = self.peers().into_iter().filter(|peer| subnet.contains(peer.address.ip()));
        peers.map(|peer| peer.disconnect("disconnect by subnet match")).count() > 0
    }

    /// Starts the threads of a connected socket.
    pub(super) fn add(self: &Arc<Self>, stream: TcpStream, opened: Opened) -> Result<Arc<Peer>> {
        let new = NewPeer {
            id: self.next_id.fetch_add(1, Ordering::Relaxed),
            kind: opened.kind,
            name: opened.name,
            address: opened.proxied,
            nonce: random_nonce(),
            permissions: opened.permissions,
            through_onion: opened.through_onion,
            discouraged: opened.discouraged,
            send_buffer_bytes: self.config.send_buffer_bytes,
            magic: self.chain.params().magic,
            use_v2: opened.use_v2,
            log_ips: self.config.log_ips,
            clock: self.clock.clone(),
            totals: Arc::clone(&self.totals),
        };
        let peer = Arc::new(Peer::new(new, stream)?);
        self.peer_table().insert(peer.id, Arc::clone(&peer));
        tracing::debug!("Added connection peer={}", peer.id);
        if let Err(error) = self.start_threads(&peer) {
            self.remove(&peer);
            return Err(error);
        }
        Ok(peer)
    }

    fn start_threads(self: &Arc<Self>, peer: &Arc<Peer>) -> Result<()> {
        // Dialling takes its time, and who switches the network off ends only what is in the table
        // by then; what came into it later sees here that it is off.
        ensure!(self.is_active(), "the network is not active");
        let (reader, sender) = (Arc::clone(peer), Arc::clone(peer));
        let manager = Arc::clone(self);
        let id = peer.id;
        self.spawn(&format!("peer-{id}-send"), move || sender.run_sender())?;
        self.spawn(&format!("peer-{id}"), move || manager.run_peer(&reader))
    }

    /// Forgets a connection that has ended.
    pub(super) fn remove(&self, peer: &Peer) {
        peer.close();
        self.budget.give_back(peer.id);
        self.sync().peer_gone(peer.id);
        self.note_gone(peer);
        self.peer_table().remove(&peer.id);
        tracing::debug!("Cleared nodestate for peer={}", peer.id);
    }

    /// Returns whether the nonce is of one of our own connections that is being set up.
    pub(super) fn is_own_nonce(&self, nonce: u64) -> bool {
        let peers = self.peers();
        peers.iter().any(|peer| !peer.is_inbound() && peer.nonce == nonce && !peer.is_ready())
    }

    pub(super) fn spawn(&self, name: &str, run: impl FnOnce() + Send + 'static) -> Result<()> {
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run);
        self.threads().push(thread.with_context(|| format!("starting thread {name}"))?);
        Ok(())
    }

    fn run_tick(self: &Arc<Self>) {
        // The lines that drivers of `bitcoind` wait for. What its threads do for all peers is done
        // here by this one and by two of each peer's own.
        for name in ["scheduler", "net", "addcon", "msghand"] {
            tracing::info!("{name} thread start");
        }
        while !self.shutdown.wait_for(TICK) {
            self.dial_wanted();
            for peer in self.peers() {
                self.check_silence(&peer);
                self.look_after(&peer);
            }
            self.tick_sync();
            self.tick_addresses();
            self.tick_fixed_seeds();
            self.tick_outbound();
            self.tick_extra_peers();
            self.threads().retain(|thread| !thread.is_finished());
        }
    }

    /// Returns when to open which connection.
    pub(super) fn outbound(&self) -> MutexGuard<'_, Outbound> {
        self.outbound.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns how far the clocks of others are ahead; the lock is for a few lines.
    pub(super) fn time_offsets(&self) -> MutexGuard<'_, TimeOffsets> {
        self.time_offsets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn peer_table(&self) -> MutexGuard<'_, BTreeMap<PeerId, Arc<Peer>>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn threads(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns a number that nobody can guess. Where the system's random source cannot be opened, as with
/// too many open files, it is of the keys that every process has for its hash tables.
pub(super) fn random_nonce() -> u64 {
    random_bytes().map_or_else(|_| RandomState::new().hash_one(()), u64::from_le_bytes)
}

/// Returns a time in whole seconds, as messages and files have it.
pub(crate) fn seconds(time: Duration) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}
