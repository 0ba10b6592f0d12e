//! Messages of one peer: what each changes, and what it is answered with.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cofferdam_ibd::sync::DOWNLOAD_WINDOW;

use super::handshake::{Facts, Handshake, Step};
use super::manager::{PeerManager, seconds};
use super::message::{Malformed, Message, PROTOCOL_VERSION, Version, is_known};
use super::peer::{Kind, Peer};
use super::permissions::Permissions;
use super::rate::RateLimit;
use super::subnet::is_routable;
use super::sync::block_hash;
use super::transport::Frame;
use crate::chain::Stopped;

/// The version of compact blocks that is spoken (Bitcoin Core's `CMPCTBLOCKS_VERSION`), and the
/// protocol version from which they are known.
const COMPACT_VERSION: u64 = 2;
const VERSION_OF_COMPACT: u32 = 70_014;

/// Blocks that a tip may be behind and still count as recent (Core's
/// `NODE_NETWORK_LIMITED_ALLOW_CONN_BLOCKS`).
const RECENT_BLOCKS: u64 = 144;

/// Why a peer's messages are not read on.
#[derive(Debug)]
pub(super) enum End {
    /// It broke a rule.
    Misbehaved(String),
    /// The node stops.
    Stopped,
}

impl From<Stopped> for End {
    fn from(_: Stopped) -> Self {
        Self::Stopped
    }
}

impl From<String> for End {
    fn from(reason: String) -> Self {
        Self::Misbehaved(reason)
    }
}

/// Logs that a message cannot be read, as Bitcoin Core does, with what its compiler makes of the
/// exception; whoever sent it stays.
pub(super) fn tell_unreadable(command: &str, bytes: usize, error: &str) {
    let kind = "NSt8ios_base7failureB5cxx11E";
    tracing::debug!(
        "ProcessMessages({command}, {bytes} bytes): Exception '{error}: iostream error' ({kind}) caught"
    );
}

impl PeerManager {
    /// Blames a peer; unless it may stay, it is disconnected and its address discouraged.
    pub(super) fn misbehaved(&self, peer: &Peer, reason: &str) {
        tracing::debug!("Misbehaving: peer={}: {reason}", peer.id);
        if peer.may(Permissions::NO_BAN) {
            tracing::warn!("Not punishing noban peer {}!", peer.id);
        } else if peer.kind == Kind::Manual {
            tracing::warn!("Not punishing manually connected peer {}!", peer.id);
        } else if peer.is_local() || peer.address.ip().is_unspecified() {
            // Its address is everybody's on this machine, or known to a proxy alone.
            let what = if peer.through_onion { "inbound onion" } else { "local" };
            let id = peer.id;
            tracing::debug!("Warning: disconnecting but not discouraging {what} peer {id}!");
            peer.close();
        } else {
            tracing::debug!("Disconnecting and discouraging peer {}!", peer.id);
            self.bans.discourage(peer.address.ip());
            for other in self.peers() {
                if other.address.ip() == peer.address.ip() && !other.may(Permissions::NO_BAN) {
                    other.close();
                }
            }
        }
    }

    pub(super) fn our_version(&self, peer: &Peer) -> Version {
        let is_silent = matches!(peer.kind, Kind::BlockRelayOnly | Kind::Feeler);
        Version {
            version: PROTOCOL_VERSION,
            services: self.services(),
            time: seconds(self.clock.now()),
            receiver: Some(peer.address).filter(|address| is_routable(address.ip())),
            nonce: peer.nonce,
            user_agent: self.config.user_agent.clone(),
            start_height: i32::try_from(self.chain.view().tip.height).unwrap_or(i32::MAX),
            relay: self.relays_transactions() && !is_silent,
        }
    }

