//! Is the outcome the same whatever the threads, the buffer, the engine, the durability and the
//! order of arrival are, and is it that of a plain map?
//!
//! Generated regtest chains with one invalid block somewhere; the map is `ModelChain`. A failure
//! names the seed and the configuration, which repeat it up to the timing of threads.
#![expect(clippy::indexing_slicing, reason = "a test fails by a panic")]

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bitcoin::consensus::serialize;
use bitcoin::{Block, BlockHash, Transaction, TxOut};
use cofferdam_ibd::headers::HeaderStatus;
use cofferdam_ibd::testing::{Fault, ModelChain, transfer};
use cofferdam_ibd::wire::{OutputRef, TxRef};
use cofferdam_ibd::{
    BlockAccepted, Chainstate, KernelVerifier, Network, PreparedTransaction, Result, ScriptFlags,
    ScriptVerifier, TREES,
};
use cofferdam_storage::testing::{Random, effort};
use cofferdam_storage::{BackendKind, BackendOptions, Durability, FileSystem, StdFileSystem};
use cofferdam_tests::chain::{self, NOW};

const BACKENDS: [BackendKind; 4] = BackendKind::ALL;
const DURABILITIES: [Durability; 4] = [
    Durability::Strict,
    Durability::Batched { blocks: 1, interval_ms: 1 },
    Durability::Relaxed { interval_ms: 5 },
    Durability::Async,
];
/// A write-back after each block, now and then, never.
const MEMTABLES: [usize; 3] = [1, 24 << 10, 64 << 20];
const THREADS: usize = 8;

/// What must not matter.
#[derive(Clone, Copy, Debug)]
struct Config {
    backend: BackendKind,
    durability: Durability,
    memtable_bytes: usize,
    threads: usize,
}

impl Config {
    const COUNT: usize = BACKENDS.len() * DURABILITIES.len() * MEMTABLES.len() * THREADS;

    const fn new(number: usize) -> Self {
        let (number, threads) = (number / THREADS, 1 + number % THREADS);
        let (number, memtable_bytes) =
            (number / MEMTABLES.len(), MEMTABLES[number % MEMTABLES.len()]);
        let (number, durability) =
            (number / DURABILITIES.len(), DURABILITIES[number % DURABILITIES.len()]);
        Self { backend: BACKENDS[number % BACKENDS.len()], durability, memtable_bytes, threads }
    }

    fn open(self, dir: &Path, verifier: Arc<dyn ScriptVerifier>) -> Chainstate {
        let mut options = chain::options(Network::Regtest, dir);
        options.threads = self.threads;
        options.wal.memtable_bytes = self.memtable_bytes;
        // The chain below the one in question is stored as fast as possible.
        options.wal.durability = Durability::Async;
        let path = dir.join("database");
        std::fs::create_dir_all(&path).expect("a temporary directory");
        let backend = self.backend.open(&path, TREES, &BackendOptions::default()).expect("opens");
        let fs: Arc<dyn FileSystem> = Arc::new(StdFileSystem);
        Chainstate::open_with(options, &fs, backend, verifier).expect("opens").0
    }

    /// A chainstate with a chain in it, and from here on as durable as asked for.
    fn funded(self, dir: &Path, verifier: Arc<dyn ScriptVerifier>, base: &[Block]) -> Chainstate {
        let mut chainstate = self.open(dir, verifier);
        chain::store(&mut chainstate, &serialized(base));
        chain::settle(&mut chainstate);
        chainstate.store().set_durability(self.durability);
        chainstate
    }
}

fn serialized(blocks: &[Block]) -> Vec<Vec<u8>> {
    blocks.iter().map(serialize).collect()
}

/// A chain on `from`; returns it with its blocks.
fn grow(from: &ModelChain, random: &mut Random, len: usize) -> (ModelChain, Vec<Block>) {
    let (mut chain, mut blocks) = (from.clone(), Vec::new());
    for _ in 0..len {
        let block = chain.random_block(random, 8);
        chain.connect(&block);
        blocks.push(block);
    }
    (chain, blocks)
}

