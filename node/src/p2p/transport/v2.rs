//! The encrypted transport (BIP-0324): keys are exchanged, each side proves that it has them, then
//! every message is a packet that says nothing to who listens, not even its length.
//!
//! The ciphers and the order of the handshake are the crate `bip324`'s; reading with bounds, telling
//! a plain peer by its first bytes and the names of messages are here. What an error is called is
//! Bitcoin Core's wording (`V2Transport` in `net.cpp`).

use std::fmt;
use std::io;

use bip324::{
    FillBytes, GarbageResult, Handshake, InboundCipher, Initialized, OutboundCipher, PacketType,
    ReceivedKey, Role, SentVersion, VersionResult,
};
use bitcoin::hex::DisplayHex as _;
use bitcoin::secp256k1::Secp256k1;

use super::{Frame, FrameError, Source, read_payload, v1};
use crate::data_dir::fill_random;

/// Bytes of a key, of the mark behind the garbage, and the most of garbage.
const KEY_BYTES: usize = 64;
const TERMINATOR_BYTES: usize = 16;
const GARBAGE_BYTES_MAX: usize = 4095;

/// Bytes of a packet besides its contents: length, flags, tag; the last two are in its length.
const LENGTH_BYTES: usize = 3;
const FLAGS_BYTES: usize = 1;
const TAG_BYTES: usize = 16;

/// Bytes of a type that has no number.
const TYPE_BYTES: usize = 12;

/// Bytes by which a plain peer is known: the magic and the type of its first message.
pub(crate) const PREFIX_BYTES: usize = 16;
const VERSION_TYPE: &[u8; TYPE_BYTES] = b"version\0\0\0\0\0";

/// Types by their number; a type without one is spelled.
const TYPES: [&str; 38] = [
    "",
    "addr",
    "block",
    "blocktxn",
    "cmpctblock",
    "feefilter",
    "filteradd",
    "filterclear",
    "filterload",
    "getblocks",
    "getblocktxn",
    "getdata",
    "getheaders",
    "headers",
    "inv",
    "mempool",
    "merkleblock",
    "notfound",
    "ping",
    "pong",
    "sendcmpct",
    "tx",
    "getcfilters",
    "cfilter",
    "getcfheaders",
    "cfheaders",
    "getcfcheckpt",
    "cfcheckpt",
    "addrv2",
    "",
    "",
    "",
    "",
    "",
    "",
    "",
    "",
    "feature",
];

/// What became of the first bytes of a connection.
#[derive(Debug)]
pub(crate) enum Opened {
    /// The peer is a plain one; these bytes of it were read.
    Plain([u8; PREFIX_BYTES]),
    /// Both have the keys.
    Encrypted(Box<Session>),
}

/// The two directions of an encrypted connection.
#[derive(Debug)]
pub(crate) struct Session {
    /// The way in.
    pub(crate) reader: Reader,
    /// The way out.
    pub(crate) writer: Writer,
    /// The number that both ends know.
    pub(crate) session_id: String,
}

/// Why there are no keys.
#[derive(Debug)]
pub(crate) enum OpenError {
    /// The connection ended before a byte came: the peer may know the plain transport only.
    Silent(io::Error),
    /// As of a message.
    Frame(FrameError),
}

impl From<FrameError> for OpenError {
    fn from(error: FrameError) -> Self {
        Self::Frame(error)
    }
}

/// Exchanges keys; `send` takes bytes for the peer.
pub(crate) fn open(
    stream: &mut impl Source,
    magic: [u8; 4],
    initiator: bool,
    mut send: impl FnMut(Vec<u8>),
) -> Result<Opened, OpenError> {
    let mut start = Vec::with_capacity(KEY_BYTES);
    if !initiator && let Some(prefix) = read_prefix(stream, magic, &mut start)? {
        return Ok(Opened::Plain(prefix));
    }
    let role = if initiator { Role::Initiator } else { Role::Responder };
    let garbage = random_garbage()?;
    let mut bytes = vec![0; Handshake::<Initialized>::send_key_len(Some(&garbage))];
    let handshake = Handshake::<Initialized>::new_with_rng(
        magic,
        role,
        &mut Seed::new()?,
        &Secp256k1::signing_only(),
    );
    let sent = handshake.and_then(|sent| sent.send_key(Some(&garbage), &mut bytes));
    let sent = sent.map_err(|error| fatal(&format!("no keys: {error}")))?;
    send(bytes);
    let theirs = read_key(stream, initiator, start)?;
    let keys = match sent.receive_key(theirs) {
        Ok(keys) => keys,
        Err(bip324::Error::V1Protocol) => return Err(never_understood(stream).into()),
        Err(error) => return Err(fatal(&format!("no keys: {error}")).into()),
    };
    let sent = send_version(keys, send)?;
    Ok(Opened::Encrypted(Box::new(receive_version(stream, sent)?)))
}

