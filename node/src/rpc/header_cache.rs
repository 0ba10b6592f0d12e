//! Headers as `getblockheader` describes them, kept so that who walks along the chain does not wait
//! for its thread at every step.
//!
//! Invariant: rows belong to one tip; when the chain's tip is another one they are not used. What a
//! row says beyond the header (confirmations, the next block) depends on the tip alone; but for the
//! number of transactions, which comes with the block: until then there is no row.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use bitcoin::BlockHash;
use bitcoin::block::Header;
use cofferdam_ibd::{Chainstate, HeaderRef};
use serde_json::{Map, Value};

use super::blockchain::find;
use super::{RpcError, tx_json};
use crate::chain::ChainHandle;

/// Headers that one visit to the chain's thread fetches: a few hundred microseconds of its time.
const RUN: u32 = 128;

/// Headers that are kept: some 4 MiB.
const ROWS_MAX: usize = 4096;

/// The headers of one tip.
#[derive(Debug, Default)]
pub(crate) struct HeaderCache(Mutex<Rows>);

#[derive(Debug, Default)]
struct Rows {
    tip: Option<BlockHash>,
    by_hash: HashMap<BlockHash, Row>,
}

/// A header, and its description.
#[derive(Clone, Debug)]
struct Row {
    header: Header,
    fields: Map<String, Value>,
}

impl HeaderCache {
    /// Returns the description of a header.
    ///
    /// # Errors
    ///
    /// Returns the error of a block that is not known.
    pub(super) fn fields(
        &self,
        chain: &ChainHandle,
        hash: BlockHash,
    ) -> Result<Map<String, Value>, RpcError> {
        self.get(chain, hash, |row| row.fields.clone())
    }

    /// Returns a header.
    ///
    /// # Errors
    ///
    /// As [`Self::fields`].
    pub(super) fn header(&self, chain: &ChainHandle, hash: BlockHash) -> Result<Header, RpcError> {
        self.get(chain, hash, |row| row.header)
    }

    /// Returns the description of a header that is at hand; never waits for the chain's thread.
    pub(super) fn fields_at_hand(
        &self,
        chain: &ChainHandle,
        hash: &BlockHash,
    ) -> Option<Map<String, Value>> {
        self.at_hand(chain.view().tip.hash, hash, |row| row.fields.clone())
    }

    fn at_hand<T>(&self, tip: BlockHash, hash: &BlockHash, pick: impl Fn(&Row) -> T) -> Option<T> {
        self.rows().get(tip, hash).map(pick)
    }

    fn get<T>(
        &self,
        chain: &ChainHandle,
        hash: BlockHash,
        pick: impl Fn(&Row) -> T,
    ) -> Result<T, RpcError> {
        let tip = chain.view().tip.hash;
        if let Some(picked) = self.at_hand(tip, &hash, &pick) {
            return Ok(picked);
        }
        let Run { tip, first, kept } = chain.query(move |chain| run_from(chain, &hash))??;
        let old = self.rows().insert(tip, kept);
        // Only now, when nobody waits for the lock.
        drop(old);
        Ok(pick(&first))
    }

    fn rows(&self) -> std::sync::MutexGuard<'_, Rows> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rows {
    fn get(&self, tip: BlockHash, hash: &BlockHash) -> Option<&Row> {
        self.by_hash.get(hash).filter(|_| self.tip == Some(tip))
    }

    /// Adds rows; returns those that have to go.
    fn insert(&mut self, tip: BlockHash, found: Vec<(BlockHash, Row)>) -> HashMap<BlockHash, Row> {
        let mut old = HashMap::new();
        if self.tip != Some(tip) || self.by_hash.len() + found.len() > ROWS_MAX {
            old = std::mem::take(&mut self.by_hash);
            self.tip = Some(tip);
        }
        self.by_hash.extend(found);
        old
    }
}

/// What one visit to the chain's thread fetches.
struct Run {
    tip: BlockHash,
    /// The header that was asked for.
    first: Row,
    /// Rows to keep: of it, and of those that follow it.
    kept: Vec<(BlockHash, Row)>,
}

/// Describes a header and, if it is connected, those that follow it.
fn run_from(chain: &Chainstate, hash: &BlockHash) -> Result<Run, RpcError> {
    let row = |at: HeaderRef| Row {
        header: chain.headers().entry(at).header,
        fields: tx_json::header(chain, at),
    };
    let at = find(chain, hash)?;
    let (first, entry) = (row(at), chain.headers().entry(at));
    let mut kept = Vec::new();
    if entry.tx_count > 0 {
        kept.push((*hash, first.clone()));
    }
    if chain.is_connected(at) {
        let height = entry.height;
        for next in height.saturating_add(1)..height.saturating_add(RUN) {
            let Some(block) = chain.block_at(next) else { break };
            kept.push((block.hash, row(find(chain, &block.hash)?)));
        }
    }
    Ok(Run { tip: chain.tip().hash, first, kept })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::hashes::Hash as _;

    fn hash(byte: u8) -> BlockHash {
        BlockHash::from_byte_array([byte; 32])
    }

    fn row() -> Row {
        let header = bitcoin::constants::genesis_block(bitcoin::Network::Regtest).header;
        Row { header, fields: Map::new() }
    }

    #[test]
    fn rows_of_another_tip_are_not_used() {
        let mut rows = Rows::default();
        rows.insert(hash(1), vec![(hash(7), row())]);
        assert!(rows.get(hash(1), &hash(7)).is_some());
        assert!(rows.get(hash(2), &hash(7)).is_none());
        rows.insert(hash(2), vec![(hash(8), row())]);
        assert!(rows.get(hash(2), &hash(7)).is_none());
        assert!(rows.get(hash(2), &hash(8)).is_some());
    }

    #[test]
    fn no_more_is_kept_than_the_bound() {
        let mut rows = Rows::default();
        for number in 0..u32::try_from(2 * ROWS_MAX).unwrap() {
            let mut bytes = [0; 32];
            bytes[..4].copy_from_slice(&number.to_le_bytes());
            rows.insert(hash(1), vec![(BlockHash::from_byte_array(bytes), row())]);
            assert!(rows.by_hash.len() <= ROWS_MAX);
        }
    }
}
