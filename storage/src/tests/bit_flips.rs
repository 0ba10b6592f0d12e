//! Every bit of a log of 256 KiB is flipped, every byte and sector of it is another, it is cut at
//! every byte: the records come back that were written, or "corrupt" does.

use std::ops::Range;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use super::damaged_log::{DamagedLog, LOG_BYTES, Outcome, segment};
use super::image::ImageFs;
use crate::Torn;
use crate::testing::{Random, effort};
use crate::wal::format::{RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES};

const SECTOR_BYTES: usize = 512;
const THREADS: usize = 2;
/// So many cases in a row are done by one thread: the end of a log takes longer than its start.
const CHUNK: usize = 64;

/// A log every record of which is proven durable, and one with a last group that is not.
fn logs() -> [(&'static str, DamagedLog); 2] {
    [("witnessed", DamagedLog::witnessed(1)), ("unclean", DamagedLog::unclean(2))]
}

/// How often each outcome came.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    corrupt: u64,
    torn: u64,
    whole: u64,
}

impl Tally {
    fn add(&mut self, log: &DamagedLog, outcome: Outcome) {
        match outcome {
            Outcome::Corrupt => self.corrupt += 1,
            Outcome::Records(count, _) if count == log.records.len() => self.whole += 1,
            Outcome::Records(..) => self.torn += 1,
        }
    }

    const fn cases(self) -> u64 {
        self.corrupt + self.torn + self.whole
    }
}