/// Blocks, one of which is invalid, and what has to become of them.
struct Case {
    base: Vec<Block>,
    blocks: Vec<Block>,
    /// The invalid block and those behind it; none if the fault is of a kind that condemns nothing,
    /// because other bytes of that block might be without it (`ProcessNewBlock` in Bitcoin Core).
    failed: BTreeSet<BlockHash>,
    first_failed: (BlockHash, &'static str),
    end: ModelChain,
}

impl Case {
    /// Valid blocks, an invalid one, some behind it; and a branch from somewhere below, which wins if
    /// it is longer than what is valid.
    fn new(seed: u64, fault: Fault) -> Self {
        let mut random = Random::new(seed);
        let (funded, base) = ModelChain::funded(24);
        let (below, mut blocks) = {
            let len = random.below(4);
            grow(&funded, &mut random, len)
        };
        let len = 1 + random.below(5);
        let (good, more) = grow(&below, &mut random, len);
        let branch_len = [len - 1, len + 1][random.below(2)];
        let (branch_end, branch) = grow(&below, &mut random, branch_len);
        blocks.extend(more);
        let bad = good.faulty_block(fault, &mut random).expect("there are coins");
        let mut behind = good.clone();
        behind.connect(&bad);
        // At least one: what is invalid has more work than all else, and so it is looked at.
        let len = 1 + random.below(12);
        let (_, behind) = grow(&behind, &mut random, len);
        let mut failed: BTreeSet<_> =
            std::iter::once(&bad).chain(&behind).map(Block::block_hash).collect();
        if fault == Fault::DuplicateInput {
            failed.clear();
        }
        let first_failed = (bad.block_hash(), fault.code());
        blocks.push(bad);
        blocks.extend(behind);
        blocks.extend(branch);
        let end = if branch_end.tip().height > good.tip().height { branch_end } else { good };
        Self { base, blocks, failed, first_failed, end }
    }

    /// Gives all blocks in random order, advancing now and then.
    fn check(&self, config: Config, seed: u64) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut chainstate = config.funded(dir.path(), Arc::new(KernelVerifier), &self.base);
        let mut random = Random::new(!seed);
        let headers: Vec<_> = self.blocks.iter().map(|block| block.header).collect();
        chainstate.accept_headers(&headers, NOW).expect("works").expect("sound headers");
        let mut left: Vec<&Block> = self.blocks.iter().collect();
        let mut invalid = BTreeSet::new();
        while !left.is_empty() {
            let block = left.swap_remove(random.below(left.len()));
            match chainstate.accept_block(serialize(block), NOW).expect("works") {
                BlockAccepted::Stored(_) => {}
                BlockAccepted::Rejected(rejection) if rejection.code == "duplicate-invalid" => {
                    assert!(self.failed.contains(&block.block_hash()));
                }
                BlockAccepted::Rejected(rejection) => {
                    invalid.insert((block.block_hash(), rejection.code));
                }
                BlockAccepted::Duplicate(_) => panic!("each block comes once"),
            }
            if random.one_in(3) {
                let advance = chainstate.advance(Instant::now()).expect("works");
                invalid.extend(advance.invalid.into_iter().map(|(hash, why)| (hash, why.code)));
            }
        }
        let advance = chain::advance(&mut chainstate);
        invalid.extend(advance.invalid.into_iter().map(|(hash, why)| (hash, why.code)));
        let (hash, code) = self.first_failed;
        assert_eq!(invalid, BTreeSet::from([(hash, code.into())]), "the verdicts");
        assert_eq!(chainstate.tip().hash, self.end.tip().hash, "the tip");
        assert!(chain::coin_bytes(&chainstate) == self.end.rows(), "the coins");
        assert_eq!(condemned(&chainstate), self.failed);
        let hash = chainstate.utxo_stats(cofferdam_ibd::UtxoHash::Both).expect("readable");
        chainstate.shutdown().expect("closes");
        if config.backend != BackendKind::Memory {
            let reopened = config.open(dir.path(), Arc::new(KernelVerifier));
            let stats = reopened.utxo_stats(cofferdam_ibd::UtxoHash::Both).expect("readable");
            assert_eq!((stats, reopened.tip().hash), (hash, self.end.tip().hash));
            assert_eq!(condemned(&reopened), self.failed, "after a restart");
        }
    }
}

