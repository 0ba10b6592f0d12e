//! Blocks and undo data from their files, read on the caller's thread, with Bitcoin Core's errors.

use std::sync::Arc;

use bitcoin::consensus::deserialize;
use bitcoin::{Block, BlockHash};
use cofferdam_ibd::undo::BlockUndo;
use cofferdam_ibd::{BlockFiles, Chainstate, HeaderEntry, HeaderRef};

use super::{Context, RpcError, code};

/// What is said of a block whose bytes cannot be read.
pub(super) const NOT_ON_DISK: &str = "Block not found on disk";

/// A block that is known, and where its bytes are.
#[derive(Clone, Debug)]
pub(crate) struct StoredBlock {
    /// What is known of it.
    pub(crate) entry: HeaderEntry,
    files: Arc<BlockFiles>,
}

impl StoredBlock {
    /// Returns a block of the header tree.
    pub(crate) fn new(chain: &Chainstate, at: HeaderRef) -> Self {
        Self { entry: chain.headers().entry(at), files: Arc::clone(chain.files()) }
    }

    /// Finds a block by its hash.
    pub(crate) fn find(context: &Context, hash: BlockHash) -> Result<Self, RpcError> {
        context.chain.query(move |chain| {
            super::blockchain::find(chain, &hash).map(|at| Self::new(chain, at))
        })?
    }

    /// Reads the block's bytes.
    pub(crate) fn raw(&self) -> Result<Vec<u8>, RpcError> {
        let Some(extent) = self.entry.block else {
            return Err(self.missing("Block", "Block not available (not fully downloaded)"));
        };
        let unread = |_| RpcError::new(code::MISC_ERROR, NOT_ON_DISK);
        self.files.read_block(extent).map_err(unread)
    }

    /// Reads the block.
    pub(crate) fn block(&self) -> Result<Block, RpcError> {
        let undecodable = |_| RpcError::new(code::MISC_ERROR, NOT_ON_DISK);
        deserialize(&self.raw()?).map_err(undecodable)
    }

    /// Reads what the block spent; the genesis block spent nothing.
    pub(crate) fn undo(&self) -> Result<BlockUndo, RpcError> {
        if self.entry.parent.is_none() {
            return Ok(BlockUndo::default());
        }
        let Some(extent) = self.entry.undo else {
            return Err(self.missing("Undo data", "Undo data not available"));
        };
        let undo = self.files.read_undo(extent).and_then(|bytes| BlockUndo::decode(&bytes));
        undo.map_err(|_| {
            let text = "Undo data expected but can't be read. This could be due to disk corruption or a conflict with a pruning event.";
            RpcError::new(code::INTERNAL_ERROR, text)
        })
    }

    fn missing(&self, what: &str, otherwise: &str) -> RpcError {
        // Of a block that was stored once the number of transactions is known.
        let pruned = self.entry.block.is_none() && self.entry.tx_count > 0;
        let text = if pruned {
            format!("{what} not available (pruned data)")
        } else {
            otherwise.to_owned()
        };
        RpcError::new(code::MISC_ERROR, text)
    }
}
