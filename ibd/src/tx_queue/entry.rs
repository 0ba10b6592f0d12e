//! `QueuedTx`: a transaction with what was computed when it entered.

use bitcoin::{Transaction, Txid, Wtxid};

use crate::tx::WITNESS_SCALE;

/// Weight that an operation of a signature counts at least (Bitcoin Core's
/// `DEFAULT_BYTES_PER_SIGOP`), so that a block's limits are one number.
const WEIGHT_PER_SIGOP: u64 = 20;

/// Memory of an entry beside its scripts: its rows in four maps, the parsed transaction.
const ENTRY_BYTES: usize = 800;
/// Memory of an input or output beside its script.
const PART_BYTES: usize = 160;

/// Returns a transaction's weight with its signature operations counted in.
#[must_use]
pub fn adjusted_weight(weight: u64, sigops_cost: u64) -> u64 {
    weight.max(sigops_cost.saturating_mul(WEIGHT_PER_SIGOP))
}

/// Returns the virtual size of a weight.
#[must_use]
pub const fn vsize(weight: u64) -> u64 {
    weight.div_ceil(WITNESS_SCALE)
}

/// A transaction that waits for a block.
#[derive(Clone, Debug)]
pub struct QueuedTx {
    /// The transaction.
    pub tx: Transaction,
    /// Its id.
    pub txid: Txid,
    /// Its hash with witnesses.
    pub wtxid: Wtxid,
    /// What it pays, in satoshis.
    pub fee: u64,
    /// Its weight (BIP-0141).
    pub weight: u64,
    /// Cost of its signature operations.
    pub sigops_cost: u64,
    /// When it entered, in seconds since 1970.
    pub time: u32,
    /// Height of the tip then.
    pub height: u32,
    /// Its place in the order of entering.
    pub sequence: u64,
}

impl QueuedTx {
    /// Returns the virtual size, signature operations counted in.
    #[must_use]
    pub fn vsize(&self) -> u64 {
        vsize(self.adjusted_weight())
    }

    /// Returns the weight, signature operations counted in.
    #[must_use]
    pub fn adjusted_weight(&self) -> u64 {
        adjusted_weight(self.weight, self.sigops_cost)
    }

    /// Returns whether it has a witness.
    #[must_use]
    pub fn has_witness(&self) -> bool {
        self.tx.input.iter().any(|input| !input.witness.is_empty())
    }

    /// Returns the memory it takes in the queue, about.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let parts = self.tx.input.len() + self.tx.output.len();
        ENTRY_BYTES + self.tx.total_size() + parts * PART_BYTES
    }
}
