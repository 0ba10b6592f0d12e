//! `kill -9` and SIGTERM at any moment of a sync from a real peer: the node starts again without a
//! flag, holds the state after some block whenever it is asked, none that it told of before and its
//! durability keeps being lost, and ends at the peer's.
#![expect(clippy::print_stdout, reason = "the seed and what happened, for whoever repeats it")]

use std::path::Path;
use std::time::{Duration, Instant};

use cofferdam_storage::testing::{Random, effort};
use cofferdam_tests::daemon::{Daemon, wait_until};
use cofferdam_tests::process;
use serde_json::json;
use tempfile::TempDir;

use crate::pair::{Pair, Who, connect_to};
use crate::{COFFERDAM, chain_file};

/// Blocks of the chain, and the most payments of a block.
const BLOCKS: usize = 3_000;
const TXS: usize = 12;
/// Every mode of durability, so that a kill meets a log that is written in every way.
const MODES: [&str; 4] = ["relaxed", "strict", "batched", "async"];
/// The modes in which a kill of the process loses nothing (README, *Durability*).
const LASTING: [&str; 3] = ["relaxed", "strict", "batched"];
/// How long the first answer on an existing directory may take where many things run at a time: the
/// aim is a second and what a replay takes, and what it took is printed.
const FIRST_ANSWER_MAX: Duration = Duration::from_secs(60);
/// One survivor in so many is compared with the peer at its height, besides those that ended.
const CHECK_ONE_IN: usize = 5;

/// Kills of one run: two runs make 200 at full effort.
fn kills() -> usize {
    effort().pick(10, 100, 2_500)
}

/// What a run saw.
#[derive(Debug, Default)]
struct Seen {
    killed: usize,
    terminated: usize,
    amid: usize,
    ends: usize,
    compared: usize,
    first_answers: Vec<Duration>,
    shutdowns: Vec<Duration>,
}

impl Seen {
    fn report(&mut self, what: &str) {
        let worst = |times: &mut Vec<Duration>| {
            times.sort();
            let at = |index: usize| times.get(index).copied().unwrap_or_default();
            format!("{:?} median, {:?} worst", at(times.len() / 2), at(times.len().max(1) - 1))
        };
        println!(
            "{what}: {} kills and {} SIGTERMs, {} of them amid the chain, {} syncs to the end, {} \
             states compared; first answer on an existing directory {}; shutdown amid the sync {}",
            self.killed,
            self.terminated,
            self.amid,
            self.ends,
            self.compared,
            worst(&mut self.first_answers),
            worst(&mut self.shutdowns)
        );
    }
}

/// Asks for the survivor's height and the hash of its coins, and the peer for the same height.
fn compare(survivor: &Daemon, peer: &Daemon) -> u64 {
    let info = survivor.rpc("gettxoutsetinfo", json!(["muhash"]));
    let height = info["height"].as_u64().expect("a height");
    let same = peer.rpc("gettxoutsetinfo", json!(["muhash", height]));
    for field in ["height", "bestblock", "muhash", "txouts", "total_amount", "bogosize"] {
        assert_eq!(info[field], same[field], "{field} at height {height}");
    }
    height
}

/// When and how a node ends.
struct End {
    /// By SIGKILL, not SIGTERM.
    kill: bool,
    start: Instant,
    after: Duration,
}

impl End {
    /// Lets the node sync until then.
    fn wait(&self, node: &mut Daemon) {
        std::thread::sleep(self.after.saturating_sub(self.start.elapsed()));
        let ended = node.ended();
        assert!(ended.is_none(), "it ended by itself: {ended:?} {}", node.stderr());
    }

    fn end(&self, node: Daemon, seen: &mut Seen) {
        if self.kill {
            node.kill();
            seen.killed += 1;
            return;
        }
        let asked = Instant::now();
        node.terminate();
        seen.shutdowns.push(asked.elapsed());
        seen.terminated += 1;
    }
}

/// A directory whose node is ended over and over, and the height that it cannot go back from.
struct Survivor {
    dir: TempDir,
    kept: u64,
}

