//! Nodes as processes: started, asked over JSON-RPC, stopped or killed.
#![expect(clippy::missing_panics_doc, reason = "fixtures panic on anything unexpected")]
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "fixtures panic on anything unexpected"
)]

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long anything may take that a test waits for.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a test looks whether what it waits for is there.
const POLL: Duration = Duration::from_millis(20);

/// Ports below those that the system gives to outgoing connections: one of these could take a port
/// away between the time it is found free and the time a node listens on it.
const PORTS: std::ops::Range<u32> = 10_000..32_000;
/// Ports that a process tries before another process's begin.
const PORTS_PER_PROCESS: u32 = 50;

/// Returns a port of the loopback interface that nobody listens on, another one at each call.
#[must_use]
pub fn free_port() -> u16 {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id().wrapping_mul(PORTS_PER_PROCESS);
    for _ in PORTS {
        let at = first.wrapping_add(CALLS.fetch_add(1, Ordering::Relaxed));
        let port = PORTS.start + at % (PORTS.end - PORTS.start);
        let port = u16::try_from(port).expect("in range");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no port is free");
}

/// Asks `ready` until it gives a value.
pub fn wait_for<T>(what: &str, ready: impl FnMut() -> Option<T>) -> T {
    wait_at_most(PATIENCE, what, ready)
}

/// As [`wait_for`], with a patience of the caller's.
pub fn wait_at_most<T>(patience: Duration, what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + patience;
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(Instant::now() < end, "waited {patience:?} for {what}");
        std::thread::sleep(POLL);
    }
}

/// Runs a subcommand to its end.
#[must_use]
pub fn run(binary: &str, dir: &Path, args: &[&str]) -> Output {
    command(binary, dir).args(args).output().expect("the binary starts")
}

/// The binary with a data directory, which is made.
#[must_use]
pub fn command(binary: &str, dir: &Path) -> Command {
    std::fs::create_dir_all(dir).expect("a directory");
    let mut command = Command::new(binary);
    command.arg(format!("-datadir={}", dir.display())).stdin(Stdio::null());
    command
}

/// Returns what a process said, for messages of failed assertions.
#[must_use]
pub fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}\n{}\n{}", output.status, text(&output.stdout), text(&output.stderr))
}

/// A running node; killed when dropped.
#[derive(Debug)]
pub struct Node {
    binary: String,
    dir: PathBuf,
    child: Option<Child>,
    chain: String,
    rpc_port: u16,
    /// Where it listens for peers.
    pub p2p_port: u16,
}

impl Node {
    /// Starts a node on regtest and waits until it answers.
    #[must_use]
    pub fn start(binary: &str, dir: &Path, args: &[&str]) -> Self {
        Self::start_on("regtest", binary, dir, args)
    }

    /// Starts a node on a chain and waits until it answers.
    #[must_use]
    pub fn start_on(chain: &str, binary: &str, dir: &Path, args: &[&str]) -> Self {
        let chain = format!("-chain={chain}");
        let (rpc_port, p2p_port) = (free_port(), free_port());
        let child = command(binary, dir)
            .args([&chain, "-bind=127.0.0.1"])
            .arg(format!("-port={p2p_port}"))
            .arg(format!("-rpcport={rpc_port}"))
            .args(args)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let mut node = Self {
            binary: binary.to_owned(),
            dir: dir.to_owned(),
            child: Some(child),
            chain,
            rpc_port,
            p2p_port,
        };
        wait_for("the node's first answer", || {
            let ended = node.child.as_mut().expect("running").try_wait().expect("a child");
            assert!(ended.is_none(), "the node ended: {}", said(&node.take_output()));
            node.try_rpc("getblockcount", &[]).ok()
        });
        node
    }

    /// Calls a method through `cofferdam rpc`; the error is what it printed.
    ///
    /// # Errors
    ///
    /// Returns the node's message if it refused.
    pub fn try_rpc(&self, method: &str, args: &[&str]) -> Result<Value, String> {
        let output = command(&self.binary, &self.dir)
            .arg(&self.chain)
            .arg(format!("-rpcport={}", self.rpc_port))
            .args(["rpc", method])
            .args(args)
            .output()
            .expect("the binary starts");
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        if text.trim().is_empty() {
            // As bitcoin-cli prints null.
            return Ok(Value::Null);
        }
        Ok(serde_json::from_str(&text).unwrap_or_else(|_| Value::String(text.trim().to_owned())))
    }

    /// Returns where it answers RPC.
    #[must_use]
    pub const fn rpc_port(&self) -> u16 {
        self.rpc_port
    }

    /// Calls a method that has to work.
    #[must_use]
    pub fn rpc(&self, method: &str, args: &[&str]) -> Value {
        self.try_rpc(method, args).unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    /// Calls a method and kills the node a while later, whether the call has ended or not.
    pub fn kill_amid(mut self, method: &str, args: &[&str], after: Duration) {
        let mut call = command(&self.binary, &self.dir)
            .arg(&self.chain)
            .arg(format!("-rpcport={}", self.rpc_port))
            .args(["rpc", method])
            .args(args)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary starts");
        std::thread::sleep(after);
        let mut child = self.child.take().expect("running");
        child.kill().expect("a child");
        child.wait().expect("a child");
        call.wait().expect("a child");
    }

    /// Returns the height of the connected chain.
    #[must_use]
    pub fn height(&self) -> u64 {
        self.rpc("getblockcount", &[]).as_u64().expect("a number")
    }

    /// Returns height, best block, and both hashes of the UTXO set.
    #[must_use]
    pub fn state(&self) -> [String; 4] {
        let info = self.rpc("gettxoutsetinfo", &["hash_serialized_3"]);
        let muhash = self.rpc("gettxoutsetinfo", &["muhash"]);
        [
            info["height"].to_string(),
            info["bestblock"].to_string(),
            info["hash_serialized_3"].to_string(),
            muhash["muhash"].to_string(),
        ]
    }

    /// Sends a signal (`TERM`, `INT`); the node has to end by itself with status 0 and nothing on
    /// stderr.
    pub fn signal(mut self, name: &str) {
        let pid = self.child.as_ref().expect("running").id().to_string();
        let signalled = Command::new("kill").args([&format!("-{name}"), &pid]).status();
        assert!(signalled.expect("kill").success());
        self.expect_clean_end();
    }

    /// Returns the id of the process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("running").id()
    }

    /// Waits until the node ends by itself; returns what it said.
    #[must_use]
    pub fn wait_for_end(mut self) -> Output {
        let child = self.child.as_mut().expect("running");
        wait_for("the node's end", || child.try_wait().expect("a child"));
        self.take_output()
    }

    /// Asks the node to stop over RPC; returns what it said.
    #[must_use]
    pub fn stop_and_hear(self) -> Output {
        let _ = self.rpc("stop", &[]);
        self.wait_for_end()
    }

    /// Asks the node to stop over RPC, with the same demands as [`Node::signal`].
    pub fn stop(mut self) {
        let _ = self.rpc("stop", &[]);
        self.expect_clean_end();
    }

    fn expect_clean_end(&mut self) {
        let child = self.child.as_mut().expect("running");
        let status = wait_for("the node's end", || child.try_wait().expect("a child"));
        let output = self.take_output();
        assert!(status.success(), "{status}: {}", said(&output));
        assert!(output.stderr.is_empty(), "{}", said(&output));
    }

    fn take_output(&mut self) -> Output {
        self.child.take().expect("not taken before").wait_with_output().expect("a child")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Already gone if it ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
