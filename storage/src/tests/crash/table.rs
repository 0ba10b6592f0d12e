//! What is run: workloads, one line each, and options, one line each.

use std::time::Duration;

use crate::{Durability, LogWriter, SegmentFiles, WalOptions};

/// The modes to begin in.
pub(super) const MODES: [(&str, Durability); 4] = [
    ("strict", Durability::Strict),
    ("batched", Durability::Batched { blocks: 1, interval_ms: 1 }),
    ("relaxed", Durability::Relaxed { interval_ms: 1 }),
    ("async", Durability::Async),
];

/// A name, and steps as in [`super::script::Script`].
pub(super) const WORKLOADS: [(&str, &str); 25] = [
    ("open", ""),
    ("first", "c"),
    ("several", "cccc"),
    ("large", "bcb"),
    ("roll", "bbbcbc"),
    ("checkpoint", "ccktc"),
    ("checkpoint-twice", "ckkc"),
    ("sync", "cycyc"),
    ("staged", "stcs"),
    ("taken-back", "acatc"),
    ("reorg", "cccrrc"),
    ("reorg-flushed", "cckrrc"),
    ("plain", "pcppc"),
    ("empty", "ecepe"),
    ("clear", "cpxcc"),
    ("clear-coins", "ccXcrc"),
    ("shutdown", "ccdcc"),
    ("shutdown-at-once", "dcdd"),
    ("drop", "ccDcc"),
    ("drop-twice", "cDDc"),
    ("strict-async-strict", "1c4cc1c"),
    ("all-modes", "4cb2c3c1c"),
    ("relaxed-strict", "3cwc1cw"),
    ("background", "cccwccwc"),
    ("mixture", "sbkpcrwdbc"),
];

type Change = fn(WalOptions) -> WalOptions;

/// A name, and what is different from `tests::options`.
pub(super) const OPTIONS: [(&str, Change); 19] = [
    ("plain", |options| options),
    ("flush-1", |options| WalOptions { flush_every_blocks: Some(1), ..options }),
    ("flush-2", |options| WalOptions { flush_every_blocks: Some(2), ..options }),
    ("flush-log", |options| WalOptions { log_bytes_max: 600, segment_bytes: 4700, ..options }),
    ("tiny-memtable", |options| WalOptions { memtable_bytes: 1, ..options }),
    ("tiny-segments", |options| WalOptions { segment_bytes: 1, ..options }),
    ("large-segments", |options| WalOptions {
        segment_bytes: 1 << 20,
        flush_every: Some(Duration::ZERO),
        ..options
    }),
    ("tiny-all-unverified", |options| WalOptions {
        memtable_bytes: 1,
        segment_bytes: 4600,
        verify_freshness: false,
        ..options
    }),
    ("compressed", |options| WalOptions { compress_bytes_min: Some(64), ..options }),
    ("preallocated", |options| WalOptions {
        segment_files: SegmentFiles::Preallocated,
        compress_bytes_min: Some(64),
        ..options
    }),
    ("recycled", |options| WalOptions {
        segment_files: SegmentFiles::Recycled,
        flush_every_blocks: Some(1),
        segment_bytes: 4700,
        ..options
    }),
    ("recycled-compressed", |options| WalOptions {
        segment_files: SegmentFiles::Recycled,
        compress_bytes_min: Some(0),
        log_bytes_max: 600,
        segment_bytes: 4700,
        ..options
    }),
    ("thread", |options| WalOptions { writer: LogWriter::Thread { bytes_min: 0 }, ..options }),
    ("thread-recycled", |options| WalOptions {
        writer: LogWriter::Thread { bytes_min: 0 },
        segment_files: SegmentFiles::Recycled,
        flush_every_blocks: Some(2),
        segment_bytes: 5000,
        ..options
    }),
    // With those above: every combination of files, writer and compression.
    ("preallocated-plain", |options| WalOptions {
        segment_files: SegmentFiles::Preallocated,
        ..options
    }),
    ("thread-compressed", |options| WalOptions {
        writer: LogWriter::Thread { bytes_min: 0 },
        compress_bytes_min: Some(0),
        ..options
    }),
    ("thread-preallocated", |options| WalOptions {
        writer: LogWriter::Thread { bytes_min: 0 },
        segment_files: SegmentFiles::Preallocated,
        flush_every_blocks: Some(1),
        ..options
    }),
    ("thread-preallocated-compressed", |options| WalOptions {
        writer: LogWriter::Thread { bytes_min: 0 },
        segment_files: SegmentFiles::Preallocated,
        compress_bytes_min: Some(0),
        segment_bytes: 4700,
        ..options
    }),
    ("thread-recycled-compressed", |options| WalOptions {
        writer: LogWriter::Thread { bytes_min: 0 },
        segment_files: SegmentFiles::Recycled,
        compress_bytes_min: Some(64),
        flush_every_blocks: Some(1),
        segment_bytes: 4700,
        ..options
    }),
];
