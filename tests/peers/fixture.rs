//! A node with a log to look at, and a peer that says what it is told to.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use bitcoin::hashes::{Hash as _, sha256d};
use cofferdam_tests::process::{Node, wait_for};
use serde_json::Value;

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_cofferdam-under-test");
const MAGIC: [u8; 4] = [0xfa, 0xbf, 0xb5, 0xda];
const MAGIC_OF_SIGNET: [u8; 4] = [0x0a, 0x03, 0xcf, 0x40];

/// How long a peer waits for bytes before the test has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// A node that writes all it does into its log.
pub(crate) struct Logged {
    pub(crate) node: Node,
    dir: tempfile::TempDir,
    chain: &'static str,
    /// Whether it opens connections by itself.
    is_automatic: bool,
}

impl Logged {
    /// Starts a node that connects only to whom it is told to.
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().expect("a temporary directory"), "regtest", false, args)
    }

    /// As [`Logged::start`], on signet.
    pub(crate) fn on_signet(args: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().expect("a temporary directory"), "signet", false, args)
    }

    /// Starts a node that opens connections by itself.
    pub(crate) fn automatic(args: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().expect("a temporary directory"), "regtest", true, args)
    }

    fn start_in(
        dir: tempfile::TempDir,
        chain: &'static str,
        is_automatic: bool,
        args: &[&str],
    ) -> Self {
        let mut all = vec!["-backend=sled", "-debug", "-loglevel=trace"];
        all.extend((!is_automatic).then_some("-connect=0"));
        all.extend(args);
        let node = Node::start_on(chain, BINARY, dir.path(), &all);
        Self { node, dir, chain, is_automatic }
    }

    /// Stops the node and starts it again with other options.
    pub(crate) fn restart(self, args: &[&str]) -> Self {
        self.node.stop();
        Self::start_in(self.dir, self.chain, self.is_automatic, args)
    }

    /// Returns the whole log.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.file("debug.log")).expect("a log")
    }

    /// Returns the path of a file of the chain's folder.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(self.chain).join(name)
    }

    /// Waits until a line with this text is in the log.
    pub(crate) fn logged(&self, text: &str) {
        wait_for(text, || self.log().contains(text).then_some(()));
    }

    /// Waits until a line with this text is in the log, and returns it.
    pub(crate) fn line(&self, text: &str) -> String {
        self.logged(text);
        let log = self.log();
        log.lines().find(|line| line.contains(text)).expect("it was there").to_owned()
    }

    /// Calls a method that has to work and whose answer is of no interest.
    pub(crate) fn call(&self, method: &str, args: &[&str]) {
        let _ = self.node.rpc(method, args);
    }

    /// What `getpeerinfo` says of the only peer.
    pub(crate) fn peer(&self) -> Value {
        let mut peers = self.node.rpc("getpeerinfo", &[]);
        assert_eq!(peers.as_array().map(Vec::len), Some(1), "{peers}");
        peers[0].take()
    }

    pub(crate) fn wait_for_peers(&self, count: u64) {
        wait_for("the number of connections", || {
            (self.node.rpc("getconnectioncount", &[]) == count).then_some(())
        });
    }

    /// Lets the node connect to us.
    pub(crate) fn connects(&self, kind: &str) -> Peer {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound").to_string();
        self.call("addconnection", &[&address, kind, "false"]);
        Peer::new(listener.accept().expect("the node").0)
    }
}

/// The other end of a connection.
pub(crate) struct Peer {
    stream: TcpStream,
    magic: [u8; 4],
}

impl Peer {
    pub(crate) fn new(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        Self { stream, magic: MAGIC }
    }

    /// Connects to a node, and says nothing.
    pub(crate) fn connect(node: &Logged) -> Self {
        let port = node.node.p2p_port;
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("the node listens");
        let magic = if node.chain == "signet" { MAGIC_OF_SIGNET } else { MAGIC };
        Self { magic, ..Self::new(stream) }
    }

    /// Connects and shakes hands.
    pub(crate) fn ready(node: &Logged) -> Self {
        Self::connect(node).shake_hands(&[])
    }

    /// Shakes hands, with wishes.
    pub(crate) fn shake_hands(mut self, wishes: &[&str]) -> Self {
        self.send("version", &version(70_016, 9));
        self.expect("verack");
        for wish in wishes.iter().chain(&["verack"]) {
            self.send(wish, &[]);
        }
        self.expect("ping");
        self
    }

    pub(crate) fn send_raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the node reads");
    }

    pub(crate) fn send(&mut self, command: &str, payload: &[u8]) {
        self.send_raw(&frame_of(self.magic, command, payload));
    }

    /// As [`Peer::send_raw`]; none if the node has hung up.
    pub(crate) fn try_send_raw(&mut self, bytes: &[u8]) -> Option<()> {
        self.stream.write_all(bytes).ok()
    }

    /// As [`Peer::send`]; none if the node has hung up.
    pub(crate) fn try_send(&mut self, command: &str, payload: &[u8]) -> Option<()> {
        self.try_send_raw(&frame_of(self.magic, command, payload))
    }

    /// Reads a message; none if the node hung up.
    pub(crate) fn read(&mut self) -> Option<(String, Vec<u8>)> {
        let mut header = [0; 24];
        self.stream.read_exact(&mut header).ok()?;
        assert_eq!(header[..4], self.magic);
        let command = String::from_utf8_lossy(&header[4..16]).trim_matches('\0').to_owned();
        let length = u32::from_le_bytes(header[16..20].try_into().expect("four bytes"));
        let mut payload = vec![0; usize::try_from(length).expect("small")];
        self.stream.read_exact(&mut payload).ok()?;
        assert_eq!(header[20..], checksum(&payload));
        Some((command, payload))
    }

    /// Reads up to a message of this type, and returns the types before it and its content.
    pub(crate) fn expect(&mut self, wanted: &str) -> (Vec<String>, Vec<u8>) {
        let mut before = Vec::new();
        loop {
            let (command, payload) =
                self.read().unwrap_or_else(|| panic!("no {wanted} after {before:?}"));
            if command == wanted {
                return (before, payload);
            }
            before.push(command);
        }
    }

    /// Sends a ping and waits for its pong: all that was sent before has been handled then.
    pub(crate) fn settle(&mut self) {
        self.send("ping", &77_u64.to_le_bytes());
        while self.expect("pong").1 != 77_u64.to_le_bytes() {}
    }

    /// Reads until the node hangs up.
    pub(crate) fn wait_for_end(&mut self) {
        while self.read().is_some() {}
    }
}

/// A version message of a peer with these services.
pub(crate) fn version(number: u32, services: u64) -> Vec<u8> {
    let mut payload = number.to_le_bytes().to_vec();
    payload.extend(services.to_le_bytes());
    payload.extend([0; 8 + 26 + 26]);
    payload.extend(5_u64.to_le_bytes());
    payload.extend(b"\x06/test/");
    payload.extend([0; 5]);
    payload
}

pub(crate) fn frame(command: &str, payload: &[u8]) -> Vec<u8> {
    frame_of(MAGIC, command, payload)
}

fn frame_of(magic: [u8; 4], command: &str, payload: &[u8]) -> Vec<u8> {
    let mut frame = magic.to_vec();
    frame.extend(command.bytes().chain(std::iter::repeat(0)).take(12));
    frame.extend(u32::try_from(payload.len()).expect("small").to_le_bytes());
    frame.extend(checksum(payload));
    frame.extend(payload);
    frame
}

fn checksum(payload: &[u8]) -> [u8; 4] {
    sha256d::Hash::hash(payload).to_byte_array()[..4].try_into().expect("four bytes")
}
