//! Stage: blocks of a path, read from their files, parsed and checked ahead on the pool.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use rayon::ThreadPool;

use super::LOAD_AHEAD;
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

#[derive(Debug)]
enum Slot {
    Ready(Arc<CheckedBlock>),
    Loading(Receiver<Result<CheckedBlock>>),
}

/// Yields the blocks of a path in order, and keeps [`LOAD_AHEAD`] of them loading.
#[derive(Debug)]
pub(crate) struct Loader<'a> {
    pool: &'a ThreadPool,
    files: Arc<BlockFiles>,
    params: Arc<ChainParams>,
    todo: VecDeque<(HeaderRef, Source)>,
    ahead: VecDeque<(HeaderRef, Slot)>,
}

impl<'a> Loader<'a> {
    pub(crate) fn new(
        pool: &'a ThreadPool,
        files: &Arc<BlockFiles>,
        params: &Arc<ChainParams>,
        path: VecDeque<(HeaderRef, Source)>,
    ) -> Self {
        let mut loader = Self {
            pool,
            files: Arc::clone(files),
            params: Arc::clone(params),
            todo: path,
            ahead: VecDeque::new(),
        };
        loader.fill();
        loader
    }

    /// Returns the next block; `None` at the end of the path.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Corrupt`] if a stored block cannot be read back as it was accepted.
    pub(crate) fn next(&mut self) -> Result<Option<(HeaderRef, Arc<CheckedBlock>)>> {
        let Some((at, slot)) = self.ahead.pop_front() else {
            return Ok(None);
        };
        self.fill();
        let block = match slot {
            Slot::Ready(block) => block,
            Slot::Loading(result) => {
                let lost =
                    |_| Error::Corrupt { what: "a block loader ended without a result".into() };
                Arc::new(result.recv().map_err(lost)??)
            }
        };
        Ok(Some((at, block)))
    }

    /// Ends loading; returns the blocks not yielded that were in memory from the start.
    pub(crate) fn into_ready(self) -> impl Iterator<Item = (HeaderRef, Arc<CheckedBlock>)> {
        let ahead = self.ahead.into_iter().filter_map(|(at, slot)| match slot {
            Slot::Ready(block) => Some((at, block)),
            Slot::Loading(_) => None,
        });
        let todo = self.todo.into_iter().filter_map(|(at, source)| match source {
            Source::Ready(block) => Some((at, block)),
            Source::Stored(_) => None,
        });
        ahead.chain(todo)
    }

    fn fill(&mut self) {
        while self.ahead.len() < LOAD_AHEAD {
            let Some((at, source)) = self.todo.pop_front() else {
                return;
            };
            let slot = match source {
                Source::Ready(block) => Slot::Ready(block),
                Source::Stored(extent) => Slot::Loading(self.spawn(extent)),
            };
            self.ahead.push_back((at, slot));
        }
    }

    fn spawn(&self, extent: Extent) -> Receiver<Result<CheckedBlock>> {
        let (sender, receiver) = sync_channel(1);
        let (files, params) = (Arc::clone(&self.files), Arc::clone(&self.params));
        self.pool.spawn(move || {
            // The receiver is gone when the path was given up: nobody misses the block.
            let _ = sender.send(load_block(&files, &params, extent));
        });
        receiver
    }
}

/// Reads a block that was checked before it was stored.
pub(crate) fn load_block(
    files: &BlockFiles,
    params: &ChainParams,
    extent: Extent,
) -> Result<CheckedBlock> {
    let raw = files.read_block(extent)?;
    let corrupt = |why: String| Error::Corrupt {
        what: format!("stored block at {:?}: {why}", extent.position),
    };
    let block =
        bitcoin::consensus::deserialize(&raw).map_err(|error| corrupt(error.to_string()))?;
    CheckedBlock::check(block, params).map_err(|rejection| corrupt(rejection.to_string()))
}
