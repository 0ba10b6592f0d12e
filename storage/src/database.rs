//! `Database`: the contract of an ordered key-value store with several trees.

use std::fmt::Debug;
use std::ops::Bound;
use std::sync::Arc;

use crate::batch::{Batch, Op};
use crate::error::{Error, Result};

/// A named keyspace. The id is part of the stored format; the name is for people and engines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tree {
    /// A small number that never changes its meaning.
    pub id: u8,
    /// What people, and engines with named keyspaces, call it.
    pub name: &'static str,
}

/// The reserved tree in which [`WalBuffered`](crate::WalBuffered) keeps how far the database is.
///
/// Every backend of this crate opens it without being asked.
pub const STATE_TREE: Tree = Tree { id: 0, name: "state" };

/// A key and its value.
pub type Entry = (Vec<u8>, Vec<u8>);

/// Entries in ascending order of key.
pub type Entries<'a> = Box<dyn Iterator<Item = Result<Entry>> + 'a>;

/// How many entries a tree has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// They were counted.
    Exact(u64),
    /// The engine guesses.
    Estimate(u64),
}

/// The number of operations in one batch of the default [`Database::ingest_sorted`], and the most
/// that a buffered store writes to a backend at once unless the backend wants fewer.
const BATCH_OPS_MAX: usize = 50_000;

/// An ordered key-value store with several trees.
///
/// The contract, clause by clause as `testing::conformance` checks it:
///
/// 1. Keys and values are any bytes, empty ones included, up to
///    [`KEY_BYTES_MAX`](crate::KEY_BYTES_MAX) and [`VALUE_BYTES_MAX`](crate::VALUE_BYTES_MAX).
/// 2. Trees do not see each other. Using a tree that was not opened is [`Error::UnknownTree`].
/// 3. [`apply`](Database::apply) is atomic over all trees, for readers and for crashes; in one
///    batch the last operation for a key wins. `put_new` of an absent key is `put`.
/// 4. What `apply` wrote is seen by every read that begins after it has returned.
/// 5. Iteration is in ascending order of the keys' bytes. It sees every batch that was applied
///    before it began; whether it sees those applied while it runs is not defined.
/// 6. [`flush`](Database::flush) returns when all that was applied before survives a power cut.
///    What is lost without a flush are whole batches.
/// 7. Calls from several threads are allowed at any time.
pub trait Database: Debug + Send + Sync {
    /// The trees that were opened, in order of id.
    fn trees(&self) -> &[Tree];

    /// Returns the value of `key`, or none.
    ///
    /// # Errors
    ///
    /// If the tree is unknown or the engine fails.
    fn get(&self, tree: Tree, key: &[u8]) -> Result<Option<Vec<u8>>>;

    /// Returns the values of `keys`, in their order. The caller passes the keys sorted.
    ///
    /// # Errors
    ///
    /// If the tree is unknown or the engine fails.
    fn multi_get(&self, tree: Tree, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>> {
        keys.iter().map(|key| self.get(tree, key)).collect()
    }

    /// Returns whether `key` has a value.
    ///
    /// # Errors
    ///
    /// If the tree is unknown or the engine fails.
    fn contains_key(&self, tree: Tree, key: &[u8]) -> Result<bool> {
        Ok(self.get(tree, key)?.is_some())
    }

    /// Returns the entries of `range` in ascending order.
    ///
    /// # Errors
    ///
    /// If the tree is unknown or the engine fails; each item may fail too.
    fn range(&self, tree: Tree, range: KeyRange) -> Result<Entries<'_>>;

    /// Returns the entries whose keys begin with `prefix`, in ascending order.
    ///
    /// # Errors
    ///
    /// As [`Database::range`].
    fn prefix(&self, tree: Tree, prefix: &[u8]) -> Result<Entries<'_>> {
        self.range(tree, KeyRange::prefix(prefix))
    }

    /// Returns how many entries the tree has.
    ///
    /// # Errors
    ///
    /// If the tree is unknown or the engine fails.
    fn len(&self, tree: Tree) -> Result<Count>;

    /// Takes all entries out of the tree. A crash within the call may leave a part of them.
    ///
    /// # Errors
    ///
    /// If the tree is unknown or the engine fails.
    fn clear(&self, tree: Tree) -> Result<()>;

    /// Applies a batch: all of it or nothing, over all trees.
    ///
    /// # Errors
    ///
    /// If a tree is unknown (nothing is applied) or the engine fails.
    fn apply(&self, batch: &Batch) -> Result<()>;

    /// Writes many entries that come in ascending order of key. Not atomic as a whole.
    ///
    /// # Errors
    ///
    /// If the tree is unknown or the engine fails; a prefix of the entries may have been written.
    /// [`Error::Misuse`] if an engine that depends on the order finds it broken.
    fn ingest_sorted(&self, tree: Tree, entries: &mut dyn Iterator<Item = Entry>) -> Result<()> {
        let ops_max = self.batch_ops_max();
        let mut batch = Batch::new();
        for (key, value) in entries {
            batch.put(tree, &key, &value);
            if batch.len() >= ops_max {
                self.apply(&batch)?;
                batch.clear();
            }
        }
        self.apply(&batch)
    }

