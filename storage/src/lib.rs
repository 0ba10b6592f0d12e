//! A crash-safe write-back store over an embedded database. It knows bytes, not Bitcoin.
//!
//! - [`Database`] is the contract: trees of ordered keys, atomic batches over all trees, a
//!   `flush` that survives a power cut. [`LsmDatabase`], [`MemoryDatabase`], and with cargo features
//!   `SledDatabase` and `RocksDatabase`, implement it; [`BackendKind`] chooses one by name.
//! - [`WalBuffered`] is a `Database` over a `Database`. It logs every batch, buffers it in
//!   memory, and writes back in the background, so that its user never waits for the engine, most
//!   short-lived keys never reach it, and a crash costs a replay. [`Durability`] says what a
//!   commit promises.
//! - [`FlatFiles`] are numbered append-only files, as Bitcoin Core keeps blocks in.
//! - [`FileSystem`] is the only file I/O of log and flat files. The feature `testing` brings one
//!   that crashes on demand, and the conformance suite for backends of your own.
//!
//! The bytes on disk, and what is valid when, are in `FORMAT.md`.
//!
//! ```
//! use std::sync::Arc;
//! use cofferdam_storage::{
//!     Batch, BlockBatch, Database, MemoryDatabase, NoAttachments, StdFileSystem, Tip, Tree,
//!     WalBuffered, WalOptions,
//! };
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! const COINS: Tree = Tree { id: 1, name: "coins" };
//! let dir = tempfile::tempdir()?;
//! let open = || {
//!     // An engine that keeps nothing: all that comes back below comes from the log.
//!     let backend = MemoryDatabase::new(&[COINS]);
//!     let fs = Arc::new(StdFileSystem);
//!     WalBuffered::open(WalOptions::default(), fs, dir.path(), backend, Arc::new(NoAttachments))
//! };
//!
//! let (store, _) = open()?;
//! let mut batch = Batch::new();
//! batch.put_new(COINS, b"outpoint", b"coin");
//! let tip = Tip { height: 0, hash: [7; 32] };
//! // Visible at once, committed later: a pipeline checks scripts in between.
//! store.stage(BlockBatch { tip, prev_hash: [0; 32], batch })?;
//! assert!(store.contains_key(COINS, b"outpoint")?);
//! store.commit_staged()?;
//! store.sync()?;
//! drop(store); // not shut down: as if the process had been killed
//!
//! let (store, recovery) = open()?;
//! assert_eq!((recovery.records, store.tip()), (1, Some(tip)));
//! assert_eq!(store.get(COINS, b"outpoint")?, Some(b"coin".to_vec()));
//! # Ok(())
//! # }
//! ```

mod backend;
mod batch;
mod coding;
mod database;
mod error;
mod file_system;
mod flat_files;
mod lock;
mod mutation;
mod read_only;
mod sync;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(test)]
#[cfg(feature = "testing")]
mod tests;
mod wal;
mod wal_buffered;

#[cfg(feature = "rocksdb")]
pub use backend::RocksDatabase;
#[cfg(feature = "sled")]
pub use backend::SledDatabase;
pub use backend::{BackendKind, BackendOptions, LsmDatabase, MemoryDatabase};
pub use batch::{Batch, KEY_BYTES_MAX, Op, Ops, VALUE_BYTES_MAX};
pub use database::{Count, Database, Entries, Entry, KeyRange, STATE_TREE, Tree};
pub use error::{Error, Result};
pub use file_system::{File, FileLock, FileSystem, StdFileSystem, read_small, write_atomic};
pub use flat_files::{FilePosition, FlatFiles, FlatFilesOptions};
pub use read_only::ReadOnlyFileSystem;
pub use wal::{
    Damage, DatabaseState, LogRecord, LogRecords, LogReport, PAYLOAD_BYTES_MAX, SegmentEnd,
    SegmentHead, SegmentReport, TornTail, TreeOps, Verdict, inspect_log,
};
pub use wal_buffered::{
    Attachments, BUFFERED_BYTES_MAX, BlockBatch, Durability, HAND_OVER_BYTES, LogWriter, Lsn,
    NoAttachments, NoSpaceHook, ReadAhead, ReadHandle, Recovery, ReplayHook, ReplayProgress,
    SPARE_SEGMENTS_MAX, SegmentFiles, Stats, Tip, Torn, UNSYNCED_BYTES_MAX, WalBuffered,
    WalOptions, wait_for_free_bytes,
};
