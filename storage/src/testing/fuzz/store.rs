//! Any sequence of operations on a store, with failures and crashes, against a model.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use crate::batch::{Batch, Op};
use crate::database::{Database, Tree};
use crate::error::{Error, Result};
use crate::file_system::FileSystem;
use crate::testing::fuzz::input::{Input, TREES};
use crate::testing::{CrashModel, Fault, Model, SimDatabase, SimFileSystem};
use crate::wal_buffered::{
    BlockBatch, Durability, Lsn, NoAttachments, Tip, WalBuffered, WalOptions,
};

type Store = WalBuffered<SimDatabase>;

/// A longer sequence finds nothing that the end of a shorter one does not.
const STEPS_MAX: usize = 64;

/// Takes the bytes for operations on a store whose log and database share one simulated disk.
/// Returns whether at least one batch was committed.
///
/// # Panics
///
/// If reads differ from the model; if a call fails for no reason, or does not fail for one; or if
/// a crash loses what was promised or leaves anything but the state after some batch.
pub fn store_model(data: &[u8]) -> bool {
    let mut input = Input::new(data);
    let options = WalOptions {
        durability: mode(&mut input),
        flush_every_blocks: (input.below(4) > 0).then_some(3),
        memtable_bytes: if input.below(8) == 7 { 1 } else { 1 << 20 },
        segment_bytes: 4096 + u64::from(input.byte()) * 8,
        verify_freshness: true,
        ..WalOptions::default()
    };
    let fs = SimFileSystem::new();
    let store = open(&fs, &options).expect("an empty disk").0;
    let mode = options.durability;
    let history = vec![State { model: Model::default(), tip: None }];
    let promised = Promised::default();
    let (staged, armed, cleared) = (Vec::new(), false, None);
    let mut run =
        Run { fs, options, store, mode, history, staged, promised, armed, cleared, hashes: 0 };
    let mut committed = false;
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        run.step(&mut input);
        committed |= run.history.len() > 1;
    }
    run.reopen(CrashModel::SyncedOnly, 0, None);
    run.shut_down();
    committed
}

fn mode(input: &mut Input<'_>) -> Durability {
    match input.byte() & 3 {
        0 => Durability::Strict,
        1 => Durability::Relaxed { interval_ms: 1 },
        2 => Durability::Async,
        _ => Durability::Batched { blocks: 1, interval_ms: 1 },
    }
}

const fn crash_model(how: u8) -> CrashModel {
    match how & 3 {
        0 => CrashModel::Kill,
        1 => CrashModel::SyncedOnly,
        2 => CrashModel::Prefix,
        _ => CrashModel::Subset,
    }
}

fn open(fs: &SimFileSystem, options: &WalOptions) -> Result<(Store, Lsn)> {
    let fs: Arc<dyn FileSystem> = Arc::new(fs.clone());
    let backend = SimDatabase::open(Arc::clone(&fs), Path::new("db"), &TREES)?;
    let log = Path::new("log");
    let (store, recovery) =
        WalBuffered::open(options.clone(), fs, log, backend, Arc::new(NoAttachments))?;
    Ok((store, recovery.to_lsn))
}

/// What the store shows after a batch.
#[derive(Debug, Clone)]
struct State {
    model: Model,
    tip: Option<Tip>,
}

impl State {
    fn prev_hash(&self) -> [u8; 32] {
        self.tip.map_or([0; 32], |tip| tip.hash)
    }

    fn after(&self, batch: &Batch, tip: Option<Tip>) -> Self {
        let mut model = self.model.clone();
        model.apply(batch);
        Self { model, tip }
    }
}

/// The batches that must be there after a crash.
#[derive(Debug, Clone, Copy, Default)]
struct Promised {
    power_cut: usize,
    kill: usize,
}

struct Run {
    fs: SimFileSystem,
    options: WalOptions,
    store: Store,
    mode: Durability,
    /// The state after each batch that was committed, or tried to be, by LSN.
    history: Vec<State>,
    /// Staged batches, each with the state after it.
    staged: Vec<(BlockBatch, State)>,
    promised: Promised,
    /// A failure has been arranged: from now on any call may fail.
    armed: bool,
    /// A `clear` has failed: the newest state may be this one instead.
    cleared: Option<Model>,
    hashes: u32,
}

