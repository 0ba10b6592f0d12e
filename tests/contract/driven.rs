//! A node as Bitcoin Core's functional test framework starts, watches and ends it: with its command
//! line and its `bitcoin.conf`, whole and in its order.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use cofferdam_tests::json_rpc::Client;
use cofferdam_tests::process::{free_port, wait_for};
use serde_json::{Value, json};

use crate::{BINARY, text};

/// Error codes of a node that is starting: its own, and that of a connection that gave no reply.
const NOT_YET: [i64; 2] = [-28, 0];
/// What a pong takes with its header.
const PONG_BYTES: u64 = 29;

/// The file of a data directory, of a node with these ports.
fn conf(port: u16, rpc_port: u16) -> String {
    format!(
        "regtest=1\n\
         [regtest]\n\
         port={port}\n\
         rpcport={rpc_port}\n\
         rpcservertimeout=99000\n\
         rpcdoccheck=1\n\
         rpcthreads=2\n\
         fallbackfee=0.0002\n\
         server=1\n\
         keypool=1\n\
         discover=0\n\
         dnsseed=0\n\
         fixedseeds=0\n\
         listenonion=0\n\
         peertimeout=999999999\n\
         printtoconsole=0\n\
         natpmp=0\n\
         shrinkdebugfile=0\n\
         unsafesqlitesync=1\n\
         connect=0\n\
         maxconnections=94\n\
         par=2\n\
         prevoutfetchthreads=1\n\
         bind=127.0.0.1\n"
    )
}

/// A running node; killed when dropped.
pub(crate) struct Driven {
    number: usize,
    dir: PathBuf,
    child: Child,
    client: Client,
    port: u16,
}

impl Driven {
    /// Starts the node of that number, whose directory is made if it is not there, and waits until it
    /// answers and has loaded all it has.
    pub(crate) fn start(tmpdir: &Path, number: usize, v2: bool) -> Self {
        let dir = tmpdir.join(format!("node{number}"));
        fs::create_dir_all(&dir).expect("room");
        let (port, rpc_port) = (free_port(), free_port());
        fs::write(dir.join("bitcoin.conf"), conf(port, rpc_port)).expect("room");
        let cookie = dir.join("regtest/.cookie");
        // One of a node that was killed would not be this one's.
        let _ = fs::remove_file(&cookie);
        let output = |name: &str| File::create(dir.join(name)).expect("room");
        let mut child = Command::new(BINARY)
            .arg(format!("-datadir={}", dir.display()))
            .args(["-logtimemicros", "-debug", "-debugexclude=leveldb", "-debugexclude=rand"])
            .arg(format!("-uacomment=testnode{number}"))
            .args(["-disablewallet", "-logthreadnames", "-logsourcelocations", "-loglevel=trace"])
            .arg("-nologratelimit")
            .arg(format!("-v2transport={}", u8::from(v2)))
            .current_dir(tmpdir)
            .env("LIBC_FATAL_STDERR_", "1")
            .stdin(Stdio::null())
            .stdout(output("stdout"))
            .stderr(output("stderr"))
            .spawn()
            .expect("the binary starts");
        let client = wait_for("the node's first answer", || {
            let ended = child.try_wait().expect("a child");
            assert!(ended.is_none(), "the node ended: {ended:?} {}", text(&dir.join("stderr")));
            let user = fs::read_to_string(&cookie).ok()?;
            assert!(user.starts_with("__cookie__:"), "the file is never there without a secret");
            let client = Client::new(rpc_port, &user);
            match client.call("getblockcount", &json!([])) {
                Err(error) if NOT_YET.contains(&error.code) => return None,
                answer => assert!(answer.as_ref().is_ok_and(Value::is_u64), "{answer:?}"),
            }
            let loaded = client.call("getmempoolinfo", &json!([])).ok()?["loaded"] == true;
            loaded.then_some(client)
        });
        Self { number, dir, child, client, port }
    }

    /// Calls a method that has to work; parameters are an array, or an object of named ones.
    pub(crate) fn rpc(&self, method: &str, params: Value) -> Value {
        let answer = self.client.call(method, &params);
        answer.unwrap_or_else(|error| panic!("{method} {params}: {error:?}"))
    }

    /// Mines blocks; returns their hashes.
    pub(crate) fn mine(&self, blocks: u32, address: &str) -> Value {
        self.rpc("generatetoaddress", json!({"nblocks": blocks, "address": address}))
    }

    /// Returns the hash of the tip.
    pub(crate) fn best(&self) -> Value {
        self.rpc("getbestblockhash", json!([]))
    }

    /// What the node calls itself to peers, with its number in it.
    fn subversion(&self) -> Value {
        let name = self.rpc("getnetworkinfo", json!([]))["subversion"].clone();
        let number = format!("(testnode{})/", self.number);
        assert!(name.as_str().is_some_and(|name| name.ends_with(&number)), "{name}");
        name
    }

    /// What the node says of its connection with another one.
    pub(crate) fn peer(&self, other: &Self, inbound: bool) -> Option<Value> {
        let name = other.subversion();
        let peers = self.rpc("getpeerinfo", json!([]));
        let mut peers = peers.as_array().expect("a list").iter();
        peers.find(|peer| peer["subver"] == name && peer["inbound"] == inbound).cloned()
    }

    /// Connects to another node, and waits until both ends have it and have answered a ping.
    pub(crate) fn connect(&self, to: &Self) {
        let _ = self.rpc("addnode", json!([format!("127.0.0.1:{}", to.port), "onetry"]));
        let ends = [(self, to, false), (to, self, true)];
        for (node, other, inbound) in ends {
            wait_for("the connection", || node.peer(other, inbound));
        }
        for (node, other, inbound) in ends {
            wait_for("a pong", || {
                let pongs = node.peer(other, inbound)?["bytesrecv_per_msg"]["pong"].as_u64();
                (pongs? >= PONG_BYTES).then_some(())
            });
        }
    }

    /// Asks for the end, which has to be a clean one that nothing is said about.
    pub(crate) fn stop(mut self) {
        let _ = self.rpc("stop", json!({"wait": 0}));
        let status = wait_for("the node's end", || self.child.try_wait().expect("a child"));
        let heard = text(&self.dir.join("stderr"));
        assert_eq!((status.code(), heard.trim()), (Some(0), ""));
        assert!(!self.dir.join("regtest/.cookie").exists(), "of no use to anybody");
    }
}

impl Drop for Driven {
    fn drop(&mut self) {
        // Already gone if it ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until all nodes have the same tip and the same transactions, none of them being alone.
pub(crate) fn sync_all(nodes: &[Driven]) {
    let are_same = |method: &str| {
        let all: Vec<Value> = nodes.iter().map(|node| node.rpc(method, json!([]))).collect();
        all.windows(2).all(|two| two[0] == two[1])
    };
    for method in ["getbestblockhash", "getrawmempool"] {
        wait_for(method, || {
            for node in nodes {
                assert_ne!(node.rpc("getpeerinfo", json!([])), json!([]), "it lost its peers");
            }
            are_same(method).then_some(())
        });
    }
    for node in nodes {
        let _ = node.rpc("syncwithvalidationinterfacequeue", json!([]));
    }
}
