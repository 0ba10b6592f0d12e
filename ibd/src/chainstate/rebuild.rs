//! What a new chain state takes over from an old one: its block index (`-reindex-chainstate`).

use super::Chainstate;
use crate::error::Result;
use crate::headers::{HeaderRow, HeaderStatus};

impl Chainstate {
    /// Takes rows over that another chain state of the same files gave, parents first; those that
    /// are known stay as they are. The blocks are connected by [`Chainstate::advance`].
    ///
    /// # Errors
    ///
    /// Returns [`crate::Error::Corrupt`] if a row has no parent, and [`crate::Error::Storage`] if
    /// the disk refuses. What was taken over until then stays.
    pub fn take_rows(&mut self, rows: impl IntoIterator<Item = Result<HeaderRow>>) -> Result<()> {
        for row in rows {
            let row = row?;
            let hash = row.header.block_hash();
            if self.headers.get(&hash).is_some() {
                continue;
            }
            let at = self.headers.load(&row, hash)?;
            self.dirty.insert(at);
            if row.tx_count > 0 {
                self.has_pruned |= row.block.is_none();
                self.candidates.block_stored(&mut self.headers, at);
            }
            self.write_index_if_large()?;
        }
        self.headers.refresh_best(self.tip);
        self.sync()
    }

    /// Returns whether a block of the connected chain was stored when there were no witnesses at
    /// its height, and there are now (`NeedsRedownload` in Bitcoin Core's `validation.cpp`).
    #[must_use]
    pub fn lacks_witnesses(&self) -> bool {
        let mut walk = Some(self.tip);
        while let Some(at) = walk {
            let entry = self.headers.entry(at);
            // The genesis block is the network's own.
            if entry.height < self.params.segwit_height.max(1) {
                return false;
            }
            if entry.status.has(HeaderStatus::NO_WITNESS) {
                return true;
            }
            walk = entry.parent;
        }
        false
    }
}
