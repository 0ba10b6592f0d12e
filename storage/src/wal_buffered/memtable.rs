//! `Memtable`: the newest value or the deletion of every key that was written since it was made.
//!
//! An entry has one of three states. *Below* is what will be under this table when it is written
//! to the backend: the generation frozen before it, on top of the backend.
//!
//! | state | value | below | when written back |
//! |---|---|---|---|
//! | fresh | yes | **has no such key**, for certain | put |
//! | put | yes | may have the key | put |
//! | tombstone | no | may have the key | delete |
//! | (no entry) | unknown: look below | any | nothing |
//!
//! Transitions, from the state before (rows) by the operation (columns):
//!
//! | | put | `put_new` | delete |
//! |---|---|---|---|
//! | no entry | put | fresh | tombstone |
//! | fresh | fresh | fresh (misuse) | **no entry** |
//! | put | put | put (misuse) | tombstone |
//! | tombstone | put | **put** | tombstone |
//!
//! - Freshness is about what is below *this* table. A key that is alive in the frozen generation
//!   and deleted now has no entry here, so it gets a tombstone. A key whose tombstone is in the
//!   frozen generation and that is put anew is fresh here: once the frozen one is written, the
//!   backend has no such key; until then the frozen tombstone answers reads.
//! - A tombstone followed by `put_new` is *put*: below may still have the key, so a later delete
//!   needs its tombstone again.
//! - At replay the caller's assertion is not believed ([`Freshness::Ignored`]): a crash may have
//!   interrupted the write-back of just these batches, so the backend may have the key.

use std::hash::BuildHasher as _;
use std::hint::black_box;
use std::mem::size_of;
use std::sync::LazyLock;

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::batch::{Batch, Op};
use crate::coding::key_front;
use crate::database::KeyRange;
use crate::mutation::{Mutation, mutated};
use crate::wal_buffered::arena::{Arena, Handle};
use crate::wal_buffered::parallel_sort;

/// What a table knows of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lookup<'a> {
    /// Nothing: look below.
    Unknown,
    /// It has no value.
    Deleted,
    /// It has this value.
    Value(&'a [u8]),
}

/// Whether `put_new` is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// The caller knows what is below.
    Trusted,
    /// At replay: below may hold a part of what is replayed.
    Ignored,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Fresh,
    Put,
    Tombstone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Write {
    Put,
    PutNew,
    Delete,
}

impl State {
    const fn code(self) -> u8 {
        match self {
            Self::Fresh => 1,
            Self::Put => 2,
            Self::Tombstone => 3,
        }
    }

    const fn from_code(code: u8) -> Self {
        match code {
            1 => Self::Fresh,
            2 => Self::Put,
            _ => Self::Tombstone,
        }
    }

    /// The table of transitions in the module's documentation.
    const fn after(before: Option<Self>, write: Write) -> Option<Self> {
        match (before, write) {
            (None, Write::PutNew) | (Some(Self::Fresh), Write::Put | Write::PutNew) => {
                Some(Self::Fresh)
            }
            (Some(Self::Fresh), Write::Delete) => None,
            (_, Write::Put | Write::PutNew) => Some(Self::Put),
            (_, Write::Delete) => Some(Self::Tombstone),
        }
    }
}

/// By how much an entry may be longer than its operation: a deletion's value length, and padding.
const OP_OVERHEAD_BYTES: usize = 4 + 7;

/// Keys that are looked up together (see [`Memtable::touch`]): so many that the processor always has
/// enough of them to wait for, so few that what was touched is still in its nearest cache.
pub(crate) const GROUP: usize = 32;

/// The memory of a lookup table for so many entries: a handle and a control byte a slot, a power of
/// two of slots, at most seven of eight of them used.
fn table_bytes(entries: usize) -> usize {
    let slots = (entries + entries / 7 + 8).next_power_of_two();
    slots * (size_of::<Slot>() + 1) + 64
}

/// The hash of a key: the same for all layers in memory, so that a read computes it once.
///
/// It has 32 bits, which a lookup table keeps beside each entry: then it compares no key in vain,
/// and looks at none when it grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeyHash(u32);

