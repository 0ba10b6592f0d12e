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
//!    to a new segment, which is fsynced and then gets its name; it begins with `D + 1` and so
//!    seals the old one at `D`. New records go there.
//! 4. *Replay* what the database lacks.
//!
//! A crash at any point leaves a log that is opened to the same state: until step 3 has renamed
//! the new segment nothing has changed, and after it the records are the same.

use std::collections::VecDeque;

use tracing::{info, warn};

use crate::error::{Error, Result};
use crate::file_system::read_small;
use crate::wal::format::{Payload, SegmentHeader, decode_marker, segment_number};
use crate::wal::reader::{SegmentReader, Step, Tail};
use crate::wal::writer::{Appender, Closed, Log, Place, random_generation};
use crate::wal_buffered::{Attachments, BUFFERED_BYTES_MAX, Lsn, Torn};

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

/// Opens the log of a database, or begins one.
pub(crate) fn open_log(
    place: &Place,
    evidence: Evidence,
    attachments: &dyn Attachments,
    replay: &mut Replay<'_>,
) -> Result<OpenedLog> {
    let names = place.fs.list(&place.dir)?;
    for name in names.iter().filter(|name| name.ends_with(".tmp")) {
        place.fs.remove(&place.dir.join(name))?;
    }
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| segment_number(name)).collect();
    numbers.sort_unstable();
    let marker = read_small(&*place.fs, &place.marker(), MARKER_BYTES_MAX)?;
    if let Some(marker) = marker {
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
    Recovery { place, evidence, attachments }.run(&numbers, replay)
}

/// The log was empty: begins it anew. The marker goes last, so that a crash repeats all this.
fn open_clean(
    place: &Place,
    evidence: Evidence,
    marker: Lsn,
    leftover: &[u64],
) -> Result<OpenedLog> {
    if marker != evidence.applied || evidence.writing > evidence.applied {
        return Err(Error::corrupt(format!(
            "{}: a clean shutdown left all batches up to {marker} in the database, which holds \
             those up to {}",
            place.dir.display(),
            evidence.applied
        )));
    }
    // The marker may not have its name for good yet; the segments go only once it has.
    place.fs.sync_dir(&place.dir)?;
    remove_segments(place, leftover)?;
    let number = leftover.last().map_or(1, |last| last + 1);
    let opened = begin(place, number, marker, true)?;
    place.fs.remove(&place.marker())?;
    place.fs.sync_dir(&place.dir)?;
    Ok(opened)
}

/// Begins a log with the record after `end`.
fn begin(place: &Place, number: u64, end: Lsn, clean: bool) -> Result<OpenedLog> {
    let generation = random_generation();
    let header = SegmentHeader { number, base_lsn: end + 1, generation, previous_chain: 0 };
    let mut current = Appender::create(place, header)?;
    current.publish(place)?;
    let log = Log::new(place.clone(), current, VecDeque::new());
    Ok(OpenedLog { log, clean, end, records: 0, bytes: 0, torn: None })
}

/// Removes segments, oldest first.
pub(crate) fn remove_segments(place: &Place, numbers: &[u64]) -> Result<()> {
    numbers.iter().try_for_each(|number| place.fs.remove(&place.segment(*number)))?;
    if numbers.is_empty() { Ok(()) } else { place.fs.sync_dir(&place.dir) }
}

/// What scanning all segments has shown.
#[derive(Debug, Clone, Copy)]
struct Scan {
    /// The highest LSN known durable.
    durable: Lsn,
    /// The last valid record.
    end: Lsn,
    /// What is behind it.
    tail: Tail,
}

/// The opening of a log that was not closed.
struct Recovery<'a> {
    place: &'a Place,
    evidence: Evidence,
    attachments: &'a dyn Attachments,
}

