//! Every backend, bare and under the write-ahead log, keeps the contract of `Database`.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::testing::{SimDatabase, SimFileSystem, conformance};
use crate::{
    BackendKind, BackendOptions, Database, Durability, FileSystem, MemoryDatabase, NoAttachments,
    StdFileSystem, WalBuffered, WalOptions,
};

fn small_cache() -> BackendOptions {
    BackendOptions { cache_bytes: 1 << 20 }
}

/// Flushes often, so that the generations mix.
fn buffered(fs: Arc<dyn FileSystem>, dir: &Path, backend: Box<dyn Database>) -> Box<dyn Database> {
    let options = WalOptions {
        durability: Durability::Relaxed { interval_ms: 5 },
        memtable_bytes: 64 << 10,
        flush_every_blocks: Some(3),
        segment_bytes: 64 << 10,
        verify_freshness: true,
        ..WalOptions::default()
    };
    let (store, _) = WalBuffered::open(options, fs, dir, backend, Arc::new(NoAttachments)).unwrap();
    Box::new(store)
}

#[test]
fn every_backend_bare() {
    for kind in BackendKind::available() {
        let dir = tempfile::tempdir().unwrap();
        let number = AtomicU32::new(0);
        conformance::run(&|| {
            let path = dir.path().join(number.fetch_add(1, Ordering::Relaxed).to_string());
            kind.open(&path, &conformance::TREES, &small_cache()).unwrap()
        });
    }
}

#[test]
fn every_backend_under_the_log() {
    for kind in BackendKind::available() {
        let dir = tempfile::tempdir().unwrap();
        let number = AtomicU32::new(0);
        conformance::run(&|| {
            let path = dir.path().join(number.fetch_add(1, Ordering::Relaxed).to_string());
            let backend = kind.open(&path.join("db"), &conformance::TREES, &small_cache()).unwrap();
            buffered(Arc::new(StdFileSystem), &path.join("log"), backend)
        });
    }
}

#[test]
fn what_is_flushed_is_there_after_reopening() {
    for kind in BackendKind::available() {
        if kind == BackendKind::Memory {
            continue;
        }
        let dir = tempfile::tempdir().unwrap();
        let open = |name: &str| {
            kind.open(&dir.path().join(name), &conformance::TREES, &small_cache()).unwrap()
        };
        conformance::run_persistent(&|| open("bare"));
        conformance::run_persistent(&|| {
            buffered(Arc::new(StdFileSystem), &dir.path().join("log"), open("buffered"))
        });
    }
}

#[test]
fn an_open_backend_is_locked() {
    for kind in BackendKind::available() {
        if kind == BackendKind::Memory {
            continue;
        }
        let dir = tempfile::tempdir().unwrap();
        let open = || kind.open(dir.path(), &conformance::TREES, &small_cache());
        let held = open().unwrap();
        assert!(matches!(open(), Err(crate::Error::Locked { .. })), "{kind}");
        drop(held);
        open().unwrap();
    }
}

#[test]
fn the_simulated_database() {
    let open = |fs: &SimFileSystem| {
        SimDatabase::open(Arc::new(fs.clone()), Path::new("db"), &conformance::TREES).unwrap()
    };
    conformance::run(&|| Box::new(open(&SimFileSystem::new())));
    let fs = SimFileSystem::new();
    conformance::run_persistent(&|| Box::new(open(&fs)));
}

#[test]
fn memory_is_what_every_build_has() {
    assert!(BackendKind::available().contains(&BackendKind::Memory));
    conformance::run(&|| Box::new(MemoryDatabase::new(&conformance::TREES)));
}
