//! `Peer`: one connection and what is known of the node at its other end.

use std::collections::BTreeMap;
use std::net::{Shutdown as SocketShutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cofferdam_ibd::HeaderRef;
use cofferdam_ibd::sync::{LowWorkGate, PeerId};

use super::codec;
use super::connection::SendQueue;
use super::message::{Message, Version};

/// How a connection came about, in the words of `getpeerinfo`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// The peer connected to us.
    Inbound,
    /// The user named the peer.
    Manual,
}

impl Kind {
    /// Returns the name that `getpeerinfo` shows.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Manual => "manual",
        }
    }
}

/// The ping that was sent last, and how fast pongs come.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ping {
    /// Nonce and time of a ping without a pong.
    pub(crate) waiting: Option<(u64, Instant)>,
    /// When a ping was last sent, by the node's clock.
    pub(crate) sent_at: Duration,
    /// Round trip of the last pong.
    pub(crate) last: Option<Duration>,
    /// The shortest round trip.
    pub(crate) min: Option<Duration>,
}

/// Bytes by message type, for `getpeerinfo`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Traffic {
    /// All bytes.
    pub(crate) bytes: u64,
    /// When the last came, by the node's clock.
    pub(crate) last: Duration,
    /// Bytes of each type.
    pub(crate) by_type: BTreeMap<String, u64>,
}

impl Traffic {
    fn add(&mut self, command: &str, bytes: usize, now: Duration) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.bytes = self.bytes.saturating_add(bytes);
        self.last = now;
        let counter = self.by_type.entry(command.to_owned()).or_default();
        *counter = counter.saturating_add(bytes);
    }
}

/// What changes while a connection lasts.
#[derive(Clone, Debug, Default)]
pub(crate) struct PeerState {
    /// What the peer said of itself, once the handshake is done.
    pub(crate) version: Option<Version>,
    /// Whether it wants new blocks announced by headers (BIP-0130).
    pub(crate) prefers_headers: bool,
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
    /// When it began, for the time limit of the handshake.
    pub(crate) began: Instant,
    /// The nonce of our version message.
    pub(crate) nonce: u64,
    magic: [u8; 4],
    stream: TcpStream,
    queue: SendQueue,
    closing: AtomicBool,
    state: Mutex<PeerState>,
    gate: Mutex<LowWorkGate>,
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
    /// The nonce of our version message.
    pub(crate) nonce: u64,
    /// The network's magic.
    pub(crate) magic: [u8; 4],
    /// The time by the node's clock.
    pub(crate) now: Duration,
}

impl Peer {
    /// Creates the peer of a connected socket.
    pub(crate) fn new(new: NewPeer, stream: TcpStream) -> std::io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self {
            id: new.id,
            kind: new.kind,
            name: new.name,
            address: stream.peer_addr()?,
            bind: stream.local_addr().ok(),
            connected_at: new.now,
            began: Instant::now(),
            nonce: new.nonce,
            magic: new.magic,
            stream,
            queue: SendQueue::default(),
            closing: AtomicBool::new(false),
            gate: Mutex::new(LowWorkGate::default()),
            state: Mutex::new(PeerState::default()),
        })
    }

    /// Returns whether the peer connected to us.
    pub(crate) fn is_inbound(&self) -> bool {
        self.kind == Kind::Inbound
    }

    /// Returns what is known; the lock is for a few lines.
    pub(crate) fn state(&self) -> MutexGuard<'_, PeerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks the gate for its headers. Only its own thread holds it for long.
    pub(crate) fn gate(&self) -> MutexGuard<'_, LowWorkGate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether the handshake is done.
    pub(crate) fn is_ready(&self) -> bool {
        self.state().version.is_some()
    }

    /// Queues a message; a peer that does not read what it gets is disconnected.
    pub(crate) fn send(&self, message: Message, now: Duration) {
        let command = message.command();
        tracing::trace!("sending {command} peer={}", self.id);
        let frame = codec::encode(self.magic, command, &message.payload());
        let bytes = frame.len();
        if self.queue.push(frame) {
            self.state().sent.add(command, bytes, now);
        } else {
            self.disconnect("send buffer is full");
        }
    }

    /// Counts a message that came.
    pub(crate) fn count_received(&self, command: &str, payload: usize, now: Duration) {
        self.state().received.add(command, codec::HEADER_BYTES + payload, now);
    }

    /// Waits until little enough waits to be sent; returns false if the connection is closed.
    pub(crate) fn wait_for_room(&self) -> bool {
        self.queue.wait_for_room()
    }

    /// Closes the connection; the reason is logged once.
    pub(crate) fn disconnect(&self, reason: &str) {
        if !self.closing.swap(true, Ordering::Relaxed) {
            tracing::info!("{reason}, disconnecting peer={}", self.id);
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
        self.queue.drain(&self.stream);
        self.close();
    }

    /// Sends a ping.
    pub(crate) fn ping(&self, nonce: u64, now: Duration) {
        {
            let ping = &mut self.state().ping;
            ping.waiting = Some((nonce, Instant::now()));
            ping.sent_at = now;
        }
        self.send(Message::Ping(nonce), now);
    }

    /// Takes the answer to a ping in.
    pub(crate) fn pong(&self, nonce: u64) {
        let ping = &mut self.state().ping;
        if let Some((waiting, sent)) = ping.waiting
            && waiting == nonce
        {
            let time = sent.elapsed();
            ping.waiting = None;
            ping.last = Some(time);
            ping.min = Some(ping.min.map_or(time, |min| min.min(time)));
        }
    }
}
