//! What fuzzers call of the peers' side: payloads, streams, a session with a running node, and the files
//! that remember peers.

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::Arc;

use bitcoin::hashes::{Hash as _, sha256d};

use super::gossip_message::{ADDRESSES_MAX, Addresses};
use super::message::{KNOWN_TYPES, Message, PROTOCOL_VERSION, Version};
use super::partial_block::PartialBlock;
use super::relay_message::RelayMessage;
use super::transport::{FrameError, Source, v1, v2};
use super::{anchors, bans, peers_file};
use crate::fuzz::LiveNode;

const MAGIC: [u8; 4] = [0xfa, 0xbf, 0xb5, 0xda];

/// The nonce of the ping that ends a session.
const LAST_PING: u64 = 0x6c61_7374;

impl Source for &[u8] {
    fn claim(&mut self, _: usize) -> std::io::Result<()> {
        Ok(())
    }
}

impl Source for TcpStream {
    fn claim(&mut self, _: usize) -> std::io::Result<()> {
        Ok(())
    }
}

/// Decodes a payload; the first byte chooses the type. What is understood is understood the same when
/// it is written again. Returns whether it was.
///
/// # Panics
///
/// Panics if it is not.
#[must_use]
pub fn p2p_message(data: &[u8]) -> bool {
    let Some((command, payload)) = message(data) else { return false };
    let Ok(decoded) = Message::decode(command, payload.to_vec()) else { return false };
    match &decoded {
        // Nobody writes these from what was read.
        Message::Feature | Message::Other => return true,
        Message::Relay(RelayMessage::Addr(told) | RelayMessage::AddrV2(told)) => {
            assert!(!matches!(told, Addresses::List(list) if list.len() > ADDRESSES_MAX));
            return true;
        }
        Message::Relay(RelayMessage::CompactBlock(compact)) => {
            if let Ok(partial) = PartialBlock::new(compact.as_ref().clone(), []) {
                assert_eq!(partial.missing().len(), compact.short_ids.len());
                assert_eq!(partial.fill(Vec::new()).is_ok(), compact.short_ids.is_empty());
            }
        }
        _ => {}
    }
    let again = Message::decode(command, decoded.clone().payload());
    assert_eq!(again, Ok(decoded));
    true
}

/// Splits the number of a type off.
fn message(data: &[u8]) -> Option<(&'static str, &[u8])> {
    let (number, payload) = data.split_first()?;
    Some((KNOWN_TYPES.get(usize::from(*number) % KNOWN_TYPES.len())?, payload))
}

/// Reads what a peer sends until it cannot be read on; the first byte chooses what is read: plain
/// frames, the begin of a connection, or what an encrypted packet had in it. Returns whether a message
/// came.
///
/// # Panics
///
/// Panics if more bytes were read than there are.
#[must_use]
pub fn p2p_stream(data: &[u8]) -> bool {
    let Some((kind, mut stream)) = data.split_first() else { return false };
    match kind % 3 {
        0 => {
            let (bytes, mut read, mut came) = (stream.len(), 0, false);
            loop {
                match v1::read_frame(&mut stream, &[], MAGIC) {
                    Ok(frame) => {
                        read += frame.wire_bytes;
                        came = true;
                    }
                    Err(FrameError::Skip { wire_bytes, .. }) => read += wire_bytes,
                    Err(_) => break,
                }
            }
            assert!(read <= bytes, "{read} of {bytes} bytes");
            came
        }
        1 => v2::open(&mut stream, MAGIC, false, drop).is_ok(),
        _ => v2::message(stream.to_vec(), 0, stream.len()).is_ok(),
    }
}

/// Reads one of the files that remember peers, chosen by the first byte; sums that only a writer of
/// ours would get right are put behind it. What is read is written the same. Returns whether it was
/// read.
///
/// # Panics
///
/// Panics if it is not.
#[must_use]
pub fn peer_files(data: &[u8]) -> bool {
    let Some((kind, bytes)) = data.split_first() else { return false };
    let sum = sha256d::Hash::hash(bytes).to_byte_array();
    match kind % 3 {
        0 => {
            let decode = |bytes: &[u8]| peers_file::decode(bytes, MAGIC, &Arc::default());
            let Ok(manager) = decode(&[bytes, &sum].concat()) else {
                return false;
            };
            let bytes = peers_file::encode(&manager, MAGIC);
            let again = decode(&bytes).map(|again| peers_file::encode(&again, MAGIC));
            assert_eq!(again, Ok(bytes));
        }
        1 => {
            let Some(known) = anchors::decode(&[bytes, &sum].concat(), MAGIC) else {
                return false;
            };
            assert_eq!(anchors::decode(&anchors::encode(&known, MAGIC), MAGIC), Some(known));
        }
        _ => return bans::read_bans(bytes).is_ok(),
    }
    true
}

/// Connects to a running node and sends messages, each a number of a type, two bytes of a length and
/// a payload. Returns whether the node still answers on that connection.
///
/// # Panics
///
/// Panics if a peer is not let in, or neither answered nor let go.
#[must_use]
pub fn p2p_session(node: &LiveNode, data: &[u8]) -> bool {
    let mut stream = node.peer().expect("the node takes peers");
    let version = Version {
        version: PROTOCOL_VERSION,
        services: 0x409,
        time: 1_300_000_000,
        receiver: None,
        nonce: 1,
        user_agent: "/fuzz:1/".into(),
        start_height: 0,
        relay: true,
    };
    send(&mut stream, "version", &Message::Version(version).payload());
    wait_for(&mut stream, "verack").expect("a handshake");
    send(&mut stream, "verack", &[]);
    let mut rest = data;
    while let Some((head, after)) = rest.split_first_chunk::<3>() {
        let [number, low, high] = *head;
        let length = usize::from(u16::from_le_bytes([low, high])).min(after.len());
        let (payload, after) = after.split_at(length);
        let (command, _) = message(&[number]).unwrap_or_default();
        send(&mut stream, command, payload);
        rest = after;
    }
    send(&mut stream, "ping", &LAST_PING.to_le_bytes());
    while let Some(payload) = wait_for(&mut stream, "pong") {
        if payload == LAST_PING.to_le_bytes() {
            return true;
        }
    }
    false
}

/// Sends a message; a node that let go is found out when its answer is read.
fn send(stream: &mut TcpStream, command: &str, payload: &[u8]) {
    let _ = stream.write_all(&v1::encode(MAGIC, command, payload));
}

/// Reads up to a message of a type; `None`: the node let go.
fn wait_for(stream: &mut TcpStream, command: &str) -> Option<Vec<u8>> {
    loop {
        match v1::read_frame(stream, &[], MAGIC) {
            Ok(frame) if frame.command == command => return Some(frame.payload),
            Ok(_) => {}
            Err(FrameError::Io(error)) => {
                let kind = error.kind();
                let is_late =
                    matches!(kind, std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut);
                assert!(!is_late, "the node does not answer");
                return None;
            }
            Err(error) => panic!("the node sent what cannot be read: {error:?}"),
        }
    }
}