/// Runs cases on two threads, each with an image of its own.
fn run(
    log: &DamagedLog,
    cases: impl Iterator<Item = usize> + Clone + Send,
    check: impl Fn(&Arc<ImageFs>, usize) -> Outcome + Sync,
) -> Tally {
    let tallies: Vec<Tally> = thread::scope(|scope| {
        let run_one = |mine: usize| {
            let (cases, check) = (cases.clone(), &check);
            scope.spawn(move || {
                let image = log.image();
                let mut tally = Tally::default();
                for (index, case) in cases.enumerate() {
                    if index / CHUNK % THREADS == mine {
                        tally.add(log, check(&image, case));
                    }
                }
                tally
            })
        };
        let threads: Vec<_> = (0..THREADS).map(run_one).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let sum = |of: fn(&Tally) -> u64| tallies.iter().map(of).sum();
    Tally { corrupt: sum(|t| t.corrupt), torn: sum(|t| t.torn), whole: sum(|t| t.whole) }
}

/// The segment's index and the offset in it of a byte of the whole log.
fn locate(log: &DamagedLog, mut at: usize) -> (usize, usize) {
    for (index, bytes) in log.segments.iter().enumerate() {
        if at < bytes.len() {
            return (index, at);
        }
        at -= bytes.len();
    }
    panic!("byte {at} behind the end of the log");
}

fn number(index: usize) -> u64 {
    u64::try_from(index + 1).unwrap()
}

/// XORs one byte, opens, and XORs it again.
fn open_with_xor(
    log: &DamagedLog,
    image: &Arc<ImageFs>,
    (index, at): (usize, usize),
    xor: u8,
) -> Outcome {
    let path = segment(number(index));
    image.edit(&path, |bytes| bytes[at] ^= xor);
    let outcome = log.open(image);
    image.edit(&path, |bytes| bytes[at] ^= xor);
    outcome
}

fn check_bit(log: &DamagedLog, image: &Arc<ImageFs>, bit: usize) -> Outcome {
    let (index, at) = locate(log, bit / 8);
    let outcome = open_with_xor(log, image, (index, at), 1 << (bit % 8));
    let expected = log.expected_at(index, at);
    assert_eq!(outcome, expected, "bit {} of byte {at} of segment {index}", bit % 8);
    outcome
}

fn report(what: &str, name: &str, tally: Tally, started: Instant) {
    println!("{what}, {name}: {} cases, {tally:?}, {:?}", tally.cases(), started.elapsed());
}

#[test]
fn the_logs_open_whole_when_nothing_is_damaged() {
    for (name, log) in logs() {
        assert_eq!(log.segments.iter().map(Vec::len).sum::<usize>(), LOG_BYTES);
        assert_eq!(log.segments.len(), 3, "{name}");
        assert_eq!(log.open(&log.image()), log.whole(), "{name}");
    }
}

#[test]
fn every_bit_flip_is_corruption_or_a_torn_last_group() {
    let stride = effort().pick(997, 1, 1);
    for (name, log) in logs() {
        let started = Instant::now();
        let bits = (0..LOG_BYTES * 8).step_by(stride);
        let tally = run(&log, bits, |image, bit| check_bit(&log, image, bit));
        report("bit flips", name, tally, started);
        assert_eq!(tally.whole, 0, "{name}: a flip was not noticed");
        assert_eq!(tally.torn > 0, name == "unclean", "{name}: {tally:?}");
    }
}

#[test]
fn every_byte_of_zeros_or_ones_is_corruption_or_a_torn_last_group() {
    let stride = effort().pick(499, 1, 1);
    for (name, log) in logs() {
        let started = Instant::now();
        let cases = (0..LOG_BYTES * 2).step_by(stride);
        let tally = run(&log, cases, |image, case| {
            let (index, at) = locate(&log, case / 2);
            let old = log.segments[index][at];
            let new = if case % 2 == 0 { 0 } else { 0xff };
            let outcome = open_with_xor(&log, image, (index, at), old ^ new);
            let expected = if old == new { log.whole() } else { log.expected_at(index, at) };
            assert_eq!(outcome, expected, "byte {at} of segment {index} is {new}");
            outcome
        });
        report("bytes set to 00 and ff", name, tally, started);
    }
}

/// A segment that is not the last is whole by the seal of the next; the last one may end anywhere
/// above what is known to be durable.
#[test]
fn every_truncation_is_corruption_or_a_torn_last_group() {
    let stride = effort().pick(211, 1, 1);
    for (name, log) in logs() {
        let started = Instant::now();
        let lengths = (0..LOG_BYTES).step_by(stride);
        let tally = run(&log, lengths, |image, len| check_cut(&log, image, locate(&log, len)));
        report("truncations", name, tally, started);
        assert_eq!(tally.whole, 0, "{name}: a truncation was not noticed");
    }
}

fn check_cut(log: &DamagedLog, image: &Arc<ImageFs>, (index, len): (usize, usize)) -> Outcome {
    let path = segment(number(index));
    let tail = image.edit(&path, |bytes| bytes.split_off(len));
    let outcome = log.open(image);
    image.edit(&path, |bytes| bytes.extend_from_slice(&tail));
    let expected = log.record_at(index, len).map_or(Outcome::Corrupt, |first| {
        let cut_header = len < log.records[first].begins + RECORD_HEADER_BYTES;
        let kept = usize::from(!cut_header);
        let lost: Vec<usize> = (first + kept..log.records.len()).collect();
        match log.expected(first, &lost) {
            Outcome::Records(count, _) => {
                let bytes = u64::try_from(len - log.records[first].begins).unwrap();
                let records = u64::from(!cut_header);
                Outcome::Records(count, (bytes > 0).then_some(Torn { bytes, records }))
            }
            Outcome::Corrupt => Outcome::Corrupt,
        }
    });
    assert_eq!(outcome, expected, "segment {index} cut to {len}");
    outcome
}

/// Replaces a range of bytes of a segment, opens, and puts the old bytes back.
fn check_replaced(
    log: &DamagedLog,
    image: &Arc<ImageFs>,
    index: usize,
    (range, new): (Range<usize>, &[u8]),
    label: &str,
) {
    let path = segment(number(index));
    image.edit(&path, |bytes| bytes[range.clone()].copy_from_slice(new));
    log.check_changed(image, index, label);
    let old = &log.segments[index][range.clone()];
    image.edit(&path, |bytes| bytes[range].copy_from_slice(old));
}

/// What a disk does that loses a write, or puts one where it does not belong.
#[test]
fn every_sector_zeroed_swapped_or_written_twice_is_found() {
    let mut cases = 0;
    for (name, log) in logs() {
        let image = log.image();
        for (index, bytes) in log.segments.iter().enumerate() {
            for from in (0..bytes.len()).step_by(SECTOR_BYTES) {
                let to = bytes.len().min(from + SECTOR_BYTES);
                let label = |what| format!("{name}: sector {from} of segment {index} {what}");
                let zeros = vec![0; to - from];
                check_replaced(&log, &image, index, (from..to, &zeros), &label("zeroed"));
                let end = to + SECTOR_BYTES;
                let Some(next) = bytes.get(to..end) else { continue };
                let this = &bytes[from..to];
                let swapped = [next, this].concat();
                check_replaced(&log, &image, index, (from..end, &swapped), &label("swapped"));
                check_replaced(&log, &image, index, (to..end, this), &label("written twice"));
                check_replaced(&log, &image, index, (from..to, next), &label("written early"));
                cases += 4;
            }
        }
    }
    println!("{cases} damaged sectors");
}

#[test]
fn every_two_bit_flips_in_one_record_header_are_found() {
    let stride = effort().pick(97, 1, 1);
    let mut cases = 0;
    for (name, log) in logs() {
        let image = log.image();
        let count = log.records.len();
        // Sealed; in the last segment; the first and the last without a witness.
        for record in [0, count - 20, count - 9, count - 1] {
            let span = log.records[record];
            let bits = RECORD_HEADER_BYTES * 8;
            let pairs = (0..bits).flat_map(|one| (one + 1..bits).map(move |two| (one, two)));
            for (one, two) in pairs.step_by(stride) {
                let flip = |bytes: &mut Vec<u8>| {
                    for bit in [one, two] {
                        bytes[span.begins + bit / 8] ^= 1 << (bit % 8);
                    }
                };
                let path = segment(number(span.segment));
                image.edit(&path, flip);
                let outcome = log.open(&image);
                image.edit(&path, flip);
                let expected = log.expected(record, &[record]);
                assert_eq!(outcome, expected, "{name}: bits {one}, {two} of header {record}");
                cases += 1;
            }
        }
    }
    println!("{cases} pairs of bits");
}

#[test]
fn random_bursts_are_found() {
    let rounds = effort().pick(300, 20_000, 200_000);
    for (name, log) in logs() {
        let image = log.image();
        let mut random = Random::new(4);
        for round in 0..rounds {
            let index = random.below(log.segments.len());
            let bytes = log.segments[index].len();
            let from = random.below(bytes);
            let most = [4, 64, 4096][random.below(3)];
            let len = 1 + random.below(most.min(bytes - from));
            let burst = random.bytes(len);
            let label = format!("{name}: round {round}, {len} bytes at {from} of segment {index}");
            check_replaced(&log, &image, index, (from..from + len, &burst), &label);
        }
    }
    println!("{rounds} bursts in each log");
}

/// Every way to lose, mix up and double whole segments; also those of another life of the log,
/// which have the same numbers and the same batches but another generation.
#[test]
fn segments_missing_swapped_doubled_or_stale_are_found() {
    for (name, make) in [
        ("witnessed", DamagedLog::witnessed as fn(u64) -> DamagedLog),
        ("unclean", DamagedLog::unclean),
    ] {
        check_segments(name, &make(3), &make(3));
    }
}

fn check_segments(name: &str, log: &DamagedLog, stale: &DamagedLog) {
    let image = log.image();
    let expect_corrupt = |label: String| {
        assert_eq!(log.open(&image), Outcome::Corrupt, "{name}: {label}");
    };
    let count = log.segments.len();
    for one in 0..count {
        image.hide(&segment(number(one)));
        if one + 1 < count {
            expect_corrupt(format!("{one} is missing"));
        } else {
            assert_eq!(log.open(&image), log.without_last_segment(), "{name}: no last one");
        }
        image.plant(&segment(number(one)), &stale.segments[one]);
        expect_corrupt(format!("{one} is stale"));
        image.plant(&segment(number(count)), &stale.segments[one]);
        expect_corrupt(format!("{one} is stale, under the next number"));
        image.plant(&segment(number(count)), &log.segments[one]);
        expect_corrupt(format!("{one} is there again as the next"));
        for two in (0..count).filter(|two| *two != one) {
            image.plant(&segment(number(one)), &log.segments[two]);
            expect_corrupt(format!("{two} instead of {one}"));
            image.plant(&segment(number(one)), &log.segments[two]);
            image.plant(&segment(number(two)), &log.segments[one]);
            expect_corrupt(format!("{one} and {two} are swapped"));
        }
    }
    image.hide(&segment(1));
    image.hide(&segment(2));
    expect_corrupt("only the last is there".to_owned());
    image.plant(&segment(1), &stale.segments[0]);
    image.plant(&segment(2), &stale.segments[1]);
    expect_corrupt("all but the last are stale".to_owned());
}

/// A file that is used again holds records of another life behind its own: here even the same
/// ones, at the same places, of another generation. They are neither records nor evidence.
fn check_records_of_another_life(log: &DamagedLog, stale: &DamagedLog) {
    let (image, count) = (log.image(), log.records.len());
    let last = log.segments.len() - 1;
    for first in count - 12..count {
        let begins = log.records[first].begins;
        assert_eq!(stale.records[first].begins, begins);
        let bytes = [&log.segments[last][..begins], &stale.segments[last][begins..]].concat();
        image.edit(&segment(number(last)), |to| *to = bytes);
        let lost: Vec<usize> = (first..count).collect();
        let expected = log.expected(first, &lost);
        assert_eq!(log.open(&image), expected, "another life from record {first} on");
        image.edit(&segment(number(last)), |to| to.clone_from(&log.segments[last]));
    }
}

#[test]
fn records_of_another_life_are_neither_records_nor_evidence() {
    for make in [DamagedLog::witnessed as fn(u64) -> DamagedLog, DamagedLog::unclean] {
        check_records_of_another_life(&make(3), &make(3));
    }
}

/// Segments that the database does not need any more may be damaged or gone: a crash lets their
/// removal reach the disk in any order.
#[test]
fn damage_to_an_obsolete_segment_is_nobodys_business() {
    let mut log = DamagedLog::unclean(5);
    let sealed = log.records.iter().filter(|record| record.segment == 0).count();
    log.evidence.applied = u64::try_from(sealed).unwrap();
    log.evidence.writing = log.evidence.applied;
    let image = log.image();
    for at in (0..log.segments[0].len()).step_by(101) {
        assert_eq!(open_with_xor(&log, &image, (0, at), 0x40), log.whole(), "byte {at}");
    }
    for len in (0..log.segments[0].len()).step_by(1009) {
        image.plant(&segment(1), &log.segments[0][..len]);
        assert_eq!(log.open(&image), log.whole(), "cut to {len}");
    }
    image.hide(&segment(1));
    assert_eq!(log.open(&image), log.whole(), "removed");
    // The ones that are needed still are.
    let at = SEGMENT_HEADER_BYTES + 7;
    assert_eq!(open_with_xor(&log, &image, (1, at), 0x40), Outcome::Corrupt);
}

/// A sample of all this on one thread: panics if damage is not found, or found where none is.
pub(super) fn detect() {
    for (name, log) in logs() {
        let image = log.image();
        assert_eq!(log.open(&image), log.whole(), "{name}");
        for bit in (0..LOG_BYTES * 8).step_by(6007) {
            check_bit(&log, &image, bit);
        }
        for len in (0..LOG_BYTES).step_by(1499) {
            check_cut(&log, &image, locate(&log, len));
        }
        // The end of the log, where records are not proven, more closely.
        let last = log.segments.len() - 1;
        let from = log.records[log.records.len() - 12].begins;
        for at in (from..log.segments[last].len()).step_by(61) {
            let outcome = open_with_xor(&log, &image, (last, at), 0x10);
            assert_eq!(outcome, log.expected_at(last, at), "{name}: byte {at}");
            check_cut(&log, &image, (last, at));
        }
    }
    for make in [DamagedLog::witnessed as fn(u64) -> DamagedLog, DamagedLog::unclean] {
        check_segments("detect", &make(3), &make(3));
        check_records_of_another_life(&make(3), &make(3));
    }
}
