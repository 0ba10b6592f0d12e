//! Connections that we open: those the user named and keeps, and single ones of any kind.

use std::net::{Ipv4Addr, SocketAddr, TcpStream, ToSocketAddrs as _};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};

use super::connect;
use super::manager::{Opened, PeerManager, random_nonce};
use super::peer::{Kind, Peer};
use super::permissions::{self, Permissions};
use super::socks5;
use crate::config::{Net, P2pConfig, ProxyConfig};

/// Connection attempts to kept peers at a time; more have to wait.
const DIALS_MAX: usize = 16;

/// Peers that the user may ask to keep: each costs an attempt a minute.
const WANTED_MAX: usize = 1000;

/// Addresses of one name that are tried, one after the other (as Core's `ConnectNode`).
const RESOLVED_MAX: usize = 256;

/// Ends of names that only Tor and I2P resolve.
const ONION: &str = ".onion";
const I2P: &str = ".i2p";

/// First and longest pause between attempts to reach a peer.
const BACKOFF: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// Time between two connections to a peer of `addnode`, however short the first was (as in Core's
/// `ThreadOpenAddedConnections`): one that only hangs up again is not asked every second.
const ADDED_INTERVAL: Duration = Duration::from_secs(60);

/// Most connections that the node opens by itself, of each kind and together (Bitcoin Core's
/// `MAX_OUTBOUND_FULL_RELAY_CONNECTIONS`, `MAX_BLOCK_RELAY_ONLY_CONNECTIONS`,
/// `MAX_FEELER_CONNECTIONS`).
pub(super) const FULL_RELAY_MAX: usize = 8;
pub(super) const BLOCK_RELAY_MAX: usize = 2;
pub(super) const AUTOMATIC_MAX: usize = FULL_RELAY_MAX + BLOCK_RELAY_MAX + 1;

/// How many connections the node may open by itself where the user allows so many in all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Limits {
    pub(super) full_relay: usize,
    pub(super) block_relay: usize,
    /// Of all kinds.
    pub(super) all: usize,
}

impl Limits {
    pub(super) fn of(max_connections: usize) -> Self {
        let full_relay = FULL_RELAY_MAX.min(max_connections);
        let block_relay = BLOCK_RELAY_MAX.min(max_connections - full_relay);
        Self { full_relay, block_relay, all: AUTOMATIC_MAX.min(max_connections) }
    }
}

/// Attempts of all managers in the process to reach kept peers.
static DIALS: AtomicUsize = AtomicUsize::new(0);

/// A peer to stay connected to.
#[derive(Debug)]
pub(super) struct Wanted {
    name: String,
    /// From `addnode`, and so listed by it.
    added: bool,
    /// Whether to offer the encrypted transport.
    v2: bool,
    peer: Weak<Peer>,
    dialing: bool,
    failures: u32,
    next: Instant,
}

/// A peer to connect to once more with the plain transport.
#[derive(Debug)]
pub(super) struct Reconnect {
    /// What it was connected as.
    pub(super) name: String,
    /// How.
    pub(super) kind: Kind,
}

/// A kept peer, for `getaddednodeinfo`: its name, and the connection if there is one.
#[derive(Debug)]
pub(crate) struct Added {
    /// What the user typed.
    pub(crate) name: String,
    /// The connection.
    pub(crate) peer: Option<Arc<Peer>>,
}

/// Returns whether an address is that of an added peer; a port of 0 means any.
pub(super) fn is_added(added: SocketAddr, address: SocketAddr) -> bool {
    added.ip() == address.ip() && (added.port() == 0 || added.port() == address.port())
}

impl PeerManager {
    /// Connects to a peer once and waits for the connection; a failure is logged.
    pub(crate) fn connect_once(self: &Arc<Self>, name: &str, kind: Kind, v2: bool) {
        self.try_once(name, kind, v2, false);
    }

