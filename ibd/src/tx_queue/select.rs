//! Which entries go into a block: the best packages of an entry and its ancestors first, as in
//! Bitcoin Core's `BlockAssembler` before clusters.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use bitcoin::Txid;

use super::{QueuedTx, TxQueue, vsize};
use crate::block::{SIGOPS_COST_MAX, WEIGHT_MAX};

/// Cost of signature operations left for the coinbase (Bitcoin Core's
/// `DEFAULT_COINBASE_OUTPUT_MAX_ADDITIONAL_SIGOPS`).
const COINBASE_SIGOPS_COST: u64 = 400;

/// Packages in a row that may not fit before an almost full block is called full (as in Core).
const MISFITS_MAX: u32 = 1000;
/// Weight below which a block is not almost full.
const NEARLY_FULL_WEIGHT: u64 = 4000;

/// What a new block may have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlockLimits {
    /// Most weight (`-blockmaxweight`).
    pub weight: u64,
    /// Weight left for header and coinbase (`-blockreservedweight`).
    pub reserved_weight: u64,
    /// Least fee rate, in satoshis per 1000 virtual bytes (`-blockmintxfee`).
    pub fee_rate_min: u64,
}

impl Default for BlockLimits {
    /// Bitcoin Core's defaults.
    fn default() -> Self {
        Self { weight: WEIGHT_MAX, reserved_weight: 8000, fee_rate_min: 1 }
    }
}

/// Entries that go into a block together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Package {
    /// What they pay, with what is pretended.
    pub fee: i64,
    /// Their weight, signature operations counted in.
    pub weight: u64,
    /// Cost of their signature operations.
    pub sigops_cost: u64,
}

impl Package {
    /// Tells which of two pays the better rate.
    fn compare_rates(&self, other: &Self) -> Ordering {
        let this = i128::from(self.fee) * i128::from(other.weight);
        this.cmp(&(i128::from(other.fee) * i128::from(self.weight)))
    }
}

/// Which entries they are.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Chunk {
    /// Their sums.
    pub package: Package,
    /// Their ids, parents before their children.
    pub txids: Vec<Txid>,
}

/// Joins chunks to those before them that pay a worse rate (`ChunkLinearization` in Core's
/// `cluster_linearize.h`).
fn joined(chunks: Vec<Chunk>) -> Vec<Chunk> {
    let mut found: Vec<Chunk> = Vec::new();
    for mut chunk in chunks {
        while let Some(mut before) =
            found.pop_if(|before| chunk.package.compare_rates(&before.package) == Ordering::Greater)
        {
            before.package.fee = before.package.fee.saturating_add(chunk.package.fee);
            before.package.weight += chunk.package.weight;
            before.package.sigops_cost += chunk.package.sigops_cost;
            before.txids.append(&mut chunk.txids);
            chunk = before;
        }
        found.push(chunk);
    }
    found
}

/// The order in which packages are tried: by fee rate, then by age.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Rank {
    fee: i64,
    weight: u64,
    sequence: Reverse<u64>,
    txid: Txid,
}

impl Ord for Rank {
    fn cmp(&self, other: &Self) -> Ordering {
        let this = i128::from(self.fee) * i128::from(other.weight);
        let that = i128::from(other.fee) * i128::from(self.weight);
        this.cmp(&that)
            .then_with(|| self.sequence.cmp(&other.sequence))
            .then_with(|| self.txid.cmp(&other.txid))
    }
}

impl PartialOrd for Rank {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl TxQueue {
    /// Chooses entries for a block, parents before their children. Those with witnesses stay out
    /// of a block that may have none.
    #[must_use]
    pub fn select(&self, limits: &BlockLimits, witnesses: bool) -> Vec<Arc<QueuedTx>> {
        let mut selection = Selection::new(self, limits.reserved_weight);
        selection.begin(self.iter(), witnesses);
        selection.run(limits);
        selection.order
    }

    /// Returns what an entry would go into a block with, if there were room for all.
    #[must_use]
    pub fn chunk(&self, txid: &Txid) -> Package {
        let chunks = self.cluster_chunks(txid);
        let found = chunks.iter().find(|chunk| chunk.txids.contains(txid));
        found.map(|chunk| chunk.package).unwrap_or_default()
    }

    /// Returns what an entry hangs together with in the order in which it would go into blocks. No
    /// chunk pays a better rate than the one before it: the two would be one.
    #[must_use]
    pub fn cluster_chunks(&self, txid: &Txid) -> Vec<Chunk> {
        let cluster = self.cluster(txid);
        let mut selection = Selection::new(self, 0);
        selection.begin(cluster.iter().filter_map(|txid| self.get(txid)), true);
        selection.run_all();
        joined(selection.chunks)
    }

    /// Returns all entries in the order in which they would go into blocks.
    #[must_use]
    pub fn chunks(&self) -> Vec<Chunk> {
        let (mut seen, mut chunks) = (HashSet::new(), Vec::new());
        for tx in self.iter() {
            if seen.contains(&tx.txid) {
                continue;
            }
            let cluster = self.cluster_chunks(&tx.txid);
            seen.extend(cluster.iter().flat_map(|chunk| &chunk.txids).copied());
            chunks.extend(cluster);
        }
        // Those of one cluster keep their order: it has the best first already.
        chunks.sort_by(|this, that| that.package.compare_rates(&this.package));
        chunks
    }

