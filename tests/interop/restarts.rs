//! A restart of either side in the middle of a sync, by `kill -9` and by a stop.

use std::time::Duration;

use cofferdam_tests::daemon::{Daemon, wait_until};
use serde_json::json;

use crate::chain_file;
use crate::pair::{Pair, Who, connect_to};

/// Blocks of the chain: enough for a sync to have a middle.
const BLOCKS: usize = 4_000;
const TXS: usize = 6;
/// Where the interruptions come.
const HEIGHTS: [u64; 4] = [300, 1_000, 1_700, 2_400];

fn interrupt(node: Daemon, by_kill: bool) {
    if by_kill { node.kill() } else { node.stop() }
}

/// Waits until the follower is in the middle; the sync does not wait, so no pauses here.
fn wait_for_height(follower: &Daemon, height: u64) {
    wait_until("the middle of the sync", || {
        let end = std::time::Instant::now() + Duration::from_millis(20);
        while std::time::Instant::now() < end {
            if follower.height() >= height {
                return Some(());
            }
        }
        None
    });
}

/// `follower` syncs from the other; in turns one of them is restarted.
fn check(follower: Who) {
    let Some(pair) = Pair::new() else { return };
    let leader = follower.other();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (file, tip) = chain_file::write(dir.path(), 3, BLOCKS, TXS);
    pair.import(leader, &file);
    let mut serving = pair.start(leader, &["-connect=0"]);
    assert_eq!(serving.best(), tip.to_string());
    let state = serving.state();
    let mut syncing = pair.start(follower, &[&connect_to(&serving)]);
    for (index, height) in HEIGHTS.into_iter().enumerate() {
        wait_for_height(&syncing, height);
        let by_kill = index % 2 == 0;
        if index < 2 {
            interrupt(serving, by_kill);
            serving = pair.start(leader, &["-connect=0"]);
            assert_eq!(serving.best(), tip.to_string());
            // At another port than before.
            syncing.connect(&serving);
        } else {
            interrupt(syncing, by_kill);
            syncing = pair.start(follower, &[&connect_to(&serving)]);
        }
    }
    wait_until("the leader's tip", || (syncing.best() == tip.to_string()).then_some(()));
    assert_eq!(syncing.state(), state);
    let _ = serving.mine(1);
    syncing.follow(&serving);
    assert_eq!(syncing.state(), serving.state());
    assert_eq!(syncing.rpc("getblockcount", json!([])), BLOCKS + 1);
}

#[test]
fn either_side_restarts_while_we_sync_from_core() {
    check(Who::Ours);
}

#[test]
fn either_side_restarts_while_core_syncs_from_us() {
    check(Who::Core);
}
