//! Stage: blocks of a path, read from their files, parsed and checked ahead on the pool, the coins
//! they spend read ahead, and what they do to the table of coins made ready.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use cofferdam_storage::ReadAhead;
use rayon::ThreadPool;

use super::LOAD_AHEAD;
use super::effects::Effects;
use super::prefetch::{CoinReader, read_ahead};
use crate::block::CheckedBlock;
use crate::block_files::BlockFiles;
use crate::error::{Error, Result};
use crate::headers::{Extent, HeaderRef};
use crate::params::ChainParams;

/// One block to load.
#[derive(Debug)]
pub(crate) enum Source {
    /// Checked when it arrived, and still in memory.
    Ready(Arc<CheckedBlock>),
    /// In a block file.
    Stored(Extent),
}

/// A block with the coins that were read ahead for it, and what it does to them.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) at: HeaderRef,
    pub(crate) block: Arc<CheckedBlock>,
    pub(crate) ahead: ReadAhead,
    pub(crate) effects: Effects,
}

/// What a task on the pool needs.
#[derive(Clone, Debug)]
pub(crate) struct LoadContext {
    pub(crate) files: Arc<BlockFiles>,
    pub(crate) params: Arc<ChainParams>,
    pub(crate) reader: CoinReader,
}

impl LoadContext {
    fn load(&self, at: HeaderRef, height: u32, source: Source) -> Result<Loaded> {
        let block = match source {
            Source::Ready(block) => block,
            Source::Stored(extent) => Arc::new(load_block(&self.files, &self.params, extent)?),
        };
        let ahead = read_ahead(&self.reader, &block)?;
        let effects = Effects::new(&self.params, &block, height);
        Ok(Loaded { at, block, ahead, effects })
    }
}

/// A block that is being loaded.
#[derive(Debug)]
struct Loading {
    at: HeaderRef,
    result: Receiver<Result<Loaded>>,
}

/// Blocks that are being loaded, in the order of their path; the next loader of that path goes on
/// with them. What is read ahead of them may be old by then ([`ReadAhead`] says so itself).
///
/// No task outlives it: they have handles of the store.
#[derive(Debug, Default)]
pub(crate) struct Ahead(VecDeque<Loading>);

impl Ahead {
    /// Takes the first block out, if it is that one.
    fn take(&mut self, at: HeaderRef) -> Option<Loading> {
        self.0.pop_front_if(|loading| loading.at == at)
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        for loading in self.0.drain(..) {
            // Whatever it brings, or that it panicked: it has let go of the store.
            let _ = loading.result.recv();
        }
    }
}

/// Yields the blocks of a path in order, and keeps [`LOAD_AHEAD`] of them loading.
#[derive(Debug)]
pub(crate) struct Loader<'a> {
    pool: &'a ThreadPool,
    context: LoadContext,
    /// Of the first block to do.
    height: u32,
    todo: VecDeque<(HeaderRef, Source)>,
    ahead: Ahead,
}

impl<'a> Loader<'a> {
    /// Begins to load a path whose first block has that height; `kept` is what the loader before had
    /// begun with.
    pub(crate) fn new(
        pool: &'a ThreadPool,
        context: LoadContext,
        height: u32,
        path: VecDeque<(HeaderRef, Source)>,
        mut kept: Ahead,
    ) -> Self {
        let mut loader = Self { pool, context, height, todo: path, ahead: Ahead::default() };
        while let Some(loading) = loader.todo.front().and_then(|(at, _)| kept.take(*at)) {
            loader.todo.pop_front();
            loader.height = loader.height.saturating_add(1);
            loader.ahead.0.push_back(loading);
        }
        loader.fill();
        loader
    }

    /// Returns the next block; `None` at the end of the path.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Corrupt`] if a stored block cannot be read back as it was accepted.
    pub(crate) fn next(&mut self) -> Result<Option<Loaded>> {
        let Some(next) = self.ahead.0.pop_front() else {
            return Ok(None);
        };
        self.fill();
        let lost = |_| Error::Corrupt { what: "a block loader ended without a result".into() };
        next.result.recv().map_err(lost)?.map(Some)
    }

    /// Begins with no more blocks; returns those begun with, and those left that are in memory.
    pub(crate) fn end(self) -> (Ahead, Vec<(HeaderRef, Arc<CheckedBlock>)>) {
        let ready = self.todo.into_iter().filter_map(|(at, source)| match source {
            Source::Ready(block) => Some((at, block)),
            Source::Stored(_) => None,
        });
        (self.ahead, ready.collect())
    }

    fn fill(&mut self) {
        while self.ahead.0.len() < LOAD_AHEAD {
            let Some((at, source)) = self.todo.pop_front() else {
                return;
            };
            let (sender, result) = sync_channel(1);
            let (context, height) = (self.context.clone(), self.height);
            self.height = height.saturating_add(1);
            self.pool.spawn(move || {
                let loaded = context.load(at, height, source);
                drop(context);
                // The receiver is gone when the path was given up: nobody misses the block.
                let _ = sender.send(loaded);
            });
            self.ahead.0.push_back(Loading { at, result });
        }
    }
}

/// Reads a block that was checked before it was stored. That its witnesses are those it commits to
/// is not checked again: who finds that such a block breaks a rule looks at them first.
pub(crate) fn load_block(
    files: &BlockFiles,
    params: &ChainParams,
    extent: Extent,
) -> Result<CheckedBlock> {
    let raw = files.read_block(extent)?;
    CheckedBlock::parse_stored(raw, params).map_err(|rejection| Error::Corrupt {
        what: format!("stored block at {:?}: {rejection}", extent.position),
    })
}
