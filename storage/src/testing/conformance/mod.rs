//! The contract of [`Database`], clause by clause, for any implementation.
//!
//! For a backend of your own: write a test that calls [`run`] with new databases;
//! [`run_persistent`] if it survives being closed; and [`run_crash`] if its file I/O goes through a
//! [`FileSystem`](crate::FileSystem), so that power can be cut at every operation. What passes may
//! lie below a [`WalBuffered`](crate::WalBuffered).
//!
//! ```
//! use std::collections::BTreeMap;
//! use std::sync::Mutex;
//!
//! use cofferdam_storage::testing::conformance;
//! use cofferdam_storage::{
//!     Batch, Count, Database, Entries, Error, KeyRange, Result, STATE_TREE, Tree,
//! };
//!
//! /// All trees in one map, behind one lock.
//! #[derive(Debug)]
//! struct Toy {
//!     trees: Vec<Tree>,
//!     map: Mutex<BTreeMap<(u8, Vec<u8>), Vec<u8>>>,
//! }
//!
//! impl Toy {
//!     fn check(&self, id: u8) -> Result<()> {
//!         let known = self.trees.iter().any(|tree| tree.id == id);
//!         if known { Ok(()) } else { Err(Error::UnknownTree { id }) }
//!     }
//! }
//!
//! impl Database for Toy {
//!     fn trees(&self) -> &[Tree] {
//!         &self.trees
//!     }
//!     fn get(&self, tree: Tree, key: &[u8]) -> Result<Option<Vec<u8>>> {
//!         self.check(tree.id)?;
//!         Ok(self.map.lock().unwrap().get(&(tree.id, key.to_vec())).cloned())
//!     }
//!     fn range(&self, tree: Tree, range: KeyRange) -> Result<Entries<'_>> {
//!         self.check(tree.id)?;
//!         // Copied, so that the lock is not held while the caller iterates.
//!         let map = self.map.lock().unwrap();
//!         let inside = map.iter().filter(|((id, key), _)| *id == tree.id && range.contains(key));
//!         let entries: Vec<_> = inside.map(|((_, k), v)| Ok((k.clone(), v.clone()))).collect();
//!         Ok(Box::new(entries.into_iter()))
//!     }
//!     fn len(&self, tree: Tree) -> Result<Count> {
//!         let entries = self.range(tree, KeyRange::all())?;
//!         Ok(Count::Exact(u64::try_from(entries.count()).unwrap()))
//!     }
//!     fn clear(&self, tree: Tree) -> Result<()> {
//!         self.check(tree.id)?;
//!         self.map.lock().unwrap().retain(|(id, _), _| *id != tree.id);
//!         Ok(())
//!     }
//!     fn apply(&self, batch: &Batch) -> Result<()> {
//!         // Nothing is applied if a tree is unknown.
//!         batch.ops().try_for_each(|op| self.check(op.tree_id()))?;
//!         let mut map = self.map.lock().unwrap();
//!         for op in batch.ops() {
//!             let key = (op.tree_id(), op.key().to_vec());
//!             match op.value() {
//!                 Some(value) => map.insert(key, value.to_vec()),
//!                 None => map.remove(&key),
//!             };
//!         }
//!         Ok(())
//!     }
//!     fn flush(&self) -> Result<()> {
//!         Ok(())
//!     }
//! }
//!
//! conformance::run(&|| {
//!     // A backend opens the reserved tree too.
//!     let trees = [&[STATE_TREE], &conformance::TREES[..]].concat();
//!     Box::new(Toy { trees, map: Mutex::default() })
//! });
//! ```

mod crash;
mod reads;
mod threads;
mod writes;

use crate::batch::Batch;
use crate::database::{Database, KeyRange, Tree};
use crate::testing::{Model, Random, assert_same};

pub use self::crash::{Open, run_crash};

const A: Tree = Tree { id: 1, name: "a" };
const B: Tree = Tree { id: 2, name: "b" };
const LAST: Tree = Tree { id: 255, name: "last" };
const UNKNOWN: Tree = Tree { id: 99, name: "unknown" };

/// The trees that a database under test is opened with.
pub const TREES: [Tree; 3] = [A, B, LAST];

