//! `PeerManager`: who is connected, whom to connect to, and who has to go.
//!
//! Threads: one listens on each address; each connection has one that reads and handles messages
//! in order and one that sends; `p2p-tick` watches the time. A thread that handles a block waits
//! for the chain's thread: that slows down its own peer and nobody else.
//!
//! Locks (`peers`, `sync`, `wanted`, a peer's state) are held for a few lines, one at a time, and
//! never across a job of the chain's thread.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs as _};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use cofferdam_ibd::sync::PeerId;

use super::SyncState;
use super::peer::{Kind, NewPeer, Peer};
use crate::chain::ChainHandle;
use crate::clock::Clock;
use crate::config::P2pConfig;
use crate::data_dir::fill_random;
use crate::shutdown::Shutdown;

/// Connection attempts at a time; more are refused.
const DIALS_MAX: usize = 16;

/// First and longest pause between attempts to reach a peer.
const BACKOFF: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// How often the time is looked at.
const TICK: Duration = Duration::from_millis(100);

/// How often a ping is sent, and how long a pong may take (Core's `PING_INTERVAL` and
/// `TIMEOUT_INTERVAL`).
const PING_INTERVAL: Duration = Duration::from_secs(120);
const PONG_TIMEOUT: Duration = Duration::from_secs(20 * 60);

/// A peer to stay connected to.
#[derive(Debug)]
struct Wanted {
    name: String,
    /// From `addnode`, and so listed by it.
    peer: Weak<Peer>,
    dialing: bool,
    failures: u32,
    next: Instant,
}

/// All connections.
#[derive(Debug)]
pub(crate) struct PeerManager {
    pub(super) config: P2pConfig,
    pub(super) chain: ChainHandle,
    pub(super) clock: Clock,
    pub(super) sync: Mutex<SyncState>,
    shutdown: Shutdown,
    default_port: u16,
    peers: Mutex<BTreeMap<PeerId, Arc<Peer>>>,
    wanted: Mutex<Vec<Wanted>>,
    next_id: AtomicU64,
    dials: AtomicUsize,
    threads: Mutex<Vec<JoinHandle<()>>>,
    bound: Mutex<Vec<SocketAddr>>,
}

impl PeerManager {
    /// Listens, starts connecting, and follows the chain.
    pub(crate) fn start(
        config: P2pConfig,
        chain: ChainHandle,
        clock: Clock,
        shutdown: Shutdown,
    ) -> Result<Arc<Self>> {
        let default_port = chain.params().default_port;
        let named = config.connect.iter().chain(&config.add_nodes);
        let wanted = named.map(|name| Wanted::new(name)).collect();
        let manager = Arc::new(Self {
            config,
            chain,
            clock,
            sync: Mutex::new(SyncState::default()),
            shutdown,
            default_port,
            peers: Mutex::new(BTreeMap::new()),
            wanted: Mutex::new(wanted),
            next_id: AtomicU64::new(0),
            dials: AtomicUsize::new(0),
            threads: Mutex::new(Vec::new()),
            bound: Mutex::new(Vec::new()),
        });
        let follower = Arc::downgrade(&manager);
        manager.chain.subscribe(Box::new(move |event| {
            if let Some(manager) = follower.upgrade() {
                manager.chain_event(event);
            }
        }))?;
        for address in manager.config.bind.clone() {
            manager.listen(address)?;
        }
        let ticker = Arc::clone(&manager);
        manager.spawn("p2p-tick", move || ticker.run_tick())?;
        Ok(manager)
    }

