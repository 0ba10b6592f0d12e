//! The coin statistics, up, down and behind.

use cofferdam_storage::{BackendKind, BackendOptions};

use super::*;
use crate::coin_stats::CoinStats;
use crate::subsidy::block_subsidy;
use crate::utxo_stats::{UtxoHash, UtxoStats};

fn open_over(dir: &Path, backend: Box<dyn Database>, coin_stats: bool) -> Chainstate {
    let options =
        ChainstateOptions { coin_stats, ..options(ChainParams::new(Network::Testnet3), dir) };
    Chainstate::open(options, Arc::new(StdFileSystem), backend).expect("opens").0
}

fn open_kept(dir: &Path) -> Chainstate {
    open_over(dir, Box::new(MemoryDatabase::new(TREES)), true)
}

/// What a scan of the set gives.
fn scan(chainstate: &Chainstate) -> Option<CoinStats> {
    let stats = chainstate.utxo_stats(UtxoHash::Muhash).expect("readable");
    let UtxoStats { txouts, total_amount, bogosize, .. } = stats;
    // What can never be spent no scan sees: of all subsidies up to now it is what is not in the set.
    let subsidies: u64 = (0..=chainstate.tip().height)
        .map(|height| block_subsidy(height, chainstate.params()))
        .sum();
    let unspendable = subsidies - total_amount;
    let block = Default::default();
    stats.muhash.map(|muhash| CoinStats {
        txouts,
        total_amount,
        bogosize,
        unspendable,
        muhash,
        block,
    })
}

/// What is kept, without what the block itself did.
fn known(chainstate: &Chainstate, hash: &BlockHash) -> Option<CoinStats> {
    let stats = chainstate.coin_stats(hash).expect("readable")?;
    let made = stats.block.coinbase + stats.block.new_outputs + stats.block.unspendable();
    let height = chainstate.headers().entry(chainstate.headers().get(hash)?).height;
    let subsidy = if height == 0 { 0 } else { block_subsidy(height, chainstate.params()) };
    assert_eq!(made, stats.block.prevouts_spent + subsidy, "at {height}");
    Some(CoinStats { block: Default::default(), ..stats })
}

/// The statistics at the tip, which have to be those of a scan.
fn check_stats(chainstate: &Chainstate) {
    let tip = chainstate.tip();
    assert!(chainstate.has_coin_stats());
    let stats = known(chainstate, &tip.hash);
    assert_eq!(stats, scan(chainstate), "at {}", tip.height);
}

#[test]
fn coin_statistics_are_those_of_a_scan_after_every_block_up_and_down() {
    let dir = tempfile::tempdir().expect("temporary");
    let mut chainstate = open_kept(dir.path());
    let mut up = vec![scan(&chainstate)];
    check_stats(&chainstate);
    for raw in blocks("testnet3/chain-0-400.blkdat").into_iter().skip(1) {
        assert!(matches!(chainstate.accept_block(raw, NOW), Ok(BlockAccepted::Stored(_))));
        assert_eq!(advance(&mut chainstate).connected, 1);
        check_stats(&chainstate);
        up.push(scan(&chainstate));
    }
    let hashes: Vec<BlockHash> =
        (0..=400).map(|height| chainstate.block_at(height).expect("connected").hash).collect();
    for _ in 0..50 {
        chainstate.disconnect_tip().expect("works");
        chainstate.write_index().expect("works");
        check_stats(&chainstate);
    }
    // Every height is still known, those above as well: rows of disconnected blocks stay.
    for (height, (hash, expected)) in hashes.iter().zip(up).enumerate() {
        let stats = known(&chainstate, hash);
        assert_eq!(stats, expected, "{height}");
    }
}

/// Opens a chain that is found again at the next opening.
fn open_on_disk(dir: &Path, coin_stats: bool) -> Chainstate {
    let place = dir.join("db");
    std::fs::create_dir_all(&place).expect("room");
    let database = BackendKind::Sled.open(&place, TREES, &BackendOptions::default());
    open_over(dir, database.expect("opens"), coin_stats)
}

