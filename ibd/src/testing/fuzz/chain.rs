//! Any sequence of blocks, good and bad, on any branch, against the map of [`ModelChain`].

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bitcoin::consensus::serialize;
use bitcoin::{Block, BlockHash};
use cofferdam_storage::testing::fuzz::Input;
use cofferdam_storage::testing::{CrashModel, Random, SimDatabase, SimFileSystem};
use cofferdam_storage::{
    Batch, Database, Durability, FileSystem, KeyRange, STATE_TREE, WalOptions,
};

use crate::chainstate::{AssumeValid, BlockAccepted, Chainstate, ChainstateOptions};
use crate::error::Result;
use crate::params::{ChainParams, Network};
use crate::script::ScriptVerifier;
use crate::tables::{COINS, TREES};
use crate::testing::{Fault, ModelChain};

/// A time after every block: 2026-01-01.
pub(super) const NOW: u32 = 1_767_225_600;
/// A longer sequence finds nothing that the end of a shorter one does not.
const STEPS_MAX: usize = 48;
/// As many blocks, so that a long run of steps stays fast.
const BLOCKS_MAX: usize = 24;
/// Coinbases that can be spent.
const FUNDS: u32 = 12;
const DB_DIR: &str = "chain/chainstate/db";

/// Takes the bytes for blocks that are made on some branch, good or with a fault, given in some
/// order, connected as far as wanted; for restarts, and for power cuts. Returns whether the chain
/// moved beyond its beginning.
///
/// # Panics
///
/// If the coins are not those of the map at the tip; if the tip is invalid or is not the best; if a
/// block is refused for another reason than its fault.
pub fn chain(data: &[u8]) -> bool {
    let mut input = Input::new(data);
    let mut run = Run::new(&mut input);
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        run.step(&mut input);
        run.check();
    }
    run.advance(Duration::from_secs(600));
    run.check();
    run.reopen(false);
    run.check();
    run.known.len() > 1 && run.chainstate().tip().hash != base().chain.tip().hash
}

/// A disk with a chain that has coins to spend, and the chain.
struct Base {
    disk: SimFileSystem,
    chain: ModelChain,
}

/// What each run begins with; made once.
fn base() -> &'static Base {
    static BASE: OnceLock<Base> = OnceLock::new();
    BASE.get_or_init(|| {
        let (chain, blocks) = ModelChain::funded(FUNDS);
        let disk = SimFileSystem::new();
        let mut chainstate = open(&disk, WalOptions::default()).expect("an empty disk");
        for block in &blocks {
            let accepted = chainstate.accept_block(serialize(block), NOW).expect("works");
            assert!(matches!(accepted, BlockAccepted::Stored(_)), "{accepted:?}");
        }
        let advance = chainstate.advance(Instant::now() + Duration::from_secs(600));
        assert!(advance.expect("works").invalid.is_empty());
        chainstate.shutdown().expect("closes");
        compact(&disk).expect("the disk is well");
        Base { disk, chain }
    })
}

/// Makes one batch of all that is in the simulated database: a file, not hundreds.
fn compact(disk: &SimFileSystem) -> cofferdam_storage::Result<()> {
    let (fs, dir): (Arc<dyn FileSystem>, _) = (Arc::new(disk.clone()), Path::new(DB_DIR));
    let mut all = Batch::new();
    {
        let database = SimDatabase::open(Arc::clone(&fs), dir, TREES)?;
        for tree in TREES.iter().chain([&STATE_TREE]) {
            for entry in database.range(*tree, KeyRange::all())? {
                let (key, value) = entry?;
                all.put(*tree, &key, &value);
            }
        }
    }
    for name in fs.list(dir)? {
        fs.remove(&dir.join(name))?;
    }
    let database = SimDatabase::open(fs, dir, TREES)?;
    database.apply(&all)?;
    database.flush()
}

/// Opens a regtest chain on a simulated disk.
fn open(disk: &SimFileSystem, wal: WalOptions) -> Result<Chainstate> {
    let fs: Arc<dyn FileSystem> = Arc::new(disk.clone());
    let backend = SimDatabase::open(Arc::clone(&fs), Path::new(DB_DIR), TREES)?;
    open_over(&fs, wal, Box::new(backend))
}

