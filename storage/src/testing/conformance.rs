//! The contract of [`Database`], clause by clause, for any implementation.
//!
//! ```
//! use cofferdam_storage::{MemoryDatabase, testing::conformance};
//! conformance::run(&|| Box::new(MemoryDatabase::new(&conformance::TREES)));
//! ```

use std::ops::Bound;
use std::thread;

use crate::batch::{Batch, KEY_BYTES_MAX};
use crate::database::{Count, Database, KeyRange, Tree};
use crate::error::Error;
use crate::testing::{Model, Random, assert_same};

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
    ("an empty database has nothing", empty),
    ("a put is read until it is overwritten or deleted", put_get_delete),
    ("keys and values may be empty or long", extreme_sizes),
    ("trees do not see each other", trees_are_separate),
    ("the last operation for a key wins", last_operation_wins),
    ("a batch with an unknown tree is refused whole", unknown_tree),
    ("ranges are in order and obey their bounds", ranges),
    ("prefixes select what begins with them", prefixes),
    ("multi_get answers in the order of its keys", multi_get),
    ("len is exact or says that it is not", len),
    ("clear empties one tree", clear),
    ("ingest_sorted writes every entry", ingest_sorted),
    ("random batches give the model's state", random_batches),
    ("what was applied is seen at once, whole, by all threads", visible_whole),
    ("flush can be called at any time", flush),
];

/// Runs every case, each on a new database with [`TREES`] from `make`.
///
/// # Panics
///
/// If a clause does not hold; the message names it.
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
            let batch = random_batch(&mut random, &model);
            database.apply(&batch).expect("apply");
            model.apply(&batch);
        }
        database.flush().expect("flush");
    }
    let database = open();
    assert_same(&*database, &model, "opened at the end");
    database.clear(A).expect("clear");
    database.flush().expect("flush");
    drop(database);
    assert_eq!(keys(&*open(), A, KeyRange::all()), Vec::<Vec<u8>>::new());
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

fn empty(database: &dyn Database) {
    for tree in TREES {
        assert!(database.trees().contains(&tree));
        assert_eq!(get(database, tree, b""), None);
        assert!(keys(database, tree, KeyRange::all()).is_empty());
    }
    apply(database, |_| {});
}

fn put_get_delete(database: &dyn Database) {
    apply(database, |batch| batch.put(A, b"k", b"one"));
    assert_eq!(get(database, A, b"k").as_deref(), Some(&b"one"[..]));
    apply(database, |batch| batch.put(A, b"k", b"two, longer"));
    assert_eq!(get(database, A, b"k").as_deref(), Some(&b"two, longer"[..]));
    apply(database, |batch| batch.delete(A, b"k"));
    assert_eq!(get(database, A, b"k"), None);
    apply(database, |batch| batch.delete(A, b"k"));
    apply(database, |batch| batch.put_new(A, b"k", b"new"));
    assert_eq!(get(database, A, b"k").as_deref(), Some(&b"new"[..]));
    apply(database, |batch| batch.delete(A, b"k"));
    assert_eq!(get(database, A, b"k"), None);
}

fn extreme_sizes(database: &dyn Database) {
    let long_key = vec![0xee; KEY_BYTES_MAX];
    let long_value = vec![0xdd; 1 << 20];
    apply(database, |batch| {
        batch.put(A, b"", b"");
        batch.put(A, &long_key, b"x");
        batch.put(A, b"y", &long_value);
        batch.put(A, &[0xff; 300], b"");
    });
    assert_eq!(get(database, A, b"").as_deref(), Some(&b""[..]));
    assert_eq!(get(database, A, &long_key).as_deref(), Some(&b"x"[..]));
    assert_eq!(get(database, A, b"y"), Some(long_value));
    let all = keys(database, A, KeyRange::all());
    assert_eq!(all, [Vec::new(), b"y".to_vec(), long_key, vec![0xff; 300]]);
}