/// A clause of the contract.
pub type Case = (&'static str, fn(&dyn Database));

/// Every clause, by name.
pub const CASES: &[Case] = &[
    ("an empty database has nothing", reads::empty),
    ("trees are listed in order of id, once", reads::trees_in_order),
    ("the reserved tree is one as any other, or unknown", writes::reserved_tree),
    ("a put is read until it is overwritten or deleted", writes::put_get_delete),
    ("keys and values may be empty or long", writes::extreme_sizes),
    ("every byte is a key, and keys are in the order of their bytes", reads::every_byte),
    ("a key comes before those that it is a prefix of", reads::prefixes_first),
    ("trees do not see each other", writes::trees_are_separate),
    ("the last operation for a key wins", writes::last_operation_wins),
    ("a batch with an unknown tree is refused whole", writes::unknown_tree),
    ("ranges are in order and obey their bounds", reads::ranges),
    ("prefixes select what begins with them", reads::prefixes),
    ("multi_get answers in the order of its keys", reads::multi_get),
    ("multi_get takes thousands of keys, and the same one twice", reads::multi_get_many),
    ("len is exact or says that it is not", writes::len),
    ("clear empties one tree", writes::clear),
    ("an exact len is 0 after clear", writes::len_after_clear),
    ("ingest_sorted writes every entry", writes::ingest_sorted),
    ("ingest_sorted overwrites and leaves the rest", writes::ingest_over_entries),
    ("random batches give the model's state", writes::random_batches),
    ("what was applied is seen at once, whole, by all threads", threads::visible_whole),
    ("a batch beyond batch_ops_max is seen whole too", threads::large_visible_whole),
    ("iteration sees what was applied before it began", threads::iteration_and_writer),
    ("there may be writes while an iteration is open", threads::writes_while_iterating),
    ("writers on different keys do not disturb each other", threads::several_writers),
    ("flush can be called at any time", writes::flush),
];

/// Runs every case, each on a new database with [`TREES`] from `make`.
///
/// # Panics
///
/// If a clause does not hold; the cases are logged by name (`tracing`) as they begin.
pub fn run(make: &dyn Fn() -> Box<dyn Database>) {
    for (name, case) in CASES {
        tracing::info!(name, "conformance");
        case(&*make());
    }
}

/// Checks that a flushed database is the same after closing and opening it. `open` opens the same
/// database each time, and is called again only after the one before has been dropped.
///
/// # Panics
///
/// If it is not.
pub fn run_persistent(open: &dyn Fn() -> Box<dyn Database>) {
    let mut model = Model::default();
    let mut random = Random::new(11);
    for round in 0..4 {
        let database = open();
        assert_same(&*database, &model, &format!("opened for round {round}"));
        for _ in 0..20 {
            let batch = writes::random_batch(&mut random, &model);
            database.apply(&batch).expect("apply");
            model.apply(&batch);
        }
        database.flush().expect("flush");
    }
    let database = open();
    assert_same(&*database, &model, "opened at the end");
    let ingested = writes::ingest_many(&*database, LAST);
    database.flush().expect("flush");
    drop(database);
    let database = open();
    let same = writes::entries(&*database, LAST) == ingested;
    assert!(same, "not what was ingested and flushed");
    assert_same(&*database, &with_entries(model, LAST, &ingested), "opened after ingesting");
    database.clear(A).expect("clear");
    database.flush().expect("flush");
    drop(database);
    let database = open();
    assert_eq!(keys(&*database, A, KeyRange::all()), Vec::<Vec<u8>>::new());
    assert!(writes::entries(&*database, LAST) == ingested, "another tree was cleared");
}

fn with_entries(mut model: Model, tree: Tree, entries: &[(Vec<u8>, Vec<u8>)]) -> Model {
    let mut batch = Batch::new();
    entries.iter().for_each(|(key, value)| batch.put(tree, key, value));
    model.apply(&batch);
    model
}

fn apply(database: &dyn Database, fill: impl FnOnce(&mut Batch)) {
    let mut batch = Batch::new();
    fill(&mut batch);
    database.apply(&batch).expect("apply");
}

fn get(database: &dyn Database, tree: Tree, key: &[u8]) -> Option<Vec<u8>> {
    let value = database.get(tree, key).expect("get");
    assert_eq!(database.contains_key(tree, key).expect("contains_key"), value.is_some());
    value
}

fn keys(database: &dyn Database, tree: Tree, range: KeyRange) -> Vec<Vec<u8>> {
    let entries = database.range(tree, range).expect("range");
    entries.map(|entry| entry.expect("entry").0).collect()
}