/// Opens a regtest chain over a database.
pub(super) fn open_over(
    fs: &Arc<dyn FileSystem>,
    wal: WalOptions,
    backend: Box<dyn Database>,
) -> Result<Chainstate> {
    let options = ChainstateOptions {
        threads: 2,
        assume_valid: AssumeValid::Off,
        wal,
        file_size: crate::FileSize::Core,
        coin_stats: true,
        ..ChainstateOptions::new(ChainParams::new(Network::Regtest), "chain")
    };
    Ok(Chainstate::open_with(options, fs, backend, verifier())?.0)
}

#[cfg(feature = "kernel")]
fn verifier() -> Arc<dyn ScriptVerifier> {
    Arc::new(crate::script::KernelVerifier)
}

#[cfg(not(feature = "kernel"))]
fn verifier() -> Arc<dyn ScriptVerifier> {
    Arc::new(crate::testing::OpTrueVerifier)
}

/// A block that was made.
struct Known {
    block: Option<Block>,
    parent: usize,
    /// The chain that ends in it.
    chain: ModelChain,
    /// How it breaks a rule, itself.
    fault: Option<Fault>,
    /// Whether neither it nor an ancestor breaks one.
    valid: bool,
    /// Whether the chainstate has it for good, or until a power cut.
    given: bool,
}

struct Run {
    disk: SimFileSystem,
    wal: WalOptions,
    chainstate: Option<Chainstate>,
    /// The base's tip, and blocks above it; parents come first.
    known: Vec<Known>,
}

impl Run {
    fn new(input: &mut Input<'_>) -> Self {
        let flush = input.below(4);
        let wal = WalOptions {
            // Strict is slow: threads wait for each other at every commit.
            durability: if input.below(8) == 7 { Durability::Strict } else { Durability::Async },
            flush_every_blocks: u32::try_from(flush).ok().filter(|&blocks| blocks > 0),
            memtable_bytes: if input.below(4) == 3 { 1 } else { 1 << 20 },
            segment_bytes: 5000,
            verify_freshness: true,
            ..WalOptions::default()
        };
        let disk = base().disk.copy();
        let chainstate = Some(open(&disk, wal.clone()).expect("the base"));
        let chain = base().chain.clone();
        let known =
            vec![Known { block: None, parent: 0, chain, fault: None, valid: true, given: true }];
        Self { disk, wal, chainstate, known }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.below(8) {
            0..=2 => self.make(input, false),
            3 => self.make(input, true),
            4 => self.advance(Duration::ZERO),
            5 => self.advance(Duration::from_secs(600)),
            6 => self.give(input.below(self.known.len())),
            _ => self.reopen(input.flag()),
        }
    }

    fn chainstate(&mut self) -> &mut Chainstate {
        self.chainstate.as_mut().expect("open between two steps")
    }

    /// Makes a block on some block, and gives it unless it is to come later.
    fn make(&mut self, input: &mut Input<'_>, faulty: bool) {
        if self.known.len() > BLOCKS_MAX {
            return;
        }
        // The last one more often than others: chains grow.
        let last = self.known.len() - 1;
        let parent = last.saturating_sub(input.below(self.known.len() * 2).saturating_sub(last));
        let mut random = Random::new(u64::from(input.byte()));
        let fault = faulty.then(|| Fault::ALL.get(input.below(Fault::ALL.len())).copied());
        let fault = fault.flatten();
        let later = input.below(4) == 3;
        let Some(on) = self.known.get(parent) else { return };
        let block = match fault {
            None => Some(on.chain.random_block(&mut random, 5)),
            Some(fault) => on.chain.faulty_block(fault, &mut random),
        };
        let Some(block) = block else { return };
        if self.known.iter().any(|known| known.chain.tip().hash == block.block_hash()) {
            return;
        }
        let mut chain = on.chain.clone();
        chain.connect(&block);
        let valid = on.valid && fault.is_none();
        self.known.push(Known { block: Some(block), parent, chain, fault, valid, given: false });
        if !later {
            self.give(self.known.len() - 1);
        }
    }