impl KeyHash {
    /// As a lookup table wants it, which takes the place of an entry from the low bits, and from the
    /// high ones what it compares first: both depend on all bits of the hash that can tell entries
    /// of one place apart.
    pub(crate) fn spread(self) -> u64 {
        // 2^64 divided by the golden ratio, made odd.
        u64::from(self.0).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

/// Where an entry is, and the hash of its key.
#[derive(Debug, Clone, Copy)]
struct Slot {
    hash: KeyHash,
    handle: Handle,
}

/// The entries of one tree.
#[derive(Debug)]
struct TreeTable {
    id: u8,
    slots: HashTable<Slot>,
    fresh: u64,
    tombstones: u64,
}

/// Where an entry belongs in the order of a write-back: the first bytes of its key as numbers, so that
/// most comparisons need not look the key up, and where to find the rest.
type SortKey = ([u8; 8], Handle);

/// Buffered writes over all trees.
#[derive(Debug, Default)]
pub(crate) struct Memtable {
    trees: Vec<TreeTable>,
    arena: Arena,
}

/// The hash of a key. It is keyed by the process, so that nobody can make keys that collide.
pub(crate) fn key_hash(key: &[u8]) -> KeyHash {
    static HASHER: LazyLock<DefaultHashBuilder> = LazyLock::new(DefaultHashBuilder::default);
    let [a, b, c, d, e, f, g, h] = HASHER.hash_one(key).to_ne_bytes();
    KeyHash(u32::from_ne_bytes([a, b, c, d]) ^ u32::from_ne_bytes([e, f, g, h]))
}

impl Memtable {
    /// An empty table with lookup tables for as many entries as `before` has: a generation is
    /// about as large as the one before it, and a table that grows has to be filled anew.
    pub(crate) fn like(before: &Self) -> Self {
        let tree = |tree: &TreeTable| TreeTable {
            id: tree.id,
            slots: HashTable::with_capacity(tree.slots.len()),
            fresh: 0,
            tombstones: 0,
        };
        Self { trees: before.trees.iter().map(tree).collect(), ..Self::default() }
    }

    /// Memory held, in bytes: entries, garbage, lookup tables, and the order of the write-back.
    pub(crate) fn bytes(&self) -> usize {
        let slots: usize = self.trees.iter().map(|tree| tree.slots.allocation_size()).sum();
        self.arena.bytes() + slots + self.len() * size_of::<SortKey>()
    }

    /// The most memory that is held at any time while a batch is applied. A lookup table that has
    /// to grow is there twice meanwhile, once in its new size.
    pub(crate) fn bytes_with(&self, batch: &Batch) -> usize {
        let ops = batch.len();
        let tables: usize = self.trees.iter().map(|tree| tree.growth(ops)).sum();
        let trees_to_come = if self.trees.is_empty() { table_bytes(ops) } else { 0 };
        let entries = self.arena.growth(batch.byte_len() + ops * OP_OVERHEAD_BYTES);
        let lists = ops * (2 * size_of::<Handle>() + size_of::<SortKey>());
        self.bytes() + tables + trees_to_come + entries + lists
    }

    /// The number of entries.
    pub(crate) fn len(&self) -> usize {
        self.trees.iter().map(|tree| tree.slots.len()).sum()
    }

    /// Applies operations in their order.
    pub(crate) fn apply<'a>(
        &mut self,
        mut ops: impl Iterator<Item = Op<'a>>,
        freshness: Freshness,
    ) {
        let mut group = Vec::with_capacity(GROUP);
        loop {
            group.clear();
            group.extend(ops.by_ref().take(GROUP).map(|op| (key_hash(op.key()), op)));
            if group.is_empty() {
                return;
            }
            self.touch(group.iter().map(|(hash, op)| (op.tree_id(), *hash)));
            for (hash, op) in &group {
                self.write(*hash, op, freshness);
            }
        }
    }

    /// Begins the lookups of up to [`GROUP`] keys, so that those that follow find in the processor's
    /// cache what they read. One lookup is two or three reads of memory far apart, each of which
    /// says where the next one is: to wait for each in turn takes longer than all the rest. Here
    /// no key waits for another.
    pub(crate) fn touch(&self, keys: impl Iterator<Item = (u8, KeyHash)>) {
        let mut handles = [None; GROUP];
        for (handle, (tree_id, hash)) in handles.iter_mut().zip(keys) {
            *handle = self.tree(tree_id).and_then(|tree| tree.find(hash, |_| true));
        }
        let seen = handles.iter().flatten().map(|handle| self.arena.touch(*handle));
        // So that the reads are made though nobody wants what they bring.
        black_box(seen.fold(0, |all, byte| all ^ byte));
    }

    fn tree(&self, id: u8) -> Option<&TreeTable> {
        self.trees.iter().find(|tree| tree.id == id)
    }

    fn write(&mut self, hash: KeyHash, op: &Op<'_>, freshness: Freshness) {
        let write = match (op, freshness) {
            (Op::PutNew { .. }, Freshness::Trusted) => Write::PutNew,
            (Op::Put { .. }, _) if mutated(Mutation::PutBelievedFresh) => Write::PutNew,
            (Op::PutNew { .. } | Op::Put { .. }, _) => Write::Put,
            (Op::Delete { .. }, _) => Write::Delete,
        };
        let (key, value) = (op.key(), op.value().unwrap_or_default());
        let index = self.tree_index(op.tree_id());
        let Self { trees, arena } = self;
        let Some(tree) = trees.get_mut(index) else {
            return;
        };
        let is_key = |slot: &Slot| slot.hash == hash && arena.get(slot.handle).key == key;
        let found = tree.slots.find_entry(hash.spread(), is_key);
        let Ok(mut entry) = found else {
            if write == Write::Delete && mutated(Mutation::TombstoneNotKept) {
                return;
            }
            if let Some(state) = State::after(None, write) {
                let handle = arena.insert(state.code(), key, value);
                let rehash = |slot: &Slot| slot.hash.spread();
                tree.slots.insert_unique(hash.spread(), Slot { hash, handle }, rehash);
                tree.count(None, Some(state));
            }
            return;
        };
        let handle = entry.get().handle;
        let before = State::from_code(arena.get(handle).state);
        let after = match (before, write) {
            (State::Tombstone, Write::PutNew) if mutated(Mutation::TombstoneForgotten) => {
                Some(State::Fresh)
            }
            _ => State::after(Some(before), write),
        };
        match after {
            Some(state) => {
                entry.get_mut().handle = arena.replace(handle, state.code(), key, value);
            }
            None => {
                entry.remove();
                arena.remove(handle);
            }
        }
        tree.count(Some(before), after);
    }

    /// What this table knows of a key; `hash` is its [`key_hash`].
    pub(crate) fn get(&self, tree_id: u8, key: &[u8], hash: KeyHash) -> Lookup<'_> {
        let Some(tree) = self.tree(tree_id) else {
            return Lookup::Unknown;
        };
        let found = tree.find(hash, |handle| self.arena.get(handle).key == key);
        found.map_or(Lookup::Unknown, |handle| {
            let stored = self.arena.get(handle);
            match State::from_code(stored.state) {
                State::Tombstone => Lookup::Deleted,
                State::Fresh | State::Put => Lookup::Value(stored.value),
            }
        })
    }