    pub(super) fn on_frame(
        self: &Arc<Self>,
        peer: &Arc<Peer>,
        handshake: &mut Handshake,
        rate: &mut RateLimit,
        frame: Frame,
    ) -> Result<(), End> {
        let Frame { command, payload, wire_bytes } = frame;
        let (command, bytes) = (command.as_str(), payload.len());
        peer.count_received(command, wire_bytes);
        // What we ask for comes as fast as we ask: early blocks are small, and thousands a second.
        let is_asked = command == "block" && peer.take_asked();
        let wait =
            if is_asked { Duration::ZERO } else { rate.wait(command, bytes, Instant::now()) };
        if !wait.is_zero() && !peer.may(Permissions::NO_BAN) && self.shutdown.wait_for(wait) {
            return Err(End::Stopped);
        }
        if asks_for_much(command) && !peer.wait_for_room() {
            return Ok(());
        }
        tracing::debug!("received: {command} ({bytes} bytes) peer={}", peer.id);
        if !handshake.is_done() && !is_of_handshake(command) {
            self.shake_hands(peer, handshake, &Message::Other, command);
            return Ok(());
        }
        if command == "pong" {
            let problem = peer.state().ping.pong(&payload, self.clock.now());
            if let Some(problem) = problem {
                tracing::debug!("pong peer={}: {problem}", peer.id);
            }
            return Ok(());
        }
        if command == "tx" {
            self.on_transaction(peer, &payload);
            return Ok(());
        }
        match Message::decode(command, payload) {
            Ok(message) if is_of_handshake(command) => {
                self.shake_hands(peer, handshake, &message, command);
                Ok(())
            }
            Ok(message) => self.handle(peer, message, command),
            Err(Malformed::Unreadable(error)) => {
                tell_unreadable(command, bytes, &error);
                Ok(())
            }
            Err(Malformed::TooMany(text)) => Err(End::Misbehaved(text)),
            Err(Malformed::Refused(text)) => {
                peer.disconnect(&text);
                Ok(())
            }
        }
    }

    fn handle(
        self: &Arc<Self>,
        peer: &Arc<Peer>,
        message: Message,
        command: &str,
    ) -> Result<(), End> {
        match message {
            Message::Ping(nonce) => {
                // Who has the pong may rely on what it sent before being handled, but makes the
                // chain's thread do nothing out of turn: a ping is too cheap for that.
                let view = self.chain.view();
                let behind = view.best_header.height.saturating_sub(view.tip.height);
                if behind > 0 && behind <= DOWNLOAD_WINDOW {
                    self.chain.wait_until_connected()?;
                }
                self.tick_peer(peer)?;
                peer.send(Message::Pong(nonce), self.clock.now());
                Ok(())
            }
            Message::GetHeaders(locator, stop) => Ok(self.serve_headers(peer, locator, stop)?),
            Message::GetData(items) => Ok(self.serve_data(peer, items)?),
            Message::Headers(headers) => self.on_headers(peer, headers),
            Message::Inv(items) => self.on_inventory(peer, &items),
            Message::Block(raw) => self.on_block(peer, raw),
            Message::Filters(request) => Ok(self.serve_filters(peer, request)?),
            Message::NotFound(items) => {
                let now = self.line_time();
                let mut sync = self.sync();
                for hash in items.iter().filter_map(block_hash) {
                    sync.download.not_found(peer.id, &hash, now);
                }
                Ok(())
            }
            Message::FeeFilter(rate) => {
                peer.state().fee_filter = rate;
                Ok(())
            }
            Message::Relay(message) => self.on_relay(peer, message),
            Message::GetAddr => {
                self.serve_addresses(peer);
                Ok(())
            }
            _ => {
                self.on_other(peer, command);
                Ok(())
            }
        }
    }

    /// Takes in a message that changes nothing here.
    fn on_other(&self, peer: &Peer, command: &str) {
        match command {
            "filterload" | "filteradd" | "filterclear" => {
                if !peer.may(Permissions::BLOOM_FILTER) {
                    peer.disconnect(&format!(
                        "{command} received despite not offering bloom services"
                    ));
                }
            }
            "mempool" => {
                // Nothing is announced to anybody, so nothing to those either that may ask.
                let may_ask = Permissions::MEMPOOL;
                if !peer.may(may_ask) && !peer.may(Permissions::BLOOM_FILTER) {
                    tracing::debug!("mempool request with bloom filters disabled");
                    if !peer.may(Permissions::NO_BAN) {
                        peer.disconnect("mempool request with bloom filters disabled");
                    }
                }
            }
            _ if is_known(command) => {}
            _ => tracing::debug!("Unknown message type \"{command}\" from peer={}", peer.id),
        }
    }