/// The blocks that break a rule or have an ancestor that does, as far as the chainstate knows.
fn condemned(chainstate: &Chainstate) -> BTreeSet<BlockHash> {
    let tree = chainstate.headers();
    let entries = tree.iter().map(|at| tree.entry(at));
    let failed = entries.filter(|entry| entry.status.has(HeaderStatus::FAILED));
    failed.map(|entry| entry.hash).collect()
}

/// Prints what a failure needs to be repeated.
struct Label(String);

impl Drop for Label {
    #[expect(clippy::print_stdout, reason = "says what a failed test was doing")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("it was {}", self.0);
        }
    }
}

/// A third of the configurations at full effort, each with another chain and another fault.
#[test]
fn same_verdicts_and_coins_in_every_configuration() {
    let (begun, runs) = (Instant::now(), effort().pick(22, Config::COUNT / 3, 20 * Config::COUNT));
    for run in 0..runs {
        // 137 and the number of configurations have no common divisor: a few runs vary all.
        let config = Config::new(run * 137 % Config::COUNT);
        let fault = Fault::ALL[run % Fault::ALL.len()];
        let seed = run as u64;
        let _label = Label(format!("run {run}: seed {seed}, {fault:?}, {config:?}"));
        Case::new(seed, fault).check(config, seed);
    }
    println!("{runs} of {} configurations, {:.1?}", Config::COUNT, begun.elapsed());
}

/// One chain in many configurations: the faults that threads could see in another order.
#[test]
fn one_chain_has_one_outcome_on_every_backend_with_every_number_of_threads() {
    let faults = [Fault::Script, Fault::WitnessScript].into_iter().cycle();
    for (seed, fault) in (0..effort().pick(1, 3, 100)).zip(faults) {
        let case = Case::new(1000 + seed, fault);
        for (number, backend) in BACKENDS.into_iter().enumerate() {
            for threads in 1..=THREADS {
                let memtable_bytes = MEMTABLES[(number + threads) % MEMTABLES.len()];
                let durability = DURABILITIES[threads % DURABILITIES.len()];
                let config = Config { backend, durability, memtable_bytes, threads };
                let _label = Label(format!("seed {seed}, {config:?}"));
                case.check(config, seed);
            }
        }
    }
}

/// The kernel's verdicts, each a random while later: what finishes first changes from run to run.
#[derive(Debug)]
struct Slow {
    seed: u64,
    micros_max: u64,
}

impl ScriptVerifier for Slow {
    fn prepare<'a>(
        &self,
        tx: TxRef<'a>,
        spent: &'a [OutputRef<'a>],
        flags: ScriptFlags,
    ) -> Result<Box<dyn PreparedTransaction + 'a>> {
        let number = serialize(&tx.txid())[..8].try_into().expect("eight bytes");
        let mut random = Random::new(self.seed ^ u64::from_le_bytes(number));
        std::thread::sleep(Duration::from_micros(random.next() % self.micros_max));
        KernelVerifier.prepare(tx, spent, flags)
    }
}

const MANY_THREADS: Config = Config {
    backend: BackendKind::Memory,
    durability: Durability::Async,
    memtable_bytes: 64 << 20,
    threads: 8,
};

/// A script fails in block N; blocks N+1 and N+2 have faults that are found without scripts, long
/// before. They are never told: they break no rule of a chain that anybody has.
#[test]
fn the_first_invalid_block_decides_whatever_finished_first() {
    let (funded, base) = ModelChain::funded(24);
    let seconds = [Fault::SequenceLock, Fault::NonFinal, Fault::CoinbaseHeight, Fault::Premature];
    for seed in 0..effort().pick(16, 200, 4000) {
        let mut random = Random::new(seed);
        let second = seconds[random.below(seconds.len())];
        let _label = Label(format!("seed {seed}, {second:?}"));
        let (good, mut blocks) = grow(&funded, &mut random, 2);
        let first = [Fault::Script, Fault::WitnessScript][random.below(2)];
        let mut behind = good.clone();
        let faults = [first, second, Fault::MissingInput];
        let bad = faults.map(|fault| {
            let block = behind.faulty_block(fault, &mut random).expect("there are coins");
            behind.connect(&block);
            block
        });
        blocks.extend_from_slice(&bad);
        let dir = tempfile::tempdir().expect("a temporary directory");
        let verifier = Arc::new(Slow { seed, micros_max: 1500 });
        let mut chainstate = MANY_THREADS.funded(dir.path(), verifier, &base);
        for block in &blocks {
            let accepted = chainstate.accept_block(serialize(block), NOW).expect("works");
            let stored = matches!(accepted, BlockAccepted::Stored(_));
            assert!(stored || *block == bad[1] || *block == bad[2], "{accepted:?}");
        }
        let advance = chain::advance(&mut chainstate);
        let invalid: Vec<_> =
            advance.invalid.iter().map(|(hash, why)| (*hash, why.code.as_ref())).collect();
        assert_eq!(invalid, [(bad[0].block_hash(), first.code())]);
        assert_eq!(chainstate.tip().hash, good.tip().hash);
        assert!(chain::coin_bytes(&chainstate) == good.rows(), "the coins");
    }
}