    /// Applies operations that come in ascending order of tree and key, one a key and at most
    /// `ops_max`: all or nothing, and durably, [`flush`](Database::flush) included. Returns `false`,
    /// with none of them asked for, if the engine has no faster way for this than batches.
    ///
    /// # Errors
    ///
    /// If an operation is an error, which is returned; if a tree is unknown or the engine fails;
    /// [`Error::Misuse`] if the order is broken. Nothing is applied then.
    fn apply_sorted(
        &self,
        ops: &mut dyn Iterator<Item = Result<Op<'_>>>,
        ops_max: usize,
    ) -> Result<bool> {
        let _ = (ops, ops_max);
        Ok(false)
    }

    /// Returns when everything applied before survives a power cut, also what an earlier process
    /// applied and did not flush, if it can be read now.
    ///
    /// # Errors
    ///
    /// If that could not be achieved. What is durable is then unknown.
    fn flush(&self) -> Result<()>;

    /// The most operations that this engine takes well in one batch.
    fn batch_ops_max(&self) -> usize {
        BATCH_OPS_MAX
    }

    /// Whether an iteration sees nothing that was applied after it began.
    fn iterates_over_snapshots(&self) -> bool {
        false
    }
}

/// Implements `Database` for a pointer to one.
macro_rules! forward_database {
    ($pointer:ident) => {
        impl<T: Database + ?Sized> Database for $pointer<T> {
            fn trees(&self) -> &[Tree] {
                (**self).trees()
            }
            fn get(&self, tree: Tree, key: &[u8]) -> Result<Option<Vec<u8>>> {
                (**self).get(tree, key)
            }
            fn multi_get(&self, tree: Tree, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>> {
                (**self).multi_get(tree, keys)
            }
            fn contains_key(&self, tree: Tree, key: &[u8]) -> Result<bool> {
                (**self).contains_key(tree, key)
            }
            fn range(&self, tree: Tree, range: KeyRange) -> Result<Entries<'_>> {
                (**self).range(tree, range)
            }
            fn prefix(&self, tree: Tree, prefix: &[u8]) -> Result<Entries<'_>> {
                (**self).prefix(tree, prefix)
            }
            fn len(&self, tree: Tree) -> Result<Count> {
                (**self).len(tree)
            }
            fn clear(&self, tree: Tree) -> Result<()> {
                (**self).clear(tree)
            }
            fn apply(&self, batch: &Batch) -> Result<()> {
                (**self).apply(batch)
            }
            fn ingest_sorted(
                &self,
                tree: Tree,
                entries: &mut dyn Iterator<Item = Entry>,
            ) -> Result<()> {
                (**self).ingest_sorted(tree, entries)
            }
            fn apply_sorted(
                &self,
                ops: &mut dyn Iterator<Item = Result<Op<'_>>>,
                ops_max: usize,
            ) -> Result<bool> {
                (**self).apply_sorted(ops, ops_max)
            }
            fn flush(&self) -> Result<()> {
                (**self).flush()
            }
            fn batch_ops_max(&self) -> usize {
                (**self).batch_ops_max()
            }
            fn iterates_over_snapshots(&self) -> bool {
                (**self).iterates_over_snapshots()
            }
        }
    };
}

forward_database!(Box);
forward_database!(Arc);

/// The trees of a database: [`STATE_TREE`] and those asked for, in order of id, without doubles.
pub(crate) fn with_state_tree(trees: &[Tree]) -> Vec<Tree> {
    let mut all: Vec<Tree> = trees.to_vec();
    all.push(STATE_TREE);
    all.sort_unstable();
    all.dedup_by_key(|tree| tree.id);
    all
}

/// Fails unless every operation of `batch` is for one of `trees`.
pub(crate) fn check_trees(trees: &[Tree], batch: &Batch) -> Result<()> {
    let mut last_good = None;
    for op in batch.ops() {
        let id = op.tree_id();
        if last_good != Some(id) {
            check_tree(trees, id)?;
            last_good = Some(id);
        }
    }
    Ok(())
}

/// Fails unless `id` is the id of one of `trees`.
pub(crate) fn check_tree(trees: &[Tree], id: u8) -> Result<()> {
    if trees.iter().any(|tree| tree.id == id) { Ok(()) } else { Err(Error::UnknownTree { id }) }
}

/// Which keys an iteration visits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRange {
    start: Bound<Vec<u8>>,
    end: Bound<Vec<u8>>,
}

impl KeyRange {
    /// All keys.
    #[must_use]
    pub const fn all() -> Self {
        Self { start: Bound::Unbounded, end: Bound::Unbounded }
    }