/// Reads as long as the peer may be a plain one; returns the bytes if it is.
fn read_prefix(
    stream: &mut impl Source,
    magic: [u8; 4],
    read: &mut Vec<u8>,
) -> Result<Option<[u8; PREFIX_BYTES]>, FrameError> {
    for expected in magic.iter().chain(VERSION_TYPE) {
        let byte = read_byte(stream).map_err(FrameError::Io)?;
        read.push(byte);
        if byte != *expected {
            return Ok(None);
        }
    }
    Ok(read.first_chunk().copied())
}

fn read_key(
    stream: &mut impl Source,
    initiator: bool,
    mut key: Vec<u8>,
) -> Result<[u8; KEY_BYTES], OpenError> {
    while key.len() < KEY_BYTES {
        let byte = read_byte(stream).map_err(|error| {
            let is_silent = initiator && key.is_empty();
            if is_silent { OpenError::Silent(error) } else { FrameError::Io(error).into() }
        })?;
        key.push(byte);
        if !initiator
            && let Some((magic, name)) = key.split_first_chunk::<4>()
            && name == VERSION_TYPE
        {
            let magic = magic.as_hex();
            return Err(fatal(&format!("V1 peer with wrong MessageStart {magic}")).into());
        }
    }
    key.first_chunk().copied().ok_or_else(|| fatal("no key").into())
}

/// Reads what a peer sends whose key begins like a plain peer's message. Of random keys one in four
/// billion does, and the crate takes none of them; the peer is not told apart from one whose
/// garbage never ends, nor from one that says nothing.
fn never_understood(stream: &mut impl Source) -> FrameError {
    for _ in 0..GARBAGE_BYTES_MAX + TERMINATOR_BYTES {
        if let Err(error) = read_byte(stream) {
            return FrameError::Io(error);
        }
    }
    fatal("missing garbage terminator")
}

