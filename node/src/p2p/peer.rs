//! `Peer`: one connection and what is known of the node at its other end.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::{Shutdown as SocketShutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cofferdam_ibd::HeaderRef;
use cofferdam_ibd::sync::{LowWorkGate, PeerId};

use super::connection::SendQueue;
use super::link::Link;
use super::message::{Message, Version, counter_name};
use super::permissions::Permissions;
use super::ping::Ping;
use super::transport::{Encoder, TransportInfo, v2};
use super::upload::Upload;
use crate::clock::Clock;

/// How a connection came about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// The peer connected to us.
    Inbound,
    /// The user named the peer.
    Manual,
    /// We chose the peer, for blocks and transactions.
    OutboundFullRelay,
    /// We chose the peer, for blocks alone: who watches transactions does not see this link.
    BlockRelayOnly,
    /// We ask it for addresses and leave.
    AddrFetch,
    /// We see whether anybody is there and leave.
    Feeler,
}

impl Kind {
    /// Returns the name that `getpeerinfo` shows.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Manual => "manual",
            Self::OutboundFullRelay => "outbound-full-relay",
            Self::BlockRelayOnly => "block-relay-only",
            Self::AddrFetch => "addr-fetch",
            Self::Feeler => "feeler",
        }
    }

    /// Returns whether it is of use only if it offers certain services.
    pub(crate) const fn expects_services(self) -> bool {
        matches!(self, Self::OutboundFullRelay | Self::BlockRelayOnly | Self::AddrFetch)
    }

    /// Returns whether addresses are told and asked for on it.
    pub(crate) const fn relays_addresses(self) -> bool {
        !matches!(self, Self::BlockRelayOnly | Self::Feeler)
    }

    /// Returns whether the node opened it by itself.
    pub(crate) const fn is_automatic(self) -> bool {
        !matches!(self, Self::Inbound | Self::Manual)
    }
}

/// Bytes by message type, for `getpeerinfo`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Traffic {
    /// All bytes.
    pub(crate) bytes: u64,
    /// When the last came, by the node's clock; 0: never.
    pub(crate) last: Duration,
    /// Bytes of each type.
    pub(crate) by_type: BTreeMap<&'static str, u64>,
}

impl Traffic {
    fn add(&mut self, bytes: u64, now: Duration) {
        self.bytes = self.bytes.saturating_add(bytes);
        self.last = now;
    }

    fn add_type(&mut self, command: &str, bytes: u64) {
        let counter = self.by_type.entry(counter_name(command)).or_default();
        *counter = counter.saturating_add(bytes);
    }
}

/// What changes while a connection lasts.
#[derive(Clone, Debug, Default)]
pub(crate) struct PeerState {
    /// What the peer said of itself.
    pub(crate) version: Option<Version>,
    /// Whether the handshake is done.
    pub(crate) ready: bool,
    /// How far its clock was ahead of ours, in seconds.
    pub(crate) time_offset: i64,
    /// Whether it wants new blocks announced by headers (BIP-0130), and was told that we do.
    pub(crate) prefers_headers: bool,
    pub(crate) sent_send_headers: bool,
    /// The best known header when that was last looked at.
    pub(crate) judged_best: Option<HeaderRef>,
    /// Whether it understands addresses of all networks (BIP-0155).
    pub(crate) wants_addr_v2: bool,
    /// Whether it names transactions by the hash with their witness (BIP-0339).
    pub(crate) wtxid_relay: bool,
    /// Whether it can send compact blocks, and wants them unasked (BIP-0152).
    pub(crate) provides_compact: bool,
    pub(crate) wants_compact_unasked: bool,
    /// The least fee rate that it wants to hear of, and the one that it was told.
    pub(crate) fee_filter: u64,
    pub(crate) fee_filter_sent: Option<u64>,
    /// The best header that it is known to have.
    pub(crate) best_known: Option<HeaderRef>,
    /// The best header that was sent to it.
    pub(crate) best_sent: Option<HeaderRef>,
    /// Height of the last block of its chain that is also in ours.
    pub(crate) common_height: Option<u32>,
    /// When it last sent a block that was new.
    pub(crate) last_block: Duration,
    /// Pings.
    pub(crate) ping: Ping,
    /// What was sent.
    pub(crate) sent: Traffic,
    /// What was received.
    pub(crate) received: Traffic,
}

