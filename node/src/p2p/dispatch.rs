//! Messages of one peer, read and handled in order.

use std::sync::Arc;

use cofferdam_ibd::sync::DOWNLOAD_WINDOW;

use super::SERVICES;
use super::codec::{FrameError, read_frame};
use super::handshake::{Handshake, Step};
use super::manager::{PeerManager, random_nonce};
use super::message::{Message, PROTOCOL_VERSION, Version};
use super::peer::Peer;
use super::sync::block_hash;
use crate::chain::Stopped;

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
}
