//! `Life`: one process that runs a script on a simulated disk, and what it was promised when.

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::script::{Action, Script};
use crate::testing::SimFileSystem;
use crate::tests::{BlockFiles, LOG_DIR, Store, open_all};
use crate::{
    BlockBatch, Database as _, Durability, FileSystem as _, SPARE_SEGMENTS_MAX, SegmentFiles,
    WalOptions,
};

/// How far a life has got, in versions of its script.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Reached {
    /// Nothing beyond this one was attempted.
    pub(super) attempted: usize,
    /// This one survives the death of the process.
    pub(super) kill: usize,
    /// This one survives a power cut.
    pub(super) power: usize,
    /// How many records more a life before this one may have left torn.
    pub(super) torn: u64,
}

impl Reached {
    pub(super) const fn at(version: usize) -> Self {
        Self { attempted: version, kill: version, power: version, torn: 0 }
    }
}

/// Runs a script. Returns what was reached at each mark that it left in the recording.
pub(super) fn live(
    fs: &SimFileSystem,
    script: &Script,
    options: &WalOptions,
    start: Reached,
) -> Vec<Reached> {
    let mut life = Life {
        fs,
        script,
        options,
        mode: options.durability,
        version: script.from,
        reached: start,
        marks: Vec::new(),
        open: None,
    };
    life.open();
    for action in &script.actions {
        life.act(action);
    }
    assert_eq!(life.version, script.last());
    // The threads may still be at work; what they do is recorded too.
    life.open = None;
    life.marks
}

struct Life<'a> {
    fs: &'a SimFileSystem,
    script: &'a Script,
    options: &'a WalOptions,
    mode: Durability,
    version: usize,
    reached: Reached,
    marks: Vec<Reached>,
    open: Option<(Store, Arc<BlockFiles>)>,
}

impl Life<'_> {
    fn open(&mut self) {
        let (store, recovery, files) = open_all(self.fs, self.options.clone()).unwrap();
        assert_eq!(recovery.to_lsn, self.script.versions[self.version].lsn, "{recovery:?}");
        self.mode = self.options.durability;
        self.open = Some((store, files));
        self.all_is_durable();
    }

    fn store(&self) -> &Store {
        &self.open.as_ref().unwrap().0
    }

    fn act(&mut self, action: &Action) {
        match action {
            Action::Commit(block) => {
                let block = self.attach(block);
                self.attempt();
                let lsn = self.store().commit(block).unwrap();
                self.acknowledged(lsn);
            }
            Action::Stage(blocks) => {
                for block in blocks {
                    let block = self.attach(block);
                    self.store().stage(block).unwrap();
                }
                for _ in blocks {
                    self.attempt();
                    let lsn = self.store().commit_staged().unwrap();
                    self.acknowledged(lsn);
                }
            }
            Action::Plain(batch) => {
                self.attempt();
                self.store().apply(batch).unwrap();
                self.acknowledged(self.store().stats().lsn);
            }
            Action::Clear(tree) => {
                self.attempt();
                self.store().clear(*tree).unwrap();
                self.version += 1;
                self.all_is_durable();
            }
            Action::Abort(block) => {
                let block = self.attach(block);
                self.store().stage(block).unwrap();
                assert_eq!(self.store().abort_staged(), 1);
                assert_eq!(self.store().tip(), self.script.versions[self.version].tip);
            }
            Action::Sync => {
                self.store().sync().unwrap();
                self.all_is_durable();
            }
            Action::Checkpoint => {
                self.store().checkpoint().unwrap();
                self.all_is_durable();
                self.check_log_dir();
            }
            Action::SetDurability(mode) => {
                self.store().set_durability(*mode);
                self.mode = *mode;
            }
            Action::Wait => {
                thread::sleep(Duration::from_millis(3));
                self.durable();
            }
            Action::Shutdown => self.shut_down(),
            Action::Drop => {
                if self.mode == Durability::Async {
                    // Else what is in the buffer is lost with it.
                    self.act(&Action::Sync);
                }
                self.open = None;
                self.open();
            }
        }
    }

    /// After a checkpoint there is one segment, and nothing else that was not asked for.
    fn check_log_dir(&self) {
        let names = self.fs.list(Path::new(LOG_DIR)).unwrap();
        let count = |prefix| names.iter().filter(|name| name.starts_with(prefix)).count();
        let (segments, spares) = (count("wal-"), count("spare-"));
        let recycled = self.options.segment_files == SegmentFiles::Recycled;
        let spares_max = if recycled { SPARE_SEGMENTS_MAX } else { 0 };
        let tidy = segments == 1 && spares <= spares_max && names.len() == 1 + spares;
        assert!(tidy, "after a checkpoint: {names:?}");
    }

    fn shut_down(&mut self) {
        let (store, _) = self.open.take().unwrap();
        store.shutdown().unwrap();
        self.all_is_durable();
        assert_eq!(self.fs.list(Path::new(LOG_DIR)).unwrap(), ["clean"]);
        let (store, recovery, files) = open_all(self.fs, self.options.clone()).unwrap();
        assert!(recovery.clean && recovery.records == 0 && recovery.torn.is_none());
        assert_eq!(recovery.to_lsn, self.script.versions[self.version].lsn);
        self.mode = self.options.durability;
        self.open = Some((store, files));
    }

    fn attach(&self, block: &BlockBatch) -> BlockBatch {
        self.open.as_ref().unwrap().1.attach(block.clone()).unwrap()
    }

    fn attempt(&mut self) {
        self.reached.attempted = self.version + 1;
        self.mark();
    }

    /// The commit of the next version has returned.
    fn acknowledged(&mut self, lsn: u64) {
        self.version += 1;
        assert_eq!(lsn, self.script.versions[self.version].lsn);
        if self.mode != Durability::Async {
            self.reached.kill = self.version;
        }
        if matches!(self.mode, Durability::Strict | Durability::Batched { .. }) {
            self.reached.power = self.version;
            assert!(self.store().durable_lsn() >= lsn);
        }
        self.durable();
    }

    /// What the store says of itself is a promise too.
    fn durable(&mut self) {
        let version = self.script.version_of(self.store().durable_lsn());
        self.reached.power = self.reached.power.max(version);
        self.reached.kill = self.reached.kill.max(self.reached.power);
        self.mark();
    }

    fn all_is_durable(&mut self) {
        self.reached = Reached::at(self.version);
        self.mark();
    }

    fn mark(&mut self) {
        self.fs.mark(u64::try_from(self.marks.len()).unwrap());
        self.marks.push(self.reached);
    }
}
