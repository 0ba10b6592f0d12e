//! Messages of one peer, handled in order; headers and blocks asked for and taken in.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::BlockHash;
use bitcoin::block::Header;
use bitcoin::p2p::message_blockdata::Inventory;
use cofferdam_ibd::sync::{DOWNLOAD_WINDOW, Missing, PeerId, missing_blocks};
use cofferdam_ibd::{BlockAccepted, Chainstate, HeaderRef, Rejection, RejectionScope};

use super::SERVICES;
use super::codec::{FrameError, read_frame};
use super::handshake::{Handshake, Step};
use super::manager::{PeerManager, random_nonce};
use super::message::{Message, PROTOCOL_VERSION, Version};
use super::peer::Peer;
use crate::chain::{BlockSource, Stopped};

/// A peer that owes fewer blocks is asked for more.
const ASK_BELOW: usize = 8;

/// Headers younger than this mean that there is little left to fetch.
const RECENT_SECONDS: u32 = 24 * 60 * 60;

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

impl PeerManager {
    /// Reads and handles a peer's messages until the connection ends.
    pub(super) fn run_peer(self: &Arc<Self>, peer: &Arc<Peer>) {
        let mut handshake = Handshake::new(peer.is_inbound(), self.our_version(peer));
        if let Some(hello) = handshake.first() {
            peer.send(hello, self.clock.now());
        }
        let mut stream = std::io::BufReader::with_capacity(64 << 10, peer.stream());
        while peer.wait_for_room() {
            let frame = match read_frame(&mut stream, self.chain.params().magic) {
                Ok(frame) => frame,
                Err(FrameError::Io(error)) => {
                    if !peer.is_closing() {
                        tracing::info!("socket closed, disconnecting peer={} ({error})", peer.id);
                    }
                    break;
                }
                Err(FrameError::Skip(reason)) => {
                    tracing::info!("{reason}, peer={}", peer.id);
                    continue;
                }
                Err(FrameError::Fatal(reason)) => {
                    peer.disconnect(&reason);
                    break;
                }
            };
            let bytes = frame.payload.len();
            tracing::debug!("received: {} ({bytes} bytes) peer={}", frame.command, peer.id);
            let message = Message::decode(&frame.command, frame.payload);
            // A name of a peer's choosing must not become one more counter each time.
            let counted = matches!(&message, Ok(known) if *known != Message::Other);
            let counter = if counted { frame.command.as_str() } else { "*other*" };
            peer.count_received(counter, bytes, self.clock.now());
            let handled = message
                .map_err(|error| {
                    End::Misbehaved(format!("{} message is malformed: {error}", frame.command))
                })
                .and_then(|message| self.handle(peer, &mut handshake, message));
            match handled {
                Ok(()) => {}
                Err(End::Misbehaved(reason)) => peer.disconnect(&format!("Misbehaving: {reason}")),
                Err(End::Stopped) => break,
            }
        }
        self.remove(peer);
    }

    fn our_version(&self, peer: &Peer) -> Version {
        Version {
            version: PROTOCOL_VERSION,
            services: SERVICES,
            time: i64::try_from(self.clock.now().as_secs()).unwrap_or(i64::MAX),
            nonce: peer.nonce,
            user_agent: self.config.user_agent.clone(),
            start_height: i32::try_from(self.chain.view().tip.height).unwrap_or(i32::MAX),
            // There is no place for transactions here.
            relay: false,
        }
    }

    fn handle(
        self: &Arc<Self>,
        peer: &Arc<Peer>,
        handshake: &mut Handshake,
        message: Message,
    ) -> Result<(), End> {
        if !handshake.is_done() || matches!(message, Message::Version(_) | Message::Verack) {
            self.shake_hands(peer, handshake, &message);
            return Ok(());
        }
        match message {
            Message::WtxidRelay | Message::SendAddrV2 => {
                let step = handshake.receive(&message, |_| false);
                if let Step::Refuse(reason) = step {
                    peer.disconnect(&reason);
                }
                Ok(())
            }
            Message::SendHeaders => {
                peer.state().prefers_headers = true;
                Ok(())
            }
            Message::Ping(nonce) => {
                // Who has the pong may rely on what it sent before being handled.
                let view = self.chain.view();
                let behind = view.best_header.height.saturating_sub(view.tip.height);
                if behind > 0 && behind <= DOWNLOAD_WINDOW {
                    self.chain.settle()?;
                }
                peer.send(Message::Pong(nonce), self.clock.now());
                Ok(())
            }
            Message::Pong(nonce) => {
                peer.pong(nonce);
                Ok(())
            }
            Message::GetHeaders(locator, stop) => Ok(self.serve_headers(peer, locator, stop)?),
            Message::GetData(items) => Ok(self.serve_data(peer, items)?),
            Message::Headers(headers) => self.on_headers(peer, headers),
            Message::Inv(items) => self.on_inventory(peer, &items),
            Message::Block(raw) => self.on_block(peer, raw),
            Message::NotFound(items) => {
                let mut sync = self.sync();
                for hash in items.iter().filter_map(block_hash) {
                    sync.download.not_found(peer.id, &hash);
                }
                Ok(())
            }
            Message::Version(_) | Message::Verack | Message::Other => Ok(()),
        }
    }

