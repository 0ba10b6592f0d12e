//! The frame of the v1 transport: magic, command, length, checksum, payload.
//!
//! A header is judged before a byte of payload is read, and memory for a payload is taken as its
//! bytes arrive: a peer that claims four megabytes has to send them.

use std::io::{self, Read};

use bitcoin::hashes::{Hash as _, sha256d};

/// Bytes of a frame before its payload.
pub(crate) const HEADER_BYTES: usize = 24;

/// Most bytes of a payload (Bitcoin Core's `MAX_PROTOCOL_MESSAGE_LENGTH`).
pub(crate) const PAYLOAD_BYTES_MAX: u32 = 4_000_000;

/// Bytes of the command field, padded with zeros.
const COMMAND_BYTES: usize = 12;

/// A frame whose header, length and checksum are right.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Frame {
    /// The command.
    pub(crate) command: String,
    /// The payload.
    pub(crate) payload: Vec<u8>,
}

/// Why no frame came.
#[derive(Debug)]
pub(crate) enum FrameError {
    /// The connection ended or failed.
    Io(io::Error),
    /// The stream cannot be read on: the peer has to go.
    Fatal(String),
    /// One message was damaged, the next may be right (as in Bitcoin Core, which skips it).
    Skip(String),
}

/// Encodes a frame.
pub(crate) fn encode(magic: [u8; 4], command: &str, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEADER_BYTES + payload.len());
    frame.extend_from_slice(&magic);
    frame.extend(command.bytes().chain(std::iter::repeat(0)).take(COMMAND_BYTES));
    let length = u32::try_from(payload.len()).expect("no message of ours is 4 GiB long");
    frame.extend_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(&checksum(payload));
    frame.extend_from_slice(payload);
    frame
}

/// Reads the next frame.
pub(crate) fn read_frame(stream: &mut impl Read, magic: [u8; 4]) -> Result<Frame, FrameError> {
    let mut header = [0; HEADER_BYTES];
    stream.read_exact(&mut header).map_err(FrameError::Io)?;
    let [m0, m1, m2, m3, command @ .., l0, l1, l2, l3, c0, c1, c2, c3] = header;
    let command: [u8; COMMAND_BYTES] = command;
    if [m0, m1, m2, m3] != magic {
        return Err(FrameError::Fatal("Header error: Wrong MessageStart received".into()));
    }
    let name = command_name(&command);
    let length = u32::from_le_bytes([l0, l1, l2, l3]);
    if length > PAYLOAD_BYTES_MAX {
        let name = name.unwrap_or_default();
        return Err(FrameError::Fatal(format!(
            "Header error: Size too large ({name}, {length} bytes)"
        )));
    }
    let mut payload = Vec::new();
    let read = stream.take(u64::from(length)).read_to_end(&mut payload).map_err(FrameError::Io)?;
    if read != usize::try_from(length).unwrap_or(usize::MAX) {
        return Err(FrameError::Io(io::ErrorKind::UnexpectedEof.into()));
    }
    let Some(command) = name else {
        return Err(FrameError::Skip("Header error: Invalid message type".into()));
    };
    if checksum(&payload) != [c0, c1, c2, c3] {
        return Err(FrameError::Skip(format!(
            "Header error: Wrong checksum ({command}, {length} bytes)"
        )));
    }
    Ok(Frame { command, payload })
}

fn checksum(payload: &[u8]) -> [u8; 4] {
    let [a, b, c, d, ..] = sha256d::Hash::hash(payload).to_byte_array();
    [a, b, c, d]
}

/// Printable characters, then only zeros.
fn command_name(field: &[u8; COMMAND_BYTES]) -> Option<String> {
    let length = field.iter().position(|byte| *byte == 0).unwrap_or(COMMAND_BYTES);
    let (name, padding) = field.split_at(length);
    let is_sound = name.iter().all(|byte| (0x20..0x7f).contains(byte))
        && padding.iter().all(|byte| *byte == 0);
    is_sound.then(|| String::from_utf8_lossy(name).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAGIC: [u8; 4] = [0xfa, 0xbf, 0xb5, 0xda];

    fn read(bytes: &[u8]) -> Result<Frame, FrameError> {
        read_frame(&mut &bytes[..], MAGIC)
    }

    #[test]
    fn what_is_encoded_is_read() {
        let frame = encode(MAGIC, "ping", &[1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(frame.len(), 32);
        let read = read(&frame).unwrap();
        assert_eq!((read.command.as_str(), read.payload.len()), ("ping", 8));
        // The empty payload's checksum is well known.
        assert_eq!(encode(MAGIC, "verack", &[])[16..], [0, 0, 0, 0, 0x5d, 0xf6, 0xe0, 0xe2]);
    }

    #[test]
    fn every_cut_is_the_end_of_the_connection() {
        let frame = encode(MAGIC, "ping", &[1, 2, 3]);
        for cut in 0..frame.len() {
            assert!(matches!(read(&frame[..cut]), Err(FrameError::Io(_))), "cut at {cut}");
        }
    }

    #[test]
    fn a_header_is_judged_before_its_payload() {
        let mut frame = encode(MAGIC, "block", &[]);
        frame[16..20].copy_from_slice(&(PAYLOAD_BYTES_MAX + 1).to_le_bytes());
        let Err(FrameError::Fatal(text)) = read(&frame) else { panic!("too large") };
        assert_eq!(text, "Header error: Size too large (block, 4000001 bytes)");
        let wrong = encode([0; 4], "ping", &[]);
        assert!(matches!(read(&wrong), Err(FrameError::Fatal(_))));
    }

    #[test]
    fn damaged_messages_are_skipped_and_the_stream_goes_on() {
        let mut bytes = encode(MAGIC, "ping", &[1]);
        bytes[24] ^= 1;
        bytes.extend(encode(MAGIC, "a\u{1}b", &[]));
        bytes.extend(encode(MAGIC, "pong", &[]));
        let mut stream = &bytes[..];
        for _ in 0..2 {
            assert!(matches!(read_frame(&mut stream, MAGIC), Err(FrameError::Skip(_))));
        }
        assert_eq!(read_frame(&mut stream, MAGIC).unwrap().command, "pong");
    }
}
