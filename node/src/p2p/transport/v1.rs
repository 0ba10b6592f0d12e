//! The frame of the v1 transport: magic, command, length, checksum, payload.
//!
//! A header is judged before a byte of payload is read, and memory for a payload is taken as its
//! bytes arrive: a peer that claims four megabytes has to send them.

use std::io::Read as _;

use bitcoin::hashes::{Hash as _, sha256d};
use bitcoin::hex::DisplayHex as _;

use super::{Frame, FrameError, Source, read_payload};

/// Bytes of a frame before its payload.
pub(crate) const HEADER_BYTES: usize = 24;

/// Most bytes of a payload (Bitcoin Core's `MAX_PROTOCOL_MESSAGE_LENGTH`).
pub(crate) const PAYLOAD_BYTES_MAX: u32 = 4_000_000;

/// Bytes of the command field, padded with zeros.
const COMMAND_BYTES: usize = 12;

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

/// Reads the next message, of which `begun` was read already.
pub(crate) fn read_frame(
    stream: &mut impl Source,
    begun: &[u8],
    magic: [u8; 4],
) -> Result<Frame, FrameError> {
    let mut header = [0; HEADER_BYTES];
    begun.chain(&mut *stream).read_exact(&mut header).map_err(FrameError::Io)?;
    let [m0, m1, m2, m3, command @ .., l0, l1, l2, l3, c0, c1, c2, c3] = header;
    let (command, their_magic): ([u8; COMMAND_BYTES], _) = (command, [m0, m1, m2, m3]);
    if their_magic != magic {
        let text = format!("Header error: Wrong MessageStart {} received", their_magic.as_hex());
        return Err(FrameError::Fatal(text));
    }
    let length = u32::from_le_bytes([l0, l1, l2, l3]);
    let shown = shown(&command);
    let size = match usize::try_from(length) {
        Ok(size) if length <= PAYLOAD_BYTES_MAX => size,
        _ => {
            let text = format!("Header error: Size too large ({shown}, {length} bytes)");
            return Err(FrameError::Fatal(text));
        }
    };
    let payload = read_payload(stream, size)?;
    let wire_bytes = HEADER_BYTES + size;
    let (ours, theirs) = (checksum(&payload), [c0, c1, c2, c3]);
    if ours != theirs {
        let (ours, theirs) = (ours.as_hex(), theirs.as_hex());
        let text =
            format!("Wrong checksum ({shown}, {length} bytes), expected {ours} was {theirs}");
        return Err(FrameError::Skip { reason: format!("Header error: {text}"), wire_bytes });
    }
    let Some(command) = command_name(&command) else {
        let reason = format!("Header error: Invalid message type ({shown}, {length} bytes)");
        return Err(FrameError::Skip { reason, wire_bytes });
    };
    Ok(Frame { command, payload, wire_bytes })
}

fn checksum(payload: &[u8]) -> [u8; 4] {
    let [a, b, c, d, ..] = sha256d::Hash::hash(payload).to_byte_array();
    [a, b, c, d]
}

/// Printable characters, then only zeros.
pub(super) fn command_name(field: &[u8; COMMAND_BYTES]) -> Option<String> {
    let length = field.iter().position(|byte| *byte == 0).unwrap_or(COMMAND_BYTES);
    let (name, padding) = field.split_at(length);
    let is_sound = name.iter().all(|byte| (0x20..0x7f).contains(byte))
        && padding.iter().all(|byte| *byte == 0);
    is_sound.then(|| String::from_utf8_lossy(name).into_owned())
}

/// What of a name can be printed (Core's `SanitizeString`).
fn shown(field: &[u8; COMMAND_BYTES]) -> String {
    let name = field.iter().take_while(|byte| **byte != 0).map(|byte| char::from(*byte));
    name.filter(|c| c.is_ascii_alphanumeric() || " .,;-_/:?@()".contains(*c)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAGIC: [u8; 4] = [0xfa, 0xbf, 0xb5, 0xda];

    fn read(bytes: &[u8]) -> Result<Frame, FrameError> {
        read_frame(&mut &bytes[..], &[], MAGIC)
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
        let wrong = encode([0xff; 4], "ping", &[]);
        let Err(FrameError::Fatal(text)) = read(&wrong) else { panic!("wrong magic") };
        assert_eq!(text, "Header error: Wrong MessageStart ffffffff received");
    }

    #[test]
    fn damaged_messages_are_skipped_and_the_stream_goes_on() {
        let mut bytes = encode(MAGIC, "ping", &[1]);
        bytes[24] ^= 1;
        bytes.extend(encode(MAGIC, "a\u{1}b", &[]));
        bytes.extend(encode(MAGIC, "pong", &[]));
        let mut stream = &bytes[..];
        let mut skipped = || match read_frame(&mut stream, &[], MAGIC) {
            Err(FrameError::Skip { reason, wire_bytes }) => (reason, wire_bytes),
            other => panic!("{other:?}"),
        };
        let text = "Header error: Wrong checksum (ping, 1 bytes), expected 1406e058 was 9c12cfdc";
        assert_eq!(skipped(), (text.into(), 25));
        assert_eq!(skipped(), ("Header error: Invalid message type (ab, 0 bytes)".into(), 24));
        assert_eq!(read_frame(&mut stream, &[], MAGIC).unwrap().command, "pong");
    }
}