/// Bytes of all connections since the start.
#[derive(Debug)]
pub(crate) struct Totals {
    /// Received.
    pub(crate) received: AtomicU64,
    /// Sent.
    pub(crate) upload: Upload,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Peer {
    /// Its number.
    pub(crate) id: PeerId,
    /// How it came about.
    pub(crate) kind: Kind,
    /// What the user typed, or the address.
    pub(crate) name: String,
    /// The other end.
    pub(crate) address: SocketAddr,
    /// This end.
    pub(crate) bind: Option<SocketAddr>,
    /// When it began, by the node's clock.
    pub(crate) connected_at: Duration,
    /// The nonce of our version message.
    pub(crate) nonce: u64,
    /// What it may do that others may not.
    pub(crate) permissions: Permissions,
    /// Whether it came through the onion service, which hides its address.
    pub(crate) through_onion: bool,
    /// Whether its address was discouraged when it connected.
    pub(crate) discouraged: bool,
    log_ips: bool,
    clock: Clock,
    totals: Arc<Totals>,
    stream: TcpStream,
    queue: SendQueue,
    encoder: Mutex<Encoder>,
    transport: Mutex<TransportInfo>,
    closing: AtomicBool,
    /// Things that we asked for and that have not come.
    asked: AtomicU64,
    state: Mutex<PeerState>,
    gate: Mutex<LowWorkGate>,
    link: Mutex<Link>,
}

/// What a connection is made of.
#[derive(Debug)]
pub(crate) struct NewPeer {
    /// Its number.
    pub(crate) id: PeerId,
    /// How it came about.
    pub(crate) kind: Kind,
    /// What the user typed, or the address.
    pub(crate) name: String,
    /// Where it is, if the connection goes to a proxy.
    pub(crate) address: Option<SocketAddr>,
    /// The nonce of our version message.
    pub(crate) nonce: u64,
    /// What it may do that others may not.
    pub(crate) permissions: Permissions,
    /// Whether it came through the onion service.
    pub(crate) through_onion: bool,
    /// Whether its address is discouraged.
    pub(crate) discouraged: bool,
    /// Bytes that may wait to be sent before the peer has to wait.
    pub(crate) send_buffer_bytes: usize,
    /// The network's magic.
    pub(crate) magic: [u8; 4],
    /// Whether to offer the encrypted transport.
    pub(crate) use_v2: bool,
    /// Whether the log has its address.
    pub(crate) log_ips: bool,
    /// The time.
    pub(crate) clock: Clock,
    /// Where bytes are counted.
    pub(crate) totals: Arc<Totals>,
}

impl Peer {
    /// Creates the peer of a connected socket.
    pub(crate) fn new(new: NewPeer, stream: TcpStream) -> std::io::Result<Self> {
        stream.set_nodelay(true)?;
        let queue = SendQueue::new(new.send_buffer_bytes);
        // Nothing may go out in plain before it is clear that the peer wants it so.
        queue.hold(new.use_v2);
        let transport = if new.use_v2 { TransportInfo::detecting() } else { TransportInfo::v1() };
        let address = match new.address {
            Some(address) => address,
            None => stream.peer_addr()?,
        };
        Ok(Self {
            id: new.id,
            kind: new.kind,
            name: new.name,
            address,
            bind: stream.local_addr().ok(),
            connected_at: new.clock.now(),
            nonce: new.nonce,
            permissions: new.permissions,
            through_onion: new.through_onion,
            discouraged: new.discouraged,
            log_ips: new.log_ips,
            clock: new.clock,
            totals: new.totals,
            stream,
            queue,
            encoder: Mutex::new(Encoder::V1(new.magic)),
            transport: Mutex::new(transport),
            closing: AtomicBool::new(false),
            asked: AtomicU64::new(0),
            gate: Mutex::new(LowWorkGate::default()),
            link: Mutex::new(Link::default()),
            state: Mutex::new(PeerState::default()),
        })
    }

    /// Returns what the log calls it (Bitcoin Core's `LogPeer`).
    pub(super) fn in_log(&self) -> String {
        let id = self.id;
        let address = self.address;
        if self.log_ips { format!("peer={id}, peeraddr={address}") } else { format!("peer={id}") }
    }

    /// Returns whether the peer connected to us.
    pub(crate) fn is_inbound(&self) -> bool {
        self.kind == Kind::Inbound
    }

    /// Returns whether it is on this machine.
    pub(crate) fn is_local(&self) -> bool {
        super::subnet::unmapped(self.address.ip()).is_loopback()
    }

    /// Returns what is known; the lock is for a few lines.
    pub(crate) fn state(&self) -> MutexGuard<'_, PeerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns what the exchange of headers and blocks remembers; the lock is for a few lines.
    pub(crate) fn link(&self) -> MutexGuard<'_, Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks the gate for its headers. Only its own thread holds it for long.
    pub(crate) fn gate(&self) -> MutexGuard<'_, LowWorkGate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the transport; the lock is for a few lines.
    pub(crate) fn transport(&self) -> MutexGuard<'_, TransportInfo> {
        self.transport.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether the handshake is done.
    pub(crate) fn is_ready(&self) -> bool {
        self.state().ready
    }

    /// Returns whether all of these were granted.
    pub(crate) const fn may(&self, permission: Permissions) -> bool {
        self.permissions.has(permission)
    }

    /// Queues a message; a peer that does not read what it gets is disconnected.
    pub(crate) fn send(&self, message: Message, _now: Duration) {
        if let Message::GetData(items) = &message {
            let items = u64::try_from(items.len()).unwrap_or(0);
            self.asked.fetch_add(items, Ordering::Relaxed);
        }
        let command = message.command();
        self.send_bytes(command.into(), message.payload());
    }

