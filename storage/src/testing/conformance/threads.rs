//! Clauses on several threads, and on reading while there is writing.

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use super::{A, B, LAST, apply, get, keys};
use crate::batch::Batch;
use crate::database::{Database, KeyRange, Tree};

/// Each batch sets one counter in two trees. Who reads the one and then the other must not find
/// the second behind the first.
pub(super) fn visible_whole(database: &dyn Database) {
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

/// Each batch overwrites more keys than the engine likes in one batch, the lowest first. Who reads
/// the lowest and then the highest must not find the second behind the first.
pub(super) fn large_visible_whole(database: &dyn Database) {
    const ROUNDS: u32 = 3;
    let count = u32::try_from(database.batch_ops_max()).unwrap_or(u32::MAX).min(60_000) + 3;
    let read = |tree: Tree, key: u32| {
        let value = database.get(tree, &key.to_be_bytes()).expect("get").unwrap_or_default();
        value.try_into().map_or(0, u32::from_be_bytes)
    };
    thread::scope(|scope| {
        for (first, second) in [(0, count - 1), (count - 1, 0), (count / 2, 1)] {
            scope.spawn(move || {
                let mut seen = 0;
                while seen < ROUNDS {
                    seen = read(A, first);
                    assert!(read(A, second) >= seen, "a large batch was seen in parts");
                    assert!(read(LAST, 0) >= seen, "a large batch was seen in parts");
                }
            });
        }
        for round in 1..=ROUNDS {
            apply(database, |batch| {
                for key in 0..count {
                    batch.put(A, &key.to_be_bytes(), &round.to_be_bytes());
                }
                batch.put(LAST, &[0; 4], &round.to_be_bytes());
            });
        }
    });
    assert_eq!(keys(database, A, KeyRange::all()).len(), usize::try_from(count).unwrap_or(0));
}

/// A writer adds keys in turn and deletes older ones; iterations begun meanwhile see each key that
/// was there before they began, once, in order.
pub(super) fn iteration_and_writer(database: &dyn Database) {
    const KEYS: u32 = 400;
    const KEPT: u32 = 50;
    // Keys below the first are deleted for certain, those below the second are there or deleted.
    let (deleting, applied) = (&AtomicU32::new(0), &AtomicU32::new(0));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(move || {
                while applied.load(Ordering::SeqCst) < KEYS {
                    let before = applied.load(Ordering::SeqCst);
                    let found = keys(database, A, KeyRange::all());
                    let after = deleting.load(Ordering::SeqCst);
                    assert!(found.is_sorted_by(|a, b| a < b), "not in order, or twice");
                    for key in after..before {
                        let key = key.to_be_bytes().to_vec();
                        assert!(found.binary_search(&key).is_ok(), "{key:?} of {after}..{before}");
                    }
                }
            });
        }
        for n in 0..KEYS {
            let old = n.checked_sub(KEPT);
            deleting.store(old.map_or(0, |old| old + 1), Ordering::SeqCst);
            apply(database, |batch| {
                batch.put_new(A, &n.to_be_bytes(), b"v");
                if let Some(old) = old {
                    batch.delete(A, &old.to_be_bytes());
                }
            });
            applied.store(n + 1, Ordering::SeqCst);
            if n % 100 == 50 {
                database.flush().expect("flush");
            }
        }
    });
    let last: Vec<Vec<u8>> = (KEYS - KEPT..KEYS).map(|n| n.to_be_bytes().to_vec()).collect();
    assert_eq!(keys(database, A, KeyRange::all()), last);
}

/// No lock may be held between two steps of an iteration, in the same thread or in another.
pub(super) fn writes_while_iterating(database: &dyn Database) {
    apply(database, |batch| (0..100_u8).for_each(|n| batch.put(A, &[n, 0], b"before")));
    let open = database.range(A, KeyRange::all()).expect("range");
    let second = database.range(A, KeyRange::all()).expect("a second range");
    let mut seen = 0_u8;
    for (entry, other) in open.zip(second) {
        let (entry, other) = (entry.expect("entry"), other.expect("entry"));
        // Keys made meanwhile may be seen or not, and by the one but not the other.
        if entry.0.ends_with(&[0]) && entry.1 == b"before" {
            seen += 1;
        }
        drop(other);
        apply(database, |batch| batch.put(B, &entry.0, b"meanwhile"));
        assert_eq!(get(database, B, &entry.0).as_deref(), Some(&b"meanwhile"[..]));
    }
    assert_eq!(seen, 100);
    let half = database.range(A, KeyRange::all()).expect("range");
    drop(half.take(3));
    database.flush().expect("flush after an iteration that was not finished");
    database.clear(A).expect("clear after an iteration that was not finished");
    assert_eq!(keys(database, B, KeyRange::all()).len(), 100);
}

pub(super) fn several_writers(database: &dyn Database) {
    const ROUNDS: u8 = 40;
    thread::scope(|scope| {
        for writer in 0..4_u8 {
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    let mut batch = Batch::new();
                    batch.put_new(A, &[writer, round], &[round; 30]);
                    batch.put(B, &[writer], &[round]);
                    if round > 0 {
                        batch.delete(A, &[writer, round - 1]);
                    }
                    database.apply(&batch).expect("apply");
                    assert_eq!(get(database, B, &[writer]), Some(vec![round]));
                    assert_eq!(get(database, A, &[writer, round]), Some(vec![round; 30]));
                }
            });
        }
    });
    let left: Vec<Vec<u8>> = (0..4).map(|writer| vec![writer, ROUNDS - 1]).collect();
    assert_eq!(keys(database, A, KeyRange::all()), left);
    assert_eq!(keys(database, B, KeyRange::all()).len(), 4);
}
