//! `MemoryDatabase`: the reference semantics, and the database of tests.

use std::collections::BTreeMap;

use crate::batch::{Batch, Op};
use crate::database::{
    Count, Database, Entries, KeyRange, Tree, check_tree, check_trees, with_state_tree,
};
use crate::error::Result;
use crate::lock::{read, write};
use crate::sync::RwLock;

/// The entries of one tree.
type TreeMap = BTreeMap<Vec<u8>, Vec<u8>>;

/// A database in memory. Nothing survives it; `flush` has nothing to do.
#[derive(Debug)]
pub struct MemoryDatabase {
    trees: Vec<Tree>,
    maps: RwLock<BTreeMap<u8, TreeMap>>,
}

impl MemoryDatabase {
    /// Returns an empty database with these trees.
    #[must_use]
    pub fn new(trees: &[Tree]) -> Self {
        let trees = with_state_tree(trees);
        let maps = trees.iter().map(|tree| (tree.id, BTreeMap::new())).collect();
        Self { trees, maps: RwLock::new(maps) }
    }
}

impl Database for MemoryDatabase {
    fn trees(&self) -> &[Tree] {
        &self.trees
    }

    fn get(&self, tree: Tree, key: &[u8]) -> Result<Option<Vec<u8>>> {
        check_tree(&self.trees, tree.id)?;
        Ok(read(&self.maps).get(&tree.id).and_then(|map| map.get(key)).cloned())
    }

    fn iterates_over_snapshots(&self) -> bool {
        true
    }

    /// Copies the range, so that the lock is not held while the caller iterates.
    fn range(&self, tree: Tree, range: KeyRange) -> Result<Entries<'_>> {
        check_tree(&self.trees, tree.id)?;
        if range.is_empty() {
            return Ok(Box::new(std::iter::empty()));
        }
        let bounds = (range.start().as_ref(), range.end().as_ref());
        let maps = read(&self.maps);
        let entries: Vec<_> = maps
            .get(&tree.id)
            .into_iter()
            .flat_map(|map| map.range::<Vec<u8>, _>(bounds))
            .map(|(key, value)| Ok((key.clone(), value.clone())))
            .collect();
        Ok(Box::new(entries.into_iter()))
    }

    fn len(&self, tree: Tree) -> Result<Count> {
        check_tree(&self.trees, tree.id)?;
        let len = read(&self.maps).get(&tree.id).map_or(0, BTreeMap::len);
        Ok(Count::Exact(u64::try_from(len).unwrap_or(u64::MAX)))
    }

    fn clear(&self, tree: Tree) -> Result<()> {
        check_tree(&self.trees, tree.id)?;
        write(&self.maps).insert(tree.id, BTreeMap::new());
        Ok(())
    }

    fn apply(&self, batch: &Batch) -> Result<()> {
        check_trees(&self.trees, batch)?;
        let mut maps = write(&self.maps);
        for op in batch.ops() {
            let map = maps.entry(op.tree_id()).or_default();
            match op {
                Op::Put { key, value, .. } | Op::PutNew { key, value, .. } => {
                    map.insert(key.to_vec(), value.to_vec());
                }
                Op::Delete { key, .. } => {
                    map.remove(key);
                }
            }
        }
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }
}
