//! `TxQueue`: transactions that wait for a block.
//!
//! A queue, no relay pool: what is in it can be in the next block by the rules of consensus (scripts
//! by all rules the kernel library knows, whatever the height), nothing in it is ever replaced, and
//! there is no policy of fees, sizes or forms. It is for who builds blocks: regtest above all.
//!
//! Invariants:
//! - every input is an output of the chain's coins or of an entry that entered before;
//! - no two entries spend the same output;
//! - a connected group of entries ([`CLUSTER_MAX`]) and the memory of all ([`QueueLimits`]) are
//!   bounded;
//! - after [`TxQueue::follow`], all of this holds for the chain's tip.

mod accept;
mod entry;
mod follow;
mod graph;
mod select;
#[cfg(test)]
mod tests;

pub use accept::TxRejection;
pub use entry::{QueuedTx, adjusted_weight, vsize};
pub use select::{BlockLimits, Chunk, Package};

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bitcoin::{OutPoint, Txid, Wtxid};

/// Entries that may hang together by their inputs (Bitcoin Core's `DEFAULT_CLUSTER_LIMIT`): what
/// walks over an entry's ancestors or descendants takes at most that many steps.
pub const CLUSTER_MAX: usize = 64;

/// Memory that the queue may take (Bitcoin Core's default of `-maxmempool`).
pub const QUEUE_BYTES_DEFAULT: usize = 300_000_000;

/// Fees that may be pretended for transactions, queued or not; a call each.
pub const DELTAS_MAX: usize = 100_000;

/// The queue's bounds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QueueLimits {
    /// Memory of all entries, about.
    pub bytes: usize,
}

impl Default for QueueLimits {
    fn default() -> Self {
        Self { bytes: QUEUE_BYTES_DEFAULT }
    }
}

/// An entry and what it hangs together with.
#[derive(Clone, Debug)]
struct Node {
    tx: Arc<QueuedTx>,
    parents: BTreeSet<Txid>,
    children: BTreeSet<Txid>,
}

/// Transactions that wait for a block. A clone shares the transactions.
#[derive(Clone, Debug)]
pub struct TxQueue {
    limits: QueueLimits,
    entries: HashMap<Txid, Node>,
    by_wtxid: HashMap<Wtxid, Txid>,
    /// In the order of entering: an entry's parents are before it.
    by_sequence: BTreeMap<u64, Txid>,
    spenders: HashMap<OutPoint, Txid>,
    deltas: BTreeMap<Txid, i64>,
    /// Counts entering and leaving.
    sequence: u64,
    memory_bytes: usize,
    vsize: u64,
    fees: u64,
}

impl Default for TxQueue {
    fn default() -> Self {
        Self::new(QueueLimits::default())
    }
}

impl TxQueue {
    /// Creates an empty queue.
    #[must_use]
    pub fn new(limits: QueueLimits) -> Self {
        Self {
            limits,
            entries: HashMap::new(),
            by_wtxid: HashMap::new(),
            by_sequence: BTreeMap::new(),
            spenders: HashMap::new(),
            deltas: BTreeMap::new(),
            sequence: 1,
            memory_bytes: 0,
            vsize: 0,
            fees: 0,
        }
    }

    /// Changes the bounds; what is in the queue stays.
    pub const fn set_limits(&mut self, limits: QueueLimits) {
        self.limits = limits;
    }

    /// Returns the bounds.
    #[must_use]
    pub const fn limits(&self) -> QueueLimits {
        self.limits
    }

    /// Returns the number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns the virtual size of all entries.
    #[must_use]
    pub const fn vsize(&self) -> u64 {
        self.vsize
    }

    /// Returns the fees of all entries, in satoshis.
    #[must_use]
    pub const fn fees(&self) -> u64 {
        self.fees
    }

