//! One connection from its first byte to its last: which transport it speaks, and its messages read
//! one after the other.

use std::io::{self, BufReader, Read};
use std::sync::Arc;
use std::time::Instant;

use super::dispatch::End;
use super::handshake::Handshake;
use super::manager::PeerManager;
use super::peer::Peer;
use super::permissions::Permissions;
use super::rate::RateLimit;
use super::transport::{Decoder, FrameError, Source, v2};

/// Bytes that are read from a socket at a time.
const READ_BYTES: usize = 64 << 10;

/// A socket whose bytes are counted.
struct Counted<'a>(&'a Peer);

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.0.stream().read(buffer)?;
        if bytes > 0 {
            self.0.count_bytes(bytes);
        }
        Ok(bytes)
    }
}

/// What a connection's messages are read from.
struct Inbox<'a> {
    manager: &'a PeerManager,
    peer: &'a Peer,
    stream: BufReader<Counted<'a>>,
}

impl Read for Inbox<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buffer)
    }
}

impl Source for Inbox<'_> {
    fn claim(&mut self, bytes: usize) -> io::Result<()> {
        if !self.peer.is_inbound() || self.peer.may(Permissions::NO_BAN) {
            return Ok(());
        }
        let losers = self.manager.budget.take(self.peer.id, bytes);
        for peer in losers.into_iter().filter_map(|id| self.manager.peer(id)) {
            peer.disconnect("receive memory is exhausted and this message began first");
        }
        Ok(())
    }

    fn give_back(&mut self) {
        self.manager.budget.give_back(self.peer.id);
    }

    fn has_more(&self) -> bool {
        !self.stream.buffer().is_empty()
    }
}

impl PeerManager {
    /// Reads and handles a peer's messages until the connection ends.
    pub(super) fn run_peer(self: &Arc<Self>, peer: &Arc<Peer>) {
        let stream = BufReader::with_capacity(READ_BYTES, Counted(peer));
        let mut inbox = Inbox { manager: self, peer, stream };
        if let Some(decoder) = self.open_transport(peer, &mut inbox) {
            self.read_messages(peer, decoder, &mut inbox);
        }
        self.remove(peer);
    }

    fn read_messages(
        self: &Arc<Self>,
        peer: &Arc<Peer>,
        mut decoder: Decoder,
        inbox: &mut Inbox<'_>,
    ) {
        let mut handshake = Handshake::new(peer.kind, self.our_version(peer));
        if let Some(hello) = handshake.first() {
            peer.send(hello, self.clock.now());
        }
        let mut rate = RateLimit::new(Instant::now());
        while !peer.is_closing() {
            let handled = match decoder.read_frame(inbox) {
                Ok(frame) => self.on_frame(peer, &mut handshake, &mut rate, frame),
                Err(FrameError::Skip { reason, wire_bytes }) => {
                    tracing::debug!("{reason}, peer={}", peer.id);
                    peer.count_received("*other*", wire_bytes);
                    Ok(())
                }
                Err(FrameError::Fatal(reason)) => {
                    tracing::debug!("{reason}, peer={}", peer.id);
                    peer.close();
                    break;
                }
                Err(FrameError::Io(error)) => {
                    tell_end(peer, &error);
                    break;
                }
            };
            self.budget.give_back(peer.id);
            match handled {
                Ok(()) => {}
                Err(End::Misbehaved(reason)) => self.misbehaved(peer, &reason),
                Err(End::Stopped) => break,
            }
            self.look_after(peer);
        }
    }

    /// Finds out how to talk to the peer; returns none if the connection ended over it.
    fn open_transport(&self, peer: &Arc<Peer>, inbox: &mut Inbox<'_>) -> Option<Decoder> {
        let magic = self.chain.params().magic;
        if peer.transport().name == "v1" {
            return Some(Decoder::V1(magic, Vec::new()));
        }
        let mut begun = false;
        let opened = v2::open(inbox, magic, !peer.is_inbound(), |bytes| {
            if !std::mem::replace(&mut begun, true) {
                tracing::debug!("start sending v2 handshake to peer={}", peer.id);
            }
            peer.send_raw(bytes);
        });
        match opened {
            Ok(v2::Opened::Plain(begun)) => {
                peer.agree_on_v1();
                Some(Decoder::V1(magic, begun.to_vec()))
            }
            Ok(v2::Opened::Encrypted(session)) => {
                let v2::Session { reader, writer, session_id } = *session;
                peer.agree_on_v2(writer, session_id);
                Some(Decoder::V2(reader))
            }
            Err(v2::OpenError::Silent(error)) => {
                tell_end(peer, &error);
                if self.is_active() {
                    tracing::debug!("retrying with v1 transport protocol for peer={}", peer.id);
                    self.reconnect_plainly(peer);
                }
                None
            }
            Err(v2::OpenError::Frame(FrameError::Io(error))) => {
                tell_end(peer, &error);
                None
            }
            Err(v2::OpenError::Frame(
                FrameError::Fatal(reason) | FrameError::Skip { reason, .. },
            )) => {
                tracing::debug!("{reason}, peer={}", peer.id);
                peer.close();
                None
            }
        }
    }
}

fn tell_end(peer: &Peer, error: &io::Error) {
    if peer.is_closing() {
        return;
    }
    if error.kind() == io::ErrorKind::UnexpectedEof {
        peer.disconnect("socket closed");
    } else {
        tracing::debug!("socket recv error, disconnecting {}: {error}", peer.in_log());
        peer.close();
    }
}
