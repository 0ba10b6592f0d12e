//! Reading many keys at once: without an allocation for a value that is in memory, and with what
//! other threads have read ahead from the backend.
//!
//! Invariant: a value read ahead is used only if no layer in memory knows the key, and if what has
//! been written back by then was committed before it was read; else it may be stale, and is read
//! again. For what was committed before then and not yet written back, memory knew and the backend
//! was not asked; what was committed later is still in memory, which answers. (A tree that was
//! cleared meanwhile has no value below, and memory knows that until something committed later is
//! written back.)

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::database::{Database, Entries, KeyRange, Tree, check_tree};
use crate::error::Result;
use crate::lock::read;
use crate::mutation::{Mutation, mutated};
use crate::wal_buffered::memtable::Lookup;
use crate::wal_buffered::{Inner, Lsn, WalBuffered};

/// Keys that the backend is asked for at once: enough for it to have many reads under way, and 10 MB on
/// each thread if all values are as long as the longest scripts.
const KEYS_AT_ONCE: usize = 1024;

/// What the backend said of some keys, before it was needed.
#[derive(Debug, Default)]
pub struct ReadAhead {
    /// The last committed batch when memory was asked.
    lsn: Lsn,
    /// For each key: nothing, if it was not asked for since memory knew it.
    values: Vec<Option<Option<Vec<u8>>>>,
}

/// Reads ahead for a store, on any thread.
///
/// The store's files stay locked until all handles are gone.
#[derive(Debug)]
pub struct ReadHandle<D: Database> {
    inner: Arc<Inner<D>>,
}

impl<D: Database> Clone for ReadHandle<D> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl ReadAhead {
    /// Returns the bytes of all values.
    #[must_use]
    pub fn byte_len(&self) -> usize {
        self.values.iter().flatten().flatten().map(Vec::len).sum()
    }
}

impl<D: Database> ReadHandle<D> {
    /// Reads those of `keys` from the backend that no layer in memory knows; nothing, as long as
    /// nothing was written back. Of the values it keeps at most `bytes_max` bytes: the others are read
    /// when they are needed.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownTree`](crate::Error::UnknownTree), or if the backend failed.
    pub fn read_ahead<K: AsRef<[u8]>>(
        &self,
        tree: Tree,
        keys: &[K],
        bytes_max: usize,
    ) -> Result<ReadAhead> {
        let inner = &self.inner;
        check_tree(&inner.trees, tree.id)?;
        let mut missing = Vec::new();
        let lsn = {
            let view = read(&inner.view);
            if view.applied == 0 || view.is_empty_below(tree.id) {
                // Nothing was ever written back: there is nothing to read ahead.
                return Ok(ReadAhead::default());
            }
            view.get_many(tree.id, keys, |index, key, found| {
                if found == Lookup::Unknown {
                    missing.push((index, key));
                }
            });
            view.lsn
        };
        let mut ahead = ReadAhead { lsn, values: vec![None; keys.len()] };
        let mut left = bytes_max;
        inner.read_backend(tree, missing, |index, value| {
            let Some(rest) = left.checked_sub(value.as_ref().map_or(0, Vec::len)) else {
                return ControlFlow::Break(());
            };
            left = rest;
            if let Some(slot) = ahead.values.get_mut(index) {
                *slot = Some(value);
            }
            ControlFlow::Continue(())
        })?;
        Ok(ahead)
    }

    /// Returns the entries of a range, as the store's own [`Database::range`] does.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownTree`](crate::Error::UnknownTree), or if the backend failed.
    pub fn range(&self, tree: Tree, range: &KeyRange) -> Result<Entries<'_>> {
        check_tree(&self.inner.trees, tree.id)?;
        Ok(Box::new(self.inner.at_one_moment(|| self.inner.range(tree, range))?))
    }

    /// Whether the entries of a range are those of the moment in which it was asked for.
    #[must_use]
    pub fn iterates_over_snapshots(&self) -> bool {
        self.inner.backend.iterates_over_snapshots()
    }
}

impl<D: Database + 'static> WalBuffered<D> {
    /// Returns a handle for other threads to read ahead with.
    #[must_use]
    pub fn read_handle(&self) -> ReadHandle<D> {
        ReadHandle { inner: Arc::clone(&self.inner) }
    }

    /// Calls `visit` once for each key, in no certain order, with its index and its value.
    ///
    /// `ahead` is what was read ahead for the same keys, or [`ReadAhead::default`]. Batches that
    /// other threads commit meanwhile may be seen in part; the thread that commits sees one state.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownTree`](crate::Error::UnknownTree), or if the backend failed.
    pub fn read_many<K: AsRef<[u8]>>(
        &self,
        tree: Tree,
        keys: &[K],
        ahead: &ReadAhead,
        mut visit: impl FnMut(usize, Option<&[u8]>),
    ) -> Result<()> {
        let inner = &self.inner;
        check_tree(&inner.trees, tree.id)?;
        let mut missing = Vec::new();
        {
            let view = read(&inner.view);
            let is_current = view.applied <= ahead.lsn || mutated(Mutation::ReadAheadBelieved);
            let is_empty_below = view.is_empty_below(tree.id);
            view.get_many(tree.id, keys, |index, key, found| match found {
                Lookup::Value(value) => visit(index, Some(value)),
                Lookup::Deleted => visit(index, None),
                Lookup::Unknown if is_empty_below => visit(index, None),
                Lookup::Unknown => match ahead.values.get(index) {
                    Some(Some(value)) if is_current => visit(index, value.as_deref()),
                    _ => missing.push((index, key)),
                },
            });
        }
        inner.read_backend(tree, missing, |index, value| {
            visit(index, value.as_deref());
            ControlFlow::Continue(())
        })
    }
}

impl<D: Database> Inner<D> {
    /// Asks the backend for keys, in their order, which engines have fast paths for, until `found`
    /// breaks off.
    fn read_backend(
        &self,
        tree: Tree,
        mut keys: Vec<(usize, &[u8])>,
        mut found: impl FnMut(usize, Option<Vec<u8>>) -> ControlFlow<()>,
    ) -> Result<()> {
        keys.sort_unstable_by_key(|(_, key)| *key);
        for keys in keys.chunks(KEYS_AT_ONCE) {
            let sorted: Vec<&[u8]> = keys.iter().map(|(_, key)| *key).collect();
            let values = self.backend.multi_get(tree, &sorted)?;
            for (&(index, _), value) in keys.iter().zip(values) {
                if found(index, value).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}
