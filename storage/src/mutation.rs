//! `Mutation`: bugs of the protocol that can be switched on, in this crate's own tests only: each
//! must be caught by them (`tests::mutations`). In any other build the switch is a constant "no".
//!
//! A test process has at most one, named by an environment variable.

/// The environment variable that names it.
#[cfg(test)]
pub(crate) const VARIABLE: &str = "COFFERDAM_MUTATION";

/// Whether the bug is switched on.
#[cfg(not(test))]
#[inline(always)]
pub(crate) const fn mutated(_: Mutation) -> bool {
    false
}

/// Whether the bug is switched on.
///
/// # Panics
///
/// If the environment names one that does not exist.
#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "no product code: only tests are told so")]
pub(crate) fn mutated(mutation: Mutation) -> bool {
    static NAMED: std::sync::OnceLock<Option<Mutation>> = std::sync::OnceLock::new();
    let named = NAMED.get_or_init(|| {
        let name = std::env::var(VARIABLE).ok()?;
        let found = Mutation::ALL.iter().find(|mutation| mutation.name() == name);
        Some(*found.unwrap_or_else(|| panic!("{VARIABLE}={name}: there is none of that name")))
    });
    *named == Some(mutation)
}

macro_rules! mutations {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// A bug, each as somebody might write it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Mutation {
            $($(#[doc = $doc])+ $name,)+
        }

        #[cfg(test)]
        impl Mutation {
            /// All of them.
            pub(crate) const ALL: &[Self] = &[$(Self::$name),+];

            /// What stands in [`VARIABLE`].
            pub(crate) const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)+
                }
            }
        }
    };
}

mutations! {
    // Files and names.
    /// A new segment gets its name without an fsync of what is in it.
    SegmentNotSynced,
    /// A new segment is synced only after it has its name.
    SegmentNamedFirst,
    /// The directory is not synced after a segment got its name.
    SegmentNameNotSynced,
    /// A small file gets its name without an fsync of what is in it.
    SmallFileNotSynced,
    /// The directory is not synced after a small file got its name.
    SmallFileNameNotSynced,
    /// A flat file that was written to is not noted as dirty.
    FlatFileForgotten,
    /// The directory is not synced after a flat file was made.
    FlatFileNameNotSynced,
    /// At opening, the names of flat files are taken to be durable.
    FlatFileNameTakenForSynced,
    // Commit.
    /// The strict mode acknowledges before the fsync.
    StrictNotAwaited,
    /// The batched mode acknowledges before the fsync.
    BatchedNotAwaited,
    /// The relaxed mode leaves records in the process's memory.
    RelaxedNotWritten,
    /// Records are reported durable before the fsync that makes them so.
    DurableBeforeSync,
    /// A record states one more record as durable than is.
    DurableLsnTooHigh,
    /// A failed fsync is tried again and believed.
    SyncTriedAgain,
    /// After a failure the next write or fsync goes ahead.
    PoisonIgnored,
    /// A record does not wait for what it refers to.
    AttachmentsNotSynced,
    /// A batch becomes visible before it is logged.
    MemoryBeforeLog,
    /// Taking back leaves one staged batch.
    AbortLeavesOne,
    /// A batch need not follow the tip.
    PreviousHashUnchecked,
    /// A tree is cleared while the log still has its entries.
    ClearKeepsLog,
    /// Clearing a tree is not flushed.
    ClearNotFlushed,
    // The log's bytes.
    /// A new segment begins before the old one is synced.
    SealWithoutSync,
    /// A new segment begins with the number of the record before it.
    LsnUsedTwice,
    /// All segments have the same generation.
    GenerationConstant,
    /// The CRC of a record's header does not depend on the generation.
    GenerationNotInHeader,
    /// The CRC of a record does not depend on the records before it.
    RecordsNotChained,
    /// A compressed record is not marked.
    CompressionNotMarked,
    /// A packed record is not marked.
    PackingNotMarked,
    /// No zeros are written behind the records in a file that was used before.
    NoZerosBehind,
    // Recovery.
    /// The CRC of a record's header is not checked.
    HeaderUnchecked,
    /// The CRC of a record is not checked.
    RecordUnchecked,
    /// A segment need not continue the one before it.
    SegmentChainUnchecked,
    /// The first segment that is needed may be missing.
    FirstSegmentNotMissed,
    /// What was durable and is damaged is cut off.
    CorruptTakenForTorn,
    /// A torn tail is reported as corruption.
    TornTakenForCorrupt,
    /// What the records of the last segment say was durable does not count.
    DurableLsnIgnored,
    /// What intact headers behind the damage say was durable does not count.
    TailIgnored,
    /// The tail of a segment with room is not searched after zeros.
    RoomNotSearched,
    /// The torn records are counted with one more.
    TornMiscounted,
    /// That a write-back had begun is no evidence.
    WritingIgnored,
    /// Records that are read are taken to be durable.
    UnprovenNotSecured,
    /// The new segment gets its name before those it needs have theirs for good.
    RecoveryNamesNotSynced,
    /// What the secured records refer to is not written again.
    RewriteSkipped,
    /// What the secured records refer to is not synced.
    RecoveryAttachmentsNotSynced,
    /// Nobody asks whether what a record refers to is there.
    IntactNotAsked,
    /// Replay leaves the last record out.
    ReplayStopsEarly,
    /// Replay believes `put_new`.
    ReplayBelievesFresh,
    /// A segment that is needed is removed with the obsolete ones.
    NeededSegmentRemoved,
    /// What the database shows at opening is taken to be durable.
    BackendTakenForSynced,
    // Clean shutdown.
    /// The marker is written before the database holds everything.
    MarkerBeforeCheckpoint,
    /// The segments are removed before the marker is there.
    SegmentsBeforeMarker,
    /// The marker stays when the next life begins.
    MarkerKept,
    /// The marker is removed before the next life's segment is durable.
    MarkerRemovedFirst,
    /// The marker's removal is not synced.
    MarkerRemovalNotSynced,
    /// Segments are removed because of a marker whose name is not durable.
    MarkerNameNotSynced,
    /// The marker need not fit the database.
    MarkerUnchecked,
    /// Left-over segments are replayed though there is a marker.
    MarkerIgnored,
    // Write-back.
    /// A generation is written back before its records are durable.
    WriteBackBeforeLog,
    /// The first of several batches says that all are there.
    AppliedInFirstBatch,
    /// The last of several batches is written before the others are durable.
    NoFlushBeforeLast,
    /// A write-back ends without a flush.
    NoFlushAfterLast,
    /// The database does not say that a write-back has begun.
    WritingNotWritten,
    /// The database says that it holds one batch more than it does.
    AppliedTooHigh,
    /// The tip is not written.
    TipNotWritten,
    /// The checksum of the state rows is not checked.
    StateRowsUnchecked,
    /// Segments are removed before the database holds their records.
    SegmentsRemovedEarly,
    /// A segment is removed though its last record is not in the database.
    ObsoleteOffByOne,
    /// A generation leaves memory before the database holds it.
    RetiredEarly,
    /// Nobody is told that a generation has left memory.
    EpochNotMoved,
    /// A value read ahead is used though what was committed after it is written back.
    ReadAheadBelieved,
    // The memtable.
    /// `put` is taken for `put_new`: what is below comes back with a deletion.
    PutBelievedFresh,
    /// Deleting a key that is only below leaves no tombstone.
    TombstoneNotKept,
    /// A tombstone followed by `put_new` is fresh, though the key is still below.
    TombstoneForgotten,
}
