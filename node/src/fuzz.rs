//! What a fuzzer calls: bytes in, a panic if a promise does not hold (targets in `node/fuzz`).
//!
//! | function | what it breaks |
//! |---|---|
//! | [`rpc_request`] | reading a body of a call: the reply is JSON with a status of Bitcoin Core's, or nothing |
//! | [`descriptor`], [`script`], [`address_text`] | texts that stand for scripts: written again they stand for the same |
//! | [`p2p_message`], [`p2p_stream`] | messages of peers: nothing may panic, what is understood is written to the same |
//! | [`peer_files`], [`user_files`] | files of the data directory |
//! | [`http_request`], [`p2p_session`] | a running node: it answers, whatever is asked |
//!
//! Each returns whether the bytes were *accepted*, so that a corpus can be asked for both answers.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use cofferdam_ibd::params::Network;
use serde_json::json;

pub use crate::p2p::fuzz::{p2p_message, p2p_session, p2p_stream, peer_files};
pub use crate::rpc::fuzz::{address_text, descriptor, http_request, rpc_request, script};

use crate::config::Config;
use crate::rpc::{RpcClient, fuzz::called};
use crate::settings::{FileText, dynamic_settings};
use crate::{Node, Shutdown, queue_file};

/// A fuzz target.
pub type Target = fn(&[u8]) -> bool;

/// A fuzz target that talks to a node.
pub type LiveTarget = fn(&LiveNode, &[u8]) -> bool;

/// The targets, by the names of their corpora.
pub const TARGETS: &[(&str, Target)] = &[
    ("rpc_request", rpc_request),
    ("descriptor", descriptor),
    ("script", script),
    ("address_text", address_text),
    ("p2p_message", p2p_message),
    ("p2p_stream", p2p_stream),
    ("peer_files", peer_files),
    ("user_files", user_files),
];

/// Those that talk to a node.
pub const LIVE_TARGETS: &[(&str, LiveTarget)] =
    &[("http_request", http_request), ("p2p_session", p2p_session)];

/// How long the node may take for an answer.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Blocks that there are to ask for.
const BLOCKS: u32 = 110;

/// A user who may call everything, one who may call what is fuzzed, and both passwords.
const OWNER: (&str, &str) = ("owner", "owner");
const FUZZER: &str = "fuzz:fuzz";
const FUZZER_HASHED: &str =
    "fuzz:salt$7a35be637e0f8d46a92598a0882b9a7e359e6bd2dfdd2c18da037ead2b615c2c";

/// Reads one of the files that people, other programs or a node before wrote, chosen by the first
/// byte. Returns whether it was read.
#[must_use]
pub fn user_files(data: &[u8]) -> bool {
    let Some((kind, bytes)) = data.split_first() else { return false };
    let text = std::str::from_utf8(bytes);
    match kind % 3 {
        0 => queue_file::decode(bytes).is_ok(),
        1 => text.is_ok_and(|text| FileText::parse(text).is_ok()),
        _ => text.is_ok_and(|text| dynamic_settings(text, Path::new("settings.json")).is_ok()),
    }
}

/// A node of regtest that runs while it is fuzzed.
#[derive(Debug)]
pub struct LiveNode {
    node: Node,
    /// Open as long as the node keeps it.
    http: Mutex<Option<BufReader<TcpStream>>>,
}

impl LiveNode {
    /// Starts one in an empty directory.
    ///
    /// # Errors
    ///
    /// Returns an error if it cannot be started.
    pub fn start(dir: &Path) -> Result<Self> {
        let mut config = Config::new(Network::Regtest, dir).map_err(anyhow::Error::msg)?;
        let any: SocketAddr = ([127, 0, 0, 1], 0).into();
        config.rpc.bind = vec![any];
        config.rpc.rest = true;
        config.rpc.user = Some((OWNER.0.into(), OWNER.1.into()));
        config.rpc.auth = vec![FUZZER_HASHED.into()];
        let methods: Vec<&str> = called().collect();
        config.rpc.whitelist = vec![format!("fuzz:{}", methods.join(","))];
        config.p2p.bind = vec![any];
        config.p2p.onion_bind = Vec::new();
        config.p2p.any_v6_port = None;
        config.p2p.automatic = false;
        config.p2p.dns_seed = false;
        config.mining.persist = false;
        let node = Node::start(&config, Shutdown::default())?;
        let live = Self { node, http: Mutex::default() };
        let secret = format!("{}:{}", OWNER.0, OWNER.1);
        let client = RpcClient::new(live.rpc_address()?.to_string(), &secret, Some(TIMEOUT));
        client
            .call("generatetodescriptor", &json!([BLOCKS, "raw(51)"]))
            .context("no blocks to ask for")?;
        Ok(live)
    }

