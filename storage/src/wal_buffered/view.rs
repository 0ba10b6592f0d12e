//! `View`: everything that reads see in memory, under one lock that is held for a few lines.

use std::collections::VecDeque;
use std::collections::btree_map::Entry as MapEntry;
use std::sync::Arc;

use crate::database::KeyRange;
use crate::wal_buffered::flusher::Frozen;
use crate::wal_buffered::memtable::{Lookup, Memtable, key_hash};
use crate::wal_buffered::merge::Buffered;
use crate::wal_buffered::staged::Staged;
use crate::wal_buffered::{Lsn, Tip};

/// The layers in memory: staged batches, the active and the frozen generation.
#[derive(Debug, Default)]
pub(crate) struct View {
    /// Visible, not committed; the oldest first.
    pub(crate) staged: VecDeque<Staged>,
    /// Committed, not yet to be written back.
    pub(crate) active: Memtable,
    /// Committed, being written back; never changed.
    pub(crate) frozen: Option<Arc<Frozen>>,
    /// Moves when a generation is taken out.
    pub(crate) epoch: u64,
    /// Moves when a generation is frozen: from then on parts of it may be in the backend.
    pub(crate) freezes: u64,
    /// The last committed batch.
    pub(crate) lsn: Lsn,
    /// The tip after it.
    pub(crate) tip: Option<Tip>,
    /// The last batch that is in the backend.
    pub(crate) applied: Lsn,
}

impl View {
    /// What memory knows of a key, the newest layer first.
    pub(crate) fn get(&self, tree_id: u8, key: &[u8]) -> Lookup<'_> {
        let hash = key_hash(key);
        for staged in self.staged.iter().rev() {
            let found = staged.get(tree_id, key, hash);
            if found != Lookup::Unknown {
                return found;
            }
        }
        let found = self.active.get(tree_id, key, hash);
        if found != Lookup::Unknown {
            return found;
        }
        self.frozen.as_ref().map_or(Lookup::Unknown, |frozen| frozen.table.get(tree_id, key, hash))
    }

    /// The hash of the newest tip, staged batches included; zeros if there is none.
    pub(crate) fn newest_hash(&self) -> [u8; 32] {
        match self.staged.back() {
            Some(staged) => staged.block().tip.hash,
            None => self.tip.map_or([0; 32], |tip| tip.hash),
        }
    }

    /// Copies what the staged batches and the active generation know of a range.
    pub(crate) fn collect(&self, tree_id: u8, range: &KeyRange) -> Buffered {
        let mut buffered = Buffered::new();
        let staged = self.staged.iter().flat_map(|staged| staged.entries(tree_id, range));
        for (key, value) in self.active.entries(tree_id, range).chain(staged) {
            buffered.insert(key.to_vec(), value.map(<[u8]>::to_vec));
        }
        buffered
    }

    /// Whether memory knows anything of a tree.
    pub(crate) fn touches(&self, tree_id: u8) -> bool {
        self.active.touches(tree_id)
            || self.frozen.as_ref().is_some_and(|frozen| frozen.table.touches(tree_id))
            || self.staged.iter().any(|staged| staged.touches(tree_id))
    }

    /// By how much the generations change the number of entries of a tree, about.
    pub(crate) fn added_and_removed(&self, tree_id: u8) -> (u64, u64) {
        let (added, removed) = self.active.fresh_and_deleted(tree_id);
        let frozen = self.frozen.as_ref().map(|frozen| frozen.table.fresh_and_deleted(tree_id));
        let (frozen_added, frozen_removed) = frozen.unwrap_or_default();
        (added + frozen_added, removed + frozen_removed)
    }
}

impl Frozen {
    /// Adds what the generation knows of a range, below what is there.
    pub(crate) fn collect_below(&self, tree_id: u8, range: &KeyRange, buffered: &mut Buffered) {
        for (key, value) in self.table.entries(tree_id, range) {
            if let MapEntry::Vacant(vacant) = buffered.entry(key.to_vec()) {
                vacant.insert(value.map(<[u8]>::to_vec));
            }
        }
    }
}