    /// Returns what an entry pays, with what is pretended.
    #[must_use]
    pub fn modified_fee(&self, tx: &QueuedTx) -> i64 {
        let fee = i64::try_from(tx.fee).unwrap_or(i64::MAX);
        fee.saturating_add(self.delta(&tx.txid))
    }
}

/// The choice of entries for a block, as it grows.
struct Selection<'a> {
    queue: &'a TxQueue,
    packages: HashMap<Txid, Package>,
    ranks: BTreeSet<Rank>,
    chosen: HashSet<Txid>,
    /// What was taken together.
    chunks: Vec<Chunk>,
    order: Vec<Arc<QueuedTx>>,
    weight: u64,
    sigops_cost: u64,
}

impl<'a> Selection<'a> {
    fn new(queue: &'a TxQueue, weight: u64) -> Self {
        Self {
            queue,
            packages: HashMap::new(),
            ranks: BTreeSet::new(),
            chosen: HashSet::new(),
            chunks: Vec::new(),
            order: Vec::new(),
            weight,
            sigops_cost: COINBASE_SIGOPS_COST,
        }
    }

    fn begin(&mut self, txs: impl Iterator<Item = &'a Arc<QueuedTx>>, witnesses: bool) {
        for tx in txs {
            if !witnesses && tx.has_witness() {
                continue;
            }
            let mut package = Package { fee: 0, weight: 0, sigops_cost: 0 };
            let ancestors = self.queue.ancestors(&tx.txid);
            let members = ancestors.iter().filter_map(|txid| self.queue.get(txid)).chain([tx]);
            let mut fits = true;
            for member in members {
                fits &= witnesses || !member.has_witness();
                package.fee = package.fee.saturating_add(self.queue.modified_fee(member));
                package.weight += member.adjusted_weight();
                package.sigops_cost += member.sigops_cost;
            }
            if fits {
                self.ranks.insert(rank(tx, &package));
                self.packages.insert(tx.txid, package);
            }
        }
    }

    fn run(&mut self, limits: &BlockLimits) {
        let mut misfits = 0;
        while let Some(best) = self.ranks.pop_last() {
            if !pays(best.fee, best.weight, limits.fee_rate_min) {
                return;
            }
            let Some(package) = self.packages.get(&best.txid).copied() else { continue };
            let weight = self.weight + package.weight;
            let sigops_cost = self.sigops_cost + package.sigops_cost;
            if weight >= limits.weight || sigops_cost >= SIGOPS_COST_MAX {
                self.packages.remove(&best.txid);
                misfits += 1;
                let nearly_full = self.weight + NEARLY_FULL_WEIGHT > limits.weight;
                if misfits > MISFITS_MAX && nearly_full {
                    return;
                }
                continue;
            }
            misfits = 0;
            (self.weight, self.sigops_cost) = (weight, sigops_cost);
            self.take(&best.txid, package);
        }
    }

    /// Takes all, the best packages first.
    fn run_all(&mut self) {
        while let Some(best) = self.ranks.pop_last() {
            if let Some(package) = self.packages.get(&best.txid).copied() {
                self.take(&best.txid, package);
            }
        }
    }

    /// Takes an entry, its ancestors first, and takes them off what hangs on them.
    fn take(&mut self, txid: &Txid, package: Package) {
        let mut members = self.queue.ancestors(txid);
        members.push(*txid);
        let mut txids = Vec::new();
        for member in members {
            let Some(tx) = self.queue.get(&member) else { continue };
            if !self.chosen.insert(member) {
                continue;
            }
            txids.push(member);
            if let Some(package) = self.packages.remove(&member) {
                self.ranks.remove(&rank(tx, &package));
            }
            self.order.push(Arc::clone(tx));
            for descendant in self.queue.descendants(&member) {
                self.lighten(&descendant, tx);
            }
        }
        self.chunks.push(Chunk { package, txids });
    }

    fn lighten(&mut self, descendant: &Txid, by: &QueuedTx) {
        let Some(tx) = self.queue.get(descendant) else { return };
        let Some(package) = self.packages.get_mut(descendant) else { return };
        self.ranks.remove(&rank(tx, package));
        package.fee = package.fee.saturating_sub(self.queue.modified_fee(by));
        package.weight -= by.adjusted_weight();
        package.sigops_cost -= by.sigops_cost;
        self.ranks.insert(rank(tx, package));
    }
}

fn rank(tx: &QueuedTx, package: &Package) -> Rank {
    let Package { fee, weight, .. } = *package;
    Rank { fee, weight, sequence: Reverse(tx.sequence), txid: tx.txid }
}

/// Whether a fee is at least a rate in satoshis per 1000 virtual bytes.
fn pays(fee: i64, weight: u64, rate: u64) -> bool {
    i128::from(fee) * 1000 >= i128::from(vsize(weight)) * i128::from(rate)
}
