//! `inspect_log`: what a log holds and whether it is whole, judged as recovery would judge it.
//!
//! Nothing is changed, not even what an opening would clean up, and a log in use can be looked at:
//! what its owner writes meanwhile is seen in part, as a crash at this moment would leave it.
//!
//! What recovery asks besides is not asked here: whether the data are there that a record refers
//! to, and, if the caller has no [`DatabaseState`], how much of the log the database holds already.
//! Without it every segment is taken to be needed.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::file_system::{FileSystem, read_small};
use crate::wal::MARKER_NAME;
use crate::wal::format::{
    Payload, RECORD_HEADER_BYTES, RECORD_TRAILER_BYTES, RecordHeader, SEGMENT_HEADER_BYTES,
    SegmentHeader, segment_name, segment_number,
};
use crate::wal::marker::decode_marker;
use crate::wal::reader::{SegmentReader, Step, Tail};
use crate::wal::report::{
    Damage, DatabaseState, LogReport, SegmentEnd, SegmentHead, SegmentReport, TornTail, Verdict,
};
use crate::wal_buffered::{BlockBatch, Lsn, Tip, Torn};

/// The file that whoever has the log open has locked.
const LOCK_NAME: &str = "lock";
/// More than a marker has.
const MARKER_BYTES_MAX: usize = 1024;
/// How often a log is listed anew because its owner removed a segment in between.
const ATTEMPTS: u32 = 5;

/// Reads the log in `dir` and says what is in it.
///
/// With the state of its database the judgement is that of an opening, but for data outside the
/// log that its records refer to.
///
/// # Errors
///
/// [`Error::Misuse`] if there is something else in `dir` than a log; or if the file system fails.
/// Damage is no error: it is reported.
pub fn inspect_log(
    fs: &dyn FileSystem,
    dir: &Path,
    database: Option<&DatabaseState>,
) -> Result<LogReport> {
    for _ in 1..ATTEMPTS {
        match (Inspection { fs, dir, database }).run() {
            // Its owner removed a segment after it was listed.
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {}
            result => return result,
        }
    }
    Inspection { fs, dir, database }.run()
}

/// The numbers of the segments in `dir`, in order, and the other names there.
pub(crate) fn list_segments(fs: &dyn FileSystem, dir: &Path) -> Result<(Vec<u64>, Vec<String>)> {
    let (segments, others): (Vec<String>, Vec<String>) =
        fs.list(dir)?.into_iter().partition(|name| segment_number(name).is_some());
    let belongs =
        |name: &String| name == MARKER_NAME || name == LOCK_NAME || name.ends_with(".tmp");
    if segments.is_empty() && !others.is_empty() && !others.iter().any(belongs) {
        return Err(Error::misuse(format!("{} is not the directory of a log", dir.display())));
    }
    let mut numbers: Vec<u64> = segments.iter().filter_map(|name| segment_number(name)).collect();
    numbers.sort_unstable();
    Ok((numbers, others))
}

/// A segment that was read: what it holds, and what the judge needs to know of it.
struct Scan {
    report: SegmentReport,
    header: Option<SegmentHeader>,
    /// The chain value after the last record.
    chain: u32,
    /// Where its records end.
    offset: u64,
    stop: Stop,
    /// The first record whose checksum is right and whose content is not.
    fault: Option<Damage>,
}

impl Scan {
    const fn next_lsn(&self) -> Lsn {
        self.report.last_lsn + 1
    }
}

/// Why no more records were read.
enum Stop {
    /// The header page is not valid.
    Unreadable(Damage),
    /// The next segment takes over.
    Sealed,
    /// The file ends.
    End,
    /// Something else is there than the next record.
    Bad { why: String, tail: Tail },
}

/// One look at a log.
struct Inspection<'a> {
    fs: &'a dyn FileSystem,
    dir: &'a Path,
    database: Option<&'a DatabaseState>,
}

