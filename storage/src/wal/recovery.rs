//! Opening a log: what is valid, what was torn, what is corrupt; then replay.
//!
//! All evidence is gathered before anything is decided, and everything is decided before anything
//! is replayed:
//!
//! 1. *Select* the segments that hold records the database lacks.
//! 2. *Scan* them. `D`, the highest LSN known durable, is the largest of: what the database holds
//!    (`applied`), what a write-back to it had begun with (`writing`), every segment's base LSN
//!    minus one, every `durable_lsn` in a valid record, and in intact record headers behind a
//!    damaged record. With `n` the first LSN that is not valid: `n <= D` is corruption.
//! 3. *Secure* the rest: the records above `D` are valid now, but may be in the page cache only,
//!    and a failed fsync of the earlier process may even have marked them clean. They are copied
//!    to a new segment, which is fsynced and then, once the names of the others are durable, gets
//!    its own; it begins with `D + 1` and so seals the old one at `D`. New records go there.
//! 4. *Replay* what the database lacks.
//!
//! A crash at any point leaves a log that is opened to the same state: until step 3 has renamed
//! the new segment nothing has changed, and after it the records are the same.

use std::cell::Cell;
use std::collections::VecDeque;

use tracing::{info, warn};

use crate::error::{Error, Result};
use crate::file_system::read_small;
use crate::mutation::{Mutation, mutated};
use crate::wal::format::{Payload, SegmentHeader, segment_number};
use crate::wal::marker::decode_marker;
use crate::wal::place::Place;
use crate::wal::reader::{SegmentReader, Step, Tail};
use crate::wal::writer::{Appender, Closed, Log, random_generation};
use crate::wal_buffered::{Attachments, BUFFERED_BYTES_MAX, Lsn, ReplayHook, ReplayProgress, Torn};

/// How often the hook is told of the progress.
const PROGRESS_BYTES: u64 = 8 << 20;
/// More than a marker has.
const MARKER_BYTES_MAX: usize = 1024;

/// What the database says.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Evidence {
    /// It holds exactly the batches up to this one, and parts of others only up to `writing`.
    pub(crate) applied: Lsn,
    /// The newest batch of which it may hold a part.
    pub(crate) writing: Lsn,
}

/// A log that is ready to be appended to.
#[derive(Debug)]
pub(crate) struct OpenedLog {
    /// The log.
    pub(crate) log: Log,
    /// There was a clean-shutdown marker.
    pub(crate) clean: bool,
    /// The newest record; durable.
    pub(crate) end: Lsn,
    /// Records replayed.
    pub(crate) records: u64,
    /// Bytes read for that.
    pub(crate) bytes: u64,
    /// What was cut off.
    pub(crate) torn: Option<Torn>,
}

/// Receives the records that the database lacks, in order.
pub(crate) type Replay<'a> = dyn FnMut(Lsn, Payload) -> Result<()> + 'a;

/// What an opening is about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Opening<'a> {
    /// Where the log is.
    pub(crate) place: &'a Place,
    /// What the database says.
    pub(crate) evidence: Evidence,
    /// What the records refer to.
    pub(crate) attachments: &'a dyn Attachments,
    /// Is told of the progress.
    pub(crate) hook: Option<&'a ReplayHook>,
}

/// Opens the log of a database, or begins one.
pub(crate) fn open_log(opening: Opening<'_>, replay: &mut Replay<'_>) -> Result<OpenedLog> {
    let Opening { place, evidence, .. } = opening;
    let names = place.tidy()?;
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| segment_number(name)).collect();
    numbers.sort_unstable();
    let marker = read_small(&*place.fs, &place.marker(), MARKER_BYTES_MAX)?;
    if let Some(marker) = marker
        && (numbers.is_empty() || !mutated(Mutation::MarkerIgnored))
    {
        return open_clean(place, evidence, decode_marker(&marker)?, &numbers);
    }
    if numbers.is_empty() {
        if evidence.applied > 0 || evidence.writing > 0 {
            return Err(Error::corrupt(format!(
                "{} has neither a segment nor a clean-shutdown marker, though the database holds \
                 the batches up to {}",
                place.dir.display(),
                evidence.applied
            )));
        }
        return begin(place, 1, 0, false);
    }
    let progress = Cell::new(ReplayProgress::default());
    Recovery { opening, progress }.run(&numbers, replay)
}