    /// Keys that are here and not below, and keys that may be below and are deleted here.
    pub(crate) fn fresh_and_deleted(&self, tree_id: u8) -> (u64, u64) {
        self.tree(tree_id).map_or((0, 0), |tree| (tree.fresh, tree.tombstones))
    }

    /// Whether there is an entry for the tree.
    pub(crate) fn touches(&self, tree_id: u8) -> bool {
        self.trees.iter().any(|tree| tree.id == tree_id && !tree.slots.is_empty())
    }

    /// The entries of a tree within a range, in no order; no value means deleted. Visits every
    /// entry of the tree.
    pub(crate) fn entries<'a>(
        &'a self,
        tree_id: u8,
        range: &'a KeyRange,
    ) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> + 'a {
        let slots = self.trees.iter().filter(move |tree| tree.id == tree_id);
        slots
            .flat_map(|tree| tree.slots.iter())
            .map(|slot| self.arena.get(slot.handle))
            .filter(|stored| range.contains(stored.key))
            .map(|stored| {
                let deleted = State::from_code(stored.state) == State::Tombstone;
                (stored.key, (!deleted).then_some(stored.value))
            })
    }

    /// What has to be written to the backend, in order of tree and key.
    pub(crate) fn sorted_ops(&self) -> impl Iterator<Item = Op<'_>> + '_ {
        let mut trees: Vec<&TreeTable> = self.trees.iter().collect();
        trees.sort_unstable_by_key(|tree| tree.id);
        trees.into_iter().flat_map(move |tree| {
            let sort_key = |slot: &Slot| (key_front(self.arena.get(slot.handle).key), slot.handle);
            let mut order: Vec<SortKey> = Vec::with_capacity(tree.slots.len());
            order.extend(tree.slots.iter().map(sort_key));
            parallel_sort::sort_by(&mut order, &|(front_a, a), (front_b, b)| {
                let keys = || self.arena.get(*a).key.cmp(self.arena.get(*b).key);
                front_a.cmp(front_b).then_with(keys)
            });
            let tree_id = tree.id;
            (0..order.len()).filter_map(move |at| {
                if at % GROUP == 0 {
                    self.touch_entries(order.iter().skip(at).take(GROUP));
                }
                let stored = self.arena.get(order.get(at)?.1);
                let (key, value) = (stored.key, stored.value);
                Some(match State::from_code(stored.state) {
                    State::Tombstone => Op::Delete { tree_id, key },
                    State::Fresh | State::Put => Op::Put { tree_id, key, value },
                })
            })
        })
    }

    /// As [`Memtable::touch`] does, for entries that are found already.
    fn touch_entries<'a>(&self, entries: impl Iterator<Item = &'a SortKey>) {
        let seen = entries.map(|(_, handle)| self.arena.touch(*handle));
        black_box(seen.fold(0, |all, byte| all ^ byte));
    }

    fn tree_index(&mut self, id: u8) -> usize {
        if let Some(index) = self.trees.iter().position(|tree| tree.id == id) {
            return index;
        }
        self.trees.push(TreeTable { id, slots: HashTable::new(), fresh: 0, tombstones: 0 });
        self.trees.len() - 1
    }
}