impl Inspection<'_> {
    fn run(&self) -> Result<LogReport> {
        let (numbers, others) = list_segments(self.fs, self.dir)?;
        let marker_path = self.dir.join(MARKER_NAME);
        let marker = match read_small(self.fs, &marker_path, MARKER_BYTES_MAX) {
            Ok(bytes) => bytes.map(|bytes| decode_marker(&bytes)),
            Err(error @ Error::TooLarge { .. }) => Some(Err(error)),
            Err(other) => return Err(other),
        };
        let scans = self.scan(&numbers)?;
        let first_needed = match marker {
            Some(_) => scans.len(),
            None => self.first_needed(&scans),
        };
        let end_lsn = scans.last().map_or(0, |scan| scan.report.last_lsn);
        let (segments, durable_lsn, mut verdict) = self.judge(scans, first_needed);
        let mut report = LogReport {
            dir: self.dir.to_path_buf(),
            in_use: self.in_use(),
            marker: None,
            temporary: others.into_iter().filter(|name| name.ends_with(".tmp")).collect(),
            segments,
            durable_lsn,
            end_lsn,
            verdict: Verdict::Valid,
        };
        if let Some(marker) = marker {
            let damage = |what| Damage { path: marker_path.clone(), offset: 0, lsn: None, what };
            match marker {
                Ok(lsn) => {
                    report.marker = Some(lsn);
                    (report.durable_lsn, report.end_lsn) = (lsn, lsn);
                    verdict = self.marker_fault(lsn).map(damage).map(Verdict::Corrupt);
                }
                Err(error) => verdict = Some(Verdict::Corrupt(damage(text(error, &marker_path)))),
            }
        }
        report.verdict = verdict.unwrap_or(Verdict::Valid);
        Ok(report)
    }

    /// A hint only: the lock is let go at once, and its file is not made.
    fn in_use(&self) -> bool {
        let path = self.dir.join(LOCK_NAME);
        let exists = self.fs.exists(&path).unwrap_or(false);
        exists && matches!(self.fs.lock(&path), Err(Error::Locked { .. }))
    }

    fn marker_fault(&self, marker: Lsn) -> Option<String> {
        let state = self.database?;
        (marker != state.applied_lsn || state.writing_lsn > state.applied_lsn).then(|| {
            format!(
                "a clean shutdown left all batches up to {marker} in the database, which holds \
                 those up to {}",
                state.applied_lsn
            )
        })
    }

    /// The first segment that holds a record which the database lacks: as recovery selects them.
    fn first_needed(&self, scans: &[Scan]) -> usize {
        let Some(state) = self.database else {
            return 0;
        };
        let mut next_number = None;
        for (index, scan) in scans.iter().enumerate().rev() {
            let number = scan.report.number;
            let is_gap = next_number.is_some_and(|next| next != number + 1);
            let reaches = scan.header.is_none_or(|header| header.base_lsn <= state.applied_lsn + 1);
            if is_gap || reaches {
                return index;
            }
            next_number = Some(number);
        }
        0
    }

    /// Reads all segments, each up to where the next one takes over.
    fn scan(&self, numbers: &[u64]) -> Result<Vec<Scan>> {
        let open = |number: &u64| self.open(*number);
        // Two at a time are open.
        let mut readers = numbers.iter().map(open);
        let mut chain_of_blocks = Follows { database: self.database, previous: None };
        let mut scans: Vec<Scan> = Vec::new();
        let mut current = readers.next().transpose()?;
        for number in numbers {
            let next = readers.next().transpose()?;
            let next_base = match &next {
                Some(Ok(reader)) if reader.header().number == number + 1 => {
                    Some(reader.header().base_lsn)
                }
                _ => None,
            };
            let scan = match current {
                Some(Ok(reader)) => self.scan_segment(reader, next_base, &mut chain_of_blocks)?,
                Some(Err(damage)) => {
                    chain_of_blocks.previous = None;
                    self.unreadable(*number, damage)?
                }
                None => break,
            };
            scans.push(scan);
            current = next;
        }
        Ok(scans)
    }

    fn path(&self, number: u64) -> PathBuf {
        self.dir.join(segment_name(number))
    }

    fn open(&self, number: u64) -> Result<std::result::Result<SegmentReader, Damage>> {
        let path = self.path(number);
        match SegmentReader::open(self.fs, &path, number) {
            Ok(reader) => Ok(Ok(reader)),
            Err(error @ (Error::Corrupt { .. } | Error::Version { .. })) => {
                let what = text(error, &path);
                Ok(Err(Damage { path, offset: 0, lsn: None, what }))
            }
            Err(other) => Err(other),
        }
    }

    fn unreadable(&self, number: u64, damage: Damage) -> Result<Scan> {
        let path = self.path(number);
        let file_bytes = self.fs.open(&path)?.len()?;
        let report = SegmentReport { file_bytes, ..SegmentReport::new(number, path) };
        let stop = Stop::Unreadable(damage);
        Ok(Scan { report, header: None, chain: 0, offset: 0, stop, fault: None })
    }

    fn scan_segment(
        &self,
        mut reader: SegmentReader,
        next_base: Option<Lsn>,
        follows: &mut Follows<'_>,
    ) -> Result<Scan> {
        let header = *reader.header();
        let path = self.path(header.number);
        let head = SegmentHead::new(&header, self.version(&path)?);
        let mut report = SegmentReport {
            file_bytes: reader.file_bytes(),
            head: Some(head),
            durable_lsn: header.base_lsn - 1,
            ..SegmentReport::new(header.number, path.clone())
        };
        let mut fault = None;
        let stop = loop {
            if next_base.is_some_and(|next| reader.next_lsn() >= next) {
                break Stop::Sealed;
            }
            let offset = reader.offset();
            match reader.step()? {
                Step::Record(record) => {
                    report.records += 1;
                    report.durable_lsn = report.durable_lsn.max(record.durable_lsn);
                    let checked = Payload::decode(&record, reader.payload())
                        .and_then(|payload| follows.check(record.lsn, &payload));
                    match checked {
                        Ok(Some(tip)) => {
                            let first = report.heights.map_or(tip.height, |(first, _)| first);
                            report.heights = Some((first, tip.height));
                        }
                        Ok(None) => {}
                        Err(error) => {
                            let what = text(error, &path);
                            let lsn = Some(record.lsn);
                            let path = path.clone();
                            fault.get_or_insert(Damage { path, offset, lsn, what });
                        }
                    }
                }
                Step::End if !header.roomy => break Stop::End,
                end @ (Step::End | Step::Bad) => {
                    let (why, tail) = (self.why(&path, &reader)?, reader.tail(end == Step::Bad)?);
                    if end == Step::End && tail.records == 0 {
                        break Stop::End;
                    }
                    report.durable_lsn = report.durable_lsn.max(tail.durable_lsn);
                    follows.previous = None;
                    break Stop::Bad { why, tail };
                }
            }
        };
        report.last_lsn = reader.next_lsn() - 1;
        report.record_bytes = reader.offset().saturating_sub(header_bytes());
        let (chain, offset) = (reader.chain(), reader.offset());
        Ok(Scan { report, header: Some(header), chain, offset, stop, fault })
    }

    /// The version in a header page that was found valid.
    fn version(&self, path: &Path) -> Result<u32> {
        let mut bytes = [0; 4];
        self.fs.open(path)?.read_at(8, &mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    /// What is wrong with the bytes at which the reader stopped.
    fn why(&self, path: &Path, reader: &SegmentReader) -> Result<String> {
        let mut head = [0; RECORD_HEADER_BYTES];
        let read = self.fs.open(path)?.read_at(reader.offset(), &mut head)?;
        let left = reader.file_bytes().saturating_sub(reader.offset());
        if read < RECORD_HEADER_BYTES {
            return Ok("the file ends within the record's header".to_owned());
        }
        if head == [0; RECORD_HEADER_BYTES] {
            return Ok("there are zeros".to_owned());
        }
        Ok(match RecordHeader::decode(&head, reader.header().generation) {
            None => "the record's header is damaged".to_owned(),
            Some(header) if header.lsn != reader.next_lsn() => {
                format!("there is record {}", header.lsn)
            }
            Some(header) if record_bytes(&header) > left => {
                "the file ends within the record".to_owned()
            }
            Some(_) => "the record's checksum is wrong".to_owned(),
        })
    }

    /// Decides over the segments from `first_needed` on, with the rule of recovery: what is not
    /// valid and was durable is damage, what is not valid and was not is a torn tail.
    fn judge(
        &self,
        scans: Vec<Scan>,
        first_needed: usize,
    ) -> (Vec<SegmentReport>, Lsn, Option<Verdict>) {
        let state = self.database.copied().unwrap_or_default();
        let durable = scans
            .iter()
            .skip(first_needed)
            .map(|scan| scan.report.durable_lsn)
            .fold(state.applied_lsn.max(state.writing_lsn), Lsn::max);
        let mut damage = self.missing_front(&scans, first_needed);
        let mut torn = None;
        let mut segments = Vec::new();
        let mut rest = scans.into_iter().enumerate().peekable();
        while let Some((index, mut scan)) = rest.next() {
            if index >= first_needed {
                let next = rest.peek().map(|(_, next)| next);
                let (end, between) = self.judge_segment(&scan, next, durable);
                damage = damage.or(match &end {
                    SegmentEnd::Corrupt(damage) => Some(damage.clone()),
                    _ => between,
                });
                torn = match end {
                    SegmentEnd::Torn(tail) => Some(tail),
                    _ => None,
                };
                scan.report.end = end;
            }
            segments.push(scan.report);
        }
        let verdict = damage.map(Verdict::Corrupt).or(torn.map(Verdict::Torn));
        (segments, durable, verdict)
    }

    /// The records between the database and the first segment.
    fn missing_front(&self, scans: &[Scan], first_needed: usize) -> Option<Damage> {
        let state = self.database?;
        let next_lsn = state.applied_lsn + 1;
        let is_new = state.applied_lsn == 0 && state.writing_lsn == 0;
        let is_missing = match scans.get(first_needed) {
            Some(scan) => scan.header.is_some_and(|header| header.base_lsn > next_lsn),
            // A marker makes all segments left-overs.
            None => scans.is_empty() && !is_new && !self.has_marker(),
        };
        is_missing.then(|| Damage {
            path: self.dir.to_path_buf(),
            offset: 0,
            lsn: Some(next_lsn),
            what: format!("the segment that holds record {next_lsn} is missing"),
        })
    }

    fn has_marker(&self) -> bool {
        self.fs.exists(&self.dir.join(MARKER_NAME)).unwrap_or(false)
    }

    /// How a needed segment ends, and what is wrong between it and the next one.
    fn judge_segment(
        &self,
        scan: &Scan,
        next: Option<&Scan>,
        durable: Lsn,
    ) -> (SegmentEnd, Option<Damage>) {
        let number = scan.report.number;
        if let Stop::Unreadable(damage) = &scan.stop {
            return (SegmentEnd::Corrupt(damage.clone()), None);
        }
        if let Some(fault) = &scan.fault {
            return (SegmentEnd::Corrupt(fault.clone()), None);
        }
        let between = next.and_then(|next| self.break_between(scan, next));
        // At a gap it is the missing segment that lacks the next record, not this one.
        let is_gap = next.is_some_and(|next| next.report.number != number + 1);
        let end = match &scan.stop {
            Stop::Sealed => {
                let ignored_bytes = scan.report.file_bytes.saturating_sub(scan.offset);
                SegmentEnd::Sealed { ignored_bytes }
            }
            Stop::End if scan.next_lsn() > durable || is_gap => SegmentEnd::Clean,
            Stop::Bad { tail, .. } if scan.next_lsn() > durable => {
                let torn = Torn { bytes: tail.bytes, records: tail.records };
                SegmentEnd::Torn(TornTail { segment: number, offset: scan.offset, torn })
            }
            Stop::Bad { why, .. } => SegmentEnd::Corrupt(lost(scan, why, durable)),
            _ => SegmentEnd::Corrupt(lost(scan, "the file ends there", durable)),
        };
        (end, between)
    }

    /// What is wrong between two segments that are both readable.
    fn break_between(&self, scan: &Scan, next: &Scan) -> Option<Damage> {
        let (header, next_header) = (scan.header?, next.header?);
        let damage = |number, what: &str| Damage {
            path: self.path(number),
            offset: 0,
            lsn: Some(scan.next_lsn()),
            what: what.to_owned(),
        };
        if next_header.number != header.number + 1 {
            return Some(damage(header.number + 1, "the segment is missing"));
        }
        if next_header.base_lsn < header.base_lsn {
            return Some(damage(next_header.number, "it begins before the segment in front of it"));
        }
        let is_sealed = matches!(scan.stop, Stop::Sealed);
        (is_sealed && scan.chain != next_header.previous_chain)
            .then(|| damage(next_header.number, "it does not continue the segment before it"))
    }
}

/// Each block's record must follow the one before it.
struct Follows<'a> {
    database: Option<&'a DatabaseState>,
    /// The hash of the tip; none if it is not known.
    previous: Option<[u8; 32]>,
}