    /// Returns whether a block that comes may be one that we asked for; each that we asked for counts once.
    pub(crate) fn take_asked(&self) -> bool {
        let less = |asked: u64| asked.checked_sub(1);
        self.asked.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }

    /// Queues bytes of the transport's handshake.
    pub(crate) fn send_raw(&self, bytes: Vec<u8>) {
        if !self.queue.push_raw(bytes) && !self.is_closing() {
            self.disconnect("send buffer is full");
        }
    }

    /// Goes on with the plain transport.
    pub(crate) fn agree_on_v1(&self) {
        *self.transport() = TransportInfo::v1();
        self.queue.hold(false);
    }

    /// Goes on with the encrypted transport.
    pub(crate) fn agree_on_v2(&self, writer: v2::Writer, session_id: String) {
        *self.encoder.lock().unwrap_or_else(PoisonError::into_inner) = Encoder::V2(writer);
        *self.transport() = TransportInfo::v2(session_id);
        self.queue.hold(false);
    }

    /// Queues a message of any type.
    pub(crate) fn send_bytes(&self, command: Cow<'static, str>, payload: Vec<u8>) {
        tracing::debug!("sending {command} ({} bytes) peer={}", payload.len(), self.id);
        if !self.queue.push(command, payload) && !self.is_closing() {
            self.disconnect("send buffer is full");
        }
    }

    /// Counts bytes that came.
    pub(crate) fn count_bytes(&self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.totals.received.fetch_add(bytes, Ordering::Relaxed);
        self.state().received.add(bytes, self.clock.now());
    }

    /// Returns how many bytes have come.
    pub(crate) fn bytes_received(&self) -> u64 {
        self.state().received.bytes
    }

    /// Counts a message that came.
    pub(crate) fn count_received(&self, command: &str, bytes: usize) {
        self.state().received.add_type(command, u64::try_from(bytes).unwrap_or(u64::MAX));
    }

    /// Waits until little enough waits to be sent; returns false if the connection is closed.
    pub(crate) fn wait_for_room(&self) -> bool {
        self.queue.wait_for_room()
    }

    /// Waits until all that is queued has been sent, or the connection is closed.
    pub(crate) fn wait_until_sent(&self) {
        self.queue.wait_until_sent();
    }

    /// Closes the connection; the reason is logged once.
    pub(crate) fn disconnect(&self, reason: &str) {
        if !self.closing.swap(true, Ordering::Relaxed) {
            tracing::debug!("{reason}, disconnecting {}", self.in_log());
        }
        self.close();
    }

    /// Closes the connection without a word.
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
        self.queue.close();
        // A socket that the other end has closed is as shut as can be.
        let _ = self.stream.shutdown(SocketShutdown::Both);
    }

    /// Returns whether this end closed the connection.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// Returns the stream to read from.
    pub(crate) const fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Sends what is queued, until the connection is closed.
    pub(crate) fn run_sender(&self) {
        self.queue.drain(
            &self.stream,
            |command, payload| {
                let mut encoder = self.encoder.lock().unwrap_or_else(PoisonError::into_inner);
                encoder.encode(command, &payload)
            },
            |command, bytes| {
                let (bytes, now) = (u64::try_from(bytes).unwrap_or(u64::MAX), self.clock.now());
                self.totals.upload.sent(bytes, now);
                let sent = &mut self.state().sent;
                sent.add(bytes, now);
                if let Some(command) = command {
                    sent.add_type(command, bytes);
                }
            },
        );
        self.close();
    }
}

#[cfg(test)]
pub(super) mod tests {
    use bitcoin::BlockHash;
    use bitcoin::hashes::Hash as _;
    use bitcoin::p2p::message_blockdata::Inventory;

    use super::*;

    /// A peer that nobody reads from.
    pub(crate) fn connected() -> Peer {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let new = NewPeer {
            id: 1,
            kind: Kind::Manual,
            name: String::new(),
            address: None,
            nonce: 0,
            permissions: Permissions::default(),
            through_onion: false,
            discouraged: false,
            send_buffer_bytes: 1_000_000,
            magic: [0; 4],
            use_v2: false,
            log_ips: true,
            clock: Clock::default(),
            totals: Arc::new(Totals { received: AtomicU64::new(0), upload: Upload::new(0) }),
        };
        Peer::new(new, stream).unwrap()
    }

    #[test]
    fn every_block_that_is_asked_for_may_come_once_without_waiting() {
        let peer = connected();
        assert!(!peer.take_asked());
        let block = Inventory::WitnessBlock(BlockHash::all_zeros());
        peer.send(Message::GetData(vec![block; 3]), Duration::ZERO);
        assert_eq!([(); 4].map(|()| peer.take_asked()), [true, true, true, false]);
    }
}