    /// Stops it.
    ///
    /// # Errors
    ///
    /// Returns an error if the machine failed.
    pub fn stop(self) -> Result<()> {
        drop(self.http);
        self.node.stop()
    }

    fn rpc_address(&self) -> Result<SocketAddr> {
        self.node.rpc_addresses().first().copied().context("no RPC")
    }

    /// Connects as a peer.
    pub(crate) fn peer(&self) -> Result<TcpStream> {
        let address = self.node.p2p_addresses().first().copied().context("no peers")?;
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// Sends a request and returns the status and the body of the reply.
    ///
    /// # Panics
    ///
    /// Panics if there is none.
    pub(crate) fn request(&self, path: &str, body: &[u8]) -> (u16, Vec<u8>) {
        let mut open = self.http.lock().unwrap_or_else(PoisonError::into_inner);
        let stream = match open.take() {
            Some(stream) => stream,
            None => self.connect().expect("the node takes connections"),
        };
        let (status, body, rest) = exchange(stream, path, body).expect("an answer");
        *open = rest;
        (status, body)
    }

    fn connect(&self) -> Result<BufReader<TcpStream>> {
        let stream = TcpStream::connect(self.rpc_address()?)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_nodelay(true)?;
        Ok(BufReader::new(stream))
    }
}

/// A status, a body, and the connection if it is kept.
type Answer = (u16, Vec<u8>, Option<BufReader<TcpStream>>);

fn exchange(mut stream: BufReader<TcpStream>, path: &str, body: &[u8]) -> Result<Answer> {
    let method = if path == "/" || !body.is_empty() { "POST" } else { "GET" };
    let (user, length) = (crate::rpc::authorization(FUZZER), body.len());
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {user}\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.get_mut().write_all(&[head.as_bytes(), body].concat())?;
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let status = line.split(' ').nth(1).with_context(|| format!("no status: {line:?}"))?;
    let (status, mut length, mut is_kept) = (status.parse()?, 0, true);
    loop {
        line.clear();
        stream.read_line(&mut line)?;
        let field = line.trim_end().to_ascii_lowercase();
        match field.split_once(':') {
            Some(("content-length", value)) => length = value.trim().parse()?,
            Some(("connection", value)) => is_kept = value.trim() != "close",
            Some(_) => {}
            None if field.is_empty() => break,
            None => anyhow::bail!("no field: {line:?}"),
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok((status, body, is_kept.then_some(stream)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fewer files than that are not what the fuzzer left.
    const FILES_MIN: usize = 10;

    /// Runs a target over its corpus, and returns how many files there are.
    fn replay(name: &str, mut target: impl FnMut(&[u8]) -> bool) {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
        let (mut accepted, mut refused) = (0, 0);
        for entry in std::fs::read_dir(dir).expect("the corpus") {
            let path = entry.expect("readable").path();
            println!("{}", path.display());
            let bytes = std::fs::read(path).expect("readable");
            if target(&bytes) { accepted += 1 } else { refused += 1 }
        }
        assert!(accepted + refused >= FILES_MIN, "{name}: the corpus is gone");
        assert!(accepted > 0 && refused > 0, "{name}: {accepted} accepted, {refused} refused");
    }

    #[test]
    fn every_kept_input_breaks_no_promise() {
        for (name, target) in TARGETS {
            replay(name, target);
        }
    }

    #[test]
    fn a_running_node_answers_every_kept_input() {
        for (name, target) in LIVE_TARGETS {
            let dir = tempfile::tempdir().expect("a directory");
            let node = LiveNode::start(dir.path()).expect("a node");
            replay(name, |bytes| target(&node, bytes));
            node.stop().expect("no fault");
        }
    }

    #[test]
    fn every_corpus_has_its_target() {
        let names = TARGETS.iter().map(|(name, _)| *name);
        let names: Vec<&str> = names.chain(LIVE_TARGETS.iter().map(|(name, _)| *name)).collect();
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
        for entry in std::fs::read_dir(dir).expect("the corpora") {
            let name = entry.expect("readable").file_name();
            assert!(names.iter().any(|known| name == **known), "{}", name.display());
        }
    }

    /// Every file of a small corpus with every byte changed, and cut off at every place.
    #[test]
    fn damaged_inputs_break_no_promise() {
        const BYTES_MAX: usize = 400;
        for (name, target) in TARGETS {
            let damage = |bytes: &[u8]| {
                for at in 0..bytes.len().min(BYTES_MAX) {
                    let _ = target(&bytes[..at]);
                    let mut damaged = bytes.to_vec();
                    for change in [0x00, b'"', b'[', b'}', 0xff] {
                        damaged[at] = change;
                        let _ = target(&damaged);
                    }
                }
                target(bytes)
            };
            replay(name, damage);
        }
    }
}
