//! Damage to what says how far the database is: the clean-shutdown marker and the state rows.

use std::path::Path;
use std::sync::Arc;

use super::{LOG_DIR, Store, TREES, Workload, open_over, options};
use crate::testing::{Model, SimFileSystem};
use crate::{
    Batch, Database, Durability, Error, KeyRange, MemoryDatabase, Recovery, Result, STATE_TREE,
    Tree,
};

/// A log, and a database under it.
struct Sample {
    work: Workload,
    fs: SimFileSystem,
    backend: Arc<MemoryDatabase>,
}

fn open(fs: &SimFileSystem, backend: &Arc<MemoryDatabase>) -> Result<(Store, Recovery)> {
    let backend: Box<dyn Database> = Box::new(Arc::clone(backend));
    open_over(fs, options(Durability::Strict), backend)
}

impl Sample {
    /// Six batches are in the database, and so many more in the log only.
    fn new(in_log: usize, plain: bool) -> Self {
        let work = Workload::new(51, 6 + in_log);
        let (fs, backend) = (SimFileSystem::new(), Arc::new(MemoryDatabase::new(&TREES)));
        let (store, _) = open(&fs, &backend).unwrap();
        for (index, block) in work.blocks.iter().enumerate() {
            if plain {
                store.apply(&block.batch).unwrap();
            } else {
                store.commit(block.clone()).unwrap();
            }
            if index == 5 {
                store.checkpoint().unwrap();
            }
        }
        drop(store);
        Self { work, fs, backend }
    }

    /// A copy of the database.
    fn database(&self) -> Arc<MemoryDatabase> {
        let copy = MemoryDatabase::new(&TREES);
        let mut batch = Batch::new();
        for tree in self.backend.trees() {
            for entry in self.backend.range(*tree, KeyRange::all()).unwrap() {
                let (key, value) = entry.unwrap();
                batch.put(*tree, &key, &value);
            }
        }
        copy.apply(&batch).unwrap();
        Arc::new(copy)
    }

    fn rows(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let rows = self.backend.range(STATE_TREE, KeyRange::all()).unwrap();
        rows.map(Result::unwrap).collect()
    }

    /// Opens over a database with another value in one row of a tree, or without the row.
    fn open_with(&self, tree: Tree, key: &[u8], value: Option<&[u8]>) -> Result<(Store, Recovery)> {
        let database = self.database();
        let mut batch = Batch::new();
        match value {
            Some(value) => batch.put(tree, key, value),
            None => batch.delete(tree, key),
        }
        database.apply(&batch).unwrap();
        open(&self.fs.copy(), &database)
    }
}

/// Opening is refused, or gives what it would have given without the damage.
fn check(sample: &Sample, opened: Result<(Store, Recovery)>, plain: bool, label: &str) -> bool {
    match opened {
        Err(Error::Corrupt { .. } | Error::Version { .. }) => false,
        Err(other) => panic!("{label}: {}", other.chain()),
        Ok((store, recovery)) => {
            let n = sample.work.blocks.len();
            assert_eq!(usize::try_from(recovery.to_lsn).unwrap(), n, "{label}");
            let state = Model::read(&store).unwrap();
            assert_eq!(state, sample.work.states[n], "{label}");
            assert_eq!(store.tip(), if plain { None } else { sample.work.tip(n) }, "{label}");
            true
        }
    }
}

#[test]
fn no_flipped_bit_and_no_lost_state_row_leads_to_another_state() {
    let (mut refused, mut harmless) = (0, 0);
    for (in_log, plain) in [(0, false), (4, false), (0, true), (4, true)] {
        let sample = Sample::new(in_log, plain);
        for (key, value) in sample.rows() {
            let name = format!("{}, {in_log} in the log", String::from_utf8_lossy(&key));
            for bit in 0..value.len() * 8 {
                let mut value = value.clone();
                value[bit / 8] ^= 1 << (bit % 8);
                let opened = sample.open_with(STATE_TREE, &key, Some(&value));
                let same = check(&sample, opened, plain, &format!("bit {bit} of {name}"));
                *(if same { &mut harmless } else { &mut refused }) += 1;
            }
            for len in 0..value.len() {
                let opened = sample.open_with(STATE_TREE, &key, Some(&value[..len]));
                expect_corrupt(opened, &format!("{name} cut to {len}"));
            }
            // Without `writing` and `format` nothing is promised less than what the log says.
            let opened = sample.open_with(STATE_TREE, &key, None);
            let same = check(&sample, opened, plain, &format!("no {name}"));
            assert_eq!(same, [&b"writing"[..], b"format"].contains(&key.as_slice()), "no {name}");
        }
    }
    println!("{refused} flips refused, {harmless} without effect");
    assert!(refused > harmless);
}

fn expect_corrupt(opened: Result<(Store, Recovery)>, label: &str) {
    match opened {
        Err(Error::Corrupt { .. }) => {}
        Err(other) => panic!("{label}: {}", other.chain()),
        Ok((_, recovery)) => panic!("{label}: {recovery:?}"),
    }
}

/// A database that has lost everything is not one that never had anything.
#[test]
fn a_database_without_state_rows_does_not_fit_its_log() {
    let sample = Sample::new(4, false);
    let empty = Arc::new(MemoryDatabase::new(&TREES));
    expect_corrupt(open(&sample.fs.copy(), &empty), "an emptied database");
}

#[test]
fn every_damage_to_the_clean_marker_is_corruption() {
    let sample = Sample::new(0, false);
    let (store, _) = open(&sample.fs, &sample.backend).unwrap();
    store.shutdown().unwrap();
    let marker = Path::new(LOG_DIR).join("clean");
    let bytes = sample.fs.read(&marker).unwrap();
    let open_with = |bytes: &[u8]| {
        let fs = sample.fs.copy();
        fs.plant(&marker, bytes);
        open(&fs, &sample.database())
    };
    let (_, recovery) = open_with(&bytes).unwrap();
    assert!(recovery.clean);
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        expect_corrupt(open_with(&flipped), &format!("bit {bit}"));
        for other in 0..bit {
            let mut twice = flipped.clone();
            twice[other / 8] ^= 1 << (other % 8);
            expect_corrupt(open_with(&twice), &format!("bits {other} and {bit}"));
        }
    }
    for at in 0..bytes.len() {
        for new in [0, 0xff].into_iter().filter(|new| *new != bytes[at]) {
            let mut other = bytes.clone();
            other[at] = new;
            expect_corrupt(open_with(&other), &format!("byte {at} is {new}"));
        }
        expect_corrupt(open_with(&bytes[..at]), &format!("cut to {at}"));
    }
    expect_corrupt(open_with(&[&bytes[..], &[0]].concat()), "a byte more");
    let fs = sample.fs.copy();
    crate::FileSystem::remove(&fs, &marker).unwrap();
    expect_corrupt(open(&fs, &sample.database()), "no marker");
}
