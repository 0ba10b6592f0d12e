//! Reorganisations of 1 to 100 blocks, with Bitcoin Core on either side.

use cofferdam_tests::daemon::Daemon;
use serde_json::{Value, json};

use crate::pair::{Pair, Who};

/// Blocks that a branch is deep, from the least to the most.
const DEPTHS: [u64; 7] = [1, 2, 3, 7, 20, 60, 100];
/// Blocks below the forks: coins that can be spent are not needed, but headers are.
const TRUNK: u64 = 110;

/// The branch that `winner` mines apart is a block longer: `loser` leaves its own.
fn reorganise(winner: &Daemon, loser: &Daemon, depth: u64) {
    loser.disconnect();
    winner.disconnect();
    // Two scripts: the blocks of two miners of the same second would be the same.
    let _ = loser.rpc("generatetodescriptor", json!([depth, "raw(51)"]));
    let _ = winner.rpc("generatetodescriptor", json!([depth + 1, "raw(52)"]));
    let left = loser.best();
    assert_ne!(left, winner.best());
    loser.connect(winner);
    loser.follow(winner);
    let tips = loser.rpc("getchaintips", json!([]));
    let tip = tips.as_array().expect("tips").iter().find(|tip| tip["hash"] == left);
    let tip: &Value = tip.expect("the tip that was left");
    assert_eq!((&tip["status"], &tip["branchlen"]), (&json!("valid-fork"), &json!(depth)));
}

/// Our node and Core's, connected, with [`TRUNK`] blocks.
fn on_one_trunk(pair: &Pair) -> (Daemon, Daemon) {
    let ours = pair.start(Who::Ours, &[]);
    let core = pair.start(Who::Core, &[]);
    let _ = core.mine(TRUNK);
    ours.connect(&core);
    ours.follow(&core);
    (ours, core)
}

#[test]
fn either_follows_the_other_to_a_branch_of_1_to_100_blocks() {
    let Some(pair) = Pair::new() else { return };
    let (ours, core) = on_one_trunk(&pair);
    for depth in DEPTHS {
        reorganise(&core, &ours, depth);
        assert_eq!(ours.state(), core.state(), "we left {depth} blocks");
        reorganise(&ours, &core, depth);
        assert_eq!(ours.state(), core.state(), "Core left {depth} blocks");
    }
}

/// Both are told over RPC to leave blocks and to come back, and agree at every step.
#[test]
fn both_leave_and_take_back_the_same_blocks() {
    let Some(pair) = Pair::new() else { return };
    let (ours, core) = on_one_trunk(&pair);
    for height in [TRUNK, TRUNK - 1, 60, 10] {
        let hash = core.rpc("getblockhash", json!([height]));
        for node in [&ours, &core] {
            let _ = node.rpc("invalidateblock", json!([hash]));
            assert_eq!(node.height(), height - 1);
        }
        assert_eq!(ours.state(), core.state());
        for node in [&ours, &core] {
            let _ = node.rpc("reconsiderblock", json!([hash]));
            assert_eq!(node.height(), TRUNK);
        }
        assert_eq!(ours.state(), core.state());
    }
}