/// The log was empty: begins it anew. The marker goes last, so that a crash repeats all this.
fn open_clean(
    place: &Place,
    evidence: Evidence,
    marker: Lsn,
    leftover: &[u64],
) -> Result<OpenedLog> {
    let fits = marker == evidence.applied && evidence.writing <= evidence.applied;
    if !fits && !mutated(Mutation::MarkerUnchecked) {
        return Err(Error::corrupt(format!(
            "{}: a clean shutdown left all batches up to {marker} in the database, which holds \
             those up to {}",
            place.dir.display(),
            evidence.applied
        )));
    }
    // The marker may not have its name for good yet; the segments go only once it has.
    if !mutated(Mutation::MarkerNameNotSynced) {
        place.fs.sync_dir(&place.dir)?;
    }
    place.remove(leftover)?;
    if mutated(Mutation::MarkerRemovedFirst) {
        place.fs.remove(&place.marker())?;
    }
    let number = leftover.last().map_or(1, |last| last + 1);
    let opened = begin(place, number, marker, true)?;
    if !mutated(Mutation::MarkerKept) && !mutated(Mutation::MarkerRemovedFirst) {
        place.fs.remove(&place.marker())?;
    }
    if !mutated(Mutation::MarkerRemovalNotSynced) {
        place.fs.sync_dir(&place.dir)?;
    }
    Ok(opened)
}

/// Begins a log with the record after `end`.
fn begin(place: &Place, number: u64, end: Lsn, clean: bool) -> Result<OpenedLog> {
    let generation = random_generation();
    let header = SegmentHeader {
        number,
        base_lsn: end + 1,
        generation,
        previous_chain: 0,
        applied_lsn: end,
        roomy: place.is_roomy(),
    };
    let mut current = Appender::create(place, header)?;
    current.publish(place)?;
    let log = Log::new(place.clone(), current, VecDeque::new());
    Ok(OpenedLog { log, clean, end, records: 0, bytes: 0, torn: None })
}

/// What scanning all segments has shown.
#[derive(Debug, Clone, Copy)]
struct Scan {
    /// The highest LSN known durable.
    durable: Lsn,
    /// The last valid record.
    end: Lsn,
    /// Where it ends in its file.
    end_offset: u64,
    /// What is behind it.
    tail: Tail,
}

/// The opening of a log that was not closed.
struct Recovery<'a> {
    opening: Opening<'a>,
    progress: Cell<ReplayProgress>,
}

