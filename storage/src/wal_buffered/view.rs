//! `View`: everything that reads see in memory, under one lock that is held for a few lines.

use std::collections::VecDeque;
use std::collections::btree_map::Entry as MapEntry;
use std::sync::Arc;

use crate::database::KeyRange;
use crate::wal_buffered::flusher::Frozen;
use crate::wal_buffered::memtable::{GROUP, KeyHash, Lookup, Memtable, key_hash};
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
    /// Trees of which the backend has no entry, for certain: what no layer in memory knows has no
    /// value.
    pub(crate) empty_below: Vec<u8>,
}

impl View {
    /// What memory knows of a key, the newest layer first.
    pub(crate) fn get(&self, tree_id: u8, key: &[u8]) -> Lookup<'_> {
        self.get_hashed(tree_id, key, key_hash(key))
    }

    /// As `get`, for keys of one tree, each with its place among them.
    pub(crate) fn get_many<'a, K: AsRef<[u8]>>(
        &self,
        tree_id: u8,
        keys: &'a [K],
        mut visit: impl FnMut(usize, &'a [u8], Lookup<'_>),
    ) {
        let mut hashes = Vec::with_capacity(GROUP);
        let mut places = 0..;
        for group in keys.chunks(GROUP) {
            hashes.clear();
            hashes.extend(group.iter().map(|key| key_hash(key.as_ref())));
            for table in self.tables() {
                table.touch(hashes.iter().map(|hash| (tree_id, *hash)));
            }
            for ((key, hash), place) in group.iter().zip(&hashes).zip(&mut places) {
                let key = key.as_ref();
                visit(place, key, self.get_hashed(tree_id, key, *hash));
            }
        }
    }

    fn get_hashed(&self, tree_id: u8, key: &[u8], hash: KeyHash) -> Lookup<'_> {
        for staged in self.staged.iter().rev() {
            let found = staged.get(tree_id, key, hash);
            if found != Lookup::Unknown {
                return found;
            }
        }
        for table in self.tables() {
            let found = table.get(tree_id, key, hash);
            if found != Lookup::Unknown {
                return found;
            }
        }
        Lookup::Unknown
    }

    /// The generations, the newest first.
    fn tables(&self) -> impl Iterator<Item = &Memtable> {
        std::iter::once(&self.active).chain(self.frozen.as_ref().map(|frozen| &frozen.table))
    }

    /// Whether the backend is known to have no entry of a tree.
    pub(crate) fn is_empty_below(&self, tree_id: u8) -> bool {
        self.empty_below.contains(&tree_id)
    }

    /// Takes the frozen generation out of the reads: the backend has it.
    pub(crate) fn retire(&mut self) -> Option<Arc<Frozen>> {
        let frozen = self.frozen.take()?;
        self.empty_below.retain(|tree_id| !frozen.table.touches(*tree_id));
        Some(frozen)
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
