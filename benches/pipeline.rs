//! The pipeline over a made chain of long blocks: accept, connect, log, with and without scripts,
//! by number of threads and size of the memtable.
//!
//! `COFFERDAM_BLOCKS` is the number of long blocks (40), `COFFERDAM_ROUNDS` that of the rounds (3). Words
//! on the command line choose parts: `scripts`, `plain`, `cache`.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]
#![expect(clippy::indexing_slicing, reason = "a benchmark panics on anything unexpected")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use cofferdam_benches::chain_maker::MadeChain;
use cofferdam_benches::report::{Sample, Table, alternate, from_env, process_time, words};
use cofferdam_ibd::{AssumeValid, ChainParams, Chainstate, ChainstateOptions, Network, TREES};
use cofferdam_storage::{BackendKind, BackendOptions, StdFileSystem, WalOptions};

/// Blocks that are stored before they are connected: what stays in memory.
const PART: usize = 20;
/// Transactions of a long block: some 900 KB.
const TXS: usize = 2_400;

/// How a chain is run.
#[derive(Clone, Copy, Debug)]
struct Run {
    threads: usize,
    scripts: bool,
    backend: BackendKind,
    memtable_mib: usize,
}

/// What a run took, for the long blocks alone.
#[derive(Clone, Copy, Debug)]
struct Took {
    wall: f64,
    processor: f64,
}

fn open(run: Run, chain: &MadeChain, dir: &std::path::Path) -> Chainstate {
    let path = dir.join("db");
    std::fs::create_dir_all(&path).expect("room");
    let database = run.backend.open(&path, TREES, &BackendOptions::default()).expect("opens");
    let last = chain.headers[chain.blocks.len() - 1].block_hash();
    let assume_valid = if run.scripts { AssumeValid::Off } else { AssumeValid::Block(last) };
    let mut params = ChainParams::new(Network::Regtest);
    // As on the main chain: no output has to be looked up that BIP-0034 makes new.
    params.bip34_hash = Some(chain.headers[params.bip34_height as usize - 1].block_hash());
    let options = ChainstateOptions {
        threads: run.threads,
        assume_valid,
        wal: WalOptions { memtable_bytes: run.memtable_mib << 20, ..WalOptions::default() },
        ..ChainstateOptions::new(params, dir)
    };
    Chainstate::open(options, Arc::new(StdFileSystem), database).expect("opens").0
}

fn import(chainstate: &mut Chainstate, blocks: Vec<Vec<u8>>, now: u32) {
    let hour = Instant::now() + Duration::from_secs(3600);
    for raw in blocks {
        let _ = chainstate.accept_block(raw, now).expect("works");
    }
    let advance = chainstate.advance(hour).expect("works");
    assert!(advance.done && advance.invalid.is_empty(), "{advance:?}");
}

fn measure(run: Run, chain: &MadeChain) -> Took {
    let dir = tempfile::tempdir().expect("room");
    let mut chainstate = open(run, chain, dir.path());
    chainstate.accept_headers(&chain.headers, chain.now).expect("works").expect("valid");
    let (prepared, long) = chain.blocks.split_at(chain.prepared);
    import(&mut chainstate, prepared.to_vec(), chain.now);
    // What a peer sends, or a file has, is there before the time is taken.
    let parts: Vec<Vec<Vec<u8>>> = long.chunks(PART).map(<[Vec<u8>]>::to_vec).collect();
    let (started, processor) = (Instant::now(), process_time());
    for blocks in parts {
        import(&mut chainstate, blocks, chain.now);
    }
    let wall = started.elapsed().as_secs_f64();
    let processor = (process_time() - processor).as_secs_f64();
    assert_eq!(chainstate.tip().height as usize, chain.blocks.len());
    chainstate.shutdown().expect("closes");
    Took { wall, processor }
}

fn main() {
    let words = words();
    let wanted = |part: &str| words.is_empty() || words.iter().any(|word| word == part);
    let chain = MadeChain::generate(1, from_env("COFFERDAM_BLOCKS", 40), TXS);
    let long = &chain.blocks[chain.prepared..];
    let mb = long.iter().map(Vec::len).sum::<usize>() as f64 / 1e6;
    let inputs = (long.len() * TXS * 2) as f64;
    println!("{} blocks, {mb:.1} MB, {inputs} inputs\n", long.len());
    let mut runs = Vec::new();
    let run = Run { threads: 2, scripts: false, backend: BackendKind::Memory, memtable_mib: 512 };
    if wanted("plain") {
        runs.push(Run { threads: 1, ..run });
        runs.push(run);
    }
    if wanted("cache") {
        for memtable_mib in [512, 32, 4] {
            runs.push(Run { backend: BackendKind::Rocksdb, memtable_mib, ..run });
        }
    }
    if wanted("scripts") {
        runs.push(Run { threads: 1, scripts: true, ..run });
        runs.push(Run { scripts: true, ..run });
    }
    let samples = alternate(from_env("COFFERDAM_ROUNDS", 3), &runs, |run| measure(*run, &chain));
    let mut table = Table::new(&[
        "run",
        "MB/s",
        "inputs/s",
        "ms of CPU per MB",
        "spread of it",
        "us of CPU per input",
    ]);
    for (run, took) in runs.iter().zip(samples) {
        let wall = Sample::new(took.iter().map(|took| took.wall).collect());
        let processor = Sample::new(took.iter().map(|took| took.processor).collect());
        let scripts = if run.scripts { "all scripts" } else { "no scripts" };
        let Run { threads, backend, memtable_mib, .. } = run;
        table.row([
            format!("{scripts}, {threads} threads, {backend}, memtable {memtable_mib} MiB"),
            format!("{:.1}", mb / wall.median()),
            format!("{:.0}", inputs / wall.median()),
            format!("{:.2}", processor.median() * 1e3 / mb),
            processor.spread(1e3 / mb, 2),
            format!("{:.2}", processor.median() * 1e6 / inputs),
        ]);
    }
    println!("{table}");
}
