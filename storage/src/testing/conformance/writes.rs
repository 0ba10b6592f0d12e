//! Clauses on writing.

use super::{A, B, LAST, TREES, UNKNOWN, apply, get, keys};
use crate::batch::{Batch, KEY_BYTES_MAX};
use crate::database::{Count, Database, Entry, KeyRange, STATE_TREE, Tree};
use crate::error::Error;
use crate::testing::{Model, Random, assert_same};

pub(super) fn put_get_delete(database: &dyn Database) {
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

pub(super) fn extreme_sizes(database: &dyn Database) {
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

pub(super) fn trees_are_separate(database: &dyn Database) {
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

pub(super) fn last_operation_wins(database: &dyn Database) {
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

pub(super) fn unknown_tree(database: &dyn Database) {
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
    assert!(unknown(database.contains_key(UNKNOWN, b"k").err()));
    assert!(unknown(database.multi_get(UNKNOWN, &[b"k"]).err()));
    assert!(unknown(database.prefix(UNKNOWN, b"k").err()));
    let mut entries = [(b"k".to_vec(), Vec::new())].into_iter();
    assert!(unknown(database.ingest_sorted(UNKNOWN, &mut entries).err()));
}

pub(super) fn len(database: &dyn Database) {
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

pub(super) fn clear(database: &dyn Database) {
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

pub(super) fn ingest_sorted(database: &dyn Database) {
    let entry = |n: u32| (n.to_be_bytes().to_vec(), n.to_le_bytes().to_vec());
    database.ingest_sorted(A, &mut (0..3000).map(entry)).expect("ingest");
    let found = database.range(A, KeyRange::all()).expect("range");
    assert!(found.map(|entry| entry.expect("entry")).eq((0..3000).map(entry)));
    database.ingest_sorted(A, &mut std::iter::empty()).expect("ingest nothing");
}

/// Up to forty operations over few keys. `put_new` only of keys that are absent.
pub(super) fn random_batch(random: &mut Random, model: &Model) -> Batch {
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

pub(super) fn random_batches(database: &dyn Database) {
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

pub(super) fn flush(database: &dyn Database) {
    database.flush().expect("flush of nothing");
    apply(database, |batch| batch.put(A, b"k", b"v"));
    database.flush().expect("flush");
    database.flush().expect("flush again");
    assert_eq!(get(database, A, b"k").as_deref(), Some(&b"v"[..]));
}

/// Backends have the tree of id 0 for the log's rows; a store over one keeps it for itself.
pub(super) fn reserved_tree(database: &dyn Database) {
    let mut batch = Batch::new();
    batch.put(STATE_TREE, b"a third party's", b"row");
    if database.trees().iter().any(|tree| tree.id == STATE_TREE.id) {
        database.apply(&batch).expect("apply");
        assert_eq!(get(database, STATE_TREE, b"a third party's").as_deref(), Some(&b"row"[..]));
    } else {
        assert!(matches!(database.apply(&batch), Err(Error::UnknownTree { id: 0 })));
        assert!(matches!(database.get(STATE_TREE, b""), Err(Error::UnknownTree { id: 0 })));
        assert!(matches!(database.clear(STATE_TREE), Err(Error::UnknownTree { id: 0 })));
    }
    assert!(keys(database, A, KeyRange::all()).is_empty());
}

pub(super) fn len_after_clear(database: &dyn Database) {
    let exact = |tree, expected| match database.len(tree).expect("len") {
        Count::Exact(counted) => assert_eq!(counted, expected, "{tree:?}"),
        Count::Estimate(_) => {}
    };
    apply(database, |batch| (0..50_u8).for_each(|n| batch.put(A, &[n], b"")));
    apply(database, |batch| (0..50_u8).for_each(|n| batch.put(A, &[n], b"again")));
    apply(database, |batch| batch.delete(A, b"absent"));
    exact(A, 50);
    database.clear(A).expect("clear");
    exact(A, 0);
    apply(database, |batch| batch.put_new(A, &[7], b""));
    exact(A, 1);
    assert_eq!(keys(database, A, KeyRange::all()), [vec![7]]);
}

/// The entries of a tree.
pub(super) fn entries(database: &dyn Database, tree: Tree) -> Vec<Entry> {
    let entries = database.range(tree, KeyRange::all()).expect("range");
    entries.map(|entry| entry.expect("entry")).collect()
}

/// Ingests more entries than one batch takes; returns them.
pub(super) fn ingest_many(database: &dyn Database, tree: Tree) -> Vec<Entry> {
    let count = u32::try_from(database.batch_ops_max()).unwrap_or(u32::MAX).min(100_000) + 11;
    let entry = |n: u32| (n.to_be_bytes().to_vec(), n.to_le_bytes().to_vec());
    database.ingest_sorted(tree, &mut (0..count).map(entry)).expect("ingest");
    (0..count).map(entry).collect()
}

pub(super) fn ingest_over_entries(database: &dyn Database) {
    apply(database, |batch| {
        for n in 0..100_u32 {
            batch.put(A, &(n * 7).to_be_bytes(), b"old");
        }
        batch.put(A, b"\xff", b"behind");
        batch.put(B, &7_u32.to_be_bytes(), b"another tree");
    });
    let mut expected = ingest_many(database, A);
    let in_range = expected.len();
    expected.push((b"\xff".to_vec(), b"behind".to_vec()));
    let mut found = entries(database, A);
    // What lay between the new entries, or beyond the last of them, is as it was.
    found.retain(|(key, value)| {
        let beyond = u32::from_be_bytes(key.as_slice().try_into().unwrap_or([0; 4]));
        let old = usize::try_from(beyond).is_ok_and(|beyond| beyond >= in_range);
        assert!(!old || value == b"old");
        !old
    });
    // Not assert_eq: a message of fifty thousand entries helps nobody.
    assert!(found == expected, "{} entries of {}", found.len(), expected.len());
    assert_eq!(entries(database, B), [(7_u32.to_be_bytes().to_vec(), b"another tree".to_vec())]);
    apply(database, |batch| batch.delete(A, &7_u32.to_be_bytes()));
    assert_eq!(get(database, A, &7_u32.to_be_bytes()), None);
}
