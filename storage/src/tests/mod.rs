//! Questions that span the whole crate, and what their tests share.

mod behaviour;
mod bit_flips;
mod concurrent;
mod conformance;
mod crash;
mod damage;
mod damage_rows;
mod damaged_log;
mod detect;
mod fault_calls;
mod faults;
mod generations;
mod image;
mod inspect;
mod log_options;
mod model;
mod mutations;
mod space;

use std::path::Path;
use std::sync::Arc;

use crate::testing::{Model, Random, SimDatabase, SimFileSystem};
use crate::{
    Attachments, Batch, BlockBatch, Database, Durability, Error, FilePosition, FileSystem,
    FlatFiles, FlatFilesOptions, MemoryDatabase, NoAttachments, Recovery, Result, Tip, Tree,
    WalBuffered, WalOptions,
};

const COINS: Tree = Tree { id: 1, name: "coins" };
const META: Tree = Tree { id: 2, name: "meta" };
/// Where a block's bytes are: differs after a crash, so it is left out of comparisons.
const PLACES: Tree = Tree { id: 3, name: "places" };
const TREES: [Tree; 3] = [COINS, META, PLACES];

const LOG_DIR: &str = "data/log";

type Store = WalBuffered<Box<dyn Database>>;

/// Options that make small workloads roll segments and check everything.
fn options(durability: Durability) -> WalOptions {
    WalOptions { durability, segment_bytes: 6000, verify_freshness: true, ..WalOptions::default() }
}

/// Opens a store over a given database, with nothing attached.
fn open_over(
    fs: &SimFileSystem,
    options: WalOptions,
    backend: Box<dyn Database>,
) -> Result<(Store, Recovery)> {
    let fs: Arc<dyn FileSystem> = Arc::new(fs.clone());
    WalBuffered::open(options, fs, Path::new(LOG_DIR), backend, Arc::new(NoAttachments))
}

/// Opens a store over an empty database, so that all of its state comes from the log.
fn open_log_only(fs: &SimFileSystem, durability: Durability) -> Result<(Store, Recovery)> {
    open_over(fs, options(durability), Box::new(MemoryDatabase::new(&TREES)))
}

/// Block bytes in flat files, referred to by a row in [`PLACES`].
#[derive(Debug)]
struct BlockFiles(FlatFiles);

impl BlockFiles {
    fn open(fs: &SimFileSystem) -> Result<Self> {
        let options = FlatFilesOptions {
            prefix: "blk",
            file_bytes_max: 2000,
            xor_key: [3, 1, 4, 1, 5, 9, 2, 6],
        };
        FlatFiles::open(Arc::new(fs.clone()), Path::new("data/blocks"), options).map(Self)
    }

    /// Appends the bytes of a block and adds the row that refers to them.
    fn attach(&self, mut block: BlockBatch) -> Result<BlockBatch> {
        let at = self.0.append(&block_bytes(&block.tip))?;
        let row = [at.file.to_le_bytes(), at.offset.to_le_bytes()].concat();
        block.batch.put(PLACES, &block.tip.height.to_le_bytes(), &row);
        Ok(block)
    }
}

fn block_bytes(tip: &Tip) -> Vec<u8> {
    tip.hash.repeat(1 + usize::from(tip.hash[0] % 8))
}

/// Where the row of a block says that its bytes are.
fn place(block: &BlockBatch) -> Option<FilePosition> {
    let row = block.batch.ops().find(|op| op.tree_id() == PLACES.id)?;
    let (file, offset) = row.value().unwrap().split_at(4);
    let number = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().unwrap());
    Some(FilePosition { file: number(file), offset: number(offset) })
}

impl Attachments for BlockFiles {
    fn sync(&self) -> Result<()> {
        self.0.sync()
    }