    /// Closes all connections and ends all threads.
    pub(crate) fn stop(&self) {
        for address in self.bound_addresses() {
            // Wakes the thread that waits for a connection there; it sees the stop.
            let ip =
                if address.ip().is_unspecified() { [127, 0, 0, 1].into() } else { address.ip() };
            let _ = TcpStream::connect_timeout(
                &SocketAddr::new(ip, address.port()),
                Duration::from_secs(1),
            );
        }
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

    /// Returns the addresses listened on.
    pub(crate) fn bound_addresses(&self) -> Vec<SocketAddr> {
        self.bound.lock().unwrap_or_else(PoisonError::into_inner).clone()
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

    /// Connects to a peer once.
    pub(crate) fn connect_once(self: &Arc<Self>, name: &str) -> Result<()> {
        self.dial(name.to_owned(), false)
    }

    /// Adds a peer to stay connected to; returns false if it is there already.
    pub(crate) fn add_wanted(&self, name: &str) -> bool {
        let mut wanted = self.wanted();
        let is_new = wanted.iter().all(|entry| entry.name != name);
        if is_new {
            wanted.push(Wanted::new(name));
        }
        is_new
    }

    /// Removes such a peer (a connection stays); returns false if it is not there.
    pub(crate) fn remove_wanted(&self, name: &str) -> bool {
        let mut wanted = self.wanted();
        let before = wanted.len();
        wanted.retain(|entry| entry.name != name);
        wanted.len() < before
    }

    /// Sends every peer a ping.
    pub(crate) fn ping_all(&self) {
        for peer in self.peers().into_iter().filter(|peer| peer.is_ready()) {
            peer.ping(random_nonce(), self.clock.now());
        }
    }

    fn listen(self: &Arc<Self>, address: SocketAddr) -> Result<()> {
        let listener = TcpListener::bind(address).with_context(|| {
            format!("Unable to bind to {address} on this computer. Cofferdam is probably already running.")
        })?;
        let bound = listener.local_addr().unwrap_or(address);
        tracing::info!("Bound to {bound}");
        self.bound.lock().unwrap_or_else(PoisonError::into_inner).push(bound);
        let manager = Arc::clone(self);
        self.spawn("p2p-listen", move || manager.run_listener(&listener))
    }

    fn run_listener(self: &Arc<Self>, listener: &TcpListener) {
        loop {
            let accepted = listener.accept();
            if self.shutdown.is_requested() {
                return;
            }
            match accepted {
                Ok((stream, address)) if self.peer_table().len() < self.config.max_connections => {
                    if let Err(error) = self.add(stream, Kind::Inbound, address.to_string()) {
                        tracing::debug!("connection from {address} failed: {error:#}");
                    }
                }
                Ok((_, address)) => tracing::debug!("connection from {address} dropped (full)"),
                Err(error) => {
                    // Mostly too many open files: accepting at once again would only burn time.
                    tracing::warn!("accepting a connection failed: {error}");
                    let _ = self.shutdown.wait_for(TICK);
                }
            }
        }
    }

    /// Starts the threads of a connected socket.
    fn add(self: &Arc<Self>, stream: TcpStream, kind: Kind, name: String) -> Result<Arc<Peer>> {
        let new = NewPeer {
            id: self.next_id.fetch_add(1, Ordering::Relaxed),
            kind,
            name,
            nonce: random_nonce(),
            magic: self.chain.params().magic,
            now: self.clock.now(),
        };
        let peer = Arc::new(Peer::new(new, stream)?);
        tracing::info!("Added connection peer={}", peer.id);
        self.peer_table().insert(peer.id, Arc::clone(&peer));
        let (reader, sender) = (Arc::clone(&peer), Arc::clone(&peer));
        let manager = Arc::clone(self);
        let id = peer.id;
        let started = self
            .spawn(&format!("peer-{id}-send"), move || sender.run_sender())
            .and_then(|()| self.spawn(&format!("peer-{id}"), move || manager.run_peer(&reader)));
        if let Err(error) = started {
            self.remove(&peer);
            return Err(error);
        }
        Ok(peer)
    }

    /// Forgets a connection that has ended.
    pub(super) fn remove(&self, peer: &Peer) {
        peer.close();
        self.peer_table().remove(&peer.id);
        let mut sync = self.sync();
        sync.headers.peer_gone(peer.id);
        sync.presync.remove(peer.id);
        sync.download.peer_gone(peer.id);
        drop(sync);
        tracing::info!("Cleared nodestate for peer={}", peer.id);
    }

    /// Returns whether the nonce is one of our own outbound connections.
    pub(super) fn is_own_nonce(&self, nonce: u64) -> bool {
        self.peer_table().values().any(|peer| !peer.is_inbound() && peer.nonce == nonce)
    }

    fn dial(self: &Arc<Self>, name: String, keep: bool) -> Result<()> {
        if self.dials.fetch_add(1, Ordering::Relaxed) >= DIALS_MAX {
            self.dials.fetch_sub(1, Ordering::Relaxed);
            return Err(anyhow!("too many connection attempts"));
        }
        let manager = Arc::clone(self);
        let started = self.spawn("p2p-dial", move || {
            let result = manager.connect(&name);
            manager.dials.fetch_sub(1, Ordering::Relaxed);
            if let Err(error) = &result {
                tracing::info!("connecting to {name} failed: {error:#}");
            }
            if keep {
                manager.dialed(&name, result.ok().as_ref());
            }
        });
        if started.is_err() {
            self.dials.fetch_sub(1, Ordering::Relaxed);
        }
        started
    }

    fn connect(self: &Arc<Self>, name: &str) -> Result<Arc<Peer>> {
        if let Some(peer) =
            self.peers().into_iter().find(|peer| peer.name == name && !peer.is_inbound())
        {
            return Ok(peer);
        }
        let mut error = anyhow!("no address");
        for address in resolve(name, self.default_port)? {
            tracing::debug!("trying connection to {address}");
            match TcpStream::connect_timeout(&address, self.config.connect_timeout) {
                Ok(_) if self.shutdown.is_requested() => return Err(anyhow!("shutting down")),
                Ok(stream) => return self.add(stream, Kind::Manual, name.to_owned()),
                Err(refused) => error = anyhow!(refused).context(address),
            }
        }
        Err(error)
    }

    fn dialed(&self, name: &str, peer: Option<&Arc<Peer>>) {
        let mut wanted = self.wanted();
        let Some(entry) = wanted.iter_mut().find(|entry| entry.name == name) else {
            return;
        };
        entry.dialing = false;
        entry.peer = peer.map_or_else(Weak::new, Arc::downgrade);
        entry.failures = if peer.is_some() { 0 } else { entry.failures.saturating_add(1) };
        let pause = BACKOFF.saturating_mul(1 << entry.failures.min(6)).min(BACKOFF_MAX);
        entry.next = Instant::now() + pause;
    }

    fn run_tick(self: &Arc<Self>) {
        while !self.shutdown.wait_for(TICK) {
            self.dial_wanted();
            self.check_times();
            self.tick_sync();
            self.threads().retain(|thread| !thread.is_finished());
        }
    }

    fn dial_wanted(self: &Arc<Self>) {
        let mut due = Vec::new();
        for entry in self.wanted().iter_mut() {
            let connected = entry.peer.upgrade().is_some_and(|peer| self.peer(peer.id).is_some());
            if !connected && !entry.dialing && Instant::now() >= entry.next {
                entry.dialing = true;
                due.push(entry.name.clone());
            }
        }
        for name in due {
            if self.dial(name.clone(), true).is_err() {
                self.dialed(&name, None);
            }
        }
    }

    fn check_times(&self) {
        let now = self.clock.now();
        for peer in self.peers() {
            if !peer.is_ready() {
                if peer.began.elapsed() > self.config.handshake_timeout {
                    peer.disconnect("version handshake timeout");
                }
                continue;
            }
            let ping = peer.state().ping;
            match ping.waiting {
                Some((_, sent)) if sent.elapsed() > PONG_TIMEOUT => peer.disconnect("ping timeout"),
                None if now >= ping.sent_at + PING_INTERVAL => peer.ping(random_nonce(), now),
                _ => {}
            }
        }
    }

    fn spawn(&self, name: &str, run: impl FnOnce() + Send + 'static) -> Result<()> {
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run);
        self.threads().push(thread.with_context(|| format!("starting thread {name}"))?);
        Ok(())
    }

    fn peer_table(&self) -> MutexGuard<'_, BTreeMap<PeerId, Arc<Peer>>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wanted(&self) -> MutexGuard<'_, Vec<Wanted>> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn threads(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wanted {
    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            peer: Weak::new(),
            dialing: false,
            failures: 0,
            next: Instant::now(),
        }
    }
}

/// Returns a number that nobody can guess; of little worth if the system has no random source,
/// where only the detection of connections to oneself suffers.
pub(super) fn random_nonce() -> u64 {
    let mut bytes = [0; 8];
    let _ = fill_random(&mut bytes);
    u64::from_le_bytes(bytes)
}

/// Returns the addresses of `host`, `host:port`, `[v6]:port` or `v6`.
fn resolve(name: &str, default_port: u16) -> Result<Vec<SocketAddr>> {
    let what = || format!("resolving {name}");
    if let Ok(ip) = name.trim_matches(['[', ']']).parse::<std::net::IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, default_port)]);
    }
    let has_port = name.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let addresses = if has_port {
        name.to_socket_addrs().with_context(what)?
    } else {
        (name, default_port).to_socket_addrs().with_context(what)?
    };
    Ok(addresses.collect())
}