impl Survivor {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a temporary directory"), kept: 0 }
    }

    /// Looks at what is there after a start, and notes it if it is from a mode that keeps it.
    fn check(&mut self, height: u64, keeps: bool) {
        assert!(height >= self.kept, "went back from {} to {height}", self.kept);
        if keeps {
            self.kept = height;
        }
    }
}

/// Interrupts syncs from the peer, over and over in the same directory until one is at the end.
fn check(what: &str, peer: &Daemon, backend: &str, seed: u64) {
    println!("{what}: seed {seed}");
    let mut random = Random::new(seed);
    let (connect, backend) = (connect_to(peer), format!("-backend={backend}"));
    let (tip, state) = (peer.height(), peer.state());
    let start = |dir: &Path, mode: &str| {
        let mode = format!("-durability={mode}");
        Daemon::spawn(Path::new(COFFERDAM), dir, &[&connect, &backend, &mode, "-dbcache=4"])
    };
    let whole = {
        let (new, begin) = (Survivor::new(), Instant::now());
        let mut node = start(new.dir.path(), "relaxed");
        node.wait_for_rpc();
        wait_until("the whole chain", || (node.height() == tip).then_some(()));
        begin.elapsed()
    };
    println!("{what}: a sync takes {whole:?}");

    let (mut seen, mut survivor) = (Seen::default(), Survivor::new());
    while seen.killed + seen.terminated < kills() {
        let mode = MODES[random.below(MODES.len())];
        let is_new = !survivor.dir.path().join("regtest").exists();
        let begin = Instant::now();
        let mut node = start(survivor.dir.path(), mode);
        let after = whole.mul_f64(random.below(1_000) as f64 / 1_000.0);
        let end = End { kill: random.one_in(2), start: begin, after };
        if random.one_in(2) {
            // Before it answers, as likely as not: while it opens its files, or replays its log.
            end.wait(&mut node);
            end.end(node, &mut seen);
            continue;
        }
        node.wait_for_rpc_at_most(FIRST_ANSWER_MAX);
        if !is_new {
            seen.first_answers.push(begin.elapsed());
        }
        let height = if random.one_in(CHECK_ONE_IN) {
            seen.compared += 1;
            compare(&node, peer)
        } else {
            node.height()
        };
        seen.amid += usize::from(height > 0 && height < tip);
        survivor.check(height, false);
        if height == tip {
            assert_eq!(node.state(), state);
            node.kill();
            (seen.ends, survivor) = (seen.ends + 1, Survivor::new());
            continue;
        }
        end.wait(&mut node);
        survivor.check(node.height(), !end.kill || LASTING.contains(&mode));
        end.end(node, &mut seen);
    }
    let mut node = start(survivor.dir.path(), "relaxed");
    node.wait_for_rpc();
    survivor.check(node.height(), false);
    wait_until("the whole chain", || (node.height() == tip).then_some(()));
    assert_eq!(node.state(), state);
    seen.report(what);
    assert!(seen.amid >= kills() / 10, "only {} restarts were amid the chain", seen.amid);
}

#[test]
fn a_sync_from_another_cofferdam_survives_kills() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (file, tip) = chain_file::write(dir.path(), 1, BLOCKS, TXS);
    let file = file.to_str().expect("UTF-8");
    let options = ["-regtest", "-coinstatsindex", "import", file];
    let imported = process::run(COFFERDAM, dir.path(), &options);
    assert!(imported.status.success(), "{}", process::said(&imported));
    let peer = Daemon::start(Path::new(COFFERDAM), dir.path(), &["-coinstatsindex"]);
    assert_eq!(peer.best(), tip.to_string());
    check("from cofferdam", &peer, "lsm", 0x0c0f_fe1d_a403);
}

#[test]
fn a_sync_from_core_survives_kills() {
    let Some(pair) = Pair::new() else { return };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (file, tip) = chain_file::write(dir.path(), 2, BLOCKS, TXS);
    let load = format!("-loadblock={}", file.display());
    let peer = pair.start(Who::Core, &[&load, "-coinstatsindex", "-connect=0"]);
    assert_eq!(peer.best(), tip.to_string());
    wait_until("the statistics", || {
        let index = &peer.rpc("getindexinfo", json!([]))["coinstatsindex"];
        (index["synced"] == true).then_some(())
    });
    check("from Core", &peer, "sled", 0x0c0f_fe1d_a404);
}