    /// The keys that begin with `prefix`.
    #[must_use]
    pub fn prefix(prefix: &[u8]) -> Self {
        // The first key after all that begin with the prefix: drop trailing ff bytes, add one to
        // the last of the rest. If nothing is left there is no such key.
        let mut end = prefix.to_vec();
        while end.last() == Some(&0xff) {
            end.pop();
        }
        let end = match end.last_mut() {
            Some(last) => {
                *last += 1;
                Bound::Excluded(end)
            }
            None => Bound::Unbounded,
        };
        Self { start: Bound::Included(prefix.to_vec()), end }
    }

    /// The keys between two bounds; none if the start is after the end.
    #[must_use]
    pub const fn from_bounds(start: Bound<Vec<u8>>, end: Bound<Vec<u8>>) -> Self {
        Self { start, end }
    }

    /// The lower bound.
    #[must_use]
    pub const fn start(&self) -> &Bound<Vec<u8>> {
        &self.start
    }

    /// The upper bound.
    #[must_use]
    pub const fn end(&self) -> &Bound<Vec<u8>> {
        &self.end
    }

    /// Whether `key` is in the range.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        let after_start = match &self.start {
            Bound::Included(start) => key >= start.as_slice(),
            Bound::Excluded(start) => key > start.as_slice(),
            Bound::Unbounded => true,
        };
        let before_end = match &self.end {
            Bound::Included(end) => key <= end.as_slice(),
            Bound::Excluded(end) => key < end.as_slice(),
            Bound::Unbounded => true,
        };
        after_start && before_end
    }

    /// Whether the bounds exclude every key, so that an engine need not be asked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match (&self.start, &self.end) {
            (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
            (Bound::Included(start), Bound::Included(end)) => start > end,
            (
                Bound::Included(start) | Bound::Excluded(start),
                Bound::Included(end) | Bound::Excluded(end),
            ) => start >= end,
        }
    }

    /// The lowest key that may be in the range, and the lowest that is beyond it, as engines with
    /// half-open ranges want them.
    #[must_use]
    pub fn half_open(&self) -> (Vec<u8>, Option<Vec<u8>>) {
        let successor = |key: &Vec<u8>| {
            let mut next = key.clone();
            next.push(0);
            next
        };
        let start = match &self.start {
            Bound::Included(start) => start.clone(),
            Bound::Excluded(start) => successor(start),
            Bound::Unbounded => Vec::new(),
        };
        let end = match &self.end {
            Bound::Included(end) => Some(successor(end)),
            Bound::Excluded(end) => Some(end.clone()),
            Bound::Unbounded => None,
        };
        (start, end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_range_ends_after_the_last_key_with_the_prefix() {
        for (prefix, inside, outside) in [
            (&b"a"[..], &b"a\xff\xff"[..], &b"b"[..]),
            (b"a\xff", b"a\xff\x00", b"b"),
            (b"\xff\xff", b"\xff\xff\xff", b"\xfe"),
        ] {
            let range = KeyRange::prefix(prefix);
            assert!(range.contains(prefix) && range.contains(inside), "{prefix:?}");
            assert!(!range.contains(outside), "{prefix:?}");
        }
        assert!(KeyRange::prefix(b"").contains(b""));
    }

    #[test]
    fn half_open_bounds_hold_the_same_keys() {
        let bound = |key: &[u8]| key.to_vec();
        let ranges = [
            KeyRange::all(),
            KeyRange::from_bounds(Bound::Included(bound(b"b")), Bound::Included(bound(b"c"))),
            KeyRange::from_bounds(Bound::Excluded(bound(b"b")), Bound::Excluded(bound(b"c"))),
        ];
        for range in ranges {
            let (start, end) = range.half_open();
            for key in [&b""[..], b"a", b"b", b"b\x00", b"bz", b"c", b"c\x00", b"d"] {
                let inside =
                    key >= start.as_slice() && end.as_ref().is_none_or(|end| key < end.as_slice());
                assert_eq!(inside, range.contains(key), "{range:?} {key:?}");
            }
        }
    }

    #[test]
    fn reversed_bounds_are_empty() {
        let range = |start: Bound<Vec<u8>>, end| KeyRange::from_bounds(start, end);
        let (low, high) = (b"a".to_vec(), b"b".to_vec());
        assert!(range(Bound::Included(high.clone()), Bound::Included(low.clone())).is_empty());
        assert!(range(Bound::Included(low.clone()), Bound::Excluded(low.clone())).is_empty());
        assert!(!range(Bound::Included(low.clone()), Bound::Included(low.clone())).is_empty());
        assert!(!range(Bound::Excluded(low), Bound::Included(high)).is_empty());
    }

    #[test]
    fn the_state_tree_is_always_there_once() {
        let one = Tree { id: 1, name: "one" };
        assert_eq!(with_state_tree(&[one]), [STATE_TREE, one]);
        assert_eq!(with_state_tree(&[one, STATE_TREE, one]), [STATE_TREE, one]);
    }
}
