//! HTTP as it goes over the wire, for requests that no client library would send.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use cofferdam_tests::process::Node;
use serde_json::Value;

/// How long a reply may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A reply.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("UTF-8").trim_end()
    }
}

/// A connection to a node's RPC server.
pub(crate) struct Connection {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Connection {
    pub(crate) fn open(node: &Node) -> Self {
        Self::open_at([127, 0, 0, 1].into(), node)
    }

    /// Connects to, and so from, another address of this machine.
    pub(crate) fn open_at(ip: IpAddr, node: &Node) -> Self {
        let stream = TcpStream::connect((ip, node.rpc_port())).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        Self { stream, read: Vec::new() }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("sent");
    }

    /// As [`Connection::send`], to a node that may have hung up.
    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends a call with a password, and headers besides.
    pub(crate) fn call(&mut self, secret: &str, headers: &str, body: &str) {
        self.send(&request(secret, headers, body));
    }

    /// Reads a reply; `None` if the connection was closed instead.
    pub(crate) fn reply(&mut self) -> Option<Reply> {
        let end = loop {
            if let Some(at) = self.read.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            if !self.read_more() {
                return None;
            }
        };
        let head = String::from_utf8(self.read.drain(..end).collect()).expect("UTF-8");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
        });
        let length: usize = length.unwrap_or_default();
        while self.read.len() < length {
            assert!(self.read_more(), "the body is cut off");
        }
        let body = self.read.drain(..length).collect();
        Some(Reply { status: status.expect("a status"), head, body })
    }

    /// Returns whether the other end closes the connection and sends nothing more.
    pub(crate) fn is_closed(&mut self) -> bool {
        self.read.is_empty() && !self.read_more()
    }

    fn read_more(&mut self) -> bool {
        let mut piece = [0; 16 << 10];
        loop {
            match self.stream.read(&mut piece) {
                Ok(count) => {
                    self.read.extend_from_slice(&piece[..count]);
                    return count > 0;
                }
                // With a time limit, a read ends so when the test is stopped and continued
                // (signal(7)).
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return false,
                Err(error) => panic!("no answer: {error}"),
            }
        }
    }
}

/// Returns the bytes of a call.
pub(crate) fn request(secret: &str, headers: &str, body: &str) -> Vec<u8> {
    let encoded = base64(secret.as_bytes());
    let length = body.len();
    format!(
        "POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Basic {encoded}\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    )
    .into_bytes()
}

/// Returns the secret of a node on regtest.
pub(crate) fn cookie(dir: &Path) -> String {
    std::fs::read_to_string(dir.join("regtest/.cookie")).expect("the cookie")
}

/// Calls a method on a connection of its own.
pub(crate) fn post(node: &Node, secret: &str, body: &str) -> Reply {
    let mut connection = Connection::open(node);
    connection.call(secret, "", body);
    connection.reply().expect("a reply")
}

/// Asks for a path without a password.
pub(crate) fn get(node: &Node, path: &str) -> Reply {
    let mut connection = Connection::open(node);
    connection.send(format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").as_bytes());
    connection.reply().expect("a reply")
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digit = |bits: u32| char::from(DIGITS[usize::try_from(bits & 63).expect("small")]);
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let all = three.iter().fold(0, |all, byte| (all << 8) | u32::from(*byte));
        let all = all << (8 * (3 - three.len()));
        text.push(digit(all >> 18));
        text.push(digit(all >> 12));
        text.push(if three.len() > 1 { digit(all >> 6) } else { '=' });
        text.push(if three.len() > 2 { digit(all) } else { '=' });
    }
    text
}
