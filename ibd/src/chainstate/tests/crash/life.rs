//! `Life`: one process that lives a story on a simulated disk, and what it was promised when.

use std::path::Path;
use std::sync::Arc;

use bitcoin::BlockHash;
use bitcoin::consensus::deserialize;
use cofferdam_storage::testing::{SimDatabase, SimFileSystem};
use cofferdam_storage::{Durability, FileSystem, Lsn, Recovery};

use super::super::*;
use super::story::{Step, Story};

/// Where the database is on the simulated disk.
pub(super) const DB_DIR: &str = "chain/chainstate/db";

/// Opens a chain whose log, block files and database are on one simulated disk.
pub(super) fn open(
    fs: &SimFileSystem,
    network: Network,
    wal: WalOptions,
) -> Result<(Chainstate, Recovery)> {
    let fs: Arc<dyn FileSystem> = Arc::new(fs.clone());
    let backend = SimDatabase::open(Arc::clone(&fs), Path::new(DB_DIR), TREES)?;
    let options = ChainstateOptions {
        threads: 1,
        // Stories of a dozen blocks fill several files.
        file_size: crate::FileSize::Bytes(4000),
        wal,
        ..super::super::options(ChainParams::new(network), Path::new("chain"))
    };
    Chainstate::open(options, fs, Box::new(backend))
}

/// How far a life has got: in tips of its story, and in batches of the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Reached {
    /// No tip beyond this one was attempted.
    pub(super) attempted: usize,
    /// What survives the death of the process.
    pub(super) kill: Kept,
    /// What survives a power cut.
    pub(super) power: Kept,
}

/// What is not lost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Kept {
    /// The batch of this number.
    pub(super) lsn: Lsn,
    /// The tip of this number, or a later one.
    pub(super) tip: usize,
}

/// Lives a story on a copy of its base. Returns the disk, and what was reached at each mark that was
/// left in the recording.
pub(super) fn live(story: &Story, wal: &WalOptions) -> (SimFileSystem, Vec<Reached>) {
    let fs = story.base.copy();
    fs.record();
    let chainstate = open(&fs, story.network, wal.clone()).expect("opens").0;
    let mode = wal.durability;
    let reached = Reached::default();
    let mut life =
        Life { fs: fs.clone(), story, mode, wal, reached, at: 0, marks: Vec::new(), chainstate };
    life.all_is_durable();
    for step in &story.steps {
        life.act(step);
    }
    assert_eq!(life.chainstate.tip().hash, story.end());
    // The threads may still be at work; what they do is recorded too.
    drop(life.chainstate);
    (fs, life.marks)
}

struct Life<'a> {
    fs: SimFileSystem,
    story: &'a Story,
    mode: Durability,
    wal: &'a WalOptions,
    reached: Reached,
    /// The number of the tip.
    at: usize,
    marks: Vec<Reached>,
    chainstate: Chainstate,
}

impl Life<'_> {
    fn act(&mut self, step: &Step) {
        match step {
            Step::Headers(numbers) => {
                let header = |number: &usize| deserialize(&self.story.blocks[*number][..80]);
                let headers: Vec<_> =
                    numbers.iter().map(|number| header(number).expect("a header")).collect();
                let accepted = self.chainstate.accept_headers(&headers, NOW).expect("works");
                assert_eq!(accepted.expect("sound").new, headers.len());
                self.acknowledged();
            }
            Step::Accept(number) => {
                let raw = self.story.blocks[*number].clone();
                let accepted = self.chainstate.accept_block(raw, NOW).expect("works");
                assert!(matches!(accepted, BlockAccepted::Stored(_)), "{accepted:?}");
            }
            Step::Advance(through) => self.advance(through, Duration::from_secs(600)),
            Step::AdvanceOnce(through) => self.advance(through, Duration::ZERO),
            Step::Sync => {
                self.chainstate.sync().expect("works");
                self.all_is_durable();
            }
            Step::Prune => {
                let files = self.chainstate.finished_block_files().expect("readable");
                assert!(!files.is_empty());
                let numbers = files.iter().map(|file| file.number).collect();
                self.chainstate.prune_files(&numbers).expect("works");
                assert!(self.chainstate.finished_block_files().expect("readable").is_empty());
                self.all_is_durable();
            }
            Step::Checkpoint => {
                self.chainstate.store.checkpoint().expect("works");
                self.all_is_durable();
            }
            Step::Reopen => self.reopen(true),
            Step::Drop => {
                // In the asynchronous mode what is in the buffer would be lost with it.
                self.act(&Step::Sync);
                self.reopen(false);
            }
        }
    }

    fn advance(&mut self, through: &[BlockHash], time: Duration) {
        self.reached.attempted = self.at + through.len();
        self.mark();
        let advance = self.chainstate.advance(Instant::now() + time).expect("works");
        let moved = advance.connected + advance.disconnected;
        assert_eq!(moved as usize, through.len(), "{advance:?}");
        self.at += through.len();
        assert_eq!(self.chainstate.tip().hash, self.story.tips[self.at]);
        self.acknowledged();
    }

    fn reopen(&mut self, shut_down: bool) {
        let dir = tempfile::tempdir().expect("temporary");
        let placeholder = super::super::open(ChainParams::new(self.story.network), dir.path());
        let chainstate = std::mem::replace(&mut self.chainstate, placeholder);
        if shut_down {
            chainstate.shutdown().expect("closes");
        } else {
            drop(chainstate);
        }
        let (chainstate, recovery) =
            open(&self.fs, self.story.network, self.wal.clone()).expect("opens");
        assert_eq!(recovery.clean, shut_down);
        assert_eq!(chainstate.tip().hash, self.story.tips[self.at]);
        self.chainstate = chainstate;
        self.all_is_durable();
    }

    /// Every commit up to here has returned.
    fn acknowledged(&mut self) {
        let kept = Kept { lsn: self.chainstate.store.stats().lsn, tip: self.at };
        if self.mode != Durability::Async {
            self.reached.kill = kept;
        }
        if matches!(self.mode, Durability::Strict | Durability::Batched { .. }) {
            self.reached.power = kept;
            assert_eq!(self.chainstate.store.durable_lsn(), kept.lsn);
        }
        // What the store says of itself is a promise too.
        let lsn = self.chainstate.store.durable_lsn();
        self.reached.power.lsn = self.reached.power.lsn.max(lsn);
        self.reached.kill.lsn = self.reached.kill.lsn.max(lsn);
        self.mark();
    }

    fn all_is_durable(&mut self) {
        let kept = Kept { lsn: self.chainstate.store.stats().lsn, tip: self.at };
        assert_eq!(self.chainstate.store.durable_lsn(), kept.lsn);
        self.reached = Reached { attempted: self.reached.attempted, kill: kept, power: kept };
        self.mark();
    }

    fn mark(&mut self) {
        self.fs.mark(self.marks.len() as u64);
        self.marks.push(self.reached);
    }
}