    /// Returns the memory that all entries take, about.
    #[must_use]
    pub const fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }

    /// Returns a number that grows with everything that enters or leaves.
    #[must_use]
    pub const fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Returns the entry with that id.
    #[must_use]
    pub fn get(&self, txid: &Txid) -> Option<&Arc<QueuedTx>> {
        self.entries.get(txid).map(|node| &node.tx)
    }

    /// Returns the entry whose hash with witnesses is that.
    #[must_use]
    pub fn get_by_wtxid(&self, wtxid: &Wtxid) -> Option<&Arc<QueuedTx>> {
        self.by_wtxid.get(wtxid).and_then(|txid| self.get(txid))
    }

    /// Returns the entry that spends an output.
    #[must_use]
    pub fn spender(&self, outpoint: &OutPoint) -> Option<Txid> {
        self.spenders.get(outpoint).copied()
    }

    /// Iterates over the entries, parents before their children.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<QueuedTx>> {
        self.by_sequence.values().filter_map(|txid| self.get(txid))
    }

    /// Pretends that a transaction pays that much more, or less, when blocks are built; adds up.
    /// Returns `false` if it is one of too many ([`DELTAS_MAX`]).
    pub fn prioritise(&mut self, txid: Txid, delta: i64) -> bool {
        let known = self.deltas.contains_key(&txid);
        if !known && self.deltas.len() >= DELTAS_MAX {
            return false;
        }
        let sum = self.delta(&txid).saturating_add(delta);
        if sum == 0 {
            self.deltas.remove(&txid);
        } else {
            self.deltas.insert(txid, sum);
        }
        true
    }

    /// Returns what is pretended of a transaction's fee.
    #[must_use]
    pub fn delta(&self, txid: &Txid) -> i64 {
        self.deltas.get(txid).copied().unwrap_or(0)
    }

    /// Iterates over all pretended fees.
    pub fn deltas(&self) -> impl Iterator<Item = (Txid, i64)> {
        self.deltas.iter().map(|(txid, delta)| (*txid, *delta))
    }

    /// Adds an entry whose inputs are there and free.
    fn insert(&mut self, tx: QueuedTx) -> Arc<QueuedTx> {
        let tx = Arc::new(QueuedTx { sequence: self.sequence, ..tx });
        let mut parents = BTreeSet::new();
        for input in &tx.tx.input {
            let outpoint = input.previous_output;
            self.spenders.insert(outpoint, tx.txid);
            if let Some(parent) = self.entries.get_mut(&outpoint.txid) {
                parent.children.insert(tx.txid);
                parents.insert(outpoint.txid);
            }
        }
        self.memory_bytes += tx.memory_bytes();
        self.vsize += tx.vsize();
        self.fees += tx.fee;
        self.by_wtxid.insert(tx.wtxid, tx.txid);
        self.by_sequence.insert(self.sequence, tx.txid);
        self.sequence += 1;
        let node = Node { tx: Arc::clone(&tx), parents, children: BTreeSet::new() };
        self.entries.insert(tx.txid, node);
        tx
    }

    /// Takes an entry out; those that spend its outputs stay.
    fn remove(&mut self, txid: &Txid) -> Option<Arc<QueuedTx>> {
        let Node { tx, parents, children } = self.entries.remove(txid)?;
        for input in &tx.tx.input {
            self.spenders.remove(&input.previous_output);
        }
        for parent in parents {
            if let Some(parent) = self.entries.get_mut(&parent) {
                parent.children.remove(txid);
            }
        }
        for child in children {
            if let Some(child) = self.entries.get_mut(&child) {
                child.parents.remove(txid);
            }
        }
        self.by_wtxid.remove(&tx.wtxid);
        self.by_sequence.remove(&tx.sequence);
        self.memory_bytes -= tx.memory_bytes();
        self.vsize -= tx.vsize();
        self.fees -= tx.fee;
        self.sequence += 1;
        Some(tx)
    }

    /// Takes an entry out with all that depend on it.
    fn remove_with_descendants(&mut self, txid: &Txid) {
        for descendant in self.descendants(txid) {
            self.remove(&descendant);
        }
        self.remove(txid);
    }
}
