//! Connections that others open: where to listen, whom to let in, who leaves when it is full.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use socket2::{Domain, Protocol, Socket, Type};

use super::dial::AUTOMATIC_MAX;
use super::eviction::{self, Candidate};
use super::handshake::desirable;
use super::manager::{Opened, PeerManager, TICK, seconds};
use super::peer::{Kind, Peer};
use super::permissions::{self, Permissions};
use super::subnet::unmapped;

/// An address to listen on, and what it means to connect there.
#[derive(Clone, Copy, Debug)]
struct Door {
    address: SocketAddr,
    permissions: Permissions,
    onion: bool,
}

impl PeerManager {
    /// Listens wherever the options say.
    pub(super) fn listen_all(self: &Arc<Self>) -> Result<()> {
        let none = Permissions::default();
        let config = &self.config;
        let door = |onion| {
            move |address: &SocketAddr| Door { address: *address, permissions: none, onion }
        };
        let white = config.whitebind.iter().map(|bind| Door {
            address: bind.address,
            permissions: bind.permissions,
            onion: false,
        });
        let plain = config.bind.iter().map(door(false));
        let onion = config.onion_bind.iter().map(door(true));
        let doors: Vec<Door> = white.chain(plain).chain(onion).collect();
        for (index, door) in doors.iter().enumerate() {
            if doors.iter().take(index).any(|other| other.address == door.address) {
                bail!(
                    "Duplicate binding configuration for address {}. Please check your -bind, -bind=...=onion and -whitebind settings.",
                    door.address
                );
            }
        }
        for door in doors {
            self.listen(door)?;
        }
        if let Some(port) = config.any_v6_port {
            // Machines without IPv6 have no such address, and nobody asked for it.
            let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
            let _ = self.listen(Door { address, permissions: none, onion: false });
        }
        Ok(())
    }

    /// Returns the addresses listened on.
    pub(crate) fn bound_addresses(&self) -> Vec<SocketAddr> {
        self.bound.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Wakes the threads that wait for connections; they see that the node stops.
    pub(super) fn wake_listeners(&self) {
        for address in self.bound_addresses() {
            let ip = match address.ip() {
                IpAddr::V4(ip) if ip.is_unspecified() => [127, 0, 0, 1].into(),
                IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
                ip => ip,
            };
            let address = SocketAddr::new(ip, address.port());
            let _ = TcpStream::connect_timeout(&address, Duration::from_secs(1));
        }
    }

    fn listen(self: &Arc<Self>, door: Door) -> Result<()> {
        let listener = bind(door.address).with_context(|| {
            format!(
                "Unable to bind to {} on this computer. Cofferdam is probably already running.",
                door.address
            )
        })?;
        let bound = listener.local_addr().unwrap_or(door.address);
        tracing::info!("Bound to {bound}");
        self.bound.lock().unwrap_or_else(PoisonError::into_inner).push(bound);
        let manager = Arc::clone(self);
        self.spawn("p2p-listen", move || manager.run_listener(&listener, door))
    }

    fn run_listener(self: &Arc<Self>, listener: &TcpListener, door: Door) {
        loop {
            let accepted = listener.accept();
            if self.shutdown.is_requested() {
                return;
            }
            match accepted {
                Ok((stream, address)) => self.let_in(stream, address, door),
                Err(error) => {
                    // Mostly too many open files: accepting at once again would only burn time.
                    tracing::warn!("socket error accept failed: {error}");
                    let _ = self.shutdown.wait_for(TICK);
                }
            }
        }
    }

    fn let_in(self: &Arc<Self>, stream: TcpStream, address: SocketAddr, door: Door) {
        if !self.is_active() {
            tracing::debug!("connection from {address} dropped: not accepting new connections");
            return;
        }
        let ip = unmapped(address.ip());
        // Who comes through the onion service has not shown an address.
        let shown = (!door.onion).then_some(ip);
        let lists = &self.config.whitelist;
        let permissions = permissions::of_peer(lists, door.permissions, shown, true);
        let may_stay = permissions.has(Permissions::NO_BAN);
        if !may_stay && self.bans.is_banned(ip, seconds(self.clock.now())) {
            tracing::debug!("connection from {address} dropped (banned)");
            return;
        }
        let inbound = self.peers().iter().filter(|peer| peer.is_inbound()).count();
        let max = self.config.max_connections.saturating_sub(AUTOMATIC_MAX);
        let discouraged = self.bans.is_discouraged(ip);
        if !may_stay && discouraged && inbound + 1 >= max {
            tracing::debug!("connection from {address} dropped (discouraged)");
            return;
        }
        if inbound >= max && !self.make_room() {
            tracing::debug!("failed to find an eviction candidate - connection dropped (full)");
            return;
        }
        let (kind, name) = (Kind::Inbound, address.to_string());
        let (through_onion, use_v2) = (door.onion, self.offers_v2());
        let proxied = None;
        let opened =
            Opened { kind, name, proxied, permissions, through_onion, discouraged, use_v2 };
        match self.add(stream, opened) {
            Ok(_) => tracing::debug!("connection from {address} accepted"),
            Err(error) => tracing::debug!("connection from {address} failed: {error:#}"),
        }
    }

    /// Disconnects the inbound peer that is worth least; returns false if all are worth keeping.
    fn make_room(&self) -> bool {
        let peers = self.peers().into_iter();
        let candidates = peers
            .filter(|peer| {
                peer.is_inbound() && !peer.may(Permissions::NO_BAN) && !peer.is_closing()
            })
            .map(|peer| self.candidate(&peer))
            .collect();
        let Some(peer) = eviction::select(candidates).and_then(|id| self.peer(id)) else {
            return false;
        };
        peer.disconnect("selected inbound connection for eviction");
        true
    }

    fn candidate(&self, peer: &Peer) -> Candidate {
        // Whether the tip is recent is the chain's thread's to say, and that one may want this lock.
        let (version, ping_min, last_block) = {
            let state = peer.state();
            (state.version.clone(), state.ping.min, state.last_block)
        };
        let services = version.as_ref().map_or(0, |version| version.services);
        let wanted = desirable(services, self);
        Candidate {
            id: peer.id,
            connected: peer.connected_at,
            ping_min,
            last_block,
            is_useful: services & wanted == wanted,
            relays_transactions: version.is_some_and(|version| version.relay),
            group: self.groups.keyed(&self.host(peer.address.ip()), self.group_key),
            is_disadvantaged: peer.is_local() || peer.through_onion,
            go_first: peer.discouraged,
        }
    }
}

/// Listens on an address; one of IPv6 is for IPv6 alone, so that the same port of IPv4 is free.
fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    /// Connections that wait to be accepted (the most that Linux grants by default).
    const BACKLOG: i32 = 4096;
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