    fn intact(&self, block: &BlockBatch) -> Result<bool> {
        let Some(at) = place(block) else {
            return Ok(true);
        };
        let expected = block_bytes(&block.tip);
        match self.0.read(at, expected.len()) {
            Ok(bytes) if bytes == expected => Ok(true),
            Ok(_) | Err(Error::OutOfBounds { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn rewrite(&self, block: &BlockBatch) -> Result<()> {
        place(block).map_or(Ok(()), |at| self.0.rewrite(at, block_bytes(&block.tip).len()))
    }
}

/// A store over [`SimDatabase`] with block files: everything on one simulated disk.
fn open_all(fs: &SimFileSystem, options: WalOptions) -> Result<(Store, Recovery, Arc<BlockFiles>)> {
    open_all_by(fs, options, WalBuffered::open)
}

/// As [`open_all`], without threads.
fn open_all_to_read(
    fs: &SimFileSystem,
    options: WalOptions,
) -> Result<(Store, Recovery, Arc<BlockFiles>)> {
    open_all_by(fs, options, WalBuffered::open_to_read)
}

type Open = fn(
    WalOptions,
    Arc<dyn FileSystem>,
    &Path,
    Box<dyn Database>,
    Arc<dyn Attachments>,
) -> Result<(Store, Recovery)>;

fn open_all_by(
    fs: &SimFileSystem,
    options: WalOptions,
    open: Open,
) -> Result<(Store, Recovery, Arc<BlockFiles>)> {
    let shared: Arc<dyn FileSystem> = Arc::new(fs.clone());
    let backend = SimDatabase::open(Arc::clone(&shared), Path::new("data/db"), &TREES)?;
    let files = Arc::new(BlockFiles::open(fs)?);
    let attachments: Arc<dyn Attachments> = Arc::clone(&files) as Arc<dyn Attachments>;
    let (store, recovery) =
        open(options, shared, Path::new(LOG_DIR), Box::new(backend), attachments)?;
    Ok((store, recovery, files))
}

/// Batches along a chain with some steps back, and the state after each.
struct Workload {
    blocks: Vec<BlockBatch>,
    /// `states[j]` is the state after the first `j` batches.
    states: Vec<Model>,
}

impl Workload {
    fn new(seed: u64, len: usize) -> Self {
        let mut random = Random::new(seed);
        let mut work = Self { blocks: Vec::new(), states: vec![Model::default()] };
        // The blocks of the current chain, each with the state before it.
        let mut chain: Vec<(Tip, Model)> = Vec::new();
        while work.blocks.len() < len {
            let state = work.states.last().unwrap().clone();
            let tip = chain.last().map(|(tip, _)| *tip);
            let prev_hash = tip.map_or([0; 32], |tip| tip.hash);
            let (batch, tip) = if chain.len() > 2 && random.one_in(8) {
                let (_, before) = chain.pop().unwrap();
                (step_back(&state, &before), chain.last().unwrap().0)
            } else {
                let hash = random.bytes(32).try_into().unwrap();
                let height = tip.map_or(0, |tip| tip.height + 1);
                let tip = Tip { height, hash };
                chain.push((tip, state.clone()));
                (step_on(&mut random, &state, height), tip)
            };
            let mut after = state;
            after.apply(&batch);
            work.states.push(after);
            work.blocks.push(BlockBatch { tip, prev_hash, batch });
        }
        work
    }

    /// The tip after `j` batches.
    fn tip(&self, j: usize) -> Option<Tip> {
        Some(self.blocks[j.checked_sub(1)?].tip)
    }

    fn check(&self, store: &Store, j: usize, label: &str) {
        let read = Model::read(store).unwrap().without(PLACES.id);
        assert_eq!(read, self.states[j], "{label}: state after {j} batches");
        assert_eq!(store.tip(), self.tip(j), "{label}: tip after {j} batches");
    }
}

/// Spends some coins, makes others, some of which die at once.
fn step_on(random: &mut Random, state: &Model, height: u32) -> Batch {
    let mut batch = Batch::new();
    for coin in state.keys(COINS.id) {
        if random.one_in(4) {
            batch.delete(COINS, coin);
        }
    }
    for _ in 0..random.below(6) {
        let key = random.bytes(9);
        let len = random.below(40);
        let value = random.bytes(len);
        batch.put_new(COINS, &key, &value);
        if random.one_in(4) {
            batch.delete(COINS, &key);
        }
    }
    batch.put(META, b"height", &height.to_le_bytes());
    batch
}

/// What turns `state` into `before`.
fn step_back(state: &Model, before: &Model) -> Batch {
    let mut batch = Batch::new();
    for tree in [COINS, META] {
        for key in state.keys(tree.id).filter(|key| before.get(tree.id, key).is_none()) {
            batch.delete(tree, key);
        }
        for key in before.keys(tree.id) {
            let value = before.get(tree.id, key).unwrap();
            match state.get(tree.id, key) {
                None => batch.put_new(tree, key, value),
                Some(now) if now != value => batch.put(tree, key, value),
                Some(_) => {}
            }
        }
    }
    batch
}

/// A block on top of the store's tip.
fn block(store: &Store, staged: &[BlockBatch], fill: impl FnOnce(&mut Batch)) -> BlockBatch {
    let tip = staged.last().map(|block| block.tip).or_else(|| store.tip());
    let height = tip.map_or(0, |tip| tip.height + 1);
    let mut hash = tip.map_or([0; 32], |tip| tip.hash);
    hash[usize::try_from(height).unwrap() % 32] = hash[0].wrapping_add(1);
    hash[31] ^= 0x80;
    let mut batch = Batch::new();
    fill(&mut batch);
    BlockBatch { tip: Tip { height, hash }, prev_hash: tip.map_or([0; 32], |tip| tip.hash), batch }
}

fn commit(store: &Store, fill: impl FnOnce(&mut Batch)) {
    store.commit(block(store, &[], fill)).unwrap();
}