impl Recovery<'_> {
    fn run(&self, numbers: &[u64], replay: &mut Replay<'_>) -> Result<OpenedLog> {
        let needed = self.select(numbers)?;
        let scan = self.scan(&needed)?;
        let Some(last) = needed.last().copied() else {
            return Err(Error::corrupt("a log without segments cannot be scanned"));
        };
        info!(
            applied = self.evidence.applied,
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
            closed.push_back(Closed { number: header.number, last_lsn, bytes: read.file_bytes });
        }
        let end = current.last_lsn();
        let read = self.replay(last.number + 1, end, false, replay)?;
        records += read.records;
        bytes += read.bytes;
        // Those before the first needed one: a crash came between a write-back and their removal.
        let first = needed.first().map_or(0, |first| first.number);
        let obsolete: Vec<u64> = numbers.iter().copied().filter(|number| *number < first).collect();
        remove_segments(self.place, &obsolete)?;
        let log = Log::new(self.place.clone(), current, closed);
        Ok(OpenedLog { log, clean: false, end, records, bytes, torn })
    }

    /// The segments from the one that holds record `applied + 1` on. Those before it need not be
    /// there, nor be readable: their removal may have reached the disk in any order.
    fn select(&self, numbers: &[u64]) -> Result<Vec<SegmentHeader>> {
        let first_lsn = self.evidence.applied + 1;
        let mut needed: Vec<SegmentHeader> = Vec::new();
        for number in numbers.iter().rev() {
            let reader = self.open(*number)?;
            if let Some(next) = needed.last()
                && (next.number != number + 1 || next.base_lsn < reader.header().base_lsn)
            {
                return Err(Error::corrupt(format!(
                    "{}: the segment before number {} is missing",
                    self.place.dir.display(),
                    next.number
                )));
            }
            needed.push(*reader.header());
            if reader.header().base_lsn <= first_lsn {
                needed.reverse();
                return Ok(needed);
            }
        }
        Err(Error::corrupt(format!(
            "{}: the segment that holds record {first_lsn} is missing",
            self.place.dir.display()
        )))
    }

    fn scan(&self, needed: &[SegmentHeader]) -> Result<Scan> {
        let mut durable = self.evidence.applied.max(self.evidence.writing);
        for (header, next) in needed.iter().zip(needed.iter().skip(1)) {
            durable = durable.max(next.base_lsn - 1);
            let mut reader = self.open(header.number)?;
            while reader.next_lsn() < next.base_lsn {
                match reader.step()? {
                    Step::Record(record) => durable = durable.max(record.durable_lsn),
                    Step::End | Step::Bad => return Err(self.lost(&reader, next.base_lsn - 1)),
                }
            }
            if reader.chain() != next.previous_chain {
                return Err(Error::corrupt(format!(
                    "{}: the segment does not continue the one before it",
                    self.place.segment(next.number).display()
                )));
            }
        }
        let Some(last) = needed.last() else {
            return Err(Error::corrupt("a log without segments cannot be scanned"));
        };
        let mut reader = self.open(last.number)?;
        let tail = loop {
            match reader.step()? {
                Step::Record(record) => durable = durable.max(record.durable_lsn),
                Step::End => break Tail::default(),
                Step::Bad => break reader.tail()?,
            }
        };
        durable = durable.max(tail.durable_lsn);
        if reader.next_lsn() <= durable {
            return Err(self.lost(&reader, durable));
        }
        Ok(Scan { durable, end: reader.next_lsn() - 1, tail })
    }

    /// The error for a record that is not there, or not what was written, though it was durable.
    fn lost(&self, reader: &SegmentReader, durable: Lsn) -> Error {
        Error::corrupt(format!(
            "{}: record {} at offset {} is damaged or missing, though all up to {durable} were \
             durable",
            self.place.segment(reader.header().number).display(),
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
        };
        let mut current = Appender::create(self.place, header)?;
        let mut torn = Torn { bytes: scan.tail.bytes, records: scan.tail.records };
        while reader.next_lsn() <= scan.end {
            let (lsn, begins_at) = (reader.next_lsn(), reader.offset());
            let payload = self.valid_step(&mut reader)?;
            if !self.intact(&payload)? {
                warn!(lsn, "a log record refers to data that is not there: cut the log before it");
                torn.bytes = reader.file_bytes() - begins_at;
                torn.records += scan.end - lsn + 1;
                break;
            }
            current.append(scan.durable, payload.as_change())?;
            if current.buffered() >= BUFFERED_BYTES_MAX {
                current.write_out()?;
            }
        }
        self.attachments.sync()?;
        current.publish(self.place)?;
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
        let mut done = Replayed { file_bytes: reader.file_bytes(), ..Replayed::default() };
        while reader.next_lsn() <= last_lsn {
            let (lsn, begins_at) = (reader.next_lsn(), reader.offset());
            let payload = self.valid_step(&mut reader)?;
            if lsn <= self.evidence.applied {
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
        info!(segment = number, records = done.records, bytes = done.bytes, "replayed a segment");
        Ok(done)
    }

    /// A record that an earlier pass has found valid.
    fn valid_step(&self, reader: &mut SegmentReader) -> Result<Payload> {
        match reader.step()? {
            Step::Record(header) => Payload::decode(header.kind, reader.payload()),
            Step::End | Step::Bad => Err(self.lost(reader, reader.next_lsn())),
        }
    }

    fn intact(&self, payload: &Payload) -> Result<bool> {
        match payload {
            Payload::Block(block) => self.attachments.intact(block),
            Payload::Plain(_) => Ok(true),
        }
    }

    fn open(&self, number: u64) -> Result<SegmentReader> {
        SegmentReader::open(&*self.place.fs, &self.place.segment(number), number)
    }
}

/// What was replayed from one segment.
#[derive(Debug, Clone, Copy, Default)]
struct Replayed {
    records: u64,
    bytes: u64,
    file_bytes: u64,
}
