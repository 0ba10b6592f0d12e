//! Does `kill -9` at any moment of an import leave a block boundary, and a run that ends well?
#![expect(clippy::indexing_slicing, reason = "a test fails by a panic")]
#![expect(clippy::print_stdout, reason = "the seed and what happened, for whoever repeats it")]

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use cofferdam_ibd::Network;
use cofferdam_storage::BackendKind;
use cofferdam_tests::{chain, data, process};

const BINARY: &str = env!("CARGO_BIN_EXE_cofferdam-under-test");
const CHAIN: &str = "mainnet/chain-0-4521.blkdat";
const KILLS: usize = 20;

/// A small generator, so that a failure can be repeated from the seed (`SplitMix64`).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// Every mode of durability, so that a kill meets a log that is written in every way.
const MODES: [&str; 4] = ["strict", "batched", "relaxed", "async"];

/// Imports the chain; returns whether the import ended before it was killed.
fn import(dir: &Path, backend: BackendKind, mode: &str, killed_after: Option<Duration>) -> bool {
    let mut child = process::command(BINARY, dir)
        .args([&format!("-backend={backend}"), &format!("-durability={mode}"), "-dbcache=4"])
        .arg("import")
        .arg(data::path(CHAIN))
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("the binary starts");
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("a child") {
            assert!(status.success(), "an import that was not killed ended with {status}");
            return true;
        }
        if killed_after.is_some_and(|after| start.elapsed() >= after) {
            child.kill().expect("a child");
            child.wait().expect("a child");
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Checks that what a killed import left is what the first blocks of the chain leave, to the byte;
/// returns its height.
fn check_survivor(dir: &Path, backend: BackendKind, blocks: &[Vec<u8>]) -> u32 {
    if !dir.join("chainstate").join(backend.to_string()).exists() {
        return 0;
    }
    let survivor = chain::open(Network::Mainnet, backend, dir);
    let tip = survivor.tip();
    let straight_dir = tempfile::tempdir().expect("a temporary directory");
    let mut straight = chain::open(Network::Mainnet, BackendKind::Memory, straight_dir.path());
    chain::store(&mut straight, &blocks[..=tip.height as usize]);
    chain::settle(&mut straight);
    assert_eq!(straight.tip(), tip);
    assert_eq!(chain::state(&survivor), chain::state(&straight));
    assert_eq!(chain::coin_bytes(&survivor), chain::coin_bytes(&straight));
    tip.height
}

fn check(backend: BackendKind, seed: u64) {
    println!("seed {seed}");
    let mut random = Random(seed);
    let blocks = data::blocks(CHAIN);
    let last = data::states(CHAIN).pop().expect("a tip");
    let whole = {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let start = Instant::now();
        assert!(import(dir.path(), backend, "relaxed", None));
        u64::try_from(start.elapsed().as_micros()).expect("minutes")
    };

    let mut dir = tempfile::tempdir().expect("a temporary directory");
    let mut heights = Vec::new();
    // A try that ended before its kill does not count, and is not followed up.
    for attempt in 0..20 * KILLS {
        if heights.len() == KILLS {
            break;
        }
        let mode = MODES[attempt % MODES.len()];
        let after = Duration::from_micros(random.below(whole));
        let ended = import(dir.path(), backend, mode, Some(after));
        let tip = check_survivor(dir.path(), backend, &blocks);
        if !ended {
            heights.push(tip);
        }
        if ended || tip == last.height {
            dir = tempfile::tempdir().expect("a temporary directory");
        }
    }
    println!("killed at heights {heights:?}");
    assert_eq!(heights.len(), KILLS);
    let amid = heights.iter().filter(|&&height| height > 0 && height < last.height).count();
    assert!(amid >= KILLS / 4, "only {amid} kills came while blocks were connected");

    assert!(import(dir.path(), backend, "relaxed", None));
    let survivor = chain::open(Network::Mainnet, backend, dir.path());
    assert_eq!(chain::state(&survivor), last);
}

#[test]
fn import_survives_twenty_kills_on_rocksdb() {
    check(BackendKind::Rocksdb, 0x0c0f_fe1d_a401);
}

#[test]
fn import_survives_twenty_kills_on_sled() {
    check(BackendKind::Sled, 0x0c0f_fe1d_a402);
}

#[test]
fn import_survives_twenty_kills_on_lsm() {
    check(BackendKind::Lsm, 0x0c0f_fe1d_a403);
}
