//! `bitcoind`, or what stands in for it: started with the same options, asked over the same JSON-RPC.
//!
//! One type for both programs, so that a test can put either in either place. How a program is
//! found: ours is built by cargo, Bitcoin Core's by `scripts/bitcoind`.
#![expect(clippy::missing_panics_doc, reason = "fixtures panic on anything unexpected")]
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "fixtures panic on anything unexpected"
)]
#![expect(clippy::print_stderr, reason = "a test that cannot run has to say so")]

use std::env;
use std::fs::File;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::json_rpc::{Client, RpcError};
use crate::process::{free_port, wait_at_most};

/// How long anything may take that a test waits for; a loaded machine is slow.
const PATIENCE: Duration = Duration::from_secs(120);
/// Nobody's, and an address of Core's functional tests: blocks are mined to it.
pub const ADDRESS: &str = "mjTkW3DjgyZck4KbiRusZsqTgaYTxdSz6z";
/// The crate whose source `scripts/bitcoind` builds.
const SOURCE_CRATE: &str = "name = \"libbitcoinkernel-sys\"\nversion = \"";

/// Returns Bitcoin Core's `bitcoind` if it has been built (`scripts/bitcoind`).
///
/// # Panics
///
/// In CI (`CI=true`), or if `COFFERDAM_BITCOIND` names it, if it is missing: a test that is not run
/// is a failure there.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "who runs the tests says where it is, not the code")]
pub fn bitcoind() -> Option<PathBuf> {
    let below = |variable: &str, path: &str| Some(Path::new(&env::var_os(variable)?).join(path));
    let cache = below("COFFERDAM_BITCOIND_CACHE", "")
        .or_else(|| below("XDG_CACHE_HOME", "cofferdam/bitcoind"))
        .or_else(|| below("HOME", ".cache/cofferdam/bitcoind"));
    let cached = cache.map(|cache| cache.join(source_version()).join("bin/bitcoind"));
    let found = env::var_os("COFFERDAM_BITCOIND").map(PathBuf::from).or(cached);
    let found = found.filter(|program| program.is_file());
    if found.is_none() {
        let in_ci = env::var("CI").is_ok_and(|value| value == "true" || value == "1");
        let named = env::var_os("COFFERDAM_BITCOIND");
        assert!(!in_ci && named.is_none(), "bitcoind is missing ({named:?}): run scripts/bitcoind");
        eprintln!("NOT RUN: bitcoind is missing; scripts/bitcoind builds it");
    }
    found
}

/// The version of the source, as `Cargo.lock` has it.
fn source_version() -> &'static str {
    let lock = include_str!("../../Cargo.lock");
    let at = lock.find(SOURCE_CRATE).expect("in the lock file") + SOURCE_CRATE.len();
    lock[at..].split('"').next().expect("a version")
}

/// Asks `ready` until it gives a value.
pub fn wait_until<T>(what: &str, ready: impl FnMut() -> Option<T>) -> T {
    wait_at_most(PATIENCE, what, ready)
}

/// A running node on regtest; killed when dropped.
#[derive(Debug)]
pub struct Daemon {
    dir: PathBuf,
    child: Child,
    client: Option<Client>,
    rpc_port: u16,
    /// Where it listens for peers.
    pub p2p_port: u16,
}

impl Daemon {
    /// Starts a program and waits until it answers and has nothing left to import.
    #[must_use]
    pub fn start(program: &Path, dir: &Path, args: &[&str]) -> Self {
        let mut daemon = Self::spawn(program, dir, args);
        daemon.wait_for_rpc();
        daemon
    }

    /// Starts a program, and does not wait.
    #[must_use]
    pub fn spawn(program: &Path, dir: &Path, args: &[&str]) -> Self {
        let (rpc_port, p2p_port) = (free_port(), free_port());
        let stderr = File::create(dir.join("stderr")).expect("a temporary directory");
        let child = Command::new(program)
            .arg(format!("-datadir={}", dir.display()))
            .args(["-regtest", "-bind=127.0.0.1", "-printtoconsole=0", "-listenonion=0"])
            .args(["-discover=0", "-dnsseed=0", "-fixedseeds=0", "-natpmp=0", "-debug=net"])
            .arg(format!("-port={p2p_port}"))
            .arg(format!("-rpcport={rpc_port}"))
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .expect("the program starts");
        Self { dir: dir.to_owned(), child, client: None, rpc_port, p2p_port }
    }

    /// Waits for the first answer of a program that was spawned.
    pub fn wait_for_rpc(&mut self) {
        self.wait_for_rpc_at_most(PATIENCE);
    }