fn trees_are_separate(database: &dyn Database) {
    apply(database, |batch| {
        for tree in TREES {
            batch.put(tree, b"k", &[tree.id]);
        }
        batch.put(B, b"\xff\xff", b"");
    });
    apply(database, |batch| batch.delete(B, b"k"));
    assert_eq!(get(database, A, b"k"), Some(vec![1]));
    assert_eq!(get(database, B, b"k"), None);
    assert_eq!(get(database, LAST, b"k"), Some(vec![255]));
    assert_eq!(keys(database, A, KeyRange::all()).len(), 1);
    assert_eq!(keys(database, B, KeyRange::all()), [b"\xff\xff".to_vec()]);
    assert_eq!(keys(database, LAST, KeyRange::all()).len(), 1);
}

fn last_operation_wins(database: &dyn Database) {
    apply(database, |batch| {
        batch.put(A, b"put twice", b"1");
        batch.put(A, b"put twice", b"2");
        batch.put_new(A, b"put and deleted", b"1");
        batch.delete(A, b"put and deleted");
        batch.delete(A, b"deleted and put");
        batch.put_new(A, b"deleted and put", b"2");
    });
    assert_eq!(get(database, A, b"put twice").as_deref(), Some(&b"2"[..]));
    assert_eq!(get(database, A, b"put and deleted"), None);
    assert_eq!(get(database, A, b"deleted and put").as_deref(), Some(&b"2"[..]));
}

fn unknown_tree(database: &dyn Database) {
    let mut batch = Batch::new();
    batch.put(A, b"before", b"");
    batch.put(UNKNOWN, b"k", b"");
    batch.put(A, b"after", b"");
    let unknown = |error: Option<Error>| matches!(error, Some(Error::UnknownTree { id: 99 }));
    assert!(unknown(database.apply(&batch).err()));
    assert!(keys(database, A, KeyRange::all()).is_empty());
    assert!(unknown(database.get(UNKNOWN, b"k").err()));
    assert!(unknown(database.range(UNKNOWN, KeyRange::all()).err()));
    assert!(unknown(database.len(UNKNOWN).err()));
    assert!(unknown(database.clear(UNKNOWN).err()));
}

fn ranges(database: &dyn Database) {
    let all: Vec<Vec<u8>> = [&b""[..], b"a", b"a\x00", b"ab", b"b", b"\xfe", b"\xff", b"\xff\xff"]
        .map(Vec::from)
        .into();
    apply(database, |batch| {
        for key in all.iter().rev() {
            batch.put(A, key, key);
        }
        batch.put(B, b"aa", b"");
    });
    let mut bounds = vec![Bound::Unbounded];
    for key in all.iter().cloned().chain([b"aa".to_vec()]) {
        bounds.push(Bound::Included(key.clone()));
        bounds.push(Bound::Excluded(key));
    }
    for start in &bounds {
        for end in &bounds {
            let range = KeyRange::from_bounds(start.clone(), end.clone());
            let expected: Vec<Vec<u8>> =
                all.iter().filter(|key| range.contains(key)).cloned().collect();
            assert_eq!(keys(database, A, range), expected, "{start:?} to {end:?}");
        }
    }
}

fn prefixes(database: &dyn Database) {
    let all: [&[u8]; 6] = [b"a", b"ab", b"b", b"b\xff", b"\xff", b"\xff\xff\x01"];
    apply(database, |batch| {
        all.iter().for_each(|key| batch.put(A, key, b"v"));
    });
    for prefix in [&b""[..], b"a", b"ab", b"abc", b"b", b"b\xff", b"\xff", b"\xff\xff"] {
        let entries = database.prefix(A, prefix).expect("prefix");
        let found: Vec<Vec<u8>> = entries.map(|entry| entry.expect("entry").0).collect();
        let expected: Vec<&[u8]> =
            all.iter().copied().filter(|key| key.starts_with(prefix)).collect();
        assert_eq!(found, expected, "prefix {prefix:?}");
    }
}

fn multi_get(database: &dyn Database) {
    apply(database, |batch| {
        batch.put(A, b"a", b"1");
        batch.put(A, b"c", b"3");
        batch.put(A, b"d", b"");
    });
    let values = database.multi_get(A, &[b"a", b"b", b"c", b"c", b"d"]).expect("multi_get");
    let three = Some(b"3".to_vec());
    assert_eq!(values, [Some(b"1".to_vec()), None, three.clone(), three, Some(Vec::new())]);
    assert!(database.multi_get(A, &[]).expect("multi_get").is_empty());
}