/// Statistics that were not kept for a while catch up, from where they stood, down and up.
#[test]
fn coin_statistics_catch_up_from_the_block_files() {
    let dir = tempfile::tempdir().expect("temporary");
    let over = |coin_stats| open_on_disk(dir.path(), coin_stats);
    let all = blocks("testnet3/chain-0-400.blkdat");
    let feed = |chainstate: &mut Chainstate, range: std::ops::Range<usize>| {
        for raw in &all[range] {
            let _ = chainstate.accept_block(raw.clone(), NOW).expect("works");
        }
        assert!(advance(chainstate).done);
    };
    let mut without = over(false);
    feed(&mut without, 1..100);
    assert!(!without.has_coin_stats());
    without.shutdown().expect("closes");

    let mut with = over(true);
    assert!(!with.has_coin_stats());
    feed(&mut with, 100..200);
    check_stats(&with);
    with.shutdown().expect("closes");

    // Meanwhile the chain goes down and up again.
    let mut without = over(false);
    for _ in 0..30 {
        without.disconnect_tip().expect("works");
    }
    without.write_index().expect("works");
    assert_eq!(without.tip().height, 169);
    without.shutdown().expect("closes");
    let mut with = over(true);
    with.catch_up_stats(Instant::now() + Duration::from_secs(600)).expect("works");
    check_stats(&with);
    feed(&mut with, 200..401);
    check_stats(&with);
    with.shutdown().expect("closes");
    let with = over(true);
    check_stats(&with);
    for height in 0..=400 {
        let hash = with.block_at(height).expect("connected").hash;
        assert!(with.coin_stats(&hash).expect("readable").is_some(), "{height}");
    }
}

/// Neither waits for the other: each step brings both further, whatever the tip does meanwhile.
#[test]
fn blocks_are_connected_and_disconnected_while_coin_statistics_catch_up() {
    let dir = tempfile::tempdir().expect("temporary");
    let over = |coin_stats| open_on_disk(dir.path(), coin_stats);
    let all = blocks("testnet3/chain-0-400.blkdat");
    let mut chainstate = over(false);
    for raw in &all[1..350] {
        let _ = chainstate.accept_block(raw.clone(), NOW).expect("works");
    }
    assert!(advance(&mut chainstate).done);
    chainstate.shutdown().expect("closes");

    let mut chainstate = over(true);
    let step = |chainstate: &mut Chainstate| {
        let reached = chainstate.coin_stats_reached().expect("kept").height;
        let advance = chainstate.advance(Instant::now()).expect("works");
        assert!(chainstate.coin_stats_reached().expect("kept").height > reached);
        advance
    };
    assert!(step(&mut chainstate).done && chainstate.coin_stats_are_behind());
    for raw in &all[350..] {
        let _ = chainstate.accept_block(raw.clone(), NOW).expect("works");
    }
    for height in 350..355 {
        assert_eq!(step(&mut chainstate).connected, 1);
        assert_eq!(chainstate.tip().height, height);
        assert!(chainstate.coin_stats_are_behind());
    }
    // Down to blocks that the statistics have not reached, and below where they are.
    let reached = chainstate.coin_stats_reached().expect("kept").height;
    for _ in 0..100 {
        chainstate.disconnect_tip().expect("works");
    }
    assert_eq!(step(&mut chainstate).connected, 1);
    while chainstate.tip().height + 3 > reached {
        chainstate.disconnect_tip().expect("works");
    }
    check_stats(&chainstate);
    while !advance(&mut chainstate).done {}
    check_stats(&chainstate);
    assert_eq!(chainstate.tip().height, 400);
    for height in 0..=400 {
        let hash = chainstate.block_at(height).expect("connected").hash;
        assert!(known(&chainstate, &hash).is_some(), "{height}");
    }
}