impl Run {
    fn step(&mut self, input: &mut Input<'_>) {
        let done = match input.byte() % 16 {
            0..=3 => self.commit(input),
            4 => self.apply(input),
            5 | 6 => self.stage(input),
            7 | 8 => self.commit_staged(),
            9 => {
                assert_eq!(self.store.abort_staged(), self.staged.len());
                self.staged.clear();
                Ok(())
            }
            10 => self.checkpoint(),
            11 => self.sync(),
            12 => {
                self.mode = mode(input);
                self.store.set_durability(self.mode);
                Ok(())
            }
            13 => self.arm(input),
            14 => self.clear(input),
            _ => {
                self.crash(input);
                Ok(())
            }
        };
        match done {
            Ok(()) => self.check_visible(),
            Err(error) => {
                assert!(self.armed, "no failure was arranged: {}", error.chain());
                self.crash(input);
            }
        }
    }

    /// The state that reads show.
    fn visible(&self) -> &State {
        let committed = self.history.last().expect("it begins with the empty state");
        self.staged.last().map_or(committed, |(_, state)| state)
    }

    fn check_visible(&self) {
        let State { model, .. } = self.visible();
        assert_eq!(&Model::read(&self.store).expect("reads go on"), model);
        let committed = self.history.last().expect("it begins with the empty state");
        assert_eq!(self.store.tip(), committed.tip);
    }

    /// A batch on top of what is visible, seldom on top of something else.
    fn block(&mut self, input: &mut Input<'_>) -> BlockBatch {
        let visible = self.visible();
        let height = visible.tip.map_or(0, |tip| tip.height + 1);
        let mut prev_hash = visible.prev_hash();
        if input.byte() == u8::MAX {
            prev_hash = [0xee; 32];
        }
        self.hashes += 1;
        let mut hash = [0x55; 32];
        hash.iter_mut().zip(self.hashes.to_le_bytes()).for_each(|(to, from)| *to = from);
        BlockBatch { tip: Tip { height, hash }, prev_hash, batch: input.batch() }
    }

    fn commit(&mut self, input: &mut Input<'_>) -> Result<()> {
        let block = self.block(input);
        let fits = self.staged.is_empty() && self.block_fits(&block);
        let after = self.visible().after(&block.batch, Some(block.tip));
        let done = self.store.commit(block);
        if !fits {
            return refused(done);
        }
        self.committed(after, done)
    }

    fn apply(&mut self, input: &mut Input<'_>) -> Result<()> {
        let batch = input.batch();
        let fits = self.staged.is_empty() && self.fits(&batch);
        let tip = self.visible().tip;
        let after = self.visible().after(&batch, tip);
        let done = self.store.apply(&batch).map(|()| self.store.stats().lsn);
        if !fits {
            return refused(done);
        }
        self.committed(after, done)
    }

    fn stage(&mut self, input: &mut Input<'_>) -> Result<()> {
        let block = self.block(input);
        let fits = self.block_fits(&block);
        let after = self.visible().after(&block.batch, Some(block.tip));
        let done = self.store.stage(block.clone());
        if !fits {
            return refused(done);
        }
        assert_no_fault(&done);
        done?;
        self.staged.push((block, after));
        Ok(())
    }

    fn commit_staged(&mut self) -> Result<()> {
        let done = self.store.commit_staged();
        if self.staged.is_empty() {
            assert!(done.is_err(), "nothing is staged");
            return Ok(());
        }
        let (_, after) = self.staged.remove(0);
        self.committed(after, done)
    }

    /// Books a batch that is in the log, or after a failure perhaps is.
    fn committed(&mut self, after: State, done: Result<Lsn>) -> Result<()> {
        assert_no_fault(&done);
        let lsn = self.history.len();
        self.history.push(after);
        assert_eq!(index(done?), lsn);
        match self.mode {
            Durability::Strict | Durability::Batched { .. } => {
                self.promised = Promised { power_cut: lsn, kill: lsn };
            }
            Durability::Relaxed { .. } => self.promised.kill = lsn,
            Durability::Async => {}
        }
        self.note_durable(0);
        Ok(())
    }

    /// Everything up to `least` is durable, and up to what the store says.
    fn note_durable(&mut self, least: usize) {
        let durable = index(self.store.durable_lsn());
        assert!((least..self.history.len()).contains(&durable), "durable: {durable}");
        self.promised.power_cut = self.promised.power_cut.max(durable);
        self.promised.kill = self.promised.kill.max(durable);
    }

    fn checkpoint(&mut self) -> Result<()> {
        self.store.checkpoint()?;
        self.note_durable(self.history.len() - 1);
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        self.store.sync()?;
        self.note_durable(self.history.len() - 1);
        Ok(())
    }

    fn clear(&mut self, input: &mut Input<'_>) -> Result<()> {
        let tree: Tree = if input.flag() { TREES[0] } else { TREES[1] };
        let done = self.store.clear(tree);
        if !self.staged.is_empty() {
            assert!(done.is_err(), "batches are staged");
            return Ok(());
        }
        let newest = self.history.last_mut().expect("it begins with the empty state");
        let model = newest.model.clone().without(tree.id);
        if done.is_err() {
            self.cleared = Some(model);
            return done;
        }
        newest.model = model;
        self.note_durable(self.history.len() - 1);
        Ok(())
    }