    /// As [`Self::connect_once`]; a failure may count against the address.
    pub(super) fn try_once(self: &Arc<Self>, name: &str, kind: Kind, v2: bool, counts: bool) {
        if let Err(error) = self.connect(name, kind, v2, counts) {
            tracing::debug!("connecting to {name} failed: {error:#}");
        }
    }

    /// Opens an automatic connection for a test; returns false if there are too many.
    pub(crate) fn add_connection(self: &Arc<Self>, name: &str, kind: Kind, v2: bool) -> bool {
        let limits = self.limits();
        let max = match kind {
            Kind::OutboundFullRelay => limits.full_relay,
            Kind::BlockRelayOnly => limits.block_relay,
            Kind::AddrFetch | Kind::Feeler => limits.all,
            Kind::Inbound | Kind::Manual => 0,
        };
        let same = self.peers().iter().filter(|peer| peer.kind == kind).count();
        let has_room = same < max && self.has_automatic_room();
        if has_room {
            self.connect_once(name, kind, v2);
        }
        has_room
    }

    /// Asks a node for addresses, if there is room for one more connection.
    pub(super) fn fetch_addresses(self: &Arc<Self>, name: &str) {
        if self.has_automatic_room() {
            self.connect_once(name, Kind::AddrFetch, self.config.v2_transport);
        }
    }

    pub(super) fn limits(&self) -> Limits {
        Limits::of(self.config.max_connections)
    }

    /// Returns whether the node may open one more connection by itself.
    pub(super) fn has_automatic_room(&self) -> bool {
        let peers = self.peers();
        peers.iter().filter(|peer| peer.kind.is_automatic()).count() < self.limits().all
    }