    /// As [`Daemon::wait_for_rpc`], with a patience of the caller's.
    pub fn wait_for_rpc_at_most(&mut self, patience: Duration) {
        let cookie = self.dir.join("regtest/.cookie");
        let client = wait_at_most(patience, "the first answer", || {
            let ended = self.child.try_wait().expect("a child");
            assert!(ended.is_none(), "the node ended: {ended:?} {}", self.stderr());
            let user = std::fs::read_to_string(&cookie).ok()?;
            let client = Client::new(self.rpc_port, &user);
            let loaded = client.call("getmempoolinfo", &json!([])).ok()?["loaded"] == true;
            loaded.then_some(client)
        });
        self.client = Some(client);
    }

    /// Calls a method; parameters are an array, or an object of named ones.
    ///
    /// # Errors
    ///
    /// Returns the node's error.
    pub fn try_rpc(&self, method: &str, params: &Value) -> Result<Value, RpcError> {
        self.client.as_ref().expect("waited for").call(method, params)
    }

    /// Calls a method that has to work.
    #[must_use]
    pub fn rpc(&self, method: &str, params: Value) -> Value {
        let answer = self.try_rpc(method, &params);
        answer.unwrap_or_else(|error| panic!("{method} {params}: {error:?}"))
    }

    /// Returns the height of the connected chain; none if the node does not answer.
    #[must_use]
    pub fn try_height(&self) -> Option<u64> {
        self.try_rpc("getblockcount", &json!([])).ok()?.as_u64()
    }

    /// Returns the height of the connected chain.
    #[must_use]
    pub fn height(&self) -> u64 {
        self.try_height().expect("a height")
    }

    /// Returns the hash of the tip.
    #[must_use]
    pub fn best(&self) -> Value {
        self.rpc("getbestblockhash", json!([]))
    }

    /// Mines blocks; returns their hashes.
    pub fn mine(&self, blocks: u64) -> Value {
        self.rpc("generatetoaddress", json!([blocks, ADDRESS]))
    }

    /// Asks for a connection to another node, and waits until both ends have it.
    pub fn connect(&self, to: &Self) {
        let count = |node: &Self| node.rpc("getconnectioncount", json!([])).as_u64();
        let before = (count(self), count(to));
        let address = format!("127.0.0.1:{}", to.p2p_port);
        let _ = self.rpc("addnode", json!([address, "onetry"]));
        wait_until("a connection", || {
            (count(self) > before.0 && count(to) > before.1).then_some(())
        });
    }

    /// Ends all connections.
    pub fn disconnect(&self) {
        wait_until("no connections", || {
            let peers = self.rpc("getpeerinfo", json!([]));
            let peers = peers.as_array().expect("a list");
            for peer in peers {
                // Gone by itself, perhaps.
                let _ = self.try_rpc("disconnectnode", &json!(["", peer["id"]]));
            }
            peers.is_empty().then_some(())
        });
    }

    /// Waits until this node has another one's tip.
    pub fn follow(&self, leader: &Self) {
        let tip = leader.best();
        wait_until("the other's tip", || (self.best() == tip).then_some(()));
    }

    /// Returns height, tip and both hashes of the UTXO set.
    #[must_use]
    pub fn state(&self) -> [String; 4] {
        let info = self.rpc("gettxoutsetinfo", json!(["hash_serialized_3"]));
        let muhash = self.rpc("gettxoutsetinfo", json!(["muhash"]));
        [&info["height"], &info["bestblock"], &info["hash_serialized_3"], &muhash["muhash"]]
            .map(ToString::to_string)
    }

    /// Returns what the program wrote to its standard error.
    #[must_use]
    pub fn stderr(&self) -> String {
        std::fs::read_to_string(self.dir.join("stderr")).expect("written at the start")
    }

    /// Returns the process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns how the process ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child")
    }

    /// Ends the process as `kill -9` does.
    pub fn kill(mut self) {
        self.child.kill().expect("a child");
        self.child.wait().expect("a child");
    }

    /// Asks for the end over RPC; it has to be a clean one.
    pub fn stop(mut self) {
        let _ = self.rpc("stop", json!([]));
        self.expect_clean_end();
    }

    /// Asks for the end by SIGTERM; it has to be a clean one.
    ///
    /// A node that has not answered yet may not have got as far as to listen to signals: it may just
    /// end.
    pub fn terminate(mut self) {
        let pid = self.pid().to_string();
        let signalled = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(signalled.expect("kill").success());
        self.expect_clean_end();
    }

    fn expect_clean_end(&mut self) {
        let status = wait_until("the node's end", || self.ended());
        if self.client.is_none() && status.signal().is_some() {
            return;
        }
        let stderr = self.stderr();
        assert!(status.success() && stderr.is_empty(), "{status}: {stderr}");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Already gone if it ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