    fn shake_hands(&self, peer: &Arc<Peer>, handshake: &mut Handshake, message: &Message) {
        let now = self.clock.now();
        match handshake.receive(message, |nonce| self.is_own_nonce(nonce)) {
            Step::Send(messages) => {
                if *message == Message::SendHeaders {
                    peer.state().prefers_headers = true;
                }
                for message in messages {
                    peer.send(message, now);
                }
            }
            Step::Ready(version) => {
                let (number, agent) = (version.version, version.user_agent.clone());
                tracing::info!(
                    "New peer connected: version: {number}, subver: {agent}, peer={}, {}",
                    peer.id,
                    peer.kind.name()
                );
                peer.state().version = Some(version);
                peer.send(Message::SendHeaders, now);
                peer.ping(random_nonce(), now);
                self.sync().headers.peer_ready(peer.id, !peer.is_inbound());
            }
            Step::Ignore(reason) => tracing::debug!("{reason} peer={}", peer.id),
            Step::Refuse(reason) => peer.disconnect(&reason),
        }
    }

    fn on_inventory(&self, peer: &Arc<Peer>, items: &[Inventory]) -> Result<(), End> {
        // Of several blocks the last is the best; its ancestors come with the headers.
        let Some(hash) = items.iter().filter_map(block_hash).next_back() else {
            return Ok(());
        };
        let known = self.chain.query(move |chain| chain.headers().get(&hash))?;
        if let Some(at) = known {
            self.learn_best(peer, at)?;
            return Ok(self.ask_blocks(peer)?);
        }
        self.sync().headers.asked(peer.id, self.clock.now());
        Ok(self.ask_headers_from(peer, None)?)
    }

    fn on_block(&self, peer: &Arc<Peer>, raw: Vec<u8>) -> Result<(), End> {
        let header =
            raw.get(..80).and_then(|bytes| bitcoin::consensus::deserialize::<Header>(bytes).ok());
        let header = header.ok_or_else(|| String::from("block message is malformed: no header"))?;
        let (hash, now) = (header.block_hash(), self.clock.now());
        // A block that is not what its header commits to may change nothing but its sender's state,
        // so this is asked before anything is noted (CVE-2024-52921). What was asked of this very
        // peer is found to be mutated later, with the same end for it alone.
        let is_owed = self.sync().download.owed_by(peer.id).contains(&hash);
        if !is_owed && self.chain.is_mutated(&raw, &header)? {
            return Err(String::from("mutated block").into());
        }
        let requested = {
            let mut sync = self.sync();
            sync.came_from(hash, peer.id);
            sync.download.received(peer.id, &hash, raw.len(), now)
        };
        let source = if requested { BlockSource::Requested } else { BlockSource::Unrequested };
        let submitted = self.chain.submit(raw, source);
        self.sync().arrived.remove(&hash);
        let submitted = submitted?;
        match &submitted.accepted {
            Some(BlockAccepted::Stored(_)) => {
                peer.state().last_block = now;
                if let Some(at) = self.chain.query(move |chain| chain.headers().get(&hash))? {
                    self.learn_best(peer, at)?;
                }
            }
            Some(BlockAccepted::Rejected(rejection)) => {
                tracing::info!("AcceptBlock FAILED ({rejection}) block {hash} peer={}", peer.id);
                blame(peer, rejection, "invalid block received")?;
            }
            Some(BlockAccepted::Duplicate(_)) | None => {}
        }
        let owed = self.sync().download.owed_by(peer.id).len();
        if owed < ASK_BELOW { Ok(self.ask_blocks(peer)?) } else { Ok(()) }
    }

    /// Notes that a peer has a header, and with it all its ancestors.
    pub(super) fn learn_best(&self, peer: &Arc<Peer>, at: HeaderRef) -> Result<(), Stopped> {
        let known = peer.state().best_known;
        let (best, common) = self.chain.query(move |chain| {
            let headers = chain.headers();
            let work = |at| headers.entry(at).chain_work;
            let best = known.filter(|known| work(*known) >= work(at)).unwrap_or(at);
            let common = headers.fork_point(best, chain.tip_ref());
            (best, headers.entry(common).height)
        })?;
        let mut state = peer.state();
        state.best_known = Some(best);
        state.common_height = Some(common);
        Ok(())
    }