    /// Adds a peer to stay connected to; returns false if it is there already.
    pub(crate) fn add_wanted(&self, name: &str, v2: bool) -> bool {
        let mut wanted = self.wanted();
        let address = numeric(name, self.default_port);
        let is_same = |entry: &Wanted| {
            let is_there = || entry.added && numeric(&entry.name, self.default_port) == address;
            entry.name == name || (address.is_some() && is_there())
        };
        let is_new = !wanted.iter().any(is_same) && wanted.len() < WANTED_MAX;
        if is_new {
            wanted.push(Wanted::new(name, true, v2));
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

    /// Lists the peers of `addnode`.
    pub(crate) fn added(&self) -> Vec<Added> {
        let names: Vec<String> = {
            let wanted = self.wanted();
            wanted.iter().filter(|entry| entry.added).map(|entry| entry.name.clone()).collect()
        };
        let peers = self.peers();
        let connected = |name: &str| {
            let address = numeric(name, self.default_port);
            let is_it = |peer: &&Arc<Peer>| match address {
                Some(address) => peer.address == address,
                None => peer.name == name,
            };
            peers.iter().find(is_it).cloned()
        };
        names.into_iter().map(|name| Added { peer: connected(&name), name }).collect()
    }

    /// Lists the peers of `addnode` that are named by addresses, with port 0 where they name none.
    pub(super) fn added_addresses(&self) -> Vec<SocketAddr> {
        let wanted = self.wanted();
        let added = wanted.iter().filter(|entry| entry.added);
        added.filter_map(|entry| numeric(&entry.name, 0)).collect()
    }

    /// Connects to the kept peers that are due.
    pub(super) fn dial_wanted(self: &Arc<Self>) {
        let again = std::mem::take(&mut *self.reconnects());
        for reconnect in again {
            let Reconnect { name, kind } = reconnect;
            let manager = Arc::clone(self);
            // Without a thread it is as if the peer had not answered.
            let _ = self.spawn("p2p-dial", move || manager.connect_once(&name, kind, false));
        }
        if !self.is_active() {
            return;
        }
        let mut due = Vec::new();
        for entry in self.wanted().iter_mut() {
            let connected = entry.peer.upgrade().is_some_and(|peer| self.peer(peer.id).is_some());
            if !connected && !entry.dialing && Instant::now() >= entry.next {
                entry.dialing = true;
                due.push((entry.name.clone(), entry.v2));
            }
        }
        for (name, v2) in due {
            if self.dial(name.clone(), v2).is_err() {
                self.dialed(&name, None);
            }
        }
    }

    fn dial(self: &Arc<Self>, name: String, v2: bool) -> Result<()> {
        if DIALS.fetch_add(1, Ordering::Relaxed) >= DIALS_MAX {
            DIALS.fetch_sub(1, Ordering::Relaxed);
            return Err(anyhow!("too many connection attempts"));
        }
        let manager = Arc::clone(self);
        let started = self.spawn("p2p-dial", move || {
            let result = manager.connect(&name, Kind::Manual, v2, false);
            DIALS.fetch_sub(1, Ordering::Relaxed);
            if let Err(error) = &result {
                tracing::debug!("connecting to {name} failed: {error:#}");
            }
            manager.dialed(&name, result.ok().as_ref());
        });
        if started.is_err() {
            DIALS.fetch_sub(1, Ordering::Relaxed);
        }
        started
    }

    /// Opens a connection of any kind; one that is there already is returned. Whether the attempt
    /// `counts` is for the tables of addresses.
    fn connect(
        self: &Arc<Self>,
        name: &str,
        kind: Kind,
        v2: bool,
        counts: bool,
    ) -> Result<Arc<Peer>> {
        if !self.is_active() {
            return Err(anyhow!("the network is not active"));
        }
        let peers = self.peers();
        if let Some(peer) = peers.iter().find(|peer| peer.name == name) {
            return Ok(Arc::clone(peer));
        }
        let transport = if v2 { "v2" } else { "v1" };
        tracing::debug!("trying {transport} connection ({}) to {name}", kind.name());
        let mut error = anyhow!("no address");
        let routes = route(&self.config.proxies, name, self.default_port)?;
        for Route { address, .. } in &routes {
            if let Some(peer) =
                peers.iter().find(|peer| address.is_some_and(|at| peer.address == at))
            {
                let address = peer.address;
                tracing::info!(
                    "Not opening a connection to {name}, already connected to {address}"
                );
                return Ok(Arc::clone(peer));
            }
        }
        for route in routes {
            let opened = self.open(&route);
            if self.shutdown.is_requested() {
                return Err(anyhow!("shutting down"));
            }
            self.note_attempt(&route, opened.as_ref().err(), counts);
            match opened {
                Ok(stream) => return self.add(stream, self.opened(name, kind, &route, v2)),
                Err(refused) => error = refused.context(name.to_owned()),
            }
        }
        Err(error)
    }

    fn open(&self, route: &Route) -> Result<TcpStream> {
        let timeout = self.config.connect_timeout;
        match (route.proxy, route.address) {
            (Some(proxy), _) => {
                // A secret that is used once keeps connections apart.
                let secret = format!("{:016x}", random_nonce());
                let secret = self.config.proxies.randomize.then_some(secret.as_str());
                let to = (route.host.as_str(), route.port);
                socks5::connect(proxy, to, secret, timeout, &self.shutdown)
            }
            (None, Some(address)) => connect::connect(address, timeout, &self.shutdown),
            (None, None) => Err(anyhow!("no address")),
        }
    }

    /// Notes an attempt, unless it ended before it came to the address.
    fn note_attempt(&self, route: &Route, error: Option<&anyhow::Error>, counts: bool) {
        let Some(address) = route.address else { return };
        if error.is_none_or(|error| !socks5::is_without_proxy(error)) {
            let (address, now) = (self.node_addr(address), self.clock.now().as_secs());
            self.with_addresses(|manager| manager.attempt(address, counts, now));
        }
    }

    fn opened(&self, name: &str, kind: Kind, route: &Route, use_v2: bool) -> Opened {
        let none = Permissions::default();
        let lists = if kind == Kind::Manual { self.config.whitelist.as_slice() } else { &[] };
        let ip = route.address.map(|address| address.ip());
        let unknown = SocketAddr::from((Ipv4Addr::UNSPECIFIED, route.port));
        Opened {
            kind,
            name: name.to_owned(),
            proxied: route.proxy.map(|_| route.address.unwrap_or(unknown)),
            permissions: permissions::of_peer(lists, none, ip, false),
            through_onion: route.is_onion(),
            discouraged: false,
            use_v2,
        }
    }

    /// Notes that a peer which hung up on the encrypted transport is to be asked in plain.
    pub(super) fn reconnect_plainly(&self, peer: &Peer) {
        // There are never more of them than there were connections.
        self.reconnects().push(Reconnect { name: peer.name.clone(), kind: peer.kind });
    }

    fn dialed(&self, name: &str, peer: Option<&Arc<Peer>>) {
        let mut wanted = self.wanted();
        let Some(entry) = wanted.iter_mut().find(|entry| entry.name == name) else {
            return;
        };
        entry.dialing = false;
        entry.peer = peer.map_or_else(Weak::new, Arc::downgrade);
        entry.next = Instant::now() + entry.pause(peer.is_some());
    }

    fn wanted(&self) -> MutexGuard<'_, Vec<Wanted>> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reconnects(&self) -> MutexGuard<'_, Vec<Reconnect>> {
        self.reconnects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wanted {
    fn new(name: &str, added: bool, v2: bool) -> Self {
        let (peer, next) = (Weak::new(), Instant::now());
        Self { name: name.to_owned(), added, v2, peer, dialing: false, failures: 0, next }
    }

    /// Returns how long it is left alone after an attempt that led to a connection, or failed.
    fn pause(&mut self, is_connected: bool) -> Duration {
        self.failures = if is_connected { 0 } else { self.failures.saturating_add(1) };
        if is_connected && self.added {
            return ADDED_INTERVAL;
        }
        BACKOFF.saturating_mul(1 << self.failures.min(6)).min(BACKOFF_MAX)
    }

    /// Lists the peers that the options name.
    pub(super) fn of(config: &P2pConfig) -> Vec<Self> {
        let v2 = config.v2_transport;
        let connect = config.connect.iter().map(|name| Self::new(name, false, v2));
        let added = config.add_nodes.iter().map(|name| Self::new(name, true, v2));
        connect.chain(added).collect()
    }
}

/// A way to a peer.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Route {
    proxy: Option<SocketAddr>,
    /// What the proxy is told.
    host: String,
    port: u16,
    /// Where the peer is, if that is known here.
    address: Option<SocketAddr>,
}

impl Route {
    fn to(address: SocketAddr, proxy: Option<SocketAddr>) -> Self {
        let host = super::subnet::unmapped(address.ip()).to_string();
        Self { proxy, host, port: address.port(), address: Some(address) }
    }

    fn is_onion(&self) -> bool {
        ends_with(&self.host, ONION)
    }
}

/// Returns whether a name is one of a network, in capitals or with the dot of the root too: neither
/// may make it one that is resolved here.
fn ends_with(host: &str, network: &str) -> bool {
    host.trim_end_matches('.').to_ascii_lowercase().ends_with(network)
}

/// Finds the ways to a peer: directly to what is near, through a proxy as the user wants it. A name
/// that a proxy resolves, or that nobody else must see, is not resolved here.
fn route(proxies: &ProxyConfig, name: &str, default_port: u16) -> Result<Vec<Route>> {
    if let Some(address) = numeric(name, default_port) {
        return Ok(vec![Route::to(address, proxies.of_address(address.ip()))]);
    }
    let (host, port) = split_port(name).unwrap_or((name, default_port));
    let is_onion = ends_with(host, ONION);
    let proxy = if is_onion { proxies.of(Net::Onion) } else { proxies.of_names() };
    if ends_with(host, I2P) || (is_onion && proxy.is_none()) {
        return Err(anyhow!("no proxy for {host}"));
    }
    if proxy.is_some() {
        return Ok(vec![Route { proxy, host: host.to_owned(), port, address: None }]);
    }
    if !proxies.dns {
        return Err(anyhow!("names are not resolved, -dns=0"));
    }
    let addresses = resolve(name, default_port)?;
    Ok(addresses.into_iter().map(|at| Route::to(at, proxies.of_address(at.ip()))).collect())
}

/// Returns the address of a name that is one already.
fn numeric(name: &str, default_port: u16) -> Option<SocketAddr> {
    let bare = name.trim_matches(['[', ']']).parse().ok();
    let usual = bare.map(|ip| SocketAddr::new(ip, default_port)).or_else(|| name.parse().ok());
    let address = usual.or_else(|| {
        let (host, port) = split_port(name).unwrap_or((name, default_port));
        Some(SocketAddr::from((short_v4(host)?, port)))
    })?;
    Some(SocketAddr::new(super::subnet::unmapped(address.ip()), address.port()))
}

/// Splits `host:port`.
fn split_port(name: &str) -> Option<(&str, u16)> {
    let (host, port) = name.rsplit_once(':')?;
    Some((host, port.parse().ok()?))
}

/// Reads an address in one of the forms that `inet_aton` knows too: the last of up to four numbers
/// fills what the others leave, and each may be octal or hexadecimal.
fn short_v4(text: &str) -> Option<Ipv4Addr> {
    let number = |part: &str| {
        let hex = part.strip_prefix("0x").or_else(|| part.strip_prefix("0X"));
        let (digits, radix) = match (hex, part.strip_prefix('0')) {
            (Some(digits), _) => (digits, 16),
            (None, Some(digits)) if !digits.is_empty() => (digits, 8),
            _ => (part, 10),
        };
        // `from_str_radix` takes a sign.
        let is_number = digits.starts_with(|c: char| c.is_ascii_hexdigit());
        u32::from_str_radix(digits, radix).ok().filter(|_| is_number)
    };
    let mut numbers: Vec<u32> = text.splitn(5, '.').map(number).collect::<Option<_>>()?;
    let last = numbers.pop()?;
    let mut bits = 32_u32;
    let mut address = 0_u32;
    for number in numbers {
        bits = bits.checked_sub(8).filter(|bits| *bits > 0)?;
        address |= u32::from(u8::try_from(number).ok()?) << bits;
    }
    (u64::from(last) < 1 << bits).then(|| Ipv4Addr::from_bits(address | last))
}

/// Returns the addresses of `host`, `host:port`, `[v6]:port` or `v6`.
fn resolve(name: &str, default_port: u16) -> Result<Vec<SocketAddr>> {
    if let Some(address) = numeric(name, default_port) {
        return Ok(vec![address]);
    }
    let what = || format!("resolving {name}");
    let addresses = if split_port(name).is_some() {
        name.to_socket_addrs().with_context(what)?
    } else {
        (name, default_port).to_socket_addrs().with_context(what)?
    };
    Ok(addresses.take(RESOLVED_MAX).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_limit_leaves_room_for_full_relay_first() {
        let limits = |max| {
            let Limits { full_relay, block_relay, all } = Limits::of(max);
            (full_relay, block_relay, all)
        };
        assert_eq!(limits(0), (0, 0, 0));
        assert_eq!(limits(3), (3, 0, 3));
        assert_eq!(limits(9), (8, 1, 9));
        assert_eq!(limits(10), (8, 2, 10));
        assert_eq!((limits(11), limits(125)), ((8, 2, 11), (8, 2, 11)));
    }

    #[test]
    fn a_kept_peer_that_hangs_up_is_asked_again_after_a_minute() {
        let pauses = |added, results: [bool; 8]| {
            let mut wanted = Wanted::new("a", added, false);
            results.map(|is_connected| wanted.pause(is_connected).as_secs())
        };
        let failing = [2, 4, 8, 16, 32, 60, 60, 60];
        assert_eq!([true, false].map(|added| pauses(added, [false; 8])), [failing; 2]);
        assert_eq!(pauses(true, [true; 8]), [60; 8]);
        // The only peers there are: as in Bitcoin Core they are waited for.
        assert_eq!(pauses(false, [true; 8]), [1; 8]);
    }

    #[test]
    fn an_added_peer_is_known_by_its_address() {
        let is = |name: &str, address: &str| {
            let address = address.parse().unwrap();
            numeric(name, 0).is_some_and(|added| is_added(added, address))
        };
        assert!(is("1.2.3.4", "1.2.3.4:5") && is("1.2.3.4:5", "1.2.3.4:5"));
        assert!(is("127.1", "127.0.0.1:5"));
        assert!(is("2001:db8::1", "[2001:db8::1]:5") && is("[2001:db8::1]:5", "[2001:db8::1]:5"));
        assert!(!is("1.2.3.4:6", "1.2.3.4:5") && !is("1.2.3.5", "1.2.3.4:5"));
        assert!(!is("a.example", "1.2.3.4:5"));
    }

    #[test]
    fn names_become_addresses_with_the_networks_port() {
        let address = |name| resolve(name, 18_444).unwrap()[0].to_string();
        assert_eq!(address("127.0.0.1"), "127.0.0.1:18444");
        assert_eq!(address("127.0.0.1:5"), "127.0.0.1:5");
        assert_eq!(address("::1"), "[::1]:18444");
        assert_eq!(address("[::1]"), "[::1]:18444");
        assert_eq!(address("[::1]:5"), "[::1]:5");
        assert_eq!(address("[::ffff:1.2.3.4]:5"), "1.2.3.4:5");
    }

    #[test]
    fn addresses_may_be_written_in_the_short_forms() {
        for (text, address) in [
            ("127.1:5", "127.0.0.1:5"),
            ("127.0.257", "127.0.1.1:18444"),
            ("2130706433", "127.0.0.1:18444"),
            ("0x7f.0.0.010:5", "127.0.0.8:5"),
            ("4294967295", "255.255.255.255:18444"),
            ("0", "0.0.0.0:18444"),
        ] {
            let found = numeric(text, 18_444).map(|address| address.to_string());
            assert_eq!(found.as_deref(), Some(address), "{text}");
        }
        let wrong = [
            "",
            ".",
            "127.",
            "1.2.3.4.5",
            "1.2.3.256",
            "256.1",
            "1.16777216",
            "4294967296",
            "+1",
            "0x",
            "0x+1",
            "09",
            "1.-1",
            "a.b",
            "localhost",
            "localhost:5",
        ];
        for name in wrong {
            assert_eq!(numeric(name, 18_444), None, "{name}");
        }
    }

    #[test]
    fn names_go_to_the_proxy_as_they_are_and_onions_nowhere_else() {
        let load = |line: &str| crate::config::tests::load(line, "").unwrap().p2p.proxies;
        let proxies = load("-regtest -proxy=127.0.0.1:9");
        let to = |name: &str| {
            let route = route(&proxies, name, 18_444).unwrap().remove(0);
            (route.proxy.is_some(), route.host, route.port)
        };
        assert_eq!(to("node.noumenon:8333"), (true, "node.noumenon".into(), 8333));
        assert_eq!(to("[2001:4860::1]:5"), (true, "2001:4860::1".into(), 5));
        assert_eq!(to("15.61.23.23"), (true, "15.61.23.23".into(), 18_444));
        assert_eq!(to("127.0.0.1:5"), (false, "127.0.0.1".into(), 5));
        assert_eq!(to("abc.onion:8333"), (true, "abc.onion".into(), 8333));
        let direct = load("-regtest");
        for name in ["abc.onion:8333", "abc.ONION", "abc.onion.", "abc.b32.I2P"] {
            let error = route(&direct, name, 1).unwrap_err();
            assert!(error.to_string().starts_with("no proxy for"), "{error}");
        }
        assert_eq!(route(&direct, "localhost:5", 1).unwrap()[0].port, 5);
        let error = route(&load("-regtest -dns=0"), "localhost:5", 1).unwrap_err();
        assert_eq!(error.to_string(), "names are not resolved, -dns=0");
        assert!(route(&proxies, "abc.b32.i2p:0", 1).is_err());
    }
}
