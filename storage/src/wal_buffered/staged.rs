//! `Staged`: a batch that reads can see but that is not committed.
//!
//! It indexes the batch's own bytes, so that staging copies nothing and taking back is dropping.

use std::sync::Arc;

use hashbrown::HashTable;

use crate::batch::{Batch, Op};
use crate::database::KeyRange;
use crate::wal_buffered::BlockBatch;
use crate::wal_buffered::memtable::{KeyHash, Lookup, key_hash};

/// The last operation of a batch for each key.
#[derive(Debug, Default)]
pub(crate) struct BatchIndex {
    /// Offsets of operations in the batch's encoding.
    slots: HashTable<u32>,
}

impl BatchIndex {
    /// An index with room for so many keys.
    pub(crate) fn with_capacity(keys: usize) -> Self {
        Self { slots: HashTable::with_capacity(keys) }
    }

    /// Makes the operation at `offset` the last one for its key.
    pub(crate) fn insert(&mut self, batch: &Batch, offset: u32) {
        let Some(op) = batch.op_at(offset) else {
            return;
        };
        let key_of = |offset: u32| batch.op_at(offset).map(|op| (op.tree_id(), op.key()));
        let key = (op.tree_id(), op.key());
        let hash = key_hash(op.key());
        if let Some(slot) = self.slots.find_mut(hash.spread(), |slot| key_of(*slot) == Some(key)) {
            *slot = offset;
        } else {
            let rehash = |slot: &u32| key_hash(key_of(*slot).map_or(&[], |(_, key)| key)).spread();
            self.slots.insert_unique(hash.spread(), offset, rehash);
        }
    }

    /// The last operation for a key; `hash` is its [`key_hash`].
    pub(crate) fn get<'a>(
        &self,
        batch: &'a Batch,
        tree_id: u8,
        key: &[u8],
        hash: KeyHash,
    ) -> Option<Op<'a>> {
        let same = |op: &Op<'_>| op.tree_id() == tree_id && op.key() == key;
        let is_it = |slot: &u32| batch.op_at(*slot).is_some_and(|op| same(&op));
        let slot = self.slots.find(hash.spread(), is_it)?;
        batch.op_at(*slot)
    }
}

/// A batch that is visible and not committed.
#[derive(Debug)]
pub(crate) struct Staged {
    block: Arc<BlockBatch>,
    index: BatchIndex,
}

impl Staged {
    /// Takes a batch with the index of its operations.
    pub(crate) fn new(block: BlockBatch, index: BatchIndex) -> Self {
        Self { block: Arc::new(block), index }
    }

    /// The batch.
    pub(crate) const fn block(&self) -> &Arc<BlockBatch> {
        &self.block
    }

    /// What the batch says of a key; `hash` is its [`key_hash`].
    pub(crate) fn get(&self, tree_id: u8, key: &[u8], hash: KeyHash) -> Lookup<'_> {
        match self.index.get(&self.block.batch, tree_id, key, hash) {
            None => Lookup::Unknown,
            Some(op) => op.value().map_or(Lookup::Deleted, Lookup::Value),
        }
    }

    /// The operations for a tree within a range, in the batch's order.
    pub(crate) fn entries<'a>(
        &'a self,
        tree_id: u8,
        range: &'a KeyRange,
    ) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> + 'a {
        let wanted = move |op: &Op<'_>| op.tree_id() == tree_id && range.contains(op.key());
        self.block.batch.ops().filter(wanted).map(|op| (op.key(), op.value()))
    }

    /// Whether the batch has an operation for the tree.
    pub(crate) fn touches(&self, tree_id: u8) -> bool {
        self.block.batch.ops().any(|op| op.tree_id() == tree_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::Tree;
    use crate::wal_buffered::Tip;

    #[test]
    fn the_last_operation_for_a_key_answers() {
        let (one, two) = (Tree { id: 1, name: "one" }, Tree { id: 2, name: "two" });
        let mut batch = Batch::new();
        batch.put(one, b"k", b"first");
        batch.put(one, b"k", b"second");
        batch.put(two, b"k", b"other");
        batch.delete(two, b"k");
        let mut index = BatchIndex::default();
        let mut ops = batch.ops();
        loop {
            let offset = u32::try_from(ops.offset()).unwrap();
            if ops.next().is_none() {
                break;
            }
            index.insert(&batch, offset);
        }
        let tip = Tip { height: 1, hash: [1; 32] };
        let staged = Staged::new(BlockBatch { tip, prev_hash: [0; 32], batch }, index);
        let get = |tree_id, key: &[u8]| staged.get(tree_id, key, key_hash(key));
        assert_eq!(get(1, b"k"), Lookup::Value(b"second"));
        assert_eq!(get(2, b"k"), Lookup::Deleted);
        assert_eq!(get(3, b"k"), Lookup::Unknown);
        assert_eq!(get(1, b""), Lookup::Unknown);
    }
}