fn send_version(
    keys: Handshake<ReceivedKey<'_>>,
    mut send: impl FnMut(Vec<u8>),
) -> Result<Handshake<SentVersion>, FrameError> {
    let mut bytes = vec![0; Handshake::<ReceivedKey<'_>>::send_version_len(None)];
    let sent = keys.send_version(&mut bytes, None);
    let sent = sent.map_err(|error| fatal(&format!("no keys: {error}")))?;
    send(bytes);
    Ok(sent)
}

/// Reads garbage, its mark and the version packet, with decoys before it.
fn receive_version(
    stream: &mut impl Source,
    mut handshake: Handshake<SentVersion>,
) -> Result<Session, FrameError> {
    let mut garbage = Vec::new();
    let (buffer, mut handshake, used) = loop {
        garbage.push(read_byte(stream).map_err(FrameError::Io)?);
        let is_last = garbage.len() == GARBAGE_BYTES_MAX + TERMINATOR_BYTES;
        // Looking for the mark takes time: once for all that has come.
        if garbage.len() < TERMINATOR_BYTES || (stream.has_more() && !is_last) {
            continue;
        }
        let buffer = garbage.clone();
        match handshake.receive_garbage(&garbage) {
            Ok(GarbageResult::FoundGarbage { handshake, consumed_bytes }) => {
                break (buffer, handshake, consumed_bytes);
            }
            Ok(GarbageResult::NeedMoreData(same)) if !is_last => handshake = same,
            _ => return Err(fatal("missing garbage terminator")),
        }
    };
    let mut stream = Rest { bytes: buffer.get(used..).unwrap_or_default(), stream };
    loop {
        let length = read_length(&mut stream, |bytes| {
            handshake.decrypt_packet_len(bytes).unwrap_or(usize::MAX)
        })?;
        let mut packet = read_payload(&mut stream, length)?;
        match handshake.receive_version(&mut packet) {
            Ok(VersionResult::Decoy(next)) => {
                handshake = next;
                stream.give_back();
            }
            Ok(VersionResult::Complete { cipher }) => {
                let session_id = cipher.id().to_lower_hex_string();
                let (inbound, outbound) = cipher.into_split();
                let rest = stream.bytes.to_vec();
                let reader = Reader { cipher: inbound, rest };
                return Ok(Session { reader, writer: Writer(outbound), session_id });
            }
            Err(_) => return Err(undecipherable(length)),
        }
    }
}

/// The way in.
pub(crate) struct Reader {
    cipher: InboundCipher,
    /// Bytes that came with the handshake.
    rest: Vec<u8>,
}

impl Reader {
    /// Reads the next message; decoys are passed over.
    pub(crate) fn read_frame(&mut self, stream: &mut impl Source) -> Result<Frame, FrameError> {
        let rest = std::mem::take(&mut self.rest);
        let mut stream = Rest { bytes: &rest, stream };
        let result = self.read_from(&mut stream);
        let left = stream.bytes.to_vec();
        self.rest = left;
        result
    }

    fn read_from(&mut self, stream: &mut impl Source) -> Result<Frame, FrameError> {
        loop {
            let length = read_length(stream, |bytes| self.cipher.decrypt_packet_len(bytes))?;
            let mut packet = read_payload(stream, length)?;
            let Ok((kind, _)) = self.cipher.decrypt_in_place(&mut packet, None) else {
                return Err(undecipherable(length));
            };
            if kind == PacketType::Genuine {
                packet.truncate(length - TAG_BYTES);
                return message(packet, FLAGS_BYTES, length + LENGTH_BYTES);
            }
            stream.give_back();
        }
    }
}

/// The way out.
pub(crate) struct Writer(OutboundCipher);

impl Writer {
    /// Returns the packet of a message.
    pub(crate) fn encode(&mut self, command: &str, payload: &[u8]) -> Vec<u8> {
        let mut contents = Vec::with_capacity(1 + TYPE_BYTES + payload.len());
        let number = TYPES.iter().position(|name| *name == command && !command.is_empty());
        match number.and_then(|number| u8::try_from(number).ok()) {
            Some(number) => contents.push(number),
            None => {
                contents.push(0);
                contents.extend(command.bytes().chain(std::iter::repeat(0)).take(TYPE_BYTES));
            }
        }
        contents.extend_from_slice(payload);
        let mut packet = vec![0; OutboundCipher::encryption_buffer_len(contents.len())];
        self.0
            .encrypt(&contents, &mut packet, PacketType::Genuine, None)
            .expect("the buffer has the size that was asked for");
        packet
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reader")
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Writer")
    }
}

/// Reads a packet's length; what is returned counts flags and tag.
fn read_length(
    stream: &mut impl Source,
    decrypt: impl FnOnce([u8; LENGTH_BYTES]) -> usize,
) -> Result<usize, FrameError> {
    let max = 1 + TYPE_BYTES + usize::try_from(v1::PAYLOAD_BYTES_MAX).unwrap_or(usize::MAX);
    let mut bytes = [0; LENGTH_BYTES];
    stream.read_exact(&mut bytes).map_err(FrameError::Io)?;
    let length = decrypt(bytes);
    let contents = length.saturating_sub(FLAGS_BYTES + TAG_BYTES);
    if contents > max {
        return Err(fatal(&format!("packet too large ({contents} bytes)")));
    }
    Ok(length)
}

/// Takes a packet's contents apart, which begin at `start`.
pub(crate) fn message(
    mut packet: Vec<u8>,
    start: usize,
    wire_bytes: usize,
) -> Result<Frame, FrameError> {
    let contents = packet.get(start..).unwrap_or_default();
    let bytes = contents.len();
    let parsed = match contents.split_first() {
        Some((0, rest)) => rest
            .first_chunk::<TYPE_BYTES>()
            .and_then(v1::command_name)
            .map(|name| (name, 1 + TYPE_BYTES)),
        Some((number, _)) => TYPES.get(usize::from(*number)).map(|name| ((*name).to_owned(), 1)),
        None => None,
    };
    let Some((command, skip)) = parsed else {
        let reason = format!("V2 transport error: invalid message type ({bytes} bytes contents)");
        return Err(FrameError::Skip { reason, wire_bytes });
    };
    // Moved once: it may be a block.
    packet.drain(..start + skip);
    Ok(Frame { command, payload: packet, wire_bytes })
}

/// Bytes that were read already, and the stream behind them.
struct Rest<'a, S> {
    bytes: &'a [u8],
    stream: &'a mut S,
}

