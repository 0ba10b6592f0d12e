//! One honest peer among hostile ones: does the node get to the tip, and what does it cost?
#![expect(clippy::print_stdout, reason = "what was measured")]

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use cofferdam_storage::testing::{Effort, effort};
use cofferdam_tests::daemon::{Daemon, wait_until};
use serde_json::{Value, json};

use crate::fixture::BINARY;
use crate::hostile::{Kind, World};

/// Blocks of the chain: more than a message of headers, and two windows of the download.
const BLOCKS: u64 = 2100;
/// The work of 2,050 blocks of regtest and the genesis block: more than what is shown in a message.
const MINIMUM_WORK: &str = "-minimumchainwork=0x1006";
/// What the process may have in memory at its worst, in KiB.
const MEMORY_MAX_KIB: u64 = 256 << 10;
/// What all hostile peers together may have the node write into its log, in bytes.
const LOG_MAX: u64 = 1 << 20;

/// Where the node's clock begins.
const START: u64 = 1_800_000_000;
/// How long nothing has to happen for the clock to be moved, and how far it is moved then, in seconds:
/// nobody waits for those who are given time.
const STANDSTILL: Duration = Duration::from_secs(1);
const LEAP: u64 = 10;

/// A node with a log as it is unless somebody asks for more.
struct Victim {
    node: Daemon,
    dir: tempfile::TempDir,
    world: &'static World,
}

impl Victim {
    fn start() -> Self {
        // The peers' threads may outlive the test by a moment.
        let world: &World = Box::leak(Box::new(World::new(BLOCKS)));
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut all = vec!["-nodebug", "-connect=0", "-listen=1", "-dbcache=16", MINIMUM_WORK];
        let time = format!("-mocktime={START}");
        all.push(&time);
        let node = Daemon::start(Path::new(BINARY), dir.path(), &all);
        Self { node, dir, world }
    }

    /// Has the node connect to a peer; returns where that is.
    fn choose(&self, kind: Kind) -> String {
        let address = kind.listen(self.world);
        let _ = self.node.rpc("addconnection", json!([address, "outbound-full-relay", false]));
        address
    }

    /// Has peers connect to the node.
    fn suffer(&self, kind: Kind, again: usize) {
        kind.dial(self.node.p2p_port, self.world, again);
    }

    /// Waits for the tip, and looks at what became of the honest peer and of the machine.
    fn survives(mut self, honest: &str) {
        let (begin, tip) = (Instant::now(), self.world.tip());
        let (mut seen, mut since, mut time) = (Value::Null, begin, START);
        wait_until("the tip", || {
            assert!(self.node.ended().is_none(), "{}", self.node.stderr());
            let best = self.node.best();
            if best != seen {
                (seen, since) = (best, Instant::now());
            } else if since.elapsed() > STANDSTILL {
                (since, time) = (Instant::now(), time + LEAP);
                let _ = self.node.rpc("setmocktime", json!([time]));
            }
            (seen == tip).then_some(())
        });
        let took = (begin.elapsed(), time - START);
        let peers = self.node.rpc("getpeerinfo", json!([]));
        let peers: Vec<&Value> = peers.as_array().expect("a list").iter().collect();
        assert!(peers.iter().any(|peer| peer["addr"] == honest), "the honest peer is gone");
        assert_eq!(self.node.rpc("listbanned", json!([])), json!([]));
        let log = self.dir.path().join("regtest/debug.log");
        let (log, memory) = (fs::metadata(log).expect("a log").len(), self.peak());
        println!("{took:?} s, {} peers left, {log} bytes of log, {memory} KiB", peers.len());
        assert!(log < LOG_MAX, "{log} bytes");
        assert!(memory < MEMORY_MAX_KIB, "{memory} KiB");
        self.node.stop();
    }

    /// The most that the process ever had in memory, in KiB.
    fn peak(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.node.pid()));
        let status = status.expect("it runs");
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("Linux has it");
        line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
    }
}

#[test]
fn one_honest_peer_among_eight_that_keep_blocks_back_or_flood_suffices() {
    let victim = Victim::start();
    for kind in [Kind::Stalls, Kind::Trickles, Kind::Repeats, Kind::Mutates] {
        victim.choose(kind);
    }
    for kind in [Kind::ShowsLowWork, Kind::Announces, Kind::Asks, Kind::Pings] {
        victim.suffer(kind, 3);
    }
    let honest = victim.choose(Kind::Honest);
    victim.survives(&honest);
}

#[test]
fn one_honest_peer_among_a_hundred_connections_of_all_kinds_suffices() {
    let victim = Victim::start();
    for _ in 0..12 {
        for kind in [
            Kind::IsMute,
            Kind::IsRude,
            Kind::Babbles,
            Kind::ForgesWork,
            Kind::SkipsHeaders,
            Kind::HasNothing,
            Kind::Mutates,
            Kind::Stalls,
        ] {
            victim.suffer(kind, 5);
        }
    }
    for _ in 0..4 {
        victim.suffer(Kind::Churns, 1000);
    }
    let honest = victim.choose(Kind::Honest);
    victim.survives(&honest);
}

#[test]
fn hostile_peers_of_one_kind_do_not_stop_an_honest_one() {
    // One that costs the node much more than it costs the peer, if there is no time for all.
    let kinds = if effort() == Effort::Quick { &[Kind::Announces] } else { &Kind::HOSTILE[..] };
    for &kind in kinds {
        println!("{kind:?}");
        let victim = Victim::start();
        for _ in 0..effort().pick(2, 8, 8) {
            victim.suffer(kind, 100);
        }
        let honest = victim.choose(Kind::Honest);
        victim.survives(&honest);
    }
}
