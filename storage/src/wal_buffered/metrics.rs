//! What a store reports through the `metrics` facade: names in one place.
//!
//! Without a recorder in the process each report costs a load and a branch. All stores of a process
//! report under the same names.
//!
//! | name | kind | unit |
//! |---|---|---|
//! | `storage_commits_total` | counter | batches |
//! | `storage_commit_ops_total` | counter | operations |
//! | `storage_log_bytes_total` | counter | bytes of payload, before compression |
//! | `storage_fsync_seconds` | histogram | of the log |
//! | `storage_fsync_group_records` | histogram | records that one fsync made durable |
//! | `storage_flush_seconds` | histogram | per write-back |
//! | `storage_flush_ops_total` | counter | operations written to the engine |
//! | `storage_back_pressure_waits_total` | counter | commits that had to wait for a write-back |
//! | `storage_back_pressure_seconds` | histogram | how long |
//! | `storage_recovery_seconds` | histogram | per opening |
//! | `storage_recovery_bytes_total` | counter | bytes of log replayed |

use std::time::Duration;

use metrics::{counter, histogram};

/// A batch was committed.
pub(crate) fn commit(payload_bytes: u64, ops: usize) {
    counter!("storage_commits_total").increment(1);
    counter!("storage_commit_ops_total").increment(u64::try_from(ops).unwrap_or(u64::MAX));
    counter!("storage_log_bytes_total").increment(payload_bytes);
}

/// An fsync made records durable.
pub(crate) fn fsync(elapsed: Duration, records: u64) {
    histogram!("storage_fsync_seconds").record(elapsed);
    // A group is far below 2^32 records: the queue of unsynced ones is bounded by bytes.
    histogram!("storage_fsync_group_records").record(u32::try_from(records).unwrap_or(u32::MAX));
}

/// A generation was written back.
pub(crate) fn flush(elapsed: Duration, ops: u64) {
    histogram!("storage_flush_seconds").record(elapsed);
    counter!("storage_flush_ops_total").increment(ops);
}

/// A commit waited for memory.
pub(crate) fn back_pressure(elapsed: Duration) {
    counter!("storage_back_pressure_waits_total").increment(1);
    histogram!("storage_back_pressure_seconds").record(elapsed);
}

/// A store was opened.
pub(crate) fn recovery(elapsed: Duration, bytes: u64) {
    histogram!("storage_recovery_seconds").record(elapsed);
    counter!("storage_recovery_bytes_total").increment(bytes);
}