impl<S: Source> io::Read for Rest<'_, S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.bytes.is_empty() { self.stream.read(buffer) } else { self.bytes.read(buffer) }
    }
}

impl<S: Source> Source for Rest<'_, S> {
    fn claim(&mut self, bytes: usize) -> io::Result<()> {
        self.stream.claim(bytes)
    }

    fn give_back(&mut self) {
        self.stream.give_back();
    }

    fn has_more(&self) -> bool {
        !self.bytes.is_empty() || self.stream.has_more()
    }
}

/// Randomness for one key.
struct Seed([u8; 32]);

impl Seed {
    fn new() -> Result<Self, FrameError> {
        let mut seed = [0; 32];
        fill_random(&mut seed).map_err(|error| fatal(&format!("no keys: {error:#}")))?;
        Ok(Self(seed))
    }
}

impl FillBytes for Seed {
    fn fill_bytes(&mut self, dest: &mut [u8; 32]) {
        *dest = self.0;
    }
}

/// Bytes of any length, so that nothing about a connection is always the same.
fn random_garbage() -> Result<Vec<u8>, FrameError> {
    let mut length = [0; 2];
    let no = |error| fatal(&format!("no garbage: {error:#}"));
    fill_random(&mut length).map_err(no)?;
    let mut garbage = vec![0; usize::from(u16::from_le_bytes(length)) % (GARBAGE_BYTES_MAX + 1)];
    fill_random(&mut garbage).map_err(no)?;
    Ok(garbage)
}

fn read_byte(stream: &mut impl Source) -> io::Result<u8> {
    let mut byte = [0];
    stream.read_exact(&mut byte)?;
    let [byte] = byte;
    Ok(byte)
}

fn fatal(text: &str) -> FrameError {
    FrameError::Fatal(format!("V2 transport error: {text}"))
}