    fn give(&mut self, number: usize) {
        let Some(Known { block: Some(block), parent, fault, valid, .. }) = self.known.get(number)
        else {
            return;
        };
        let (raw, header, parent, fault, valid) =
            (serialize(block), block.header, *parent, *fault, *valid);
        // As a peer does: headers first. They may have an ancestor that is known to be bad.
        let headers = self.headers_to(parent);
        let headers = headers.into_iter().chain([header]).collect::<Vec<_>>();
        let known = self.chainstate().accept_headers(&headers, NOW).expect("works");
        if let Err(rejection) = known {
            let code = &*rejection.code;
            assert!(!valid && ["duplicate-invalid", "bad-prevblk"].contains(&code), "{rejection}");
            return;
        }
        let given = match self.chainstate().accept_block(raw, NOW).expect("works") {
            BlockAccepted::Stored(_) => {
                assert!(!fault.is_some_and(Fault::is_refused_on_arrival), "{fault:?} was stored");
                true
            }
            BlockAccepted::Duplicate(_) => true,
            BlockAccepted::Rejected(rejection) => {
                let fault = fault.expect("a block without a fault of its own is stored");
                assert!(fault.is_refused_on_arrival(), "{rejection}");
                assert_eq!(rejection.code, fault.code());
                false
            }
        };
        if let Some(known) = self.known.get_mut(number) {
            known.given = given;
        }
    }

    /// The headers from above the base up to a block.
    fn headers_to(&self, mut number: usize) -> Vec<bitcoin::block::Header> {
        let mut headers = Vec::new();
        while let Some(Known { block: Some(block), parent, .. }) = self.known.get(number) {
            headers.push(block.header);
            number = *parent;
        }
        headers.reverse();
        headers
    }

    fn advance(&mut self, time: Duration) {
        let advance = self.chainstate().advance(Instant::now() + time).expect("works");
        for (hash, rejection) in &advance.invalid {
            let fault = self.find(hash).and_then(|known| known.fault);
            assert_eq!(fault.map(Fault::code), Some(&*rejection.code), "{rejection}");
        }
        if !advance.done {
            return;
        }
        let height = self.chainstate().tip().height;
        let best = (0..self.known.len()).filter(|&number| self.is_complete(number));
        let best = best.filter_map(|number| self.known.get(number)).filter(|known| known.valid);
        let best = best.map(|known| known.chain.tip().height).max();
        assert_eq!(Some(height), best, "the tip is not the best block");
    }

    fn find(&self, hash: &BlockHash) -> Option<&Known> {
        self.known.iter().find(|known| known.chain.tip().hash == *hash)
    }

    /// Whether a block and all below it were given.
    fn is_complete(&self, mut number: usize) -> bool {
        while let Some(known) = self.known.get(number) {
            if !known.given {
                return false;
            }
            if known.block.is_none() {
                return true;
            }
            number = known.parent;
        }
        false
    }

    /// Shuts down and opens again, or lets the power fail; then what was not connected may be gone.
    fn reopen(&mut self, power_cut: bool) {
        let tip = self.chainstate().tip();
        let mut chainstate = self.chainstate.take().expect("open between two steps");
        if power_cut {
            if self.wal.durability == Durability::Async {
                chainstate.sync().expect("works");
            }
            self.disk = self.disk.after_crash(CrashModel::SyncedOnly, 0);
            drop(chainstate);
        } else {
            chainstate.shutdown().expect("closes");
        }
        self.chainstate = Some(open(&self.disk, self.wal.clone()).expect("opens again"));
        assert_eq!(self.chainstate().tip(), tip, "what was connected and is durable stays");
        for known in &mut self.known {
            let hash = known.chain.tip().hash;
            known.given = self.chainstate.as_ref().is_some_and(|chain| chain.has_block(&hash));
        }
    }

    /// Compares the coins with the map's.
    fn check(&mut self) {
        let tip = self.chainstate().tip();
        let chainstate = self.chainstate.as_ref().expect("open between two steps");
        let coins = chainstate.store().range(COINS, KeyRange::all()).expect("readable");
        let coins: Vec<_> = coins.collect::<cofferdam_storage::Result<_>>().expect("readable");
        let known = self.find(&tip.hash).expect("the tip is one of the blocks");
        assert!(known.valid, "the tip {tip:?} breaks a rule, or something below it");
        assert!(coins == known.chain.rows(), "the coins at {tip:?}");
    }
}