/// Of several failing inputs in a block the first is told, whichever thread was first.
#[test]
fn the_first_failing_input_of_a_block_is_told() {
    let (funded, base) = ModelChain::funded(160);
    let anyones = funded.spendable(true);
    let nobodys = funded.spendable(false);
    let simple = |coin: &(_, TxOut)| transfer(std::slice::from_ref(coin), vec![coin.1.clone()]);
    for seed in 0..effort().pick(8, 100, 1000) {
        let mut random = Random::new(seed);
        let mut txs: Vec<_> = anyones.iter().take(100).map(simple).collect();
        for coin in &nobodys[..4] {
            txs.insert(random.below(txs.len() + 1), simple(coin));
        }
        let fails = |tx: &Transaction| {
            nobodys.iter().any(|(outpoint, _)| tx.input[0].previous_output == *outpoint)
        };
        let first = txs.iter().find(|tx| fails(tx)).expect("four of them");
        let expected = format!("input 0 of {} (", first.compute_txid());
        let block = funded.block(1, txs);
        let dir = tempfile::tempdir().expect("a temporary directory");
        let verifier = Arc::new(Slow { seed, micros_max: 300 });
        let mut chainstate = MANY_THREADS.funded(dir.path(), verifier, &base);
        chain::store(&mut chainstate, &[serialize(&block)]);
        let advance = chain::advance(&mut chainstate);
        let detail = advance.invalid[0].1.detail.as_deref().expect("a script's fault");
        assert!(detail.starts_with(&expected), "seed {seed}: {detail} is not {expected}");
    }
}

/// Wherever in a run of blocks the script fails: the blocks before it are connected, none after it,
/// and the chain goes on with another block in its place.
#[test]
fn a_failing_script_aborts_exactly_from_its_block_on() {
    const RUN: usize = 12;
    let (funded, base) = ModelChain::funded(24);
    for at in (0..RUN).step_by(effort().pick(4, 1, 1)) {
        for threads in [1, 2, 8] {
            let seed = (at * 10 + threads) as u64;
            let _label = Label(format!("seed {seed}, fault at {at}, {threads} threads"));
            let mut random = Random::new(seed);
            let (good, mut blocks) = grow(&funded, &mut random, at);
            let bad = good.faulty_block(Fault::Script, &mut random).expect("coins of nobody");
            let mut behind = good.clone();
            behind.connect(&bad);
            blocks.push(bad.clone());
            blocks.extend(grow(&behind, &mut random, RUN - at).1);
            let dir = tempfile::tempdir().expect("a temporary directory");
            let config = Config { threads, memtable_bytes: 1, ..MANY_THREADS };
            let verifier = Arc::new(Slow { seed, micros_max: 500 });
            let mut chainstate = config.funded(dir.path(), verifier, &base);
            let lsn = chainstate.store().stats().lsn;
            chain::store(&mut chainstate, &serialized(&blocks));
            let advance = chain::advance(&mut chainstate);
            assert_eq!((advance.connected as usize, advance.disconnected), (at, 0));
            assert_eq!(advance.invalid[0].0, bad.block_hash());
            assert!(chain::coin_bytes(&chainstate) == good.rows(), "the coins");
            // One batch for each block, and one for the rows of those that failed.
            assert_eq!(chainstate.store().stats().lsn, lsn + at as u64 + 1);
            let (end, more) = grow(&good, &mut random, 3);
            chain::store(&mut chainstate, &serialized(&more));
            chain::settle(&mut chainstate);
            assert!(chain::coin_bytes(&chainstate) == end.rows(), "the coins at the end");
        }
    }
}