fn undecipherable(length: usize) -> FrameError {
    let contents = length.saturating_sub(FLAGS_BYTES + TAG_BYTES);
    fatal(&format!("packet decryption failure ({contents} bytes)"))
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    const MAGIC: [u8; 4] = [0xfa, 0xbf, 0xb5, 0xda];

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (ours, listener.accept().unwrap().0)
    }

    fn opened(stream: &TcpStream, initiator: bool) -> Result<Opened, OpenError> {
        let (mut reader, mut writer) = (stream, stream);
        open(&mut reader.try_clone().unwrap(), MAGIC, initiator, |bytes| {
            writer.write_all(&bytes).unwrap();
        })
        .inspect(|_| {
            let _ = reader.flush();
        })
    }

    fn session(stream: &TcpStream, initiator: bool) -> Session {
        match opened(stream, initiator) {
            Ok(Opened::Encrypted(session)) => *session,
            other => panic!("{other:?}"),
        }
    }

    fn failure(bytes: &[u8]) -> String {
        let (mut theirs, ours) = pair();
        theirs.write_all(bytes).unwrap();
        theirs.shutdown(std::net::Shutdown::Write).unwrap();
        match opened(&ours, false) {
            Err(OpenError::Frame(FrameError::Fatal(text))) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn both_ends_agree_and_messages_of_all_kinds_arrive() {
        let (mut a, mut b) = pair();
        let (mut ours, mut theirs) = std::thread::scope(|scope| {
            let theirs = scope.spawn(|| session(&b, false));
            (session(&a, true), theirs.join().unwrap())
        });
        assert_eq!(ours.session_id, theirs.session_id);
        assert_eq!(ours.session_id.len(), 64);
        for (command, payload) in
            [("ping", vec![7; 8]), ("verack", vec![]), ("block", vec![1; 70_000])]
        {
            let packet = ours.writer.encode(command, &payload);
            a.write_all(&packet).unwrap();
            let frame = theirs.reader.read_frame(&mut b).unwrap();
            let wire_bytes = packet.len();
            assert_eq!(frame, Frame { command: command.into(), payload, wire_bytes });
        }
        b.write_all(&theirs.writer.encode("pong", &[])).unwrap();
        assert_eq!(ours.reader.read_frame(&mut a).unwrap().command, "pong");
        a.write_all(&[0; 100]).unwrap();
        a.shutdown(std::net::Shutdown::Write).unwrap();
        assert!(theirs.reader.read_frame(&mut b).is_err());
    }

    /// A stream that counts what is held at a time.
    struct Metered {
        stream: TcpStream,
        held: usize,
        most: usize,
    }

    impl io::Read for Metered {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.stream.read(buffer)
        }
    }

    impl Source for Metered {
        fn claim(&mut self, bytes: usize) -> io::Result<()> {
            self.held += bytes;
            self.most = self.most.max(self.held);
            Ok(())
        }

        fn give_back(&mut self) {
            self.held = 0;
        }
    }

    /// Opens a connection with decoys before the version.
    fn session_after_decoys(mut stream: TcpStream, decoys: &[&[u8]]) -> Session {
        let (mut key, secp) = (vec![0; KEY_BYTES], Secp256k1::signing_only());
        let role = Role::Initiator;
        let mut seed = Seed::new().unwrap();
        let keys = Handshake::<Initialized>::new_with_rng(MAGIC, role, &mut seed, &secp).unwrap();
        let keys = keys.send_key(None, &mut key).unwrap();
        stream.write_all(&key).unwrap();
        let keys = keys.receive_key(read_key(&mut stream, true, Vec::new()).unwrap()).unwrap();
        let mut bytes = vec![0; Handshake::<ReceivedKey<'_>>::send_version_len(Some(decoys))];
        let sent = keys.send_version(&mut bytes, Some(decoys)).unwrap();
        stream.write_all(&bytes).unwrap();
        receive_version(&mut stream, sent).unwrap()
    }

    #[test]
    fn decoys_take_no_memory_once_they_were_read() {
        let (mut a, b) = pair();
        let decoy = [0; 50_000];
        let mut theirs = Metered { stream: b, held: 0, most: 0 };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut ours = session_after_decoys(a.try_clone().unwrap(), &[&decoy[..]; 3]);
                for _ in 0..3 {
                    let length = OutboundCipher::encryption_buffer_len(decoy.len());
                    let (cipher, mut packet) = (&mut ours.writer.0, vec![0; length]);
                    cipher.encrypt(&decoy, &mut packet, PacketType::Decoy, None).unwrap();
                    a.write_all(&packet).unwrap();
                }
                a.write_all(&ours.writer.encode("ping", &[7; 8])).unwrap();
            });
            let mut writer = theirs.stream.try_clone().unwrap();
            let send = |bytes: Vec<u8>| writer.write_all(&bytes).unwrap();
            let Ok(Opened::Encrypted(mut session)) = open(&mut theirs, MAGIC, false, send) else {
                panic!("no session");
            };
            assert_eq!(session.reader.read_frame(&mut theirs).unwrap().command, "ping");
        });
        assert!(theirs.most < 2 * decoy.len(), "{}", theirs.most);
    }

    #[test]
    fn a_plain_peer_is_known_by_its_first_bytes() {
        let (mut theirs, ours) = pair();
        theirs.write_all(&MAGIC).unwrap();
        theirs.write_all(VERSION_TYPE).unwrap();
        assert!(matches!(opened(&ours, false), Ok(Opened::Plain(_))));
        // Nothing was sent to it.
        drop(ours);
        assert_eq!(theirs.read(&mut [0]).unwrap(), 0);
        let text = failure(b"\x0a\x03\xcf\x40version\0\0\0\0\0somepayload");
        assert_eq!(text, "V2 transport error: V1 peer with wrong MessageStart 0a03cf40");
    }

    #[test]
    fn garbage_without_an_end_ends_the_connection() {
        let text = "V2 transport error: missing garbage terminator";
        assert_eq!(failure(&[0; KEY_BYTES + GARBAGE_BYTES_MAX + TERMINATOR_BYTES]), text);
    }

    #[test]
    fn a_peer_that_hangs_up_at_our_key_is_asked_again_in_plain() {
        let (theirs, ours) = pair();
        drop(theirs);
        assert!(matches!(opened(&ours, true), Err(OpenError::Silent(_))));
    }

    #[test]
    fn contents_that_name_no_type_are_skipped() {
        for contents in [vec![], vec![0, 1], vec![200], b"\0a\x01b\0\0\0\0\0\0\0\0\0".to_vec()] {
            assert!(matches!(message(contents, 0, 0), Err(FrameError::Skip { .. })));
        }
        assert_eq!(message(vec![7, 18, 9], 1, 0).unwrap().command, "ping");
    }
}