    /// Lets an operation soon fail, once or for ever, or be the first of a power cut.
    fn arm(&mut self, input: &mut Input<'_>) -> Result<()> {
        let at = self.fs.ops() + u64::from(input.byte() & 31);
        match input.byte() & 3 {
            0 => self.fs.inject(Fault { at, kind: ErrorKind::Other, sticky: false }),
            1 => self.fs.inject(Fault { at, kind: ErrorKind::StorageFull, sticky: true }),
            _ => self.fs.crash_at(at),
        }
        self.armed = true;
        Ok(())
    }

    fn crash(&mut self, input: &mut Input<'_>) {
        let how = input.byte();
        let model = crash_model(how);
        // Seldom there is another crash while the store is being opened.
        let again = (how & 0xc0 == 0xc0).then(|| (u64::from(input.byte() & 31), input.byte()));
        self.reopen(model, u64::from(how >> 2), again);
    }

    /// Opens what a crash leaves.
    fn reopen(&mut self, model: CrashModel, seed: u64, again: Option<(u64, u8)>) {
        self.note_durable(0);
        let mut after = self.fs.after_crash(model, seed);
        let Promised { power_cut, kill } = self.promised;
        let mut least = if model == CrashModel::Kill { kill } else { power_cut };
        if let Some((op, how)) = again {
            after.crash_at(op);
            drop(open(&after, &self.options));
            let second = crash_model(how);
            if second != CrashModel::Kill {
                least = power_cut;
            }
            after = after.after_crash(second, u64::from(how >> 2));
        }
        self.options.durability = self.mode;
        let opened = open(&after, &self.options);
        let (store, lsn) = opened.unwrap_or_else(|error| panic!("{model:?}: {}", error.chain()));
        (self.fs, self.store, self.armed) = (after, store, false);
        self.staged.clear();
        let lsn = index(lsn);
        assert!(lsn >= least, "{model:?}: {lsn} batches of {least} that were promised");
        assert!(lsn < self.history.len(), "{model:?}: {lsn} batches were never committed");
        let newest = lsn + 1 == self.history.len();
        self.history.truncate(lsn + 1);
        if let Some(model) = self.cleared.take().filter(|_| newest)
            && let Some(state) = self.history.last_mut()
            && Model::read(&self.store).expect("readable") == model
        {
            state.model = model;
        }
        self.promised = Promised { power_cut: lsn, kill: lsn };
        self.note_durable(lsn);
        self.check_visible();
    }

    fn shut_down(self) {
        let lsn = self.history.len() - 1;
        self.store.shutdown().expect("no failure was arranged");
        let (store, opened) = open(&self.fs, &self.options).expect("it was shut down");
        assert_eq!(index(opened), lsn);
        let state = self.history.last().expect("it begins with the empty state");
        assert_eq!(Model::read(&store).expect("readable"), state.model);
        assert_eq!(store.tip(), state.tip);
    }

    /// Whether a block may go on top of what is visible.
    fn block_fits(&self, block: &BlockBatch) -> bool {
        block.prev_hash == self.visible().prev_hash() && self.fits(&block.batch)
    }

    /// Whether a batch names only open trees, and what it calls new is new.
    fn fits(&self, batch: &Batch) -> bool {
        let mut model = self.visible().model.clone();
        batch.ops().all(|op| {
            let known = TREES.iter().any(|tree| tree.id == op.tree_id());
            let old = model.get(op.tree_id(), op.key()).is_some();
            let mut one = Batch::new();
            one.push_op(op);
            model.apply(&one);
            known && !(old && matches!(op, Op::PutNew { .. }))
        })
    }
}

fn is_callers_fault(error: &Error) -> bool {
    matches!(error, Error::Misuse { .. } | Error::UnknownTree { .. } | Error::NotFresh { .. })
}

/// A batch that does not fit was refused: for that, or for a failure that came before.
fn refused<T>(done: Result<T>) -> Result<()> {
    let error = done.err().expect("a batch that does not fit is refused");
    if is_callers_fault(&error) { Ok(()) } else { Err(error) }
}

/// A batch that fits is not refused for the caller's own fault.
fn assert_no_fault<T>(done: &Result<T>) {
    let error = done.as_ref().err().filter(|error| is_callers_fault(error));
    assert!(error.is_none(), "{error:?}");
}

/// An LSN as an index into the history.
fn index(lsn: Lsn) -> usize {
    usize::try_from(lsn).unwrap_or(usize::MAX)
}
