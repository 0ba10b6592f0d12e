//! `Script`: what a workload does, step by step, and every state that it may legally be found in.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::testing::{Model, Random};
use crate::tests::{COINS, META, step_back, step_on};
use crate::{Batch, BlockBatch, Durability, Lsn, Tip, Tree};

/// A state: after a number of batches, and after clearing trees, which has no number.
#[derive(Debug, Default)]
pub(super) struct Version {
    pub(super) lsn: Lsn,
    pub(super) tip: Option<Tip>,
    /// All trees but that of the places.
    pub(super) model: Model,
    /// Of which block the bytes are to be found, by height.
    pub(super) places: BTreeMap<u32, Tip>,
}

/// What to do next. Each of the first four leads to the next version.
#[derive(Debug, Clone)]
pub(super) enum Action {
    /// `commit` of a block.
    Commit(BlockBatch),
    /// `stage` and `commit_staged` of some blocks.
    Stage(Vec<BlockBatch>),
    /// `apply`.
    Plain(Batch),
    /// `clear`.
    Clear(Tree),
    /// Stages a block and takes it back.
    Abort(BlockBatch),
    Sync,
    Checkpoint,
    SetDurability(Durability),
    /// Waits a little, so that the threads can do their work.
    Wait,
    /// Shuts the store down and opens it again.
    Shutdown,
    /// Drops the store and opens it again.
    Drop,
}

/// Steps, and the versions they lead through.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) actions: Vec<Action>,
    pub(super) versions: Vec<Arc<Version>>,
    /// The version to begin with.
    pub(super) from: usize,
}

impl Script {
    /// A script from an empty store on; see [`Builder::step`] for the letters.
    pub(super) fn new(steps: &str, seed: u64) -> Self {
        Builder::run(vec![Arc::new(Version::default())], steps, seed)
    }

    /// Another future of the version `from`: the same numbers with other content.
    pub(super) fn fork(&self, from: usize, steps: &str, seed: u64) -> Self {
        Builder::run(self.versions[..=from].to_vec(), steps, seed)
    }

    pub(super) const fn last(&self) -> usize {
        self.versions.len() - 1
    }

    /// The first version with all batches up to a number.
    pub(super) fn version_of(&self, lsn: Lsn) -> usize {
        self.versions.iter().position(|version| version.lsn >= lsn).unwrap()
    }
}

struct Builder {
    script: Script,
    random: Random,
    /// The blocks since the beginning that are in the chain, each with the state before it.
    chain: Vec<(Tip, Model)>,
}

impl Builder {
    fn run(versions: Vec<Arc<Version>>, steps: &str, seed: u64) -> Script {
        let from = versions.len() - 1;
        let script = Script { actions: Vec::new(), versions, from };
        let mut builder = Self { script, random: Random::new(seed), chain: Vec::new() };
        for step in steps.chars() {
            let action = builder.step(step);
            builder.script.actions.push(action);
        }
        builder.script
    }

    fn step(&mut self, step: char) -> Action {
        match step {
            'c' => Action::Commit(self.block(0)),
            'b' => Action::Commit(self.block(1300)),
            'e' => Action::Commit(self.on_top(Batch::new())),
            'r' => Action::Commit(self.back()),
            't' => Action::Stage(vec![self.block(0)]),
            's' => Action::Stage(vec![self.block(0), self.block(0)]),
            'a' => Action::Abort(self.taken_back()),
            'p' => Action::Plain(self.plain()),
            'x' => Action::Clear(self.cleared(META)),
            'X' => Action::Clear(self.cleared(COINS)),
            'y' => Action::Sync,
            'k' => Action::Checkpoint,
            'w' => Action::Wait,
            'd' => Action::Shutdown,
            'D' => Action::Drop,
            '1' => Action::SetDurability(Durability::Strict),
            '2' => Action::SetDurability(Durability::Batched { blocks: 1, interval_ms: 1 }),
            '3' => Action::SetDurability(Durability::Relaxed { interval_ms: 1 }),
            '4' => Action::SetDurability(Durability::Async),
            other => panic!("`{other}` is not a step"),
        }
    }

    fn current(&self) -> Arc<Version> {
        Arc::clone(self.script.versions.last().unwrap())
    }

    fn block(&mut self, bytes: usize) -> BlockBatch {
        let current = self.current();
        let height = current.tip.map_or(0, |tip| tip.height + 1);
        let mut batch = step_on(&mut self.random, &current.model, height);
        if bytes > 0 {
            let (key, value) = (self.random.bytes(9), self.random.bytes(bytes));
            batch.put_new(COINS, &key, &value);
        }
        self.on_top(batch)
    }

    fn on_top(&mut self, batch: Batch) -> BlockBatch {
        let current = self.current();
        let height = current.tip.map_or(0, |tip| tip.height + 1);
        let tip = Tip { height, hash: self.random.bytes(32).try_into().unwrap() };
        self.chain.push((tip, current.model.clone()));
        self.moved_to(tip, batch)
    }

    /// Disconnects the last block, if there are two; else connects one.
    fn back(&mut self) -> BlockBatch {
        if self.chain.len() < 2 {
            return self.block(0);
        }
        let (_, before) = self.chain.pop().unwrap();
        let batch = step_back(&self.current().model, &before);
        self.moved_to(self.chain.last().unwrap().0, batch)
    }

    fn taken_back(&mut self) -> BlockBatch {
        let (chain, versions) = (self.chain.len(), self.script.versions.len());
        let block = self.block(0);
        self.chain.truncate(chain);
        self.script.versions.truncate(versions);
        block
    }

    fn moved_to(&mut self, tip: Tip, batch: Batch) -> BlockBatch {
        let current = self.current();
        let prev_hash = current.tip.map_or([0; 32], |tip| tip.hash);
        let mut places = current.places.clone();
        places.insert(tip.height, tip);
        self.push(Version { tip: Some(tip), places, ..self.after(&batch) });
        BlockBatch { tip, prev_hash, batch }
    }

    fn plain(&mut self) -> Batch {
        let mut batch = Batch::new();
        let value = self.random.bytes(20);
        batch.put(META, b"plain", &value);
        batch.put(COINS, &value[..9], &value);
        self.push(self.after(&batch));
        batch
    }

    fn cleared(&mut self, tree: Tree) -> Tree {
        let current = self.current();
        let model = current.model.clone().without(tree.id);
        self.push(Version { lsn: current.lsn, model, ..self.after(&Batch::new()) });
        tree
    }

    fn after(&self, batch: &Batch) -> Version {
        let current = self.current();
        let mut model = current.model.clone();
        model.apply(batch);
        let places = current.places.clone();
        Version { lsn: current.lsn + 1, tip: current.tip, model, places }
    }

    fn push(&mut self, version: Version) {
        self.script.versions.push(Arc::new(version));
    }
}