impl Recovery<'_> {
    fn run(&self, numbers: &[u64], replay: &mut Replay<'_>) -> Result<OpenedLog> {
        let needed = self.select(numbers)?;
        self.expect(&needed)?;
        let mut scan = self.scan(&needed)?;
        if mutated(Mutation::UnprovenNotSecured) {
            scan.durable = scan.end;
        }
        let Some(last) = needed.last().copied() else {
            return Err(Error::corrupt("a log without segments cannot be scanned"));
        };
        info!(
            applied = self.opening.evidence.applied,
            durable = scan.durable,
            end = scan.end,
            segments = needed.len(),
            "recovering the log"
        );
        let (current, torn) = self.secure(last, scan)?;
        if let Some(torn) = torn {
            warn!(bytes = torn.bytes, records = torn.records, "cut a torn tail off the log");
        }
        let (mut records, mut bytes) = (0, 0);
        let mut closed = VecDeque::new();
        let ends = needed.iter().skip(1).map(|next| next.base_lsn - 1).chain([scan.durable]);
        for (header, last_lsn) in needed.iter().zip(ends) {
            let read = self.replay(header.number, last_lsn, true, replay)?;
            records += read.records;
            bytes += read.bytes;
            closed.push_back(Closed { number: header.number, last_lsn, bytes: read.segment_bytes });
        }
        let end = current.last_lsn();
        let stop = end.saturating_sub(u64::from(mutated(Mutation::ReplayStopsEarly)));
        let read = self.replay(last.number + 1, stop, false, replay)?;
        records += read.records;
        bytes += read.bytes;
        // Those before the first needed one: a crash came between a write-back and their removal.
        let first = needed.first().map_or(0, |first| first.number);
        let first = first + u64::from(mutated(Mutation::NeededSegmentRemoved));
        let obsolete: Vec<u64> = numbers.iter().copied().filter(|number| *number < first).collect();
        self.opening.place.remove(&obsolete)?;
        let log = Log::new(self.opening.place.clone(), current, closed);
        Ok(OpenedLog { log, clean: false, end, records, bytes, torn })
    }

    /// The segments from the one that holds record `applied + 1` on. Those before it need not be
    /// there, nor be readable: their removal may have reached the disk in any order.
    fn select(&self, numbers: &[u64]) -> Result<Vec<SegmentHeader>> {
        let first_lsn = self.opening.evidence.applied + 1;
        let mut needed: Vec<SegmentHeader> = Vec::new();
        for number in numbers.iter().rev() {
            let reader = self.open(*number)?;
            if let Some(next) = needed.last()
                && (next.number != number + 1 || next.base_lsn < reader.header().base_lsn)
            {
                return Err(Error::corrupt(format!(
                    "{}: the segment before number {} is missing",
                    self.opening.place.dir.display(),
                    next.number
                )));
            }
            needed.push(*reader.header());
            if reader.header().base_lsn <= first_lsn {
                needed.reverse();
                return Ok(needed);
            }
        }
        if mutated(Mutation::FirstSegmentNotMissed) {
            needed.reverse();
            return Ok(needed);
        }
        let held = needed.iter().map(|header| header.applied_lsn).max().unwrap_or(0);
        let lost = if held < first_lsn {
            String::new()
        } else {
            format!(": the database once held all up to {held} durably and has lost some")
        };
        Err(Error::corrupt(format!(
            "{}: the segment that holds record {first_lsn} is missing{lost}",
            self.opening.place.dir.display()
        )))
    }

    /// Says how much there is to read.
    fn expect(&self, needed: &[SegmentHeader]) -> Result<()> {
        let mut total_bytes: u64 = 0;
        for header in needed {
            let bytes = self.open(header.number)?.file_bytes();
            total_bytes = total_bytes.saturating_add(bytes.saturating_mul(2));
        }
        self.progress.set(ReplayProgress { total_bytes, ..ReplayProgress::default() });
        Ok(())
    }

    /// Counts bytes that were read; tells the hook after every [`PROGRESS_BYTES`].
    fn advance(&self, bytes: u64, lsn: Option<Lsn>) -> Result<()> {
        let mut progress = self.progress.get();
        let before = progress.done_bytes / PROGRESS_BYTES;
        progress.done_bytes = progress.done_bytes.saturating_add(bytes);
        progress.lsn = lsn.unwrap_or(progress.lsn);
        self.progress.set(progress);
        match self.opening.hook {
            Some(hook) if progress.done_bytes / PROGRESS_BYTES > before => {
                if hook.call(progress).is_break() { Err(Error::Interrupted) } else { Ok(()) }
            }
            _ => Ok(()),
        }
    }

    fn scan(&self, needed: &[SegmentHeader]) -> Result<Scan> {
        let mut durable = self.opening.evidence.applied;
        if !mutated(Mutation::WritingIgnored) {
            durable = durable.max(self.opening.evidence.writing);
        }
        for (header, next) in needed.iter().zip(needed.iter().skip(1)) {
            durable = durable.max(next.base_lsn - 1);
            let mut reader = self.open(header.number)?;
            while reader.next_lsn() < next.base_lsn {
                let begins_at = reader.offset();
                match reader.step()? {
                    Step::Record(record) => {
                        durable = durable.max(record.durable_lsn);
                        self.advance(reader.offset() - begins_at, None)?;
                    }
                    Step::End | Step::Bad => return Err(self.lost(&reader, next.base_lsn - 1)),
                }
            }
            let continued = reader.chain() == next.previous_chain;
            if !continued && !mutated(Mutation::SegmentChainUnchecked) {
                return Err(Error::corrupt(format!(
                    "{}: the segment does not continue the one before it",
                    self.opening.place.segment(next.number).display()
                )));
            }
        }
        let Some(last) = needed.last() else {
            return Err(Error::corrupt("a log without segments cannot be scanned"));
        };
        let mut reader = self.open(last.number)?;
        let tail = loop {
            let begins_at = reader.offset();
            match reader.step()? {
                Step::Record(record) => {
                    if !mutated(Mutation::DurableLsnIgnored) {
                        durable = durable.max(record.durable_lsn);
                    }
                    self.advance(reader.offset() - begins_at, None)?;
                }
                Step::End if !last.roomy || mutated(Mutation::RoomNotSearched) => {
                    break Tail::default();
                }
                Step::Bad if mutated(Mutation::TornTakenForCorrupt) => {
                    return Err(self.lost(&reader, durable));
                }
                end @ (Step::End | Step::Bad) => break reader.tail(end == Step::Bad)?,
            }
        };
        if !mutated(Mutation::TailIgnored) {
            durable = durable.max(tail.durable_lsn);
        }
        if mutated(Mutation::CorruptTakenForTorn) {
            durable = durable.min(reader.next_lsn() - 1);
        }
        if reader.next_lsn() <= durable {
            return Err(self.lost(&reader, durable));
        }
        Ok(Scan { durable, end: reader.next_lsn() - 1, end_offset: reader.offset(), tail })
    }

    /// The error for a record that is not there, or not what was written, though it was durable.
    fn lost(&self, reader: &SegmentReader, durable: Lsn) -> Error {
        Error::corrupt(format!(
            "{}: record {} at offset {} is damaged or missing, though all up to {durable} were \
             durable",
            self.opening.place.segment(reader.header().number).display(),
            reader.next_lsn(),
            reader.offset()
        ))
    }

    /// Copies the records above `scan.durable` to a new segment and makes them durable.
    fn secure(&self, last: SegmentHeader, scan: Scan) -> Result<(Appender, Option<Torn>)> {
        let mut reader = self.open(last.number)?;
        while reader.next_lsn() <= scan.durable {
            self.valid_step(&mut reader)?;
        }
        let header = SegmentHeader {
            number: last.number + 1,
            base_lsn: scan.durable + 1,
            generation: random_generation(),
            previous_chain: reader.chain(),
            applied_lsn: self.opening.evidence.applied,
            roomy: self.opening.place.is_roomy(),
        };
        let mut current = Appender::create(self.opening.place, header)?;
        let mut torn = Torn { bytes: scan.tail.bytes, records: scan.tail.records };
        torn.records += u64::from(mutated(Mutation::TornMiscounted) && torn.bytes > 0);
        while reader.next_lsn() <= scan.end {
            let (lsn, begins_at) = (reader.next_lsn(), reader.offset());
            let payload = self.valid_step(&mut reader)?;
            if !self.intact(&payload)? {
                warn!(lsn, "a log record refers to data that is not there: cut the log before it");
                torn.bytes += scan.end_offset - begins_at;
                torn.records += scan.end - lsn + 1;
                break;
            }
            if let Payload::Block(block) = &payload
                && !mutated(Mutation::RewriteSkipped)
            {
                self.opening.attachments.rewrite(block)?;
            }
            current.append(scan.durable, payload.as_change())?;
            if current.buffered() >= BUFFERED_BYTES_MAX {
                current.write_out()?;
            }
        }
        if !mutated(Mutation::RecoveryAttachmentsNotSynced) {
            self.opening.attachments.sync()?;
        }
        // A process that was killed may have left a segment whose name is in memory only. The new
        // segment must not have its name for good while one that it needs has not.
        if !mutated(Mutation::RecoveryNamesNotSynced) {
            self.opening.place.fs.sync_dir(&self.opening.place.dir)?;
        }
        current.publish(self.opening.place)?;
        Ok((current, (torn != Torn { bytes: 0, records: 0 }).then_some(torn)))
    }

    /// Replays the records of a segment that the database lacks, up to `last_lsn`.
    fn replay(
        &self,
        number: u64,
        last_lsn: Lsn,
        ask_intact: bool,
        replay: &mut Replay<'_>,
    ) -> Result<Replayed> {
        let mut reader = self.open(number)?;
        let mut done = Replayed::default();
        while reader.next_lsn() <= last_lsn {
            let (lsn, begins_at) = (reader.next_lsn(), reader.offset());
            let payload = self.valid_step(&mut reader)?;
            self.advance(reader.offset() - begins_at, Some(lsn))?;
            if lsn <= self.opening.evidence.applied {
                continue;
            }
            if ask_intact && !self.intact(&payload)? {
                return Err(Error::corrupt(format!(
                    "log record {lsn} was durable and refers to data that is not there"
                )));
            }
            replay(lsn, payload)?;
            done.records += 1;
            done.bytes += reader.offset() - begins_at;
        }
        done.segment_bytes = reader.offset();
        info!(segment = number, records = done.records, bytes = done.bytes, "replayed a segment");
        Ok(done)
    }

    /// A record that an earlier pass has found valid.
    fn valid_step(&self, reader: &mut SegmentReader) -> Result<Payload> {
        match reader.step()? {
            Step::Record(header) => Payload::decode(&header, reader.payload()),
            Step::End | Step::Bad => Err(self.lost(reader, reader.next_lsn())),
        }
    }

    fn intact(&self, payload: &Payload) -> Result<bool> {
        match payload {
            Payload::Block(_) if mutated(Mutation::IntactNotAsked) => Ok(true),
            Payload::Block(block) => self.opening.attachments.intact(block),
            Payload::Plain(_) => Ok(true),
        }
    }

    fn open(&self, number: u64) -> Result<SegmentReader> {
        SegmentReader::open(&*self.opening.place.fs, &self.opening.place.segment(number), number)
    }
}

/// What was replayed from one segment.
#[derive(Debug, Clone, Copy, Default)]
struct Replayed {
    records: u64,
    bytes: u64,
    /// Up to the last record that counts.
    segment_bytes: u64,
}