impl TreeTable {
    /// The first entry with that hash for which `is_it` holds.
    fn find(&self, hash: KeyHash, is_it: impl Fn(Handle) -> bool) -> Option<Handle> {
        let found = self.slots.find(hash.spread(), |slot| slot.hash == hash && is_it(slot.handle));
        found.map(|slot| slot.handle)
    }

    /// The memory that is taken when so many entries are added.
    fn growth(&self, entries: usize) -> usize {
        let len = self.slots.len() + entries;
        if len <= self.slots.capacity() {
            return 0;
        }
        table_bytes(len).max(2 * self.slots.allocation_size())
    }

    fn count(&mut self, before: Option<State>, after: Option<State>) {
        let one = |state, of| u64::from(state == Some(of));
        self.fresh = self.fresh + one(after, State::Fresh) - one(before, State::Fresh);
        self.tombstones =
            self.tombstones + one(after, State::Tombstone) - one(before, State::Tombstone);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::Tree;

    const TREE: Tree = Tree { id: 1, name: "one" };

    #[test]
    fn every_transition_is_as_documented() {
        use State::{Fresh, Put, Tombstone};
        let table = [
            (None, Some(Put), Some(Fresh), Some(Tombstone)),
            (Some(Fresh), Some(Fresh), Some(Fresh), None),
            (Some(Put), Some(Put), Some(Put), Some(Tombstone)),
            (Some(Tombstone), Some(Put), Some(Put), Some(Tombstone)),
        ];
        for (before, put, put_new, delete) in table {
            assert_eq!(State::after(before, Write::Put), put, "{before:?} put");
            assert_eq!(State::after(before, Write::PutNew), put_new, "{before:?} put_new");
            assert_eq!(State::after(before, Write::Delete), delete, "{before:?} delete");
        }
    }

    /// Every legal sequence of five writes, over a backend with and without the key, split over
    /// a frozen and an active table at every point: reads and the written result are right.
    #[test]
    fn all_short_histories_read_and_write_back_right() {
        const STEPS: u32 = 5;
        for backend in [None, Some(b"b".to_vec())] {
            for code in 0..3_u32.pow(STEPS) {
                for frozen_steps in 0..=STEPS {
                    check_history(backend.clone(), code, STEPS, frozen_steps);
                }
            }
        }
    }

    fn check_history(backend: Option<Vec<u8>>, code: u32, steps: u32, frozen_steps: u32) {
        let mut tables = [Memtable::default(), Memtable::default()];
        let mut model = backend.clone();
        for step in 0..steps {
            let mut batch = Batch::new();
            let value = vec![u8::try_from(step).unwrap()];
            match code / 3_u32.pow(step) % 3 {
                0 => batch.put(TREE, b"k", &value),
                1 if model.is_some() => return, // put_new of a present key: misuse
                1 => batch.put_new(TREE, b"k", &value),
                _ => batch.delete(TREE, b"k"),
            }
            model = batch.ops().next().unwrap().value().map(<[u8]>::to_vec);
            let table = &mut tables[usize::from(step >= frozen_steps)];
            table.apply(batch.ops(), Freshness::Trusted);
        }
        let read = |tables: &[Memtable], backend: &Option<Vec<u8>>| {
            let newest_first = tables.iter().rev().map(|table| table.get(1, b"k", key_hash(b"k")));
            match newest_first.into_iter().find(|found| *found != Lookup::Unknown) {
                Some(Lookup::Value(value)) => Some(value.to_vec()),
                Some(_) => None,
                None => backend.clone(),
            }
        };
        let label = format!("backend {backend:?} history {code} frozen {frozen_steps}");
        assert_eq!(read(&tables, &backend), model, "{label}: read");
        let mut written = backend;
        for generation in 0..2 {
            for op in tables[generation].sorted_ops() {
                written = op.value().map(<[u8]>::to_vec);
            }
            assert_eq!(read(&tables[generation + 1..], &written), model, "{label}: written");
        }
    }

    /// Tables that grow, groups in which a key occurs several times, keys that were never there.
    #[test]
    fn every_key_is_found_as_it_was_written_last() {
        const KEYS: u32 = 50_000;
        let mut table = Memtable::default();
        let mut model: Vec<Option<u32>> = vec![None; 2 * KEYS as usize];
        let mut unknown = vec![true; model.len()];
        for (n, step) in (0..4 * KEYS).zip([1, 1, 0, 7, 0, 1, 40_001].into_iter().cycle()) {
            let mut batch = Batch::new();
            for op in 0..n % 7 {
                let key = (n + op * step) % KEYS * 2;
                let value = (op != 3).then_some(n + op);
                match value {
                    Some(value) => batch.put(TREE, &key.to_be_bytes(), &value.to_be_bytes()),
                    None => batch.delete(TREE, &key.to_be_bytes()),
                }
                model[key as usize] = value;
                unknown[key as usize] = false;
            }
            table.apply(batch.ops(), Freshness::Trusted);
        }
        assert!(table.len() > 40_000, "{}", table.len());
        for (key, value) in (0_u32..).zip(&model) {
            let bytes = value.unwrap_or_default().to_be_bytes();
            let expected = match value {
                _ if unknown[key as usize] => Lookup::Unknown,
                Some(_) => Lookup::Value(&bytes),
                None => Lookup::Deleted,
            };
            let key = key.to_be_bytes();
            assert_eq!(table.get(1, &key, key_hash(&key)), expected, "{key:?}");
        }
    }

    #[test]
    fn delete_of_a_fresh_entry_leaves_nothing() {
        let mut table = Memtable::default();
        let mut bytes = 0;
        for round in 0..10_000_u32 {
            let mut batch = Batch::new();
            batch.put_new(TREE, &round.to_le_bytes(), &[1; 50]);
            batch.delete(TREE, &round.to_le_bytes());
            table.apply(batch.ops(), Freshness::Trusted);
            assert_eq!((table.len(), table.sorted_ops().count()), (0, 0));
            if round == 100 {
                bytes = table.bytes();
            }
        }
        assert_eq!(table.bytes(), bytes, "memory does not grow with what died young");
    }

    #[test]
    fn freshness_is_not_believed_at_replay() {
        let mut table = Memtable::default();
        let mut batch = Batch::new();
        batch.put_new(TREE, b"k", b"v");
        batch.delete(TREE, b"k");
        table.apply(batch.ops(), Freshness::Ignored);
        let ops: Vec<Op<'_>> = table.sorted_ops().collect();
        assert_eq!(ops, [Op::Delete { tree_id: 1, key: b"k" }]);
    }

    #[test]
    fn what_is_written_back_is_sorted_by_tree_and_key() {
        let mut table = Memtable::default();
        let mut batch = Batch::new();
        for (id, key) in [(2, "b"), (1, "z"), (2, "a"), (1, "y"), (1, "")] {
            batch.put(Tree { id, name: "t" }, key.as_bytes(), b"");
        }
        table.apply(batch.ops(), Freshness::Trusted);
        let order = |table: &Memtable| -> Vec<(u8, Vec<u8>)> {
            table.sorted_ops().map(|op| (op.tree_id(), op.key().to_vec())).collect()
        };
        let expected = [(1, ""), (1, "y"), (1, "z"), (2, "a"), (2, "b")];
        assert_eq!(order(&table), expected.map(|(id, key)| (id, key.as_bytes().to_vec())));

        // Keys that are equal at the front, one the beginning of another, with zeros at the end.
        let mut table = Memtable::default();
        let mut keys: Vec<Vec<u8>> = Vec::new();
        for len in 0..12 {
            for last in [0, 1, 0x7f, 0x80, 0xff] {
                let mut key = vec![0; len];
                keys.push(key.clone());
                key.push(last);
                keys.push([&key[..], b"rest"].concat());
                keys.push(key);
            }
        }
        let mut batch = Batch::new();
        keys.iter().for_each(|key| batch.put(TREE, key, b""));
        table.apply(batch.ops(), Freshness::Trusted);
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(order(&table), keys.into_iter().map(|key| (1, key)).collect::<Vec<_>>());
    }

    #[test]
    fn counts_follow_the_states() {
        let mut table = Memtable::default();
        let mut batch = Batch::new();
        batch.put_new(TREE, b"a", b"");
        batch.put_new(TREE, b"b", b"");
        batch.delete(TREE, b"a");
        batch.delete(TREE, b"c");
        table.apply(batch.ops(), Freshness::Trusted);
        assert_eq!(table.fresh_and_deleted(1), (1, 1));
        assert!(table.touches(1) && !table.touches(2));
    }

    /// The prediction is what the memory bound rests on.
    #[test]
    fn no_batch_takes_more_memory_than_predicted() {
        let mut table = Memtable::default();
        let mut n: u32 = 0;
        for round in 0..3000_usize {
            let mut batch = Batch::new();
            for op in 0..round % 70 {
                let key = n.wrapping_mul(2_654_435_761).to_le_bytes();
                match (round + op) % 5 {
                    0 => batch.delete(
                        TREE,
                        &n.wrapping_sub(100).wrapping_mul(2_654_435_761).to_le_bytes(),
                    ),
                    1 => batch.put(TREE, &key, &vec![1; (round * op) % 3000]),
                    _ => batch.put_new(TREE, &key, &[2; 45]),
                }
                n += 1;
            }
            let predicted = table.bytes_with(&batch);
            table.apply(batch.ops(), Freshness::Trusted);
            assert!(table.bytes() <= predicted, "round {round}: {} > {predicted}", table.bytes());
        }
        assert!(table.len() > 50_000);
    }
}
