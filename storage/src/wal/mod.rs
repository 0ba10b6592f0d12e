//! The write-ahead log: committed batches in the order of commit, in numbered segment files.
//!
//! Invariants (the bytes are in `format.rs` and `FORMAT.md`):
//!
//! - A segment gets its name only after its header is durable, and its first record only after
//!   its name is. So a segment without a valid header is corruption, never a crash's trace.
//! - When a segment is made, every record of the one before is durable. So all segments but the
//!   last are whole, and a segment's base LSN is evidence for all below it.
//! - Nothing is ever appended to a segment that an earlier process wrote. Its base LSN and chain
//!   value make the following segment the seal of the one before: bytes behind it are ignored.
//! - A record chains to the one before it by its CRC; LSNs are contiguous.
//! - Segments are removed from the oldest on, when the database durably holds all their records.
//!   The last one stays, until a clean shutdown has put the marker in its place.
//! - A record is damaged: with an LSN up to the highest one *known durable* that is corruption and
//!   stops; above it, it is a tail that was torn by a crash and is cut off and counted.

mod dump;
pub(crate) mod format;
mod inspect;
pub(crate) mod marker;
pub(crate) mod pack;
mod place;
mod reader;
mod recovery;
mod report;
mod writer;
mod writer_thread;

pub use self::dump::{LogRecord, LogRecords, TreeOps};
pub use self::format::PAYLOAD_BYTES_MAX;
pub use self::inspect::inspect_log;
pub(crate) use self::place::Place;
pub(crate) use self::recovery::{Evidence, Opening, open_log};
pub use self::report::{
    Damage, DatabaseState, LogReport, SegmentEnd, SegmentHead, SegmentReport, TornTail, Verdict,
};
pub(crate) use self::writer::Log;

/// The file whose presence says that the log is empty because all of it is in the database.
pub(crate) const MARKER_NAME: &str = "clean";