fn len(database: &dyn Database) {
    apply(database, |batch| {
        for n in 0..10_u8 {
            batch.put(A, &[n], b"");
        }
        batch.put(B, b"", b"");
    });
    apply(database, |batch| batch.delete(A, &[3]));
    for (tree, len) in [(A, 9), (B, 1), (LAST, 0)] {
        if let Count::Exact(counted) = database.len(tree).expect("len") {
            assert_eq!(counted, len, "{tree:?}");
        }
    }
}

fn clear(database: &dyn Database) {
    apply(database, |batch| {
        for n in 0..100_u8 {
            batch.put(A, &[n], b"");
            batch.put(B, &[n], b"");
        }
        batch.put(A, b"", b"");
        batch.put(A, &[0xff; 100], b"");
    });
    database.clear(A).expect("clear");
    assert!(keys(database, A, KeyRange::all()).is_empty());
    assert_eq!(keys(database, B, KeyRange::all()).len(), 100);
    apply(database, |batch| batch.put(A, b"again", b""));
    assert_eq!(keys(database, A, KeyRange::all()), [b"again".to_vec()]);
    database.clear(LAST).expect("clear of an empty tree");
}

fn ingest_sorted(database: &dyn Database) {
    let entry = |n: u32| (n.to_be_bytes().to_vec(), n.to_le_bytes().to_vec());
    database.ingest_sorted(A, &mut (0..3000).map(entry)).expect("ingest");
    let found = database.range(A, KeyRange::all()).expect("range");
    assert!(found.map(|entry| entry.expect("entry")).eq((0..3000).map(entry)));
    database.ingest_sorted(A, &mut std::iter::empty()).expect("ingest nothing");
}

/// Up to forty operations over few keys. `put_new` only of keys that are absent.
fn random_batch(random: &mut Random, model: &Model) -> Batch {
    let mut batch = Batch::new();
    let mut after = model.clone();
    for _ in 0..random.below(40) {
        let tree = if random.one_in(3) { B } else { A };
        let key_len = random.below(3);
        let key: Vec<u8> = random.bytes(key_len).iter().map(|byte| byte % 8).collect();
        let value_len = random.below(50);
        let value = random.bytes(value_len);
        let mut op = Batch::new();
        if random.one_in(3) {
            op.delete(tree, &key);
        } else if after.get(tree.id, &key).is_none() {
            op.put_new(tree, &key, &value);
        } else {
            op.put(tree, &key, &value);
        }
        after.apply(&op);
        op.ops().for_each(|op| batch.push_op(op));
    }
    batch
}

fn random_batches(database: &dyn Database) {
    let mut model = Model::default();
    let mut random = Random::new(7);
    for round in 0..60 {
        let batch = random_batch(&mut random, &model);
        database.apply(&batch).expect("apply");
        model.apply(&batch);
        if round % 5 == 0 {
            assert_same(database, &model, &format!("round {round}"));
        }
        if round % 17 == 0 {
            database.flush().expect("flush");
        }
    }
    assert_same(database, &model, "at the end");
}

/// Each batch sets one counter in two trees. Who reads the one and then the other must not find
/// the second behind the first.
fn visible_whole(database: &dyn Database) {
    const ROUNDS: u32 = 300;
    let read = |tree| {
        let value = database.get(tree, b"counter").expect("get").unwrap_or_default();
        value.try_into().map_or(0, u32::from_be_bytes)
    };
    thread::scope(|scope| {
        for (first, second) in [(A, B), (B, A)] {
            scope.spawn(move || {
                let mut seen = 0;
                while seen < ROUNDS {
                    let now = read(first);
                    assert!(now >= seen, "a reader went back from {seen} to {now}");
                    assert!(read(second) >= now, "a batch was seen in parts");
                    seen = now;
                }
            });
        }
        for round in 1..=ROUNDS {
            apply(database, |batch| {
                batch.put(A, b"counter", &round.to_be_bytes());
                batch.put(B, b"counter", &round.to_be_bytes());
            });
            assert_eq!(read(A), round);
        }
    });
}

fn flush(database: &dyn Database) {
    database.flush().expect("flush of nothing");
    apply(database, |batch| batch.put(A, b"k", b"v"));
    database.flush().expect("flush");
    database.flush().expect("flush again");
    assert_eq!(get(database, A, b"k").as_deref(), Some(&b"v"[..]));
}