    fn shake_hands(
        &self,
        peer: &Arc<Peer>,
        handshake: &mut Handshake,
        message: &Message,
        command: &str,
    ) {
        let now = self.clock.now();
        match handshake.receive(message, command, self) {
            Step::Version(version, answers) => {
                self.note_version(peer, version);
                for answer in answers {
                    peer.send(answer, now);
                }
            }
            Step::Probed(version) => {
                self.note_version(peer, version);
                self.note_good(peer);
                // The peer has to learn who asked.
                peer.wait_until_sent();
                peer.disconnect("feeler connection completed");
            }
            Step::Ready => self.on_ready(peer),
            Step::Noted => self.on_wish(peer, message),
            Step::Ignore(reason) => tracing::debug!("{reason} from peer={}", peer.id),
            Step::Refuse(reason) if reason == "connected to self" => {
                tracing::info!("connected to self at {}, disconnecting", peer.address);
                peer.close();
            }
            Step::Refuse(reason) => peer.disconnect(&reason),
        }
    }

    fn note_version(&self, peer: &Peer, version: Version) {
        let Version { version: number, start_height, relay, .. } = version;
        let us = version.receiver.map_or_else(|| "[::]:0".into(), |us| us.to_string());
        let agent = version.user_agent.as_str();
        let agent = if agent.is_empty() { "<no user agent>" } else { agent };
        let relay = u8::from(relay);
        tracing::debug!(
            "receive version message: {agent}: version {number}, blocks={start_height}, us={us}, txrelay={relay}, {}",
            peer.in_log()
        );
        let offset = version.time.saturating_sub(seconds(self.clock.now()));
        {
            let mut state = peer.state();
            state.time_offset = offset;
            state.version = Some(version);
        }
        if !peer.is_inbound() {
            self.note_clock(offset);
        }
    }

    fn on_ready(&self, peer: &Arc<Peer>) {
        let version = peer.state().version.as_ref().map_or(0, |version| version.version);
        let (kind, transport) = (peer.kind.name(), peer.transport().name);
        let text = format!(
            "New {kind} peer connected: transport: {transport}, version: {version}, {}",
            peer.in_log()
        );
        // Anybody can connect as often as they like, and must not fill the log by it.
        if peer.is_inbound() {
            tracing::debug!("{text}");
        } else {
            tracing::info!("{text}");
        }
        if version >= VERSION_OF_COMPACT {
            peer.send(Message::SendCmpct(0, COMPACT_VERSION), self.clock.now());
        }
        peer.state().ready = true;
        self.sync().headers.peer_ready(peer.id, peer.role());
        self.addresses_ready(peer);
    }

    fn on_wish(&self, peer: &Peer, message: &Message) {
        let mut state = peer.state();
        match message {
            Message::SendHeaders => state.prefers_headers = true,
            Message::WtxidRelay => state.wtxid_relay = true,
            Message::SendAddrV2 => state.wants_addr_v2 = true,
            Message::SendCmpct(unasked @ 0..=1, COMPACT_VERSION) => {
                state.provides_compact = true;
                state.wants_compact_unasked = *unasked == 1;
            }
            Message::SendCmpct(unasked, _) if *unasked > 1 => {
                drop(state);
                self.misbehaved(peer, "invalid sendcmpct announce field");
            }
            _ => {}
        }
    }
}

impl Facts for PeerManager {
    fn is_own(&self, nonce: u64) -> bool {
        self.is_own_nonce(nonce)
    }

    fn is_tip_recent(&self) -> bool {
        let tip = self.chain.query(|chain| chain.headers().entry(chain.tip_ref()).header.time);
        let age = |time: u32| self.clock.now().saturating_sub(Duration::from_secs(time.into()));
        let spacing = u64::from(self.chain.params().pow_target_spacing).max(1);
        tip.is_ok_and(|time| age(time).as_secs() / spacing < RECENT_BLOCKS)
    }
}

/// Returns whether a message says how the two talk to each other.
fn is_of_handshake(command: &str) -> bool {
    matches!(
        command,
        "version"
            | "verack"
            | "wtxidrelay"
            | "sendaddrv2"
            | "feature"
            | "sendheaders"
            | "sendcmpct"
    )
}

/// Returns whether the answer is larger than the question: who does not read answers may ask no
/// more of these. All other messages are read on, or two nodes that send each other much at the
/// same time would wait for each other.
fn asks_for_much(command: &str) -> bool {
    matches!(
        command,
        "getheaders"
            | "getdata"
            | "getblocks"
            | "getblocktxn"
            | "getaddr"
            | "getcfilters"
            | "getcfheaders"
            | "getcfcheckpt"
            | "mempool"
            | "ping"
    )
}
