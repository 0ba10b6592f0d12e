//! A sync with 8 and with 124 peers takes no more than 256 MiB, with more than that in blocks.
#![expect(clippy::print_stdout, reason = "what was measured")]

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use cofferdam_storage::testing::effort;
use cofferdam_tests::daemon::{Daemon, wait_until};
use serde_json::json;

use crate::COFFERDAM;
use crate::crowd::{LargeChain, hoard};

/// What the process may have in memory at its worst, in KiB.
const LIMIT_KIB: u64 = 256 << 10;
/// Peers that the node dials; the others dial it.
const DIALLED: usize = 8;
/// Outputs of a block, ten thousand bytes each.
const OUTPUTS: usize = 95;

/// Blocks of the chain, nearly a million bytes each: more than the limit, except in a hurry.
fn blocks() -> usize {
    effort().pick(100, 400, 2_000)
}

/// The most that a process ever had in memory, in KiB.
fn peak(node: &Daemon) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", node.pid())).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("Linux has it");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
}

fn check(peers: usize, hoarders: usize) {
    let chain = Arc::new(LargeChain::new(blocks(), OUTPUTS));
    let dir = tempfile::tempdir().expect("a temporary directory");
    let connects: Vec<String> = (0..DIALLED)
        .map(|_| format!("-connect=127.0.0.1:{}", chain.listen().expect("a port")))
        .collect();
    let mut args: Vec<&str> = connects.iter().map(String::as_str).collect();
    args.extend(["-listen=1", "-maxconnections=300", "-dbcache=16", "-v2transport=0"]);
    let begin = Instant::now();
    let mut node = Daemon::start(Path::new(COFFERDAM), dir.path(), &args);
    for _ in DIALLED..peers {
        chain.dial(node.p2p_port).expect("the node listens");
    }
    let hoards: Vec<_> = (0..hoarders).filter_map(|_| hoard(node.p2p_port).ok()).collect();
    let tip = chain.tip.to_string();
    wait_until("the whole chain", || {
        assert!(node.ended().is_none(), "{}", node.stderr());
        (node.best() == tip).then_some(())
    });
    let (connected, peak) = (node.rpc("getconnectioncount", json!([])), peak(&node));
    let mb = blocks() * OUTPUTS / 100;
    println!(
        "{mb} MB, {connected} peers, {} of them hoard: {:?}, at most {} MiB",
        hoards.len(),
        begin.elapsed(),
        peak >> 10
    );
    // Of those that hoard some have to go; the others stay.
    assert!(connected.as_u64() >= Some(peers as u64), "{connected} peers are left");
    assert!(peak <= LIMIT_KIB, "{peak} KiB");
    node.stop();
}

#[test]
fn a_sync_with_8_peers_fits_in_256_mib() {
    check(8, 0);
}

#[test]
fn a_sync_with_124_peers_fits_in_256_mib() {
    check(124, 0);
}

/// A hundred peers send all but the last byte of the largest message there is. Bitcoin Core took in
/// what came without a bound.
#[test]
fn cve_2015_3641_peers_that_hold_the_end_of_a_message_back_fit_in_256_mib() {
    check(8, 100);
}