    /// Asks a peer for blocks that it has and we miss, as many as it may owe.
    pub(super) fn ask_blocks(&self, peer: &Peer) -> Result<(), Stopped> {
        let Some(best) = peer.state().best_known else {
            return Ok(());
        };
        let missing = self.chain.query(move |chain| missing_toward(chain, best))?;
        if missing.blocks.is_empty() {
            return Ok(());
        }
        let now = self.clock.now();
        let wanted = {
            let mut sync = self.sync();
            let mut missing = missing;
            missing.blocks.retain(|block| !sync.arrived.contains(&block.hash));
            sync.download.request(peer.id, &missing, now)
        };
        if !wanted.is_empty() {
            tracing::debug!("Requesting {} blocks peer={}", wanted.len(), peer.id);
            peer.send(
                Message::GetData(wanted.into_iter().map(Inventory::WitnessBlock).collect()),
                now,
            );
        }
        Ok(())
    }

    /// Returns the heights of the blocks that a peer owes.
    pub(crate) fn in_flight(&self, peer: PeerId) -> Result<Vec<u32>, Stopped> {
        let owed = self.sync().download.owed_by(peer);
        if owed.is_empty() {
            return Ok(Vec::new());
        }
        self.chain.query(move |chain| {
            let headers = chain.headers();
            let known = owed.iter().filter_map(|hash| headers.get(hash));
            let mut heights: Vec<u32> = known.map(|at| headers.entry(at).height).collect();
            heights.sort_unstable();
            heights
        })
    }

    /// Looks after what time brings: peers to ask, stallers, blocks to ask for since the tip moved.
    pub(super) fn tick_sync(&self) {
        let now = self.clock.now();
        let view = self.chain.view();
        let recent =
            Duration::from_secs(u64::from(view.best_header_time.saturating_add(RECENT_SECONDS)));
        let age = now.as_secs().saturating_sub(u64::from(view.best_header_time));
        let spacing = u64::from(self.chain.params().pow_target_spacing);
        let expected = u32::try_from(age / spacing).unwrap_or(u32::MAX);
        let (ask, drops) = {
            let mut sync = self.sync();
            if recent > now {
                sync.headers.set_caught_up();
            }
            let (ask, mut drops) = sync.headers.poll(now, expected);
            drops.extend(sync.download.poll(now));
            (ask, drops)
        };
        for drop in drops {
            if let Some(peer) = self.peer(drop.peer) {
                peer.disconnect(&format!("Peer {}", drop.reason));
            }
        }
        for peer in ask.into_iter().filter_map(|id| self.peer(id)) {
            if self.ask_headers_from_parent(&peer).is_err() {
                return;
            }
        }
        if view.tip == view.best_header {
            return;
        }
        for peer in self.peers().into_iter().filter(|peer| peer.is_ready()) {
            let owed = self.sync().download.owed_by(peer.id).len();
            if owed < ASK_BELOW && self.ask_blocks(&peer).is_err() {
                return;
            }
        }
    }
}

/// Lists what is missing on the way to a peer's best header. A chain with too little work is not
/// worth a download: it may be made up.
fn missing_toward(chain: &Chainstate, best: HeaderRef) -> Missing {
    let tree = chain.headers();
    if tree.entry(best).chain_work < chain.params().minimum_chain_work {
        return Missing::default();
    }
    missing_blocks(tree, chain.tip_ref(), best)
}

/// Disconnects the sender of something that breaks a rule, unless the fault may be ours.
pub(super) fn blame(peer: &Peer, rejection: &Rejection, what: &str) -> Result<(), End> {
    let is_fault = match rejection.scope {
        RejectionScope::Header
        | RejectionScope::Bytes
        | RejectionScope::MissingPrev
        | RejectionScope::InvalidPrev => true,
        // An outbound peer that follows a chain we know as bad is of no use.
        RejectionScope::Cached => !peer.is_inbound(),
        // Clocks differ, and work is counted by each for itself.
        _ => false,
    };
    if is_fault { Err(format!("{what}: {rejection}").into()) } else { Ok(()) }
}

fn block_hash(item: &Inventory) -> Option<BlockHash> {
    match item {
        Inventory::Block(hash) | Inventory::WitnessBlock(hash) | Inventory::CompactBlock(hash) => {
            Some(*hash)
        }
        _ => None,
    }
}