impl Follows<'_> {
    fn check(&mut self, lsn: Lsn, payload: &Payload) -> Result<Option<Tip>> {
        let hash_of = |tip: Option<Tip>| tip.map_or([0; 32], |tip| tip.hash);
        let state = self.database.filter(|state| state.applied_lsn + 1 == lsn);
        let begins = (lsn == 1).then(|| hash_of(None));
        let previous = state.map(|state| hash_of(state.tip)).or(begins).or(self.previous);
        let Payload::Block(BlockBatch { tip, prev_hash, .. }) = payload else {
            self.previous = previous;
            return Ok(None);
        };
        self.previous = Some(tip.hash);
        // What the database holds is not replayed, and so not compared.
        let is_replayed = self.database.is_none_or(|state| lsn > state.applied_lsn);
        if is_replayed && previous.is_some_and(|previous| previous != *prev_hash) {
            let what = "the record does not follow the tip of the one before it";
            return Err(Error::corrupt(what));
        }
        Ok(Some(*tip))
    }
}

fn lost(scan: &Scan, why: &str, durable: Lsn) -> Damage {
    let lsn = scan.next_lsn();
    Damage {
        path: scan.report.path.clone(),
        offset: scan.offset,
        lsn: Some(lsn),
        what: format!("{why}; all records up to {durable} were durable"),
    }
}

/// What an error says, without the path that is reported beside it.
fn text(error: Error, path: &Path) -> String {
    match error {
        Error::Corrupt { what } => {
            what.strip_prefix(&format!("{}: ", path.display())).unwrap_or(&what).to_owned()
        }
        other => other.chain(),
    }
}

fn header_bytes() -> u64 {
    u64::try_from(SEGMENT_HEADER_BYTES).unwrap_or(u64::MAX)
}

fn record_bytes(header: &RecordHeader) -> u64 {
    let bytes = RECORD_HEADER_BYTES + header.payload_len() + RECORD_TRAILER_BYTES;
    u64::try_from(bytes).unwrap_or(u64::MAX)
}
