//! How messages become bytes on a connection: one seam, behind it the plain transport (v1) and the
//! encrypted one (v2).

pub(super) mod v1;
pub(super) mod v2;

use std::io::{self, Read};

/// A message that came whole.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Frame {
    /// The type of the message.
    pub(super) command: String,
    /// Its content.
    pub(super) payload: Vec<u8>,
    /// Bytes that it took on the wire.
    pub(super) wire_bytes: usize,
}

/// Why no message came.
#[derive(Debug)]
pub(super) enum FrameError {
    /// The connection ended or failed.
    Io(io::Error),
    /// The stream cannot be read on: the peer has to go.
    Fatal(String),
    /// One message was damaged, the next may be right (as in Bitcoin Core, which skips it).
    Skip {
        /// What was wrong.
        reason: String,
        /// Bytes that it took on the wire.
        wire_bytes: usize,
    },
}

/// Where a transport reads from.
pub(super) trait Source: Read {
    /// Takes memory for bytes of a message that are about to come.
    ///
    /// # Errors
    ///
    /// Returns an error if there is none for this connection.
    fn claim(&mut self, bytes: usize) -> io::Result<()>;

    /// Gives back all that was taken: what came is held no longer.
    fn give_back(&mut self) {}

    /// Returns whether bytes are here that a read would not have to wait for.
    fn has_more(&self) -> bool {
        false
    }
}

/// The way in of one connection.
#[derive(Debug)]
pub(super) enum Decoder {
    /// Plain; with what was read of its first message.
    V1([u8; 4], Vec<u8>),
    /// Encrypted.
    V2(v2::Reader),
}

impl Decoder {
    /// Reads the next message.
    pub(super) fn read_frame(&mut self, stream: &mut impl Source) -> Result<Frame, FrameError> {
        match self {
            Self::V1(magic, begun) => v1::read_frame(stream, &std::mem::take(begun), *magic),
            Self::V2(reader) => reader.read_frame(stream),
        }
    }
}

/// The way out of one connection.
#[derive(Debug)]
pub(super) enum Encoder {
    /// Plain.
    V1([u8; 4]),
    /// Encrypted.
    V2(v2::Writer),
}

impl Encoder {
    /// Returns the bytes of a message.
    pub(super) fn encode(&mut self, command: &str, payload: &[u8]) -> Vec<u8> {
        match self {
            Self::V1(magic) => v1::encode(*magic, command, payload),
            Self::V2(writer) => writer.encode(command, payload),
        }
    }
}

/// What `getpeerinfo` tells of a connection's transport.
#[derive(Clone, Debug)]
pub(crate) struct TransportInfo {
    /// Its name.
    pub(crate) name: &'static str,
    /// The number that both ends know and nobody between them; empty for the plain one.
    pub(crate) session_id: String,
}

impl TransportInfo {
    pub(super) const fn v1() -> Self {
        Self { name: "v1", session_id: String::new() }
    }

    /// Of a connection on which the two have not agreed yet.
    pub(super) const fn detecting() -> Self {
        Self { name: "detecting", session_id: String::new() }
    }

    pub(super) const fn v2(session_id: String) -> Self {
        Self { name: "v2", session_id }
    }
}

/// Reads the payload of a message; memory is taken as its bytes arrive.
fn read_payload(stream: &mut impl Source, length: usize) -> Result<Vec<u8>, FrameError> {
    /// Memory that is taken at a time.
    const PIECE_BYTES: usize = 64 << 10;
    let mut payload = Vec::new();
    while payload.len() < length {
        let (start, piece) = (payload.len(), PIECE_BYTES.min(length - payload.len()));
        stream.claim(piece).map_err(FrameError::Io)?;
        payload.resize(start + piece, 0);
        let space = payload.get_mut(start..).unwrap_or_default();
        stream.read_exact(space).map_err(FrameError::Io)?;
    }
    Ok(payload)
}
