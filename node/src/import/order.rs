//! Putting blocks that were found in any order into the order of the chain.

use std::collections::{HashMap, HashSet};

use bitcoin::BlockHash;
use cofferdam_ibd::HeaderTree;

use super::scan::Found;

/// Copies of a block that are kept beside the first; a chain that was downloaded over and over has no
/// need of more.
const COPIES_MAX: usize = 4;

/// A block of one of the files: some 140 bytes each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record {
    /// Hash of its header.
    pub(crate) hash: BlockHash,
    /// Where it is.
    pub(crate) found: Found,
    /// In which of the files.
    pub(crate) file: usize,
}

/// What can be imported, and what cannot.
#[derive(Clone, Debug, Default)]
pub(crate) struct Order {
    /// Records by height, each after its parent.
    pub(crate) blocks: Vec<Record>,
    /// How many blocks have no known parent.
    pub(crate) unknown_parent: usize,
    /// How many are there more than once.
    pub(crate) duplicates: usize,
    /// Further copies of blocks, in the order of the files: the first one may be damaged.
    pub(crate) copies: HashMap<BlockHash, Vec<Record>>,
}

/// Orders `records` on top of the headers that are known.
pub(crate) fn order(records: &[Record], known: &HeaderTree) -> Order {
    let mut children: HashMap<BlockHash, Vec<&Record>> = HashMap::new();
    let mut hashes: HashSet<BlockHash> = HashSet::with_capacity(records.len());
    let mut order = Order::default();
    for record in records {
        if !hashes.insert(record.hash) {
            order.duplicates += 1;
            let copies = order.copies.entry(record.hash).or_default();
            if copies.len() < COPIES_MAX {
                copies.push(*record);
            }
        } else {
            children.entry(record.found.header.prev_blockhash).or_default().push(record);
        }
    }
    let unique = hashes.len();
    // A root is a block whose parent is known and is in none of the files, or the genesis block.
    let genesis = known.entry(known.genesis()).hash;
    let mut layer: Vec<(u32, &Record)> = Vec::new();
    for (parent, of_parent) in &children {
        if hashes.contains(parent) {
            continue;
        }
        let height = known.get(parent).map(|at| known.entry(at).height + 1);
        for record in of_parent {
            let height = if record.hash == genesis { Some(0) } else { height };
            layer.extend(height.map(|height| (height, *record)));
        }
    }
    let mut ordered: Vec<(u32, &Record)> = Vec::with_capacity(unique);
    while let Some((height, record)) = layer.pop() {
        ordered.push((height, record));
        let above = children.get(&record.hash).into_iter().flatten();
        layer.extend(above.map(|child| (height + 1, *child)));
    }
    // By file and offset within a height: a run of blocks is read as it lies on the disk.
    ordered.sort_by_key(|(height, record)| (*height, record.file, record.found.offset));
    order.unknown_parent = unique - ordered.len();
    order.blocks = ordered.into_iter().map(|(_, record)| *record).collect();
    order
}

/// Logs which blocks stand before their parents, in the words of Bitcoin Core, which reads the files
/// once and in their order.
pub(crate) fn tell_out_of_order(records: &[Record], known: &HeaderTree) {
    if !tracing::enabled!(tracing::Level::DEBUG) {
        return;
    }
    let genesis = known.entry(known.genesis()).hash;
    let mut seen: HashSet<BlockHash> = HashSet::from([genesis]);
    let mut early: HashMap<BlockHash, Vec<BlockHash>> = HashMap::new();
    for record in records {
        let (hash, parent) = (record.hash, record.found.header.prev_blockhash);
        if hash != genesis && !seen.contains(&parent) && known.get(&parent).is_none() {
            tracing::debug!(
                "LoadExternalBlockFile: Out of order block {hash}, parent {parent} not known"
            );
            early.entry(parent).or_default().push(hash);
            continue;
        }
        seen.insert(hash);
        let mut heads = vec![hash];
        while let Some(head) = heads.pop() {
            for child in early.remove(&head).unwrap_or_default() {
                tracing::debug!(
                    "LoadExternalBlockFile: Processing out of order child {child} of {head}"
                );
                seen.insert(child);
                heads.push(child);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cofferdam_ibd::params::{ChainParams, Network};

    fn chain(length: u32) -> (HeaderTree, Vec<Record>) {
        let genesis = ChainParams::new(Network::Regtest).genesis.header;
        let mut header = genesis;
        let mut records = Vec::new();
        for height in 0..length {
            if height > 0 {
                header.prev_blockhash = header.block_hash();
                header.nonce = height;
            }
            let found = Found { header, offset: u64::from(height) * 300, length: 285 };
            records.push(Record { hash: header.block_hash(), found, file: 0 });
        }
        (HeaderTree::new(genesis), records)
    }

    #[test]
    fn any_order_becomes_the_chain() {
        let (known, records) = chain(20);
        let mut shuffled = records.clone();
        shuffled.reverse();
        shuffled.swap(3, 15);
        shuffled.push(records[4]);
        let order = order(&shuffled, &known);
        let ids = |records: &[Record]| records.iter().map(|record| record.hash).collect::<Vec<_>>();
        assert_eq!(ids(&order.blocks), ids(&records));
        assert_eq!((order.unknown_parent, order.duplicates), (0, 1));
    }

    #[test]
    fn a_few_further_copies_are_kept_in_their_order() {
        let (known, records) = chain(5);
        let copies = (1..=10).map(|file| Record { file, ..records[2] });
        let found = order(&records.iter().copied().chain(copies).collect::<Vec<_>>(), &known);
        assert_eq!((found.blocks.len(), found.duplicates, found.copies.len()), (5, 10, 1));
        let files: Vec<usize> =
            found.copies[&records[2].hash].iter().map(|copy| copy.file).collect();
        assert_eq!(files, [1, 2, 3, 4]);
        assert_eq!(found.blocks[2].file, 0);
    }

    #[test]
    fn what_has_no_known_parent_is_counted() {
        let (known, records) = chain(20);
        let gap: Vec<Record> =
            records.iter().enumerate().filter(|(i, _)| *i != 7).map(|(_, r)| *r).collect();
        let found = order(&gap, &known);
        assert_eq!((found.blocks.len(), found.unknown_parent), (7, 12));
        // Without the genesis block the rest still connects to the known one.
        let found = order(&records[1..], &known);
        assert_eq!((found.blocks.len(), found.unknown_parent), (19, 0));
    }
}
