//! The queue follows the tip: what a block has leaves, what a disconnected one had comes back.

use std::collections::VecDeque;

use bitcoin::consensus::deserialize;
use bitcoin::{Block, Transaction};

use super::TxQueue;
use super::accept::Scripts;
use crate::chainstate::Chainstate;
use crate::error::{Error, Result};
use crate::headers::HeaderRef;

/// Bytes of transactions of disconnected blocks that are kept while the tip moves (Bitcoin Core's
/// `MAX_DISCONNECTED_TX_POOL_BYTES`); those of the blocks that were disconnected last, which come
/// first in the chain, are left out beyond.
const RETURNED_BYTES_MAX: usize = 20_000_000;

impl TxQueue {
    /// Follows the tip, which was `from` when this was called last.
    ///
    /// # Errors
    ///
    /// Returns [`crate::Error`] if a block cannot be read.
    pub fn follow(&mut self, chain: &Chainstate, from: HeaderRef, now: u32) -> Result<()> {
        let headers = chain.headers();
        let to = chain.tip_ref();
        let fork = headers.fork_point(from, to);
        if self.is_empty() && self.deltas.is_empty() && from == fork {
            return Ok(());
        }
        let returned = returned(chain, from, fork)?;
        let mut connected = Vec::new();
        let mut at = to;
        while at != fork {
            connected.push(at);
            at = headers.entry(at).parent.unwrap_or(fork);
        }
        for at in connected.into_iter().rev() {
            if self.is_empty() && self.deltas.is_empty() {
                break;
            }
            self.block_connected(&read(chain, at)?);
        }
        if from == fork { Ok(()) } else { self.check_anew(chain, returned, now) }
    }

    /// Takes out what a block has, and what spends the same.
    fn block_connected(&mut self, block: &Block) {
        for tx in &block.txdata {
            let txid = tx.compute_txid();
            self.remove(&txid);
            self.deltas.remove(&txid);
            for input in &tx.input {
                if let Some(rival) = self.spender(&input.previous_output) {
                    self.remove_with_descendants(&rival);
                }
            }
        }
    }

    /// Fills the queue again after a reorganisation: with what came back, then with what was in it,
    /// as far as the rules allow on the new chain.
    fn check_anew(
        &mut self,
        chain: &Chainstate,
        returned: VecDeque<Transaction>,
        now: u32,
    ) -> Result<()> {
        let before: Vec<_> = self.iter().cloned().collect();
        let empty = Self { sequence: self.sequence, ..Self::new(self.limits) };
        let deltas = std::mem::take(&mut self.deltas);
        *self = Self { deltas, ..empty };
        for tx in returned {
            // Whether it can stay is not for whoever moved the tip to know.
            let _ = self.accept_with(chain, tx, now, Scripts::Verify)?;
        }
        for queued in before {
            let accepted =
                self.accept_with(chain, queued.tx.clone(), queued.time, Scripts::Verified)?;
            if let Err(rejection) = accepted {
                tracing::debug!("transaction {} left the queue: {rejection}", queued.txid);
            }
        }
        Ok(())
    }
}

/// Transactions of the blocks above `fork`, in the order of the chain, without coinbases.
fn returned(chain: &Chainstate, from: HeaderRef, fork: HeaderRef) -> Result<VecDeque<Transaction>> {
    let mut returned = VecDeque::new();
    let (mut at, mut bytes) = (from, 0);
    while at != fork && bytes < RETURNED_BYTES_MAX {
        let block = read(chain, at)?;
        for tx in block.txdata.into_iter().skip(1).rev() {
            bytes += tx.total_size();
            returned.push_front(tx);
        }
        at = chain.headers().entry(at).parent.unwrap_or(fork);
    }
    Ok(returned)
}

fn read(chain: &Chainstate, at: HeaderRef) -> Result<Block> {
    let hash = chain.headers().entry(at).hash;
    let missing = || Error::Corrupt { what: format!("block {hash} is not stored") };
    let bytes = chain.read_block(&hash)?.ok_or_else(missing)?;
    deserialize(&bytes).map_err(|_| Error::Corrupt { what: format!("block {hash} is unreadable") })
}
