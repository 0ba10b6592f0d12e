//! Clauses on reading: single keys, many keys, ranges.

use std::ops::Bound;

use super::{A, B, TREES, apply, get, keys};
use crate::batch::Batch;
use crate::database::{Database, KeyRange};

pub(super) fn empty(database: &dyn Database) {
    for tree in TREES {
        assert!(database.trees().contains(&tree));
        assert_eq!(get(database, tree, b""), None);
        assert!(keys(database, tree, KeyRange::all()).is_empty());
    }
    apply(database, |_| {});
}

pub(super) fn ranges(database: &dyn Database) {
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

pub(super) fn prefixes(database: &dyn Database) {
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

pub(super) fn multi_get(database: &dyn Database) {
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

pub(super) fn trees_in_order(database: &dyn Database) {
    let trees = database.trees();
    assert!(trees.is_sorted_by(|before, after| before.id < after.id), "{trees:?}");
}

/// Keys of one byte and of two, put in an order of their own.
pub(super) fn every_byte(database: &dyn Database) {
    let mut all: Vec<Vec<u8>> = (0..=u8::MAX).map(|byte| vec![byte]).collect();
    all.extend((0..=u8::MAX).map(|byte| vec![byte, !byte]));
    apply(database, |batch| all.iter().rev().for_each(|key| batch.put(A, key, key)));
    for key in &all {
        assert_eq!(get(database, A, key).as_ref(), Some(key));
    }
    all.sort_unstable();
    assert_eq!(keys(database, A, KeyRange::all()), all);
    let middle = Bound::Included(vec![0x7f, 0xff]);
    let from = keys(database, A, KeyRange::from_bounds(middle, Bound::Unbounded));
    assert_eq!(from.len(), 256, "signed bytes would be in another order");
}

pub(super) fn prefixes_first(database: &dyn Database) {
    for byte in [0, b'a', 0xff] {
        let all: Vec<Vec<u8>> = (0..40).map(|len| vec![byte; len]).collect();
        apply(database, |batch| all.iter().rev().for_each(|key| batch.put(A, key, b"")));
        let range = KeyRange::from_bounds(
            Bound::Included(vec![byte]),
            Bound::Included(vec![byte; all.len()]),
        );
        assert_eq!(keys(database, A, range), all.get(1..).unwrap_or_default());
        // Deleting one leaves those before and behind it.
        apply(database, |batch| batch.delete(A, &[byte; 7]));
        assert_eq!(get(database, A, &[byte; 7]), None);
        assert_eq!(keys(database, A, KeyRange::prefix(&[byte; 6])).len(), 40 - 7);
    }
}

/// More keys than any engine takes in one go, every third absent and every fifth twice.
pub(super) fn multi_get_many(database: &dyn Database) {
    let mut batch = Batch::new();
    let mut asked = Vec::new();
    let mut expected = Vec::new();
    for n in 0..4000_u32 {
        let key = n.to_be_bytes();
        let value = (n % 3 != 0).then(|| vec![key[3]; usize::from(key[3])]);
        if let Some(value) = &value {
            batch.put(B, &key, value);
        }
        for _ in 0..if n % 5 == 0 { 2 } else { 1 } {
            asked.push(key);
            expected.push(value.clone());
        }
    }
    database.apply(&batch).expect("apply");
    let asked: Vec<&[u8]> = asked.iter().map(|key| &key[..]).collect();
    assert_eq!(database.multi_get(B, &asked).expect("multi_get"), expected);
    let none = database.multi_get(A, &asked).expect("multi_get of another tree");
    assert!(none.len() == asked.len() && none.iter().all(Option::is_none));
}
