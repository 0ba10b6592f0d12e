//! Ways to append records to a log, side by side, and this project's log among them.
//!
//! 10,000 records of 4 to 36 KB of block batches, 200 MB, go to one file; it is closed at the end
//! and never fsynced. The writers here are minimal: length, CRC, perhaps a timestamp, payload.
//! Syscalls are counted by `strace -c` of a run of this program that does nothing else, less
//! those of a run that writes nothing.
//!
//! `COFFERDAM_BENCH_RECORDS` (10,000) and `COFFERDAM_BENCH_ROUNDS` (3) set the scale.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{SystemTime, UNIX_EPOCH};

use cofferdam_benches::TREE;
use cofferdam_benches::coin_load::CoinLoad;
use cofferdam_benches::null::SinkDatabase;
use cofferdam_benches::report::{Sample, Spent, Table, alternate, from_env, words};
use cofferdam_storage::testing::Random;
use cofferdam_storage::{
    Batch, Database, Durability, LogWriter, NoAttachments, SegmentFiles, StdFileSystem,
    WalBuffered, WalOptions,
};
use memmap2::MmapMut;

const SEED: u64 = 1;
/// Records that wait for the thread behind the channel, at most.
const CHANNEL_RECORDS: usize = 64;
/// By how much the mapped file grows.
const MAP_BYTES: usize = 64 << 20;

fn main() {
    let records = Records::generate(from_env("COFFERDAM_BENCH_RECORDS", 10_000));
    let cases = cases();
    if let [word, number] = words().as_slice()
        && word == "child"
    {
        let number: usize = number.parse().expect("a number");
        // The number behind the last case is the run that writes nothing.
        if let Some(case) = cases.get(number) {
            case.run(&records);
        }
        return;
    }
    let rounds = from_env("COFFERDAM_BENCH_ROUNDS", 3);
    let megabytes = records.bytes as f64 / 1e6;
    println!("{} records, {megabytes:.0} MB, {rounds} rounds\n", records.ranges.len());
    let spent = alternate(rounds, &cases, |case| case.run(&records));
    let idle = syscalls(cases.len());
    let mut table = Table::new(&[
        "writer",
        "median ms",
        "best ms",
        "MB/s",
        "CPU ms",
        "syscalls a record",
        "MB written",
    ]);
    for (number, (case, results)) in cases.iter().zip(spent).enumerate() {
        let of = |pick: fn(&(Spent, u64)) -> f64| Sample::new(results.iter().map(pick).collect());
        let wall = of(|(spent, _)| spent.wall);
        let calls = syscalls(number).zip(idle).map(|(calls, idle)| calls.saturating_sub(idle));
        let calls = calls.map(|calls| calls as f64 / records.ranges.len() as f64);
        table.row([
            case.name(),
            format!("{:.0}", wall.median() * 1e3),
            format!("{:.0}", wall.min() * 1e3),
            format!("{:.0}", megabytes / wall.median()),
            format!("{:.0}", of(|(spent, _)| spent.processor).median() * 1e3),
            calls.map_or(String::new(), |calls| format!("{calls:.2}")),
            format!("{:.0}", of(|(_, bytes)| *bytes as f64).median() / 1e6),
        ]);
    }
    println!("{table}");
    println!("CPU is that of the thread that calls the writer.");
}

/// All that is measured, in the order of the table.
fn cases() -> Vec<Case> {
    let plain = Encoding { timestamp: false, allocations: 1, lz4: false };
    let kinds = [
        Kind::Reopened,
        Kind::Direct,
        Kind::Buffered(8 << 10),
        Kind::Buffered(64 << 10),
        Kind::Channel,
        Kind::Mapped,
    ];
    let mut cases: Vec<Case> = kinds.map(|kind| Case::Minimal(kind, plain)).into();
    for (timestamp, allocations, lz4) in [
        (true, 1, false),
        (false, 2, false),
        (true, 2, false),
        (false, 1, true),
        (true, 1, true),
        (false, 2, true),
        (true, 2, true),
    ] {
        let encoding = Encoding { timestamp, allocations, lz4 };
        cases.push(Case::Minimal(Kind::Buffered(64 << 10), encoding));
    }
    cases.extend(
        own_options().into_iter().map(|(name, options)| Case::Own(name, Box::new(options))),
    );
    cases
}

/// This project's own log, a line an option.
fn own_options() -> Vec<(&'static str, WalOptions)> {
    let options = WalOptions { memtable_bytes: 128 << 20, ..WalOptions::default() };
    let preallocated = SegmentFiles::Preallocated;
    let (thread, mapped) = (LogWriter::Thread { bytes_min: 0 }, LogWriter::Mapped);
    vec![
        ("relaxed", options.clone()),
        ("relaxed, LZ4", WalOptions { compress_bytes_min: Some(256), ..options.clone() }),
        ("relaxed, preallocated", WalOptions { segment_files: preallocated, ..options.clone() }),
        (
            "relaxed, recycled",
            WalOptions { segment_files: SegmentFiles::Recycled, ..options.clone() },
        ),
        ("relaxed, writer thread", WalOptions { writer: thread, ..options.clone() }),
        ("relaxed, mapped", WalOptions { writer: mapped, ..options.clone() }),
        ("async", WalOptions { durability: Durability::Async, ..options }),
    ]
}

/// One line of the table.
enum Case {
    Minimal(Kind, Encoding),
    Own(&'static str, Box<WalOptions>),
}

/// A minimal writer.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Reopened,
    Direct,
    Buffered(usize),
    Channel,
    Mapped,
}

/// How a record becomes bytes.
#[derive(Debug, Clone, Copy)]
struct Encoding {
    timestamp: bool,
    /// One: header and payload go into one new buffer. Two: the payload is made first.
    allocations: u32,
    lz4: bool,
}

impl Case {
    fn name(&self) -> String {
        match self {
            Self::Own(name, _) => format!("Cofferdam, {name}, buffer included"),
            Self::Minimal(kind, encoding) => {
                let kind = match kind {
                    Kind::Reopened => "opened and closed for each record".to_owned(),
                    Kind::Direct => "one write a record".to_owned(),
                    Kind::Buffered(bytes) => format!("buffer of {} KiB", bytes >> 10),
                    Kind::Channel => "channel to a thread".to_owned(),
                    Kind::Mapped => "memory-mapped".to_owned(),
                };
                let timestamp = if encoding.timestamp { ", timestamp" } else { "" };
                let allocations = if encoding.allocations == 2 { ", two allocations" } else { "" };
                let lz4 = if encoding.lz4 { ", LZ4" } else { "" };
                format!("{kind}{timestamp}{allocations}{lz4}")
            }
        }
    }

    /// Writes all records; returns the time, and the bytes on disk.
    fn run(&self, records: &Records) -> (Spent, u64) {
        let dir = tempfile::tempdir().expect("room");
        match self {
            Self::Own(_, options) => run_own(records, options, dir.path()),
            Self::Minimal(kind, encoding) => {
                let path = dir.path().join("log");
                let ((), spent) = Spent::on(|| {
                    let mut writer = kind.create(&path);
                    for record in records.iter() {
                        writer.append(encoding.encode(record));
                    }
                    writer.close();
                });
                (spent, path.metadata().expect("was written").len())
            }
        }
    }
}

/// Each record is a batch of one put, applied to a store over a sink.
fn run_own(records: &Records, options: &WalOptions, dir: &Path) -> (Spent, u64) {
    let fs = Arc::new(StdFileSystem);
    let opened = WalBuffered::open(options.clone(), fs, dir, SinkDatabase, Arc::new(NoAttachments));
    let (store, _) = opened.expect("opens");
    let batch_of = |record: &[u8]| {
        let mut batch = Batch::with_capacity(record.len() + 64);
        batch.put(TREE, b"record", record);
        batch
    };
    let batches: Vec<Batch> = records.iter().map(batch_of).collect();
    let bytes = batches.iter().map(|batch| batch.byte_len() as u64 + 29).sum();
    let apply = |batch: &Batch| store.apply(batch).expect("room");
    (Spent::on(|| batches.iter().for_each(apply)).1, bytes)
}

impl Encoding {
    fn encode(self, record: &[u8]) -> Vec<u8> {
        let payload = match (self.lz4, self.allocations) {
            (true, _) => Some(lz4_flex::compress_prepend_size(record)),
            (false, 2) => Some(record.to_vec()),
            _ => None,
        };
        let payload = payload.as_deref().unwrap_or(record);
        // A second buffer only where it is asked for: the compressor has made the first.
        let mut bytes = Vec::with_capacity(payload.len() + 16);
        bytes.extend_from_slice(&u32::try_from(payload.len()).expect("small").to_le_bytes());
        bytes.extend_from_slice(&crc32fast::hash(payload).to_le_bytes());
        if self.timestamp {
            bytes.extend_from_slice(&now_ms().to_le_bytes());
        }
        bytes.extend_from_slice(payload);
        bytes
    }
}

#[expect(clippy::disallowed_methods, reason = "what a timestamp in a record costs is the question")]
fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    u64::try_from(now.as_millis()).expect("before the year 500 million")
}

/// Appends encoded records to a file.
trait Writer {
    fn append(&mut self, record: Vec<u8>);
    fn close(self: Box<Self>);
}

impl Kind {
    fn create(self, path: &Path) -> Box<dyn Writer> {
        let create = || File::create_new(path).expect("room");
        match self {
            Self::Reopened => Box::new(Reopened { path: path.to_owned() }),
            Self::Direct => Box::new(Plain(create())),
            Self::Buffered(bytes) => Box::new(Plain(BufWriter::with_capacity(bytes, create()))),
            Self::Channel => Box::new(Channel::start(create())),
            Self::Mapped => Box::new(Mapped::new(path)),
        }
    }
}

struct Reopened {
    path: PathBuf,
}

impl Writer for Reopened {
    fn append(&mut self, record: Vec<u8>) {
        let file = OpenOptions::new().create(true).append(true).open(&self.path);
        file.expect("opens").write_all(&record).expect("room");
    }

    fn close(self: Box<Self>) {}
}

struct Plain<W>(W);

impl<W: Write> Writer for Plain<W> {
    fn append(&mut self, record: Vec<u8>) {
        self.0.write_all(&record).expect("room");
    }

    fn close(mut self: Box<Self>) {
        self.0.flush().expect("room");
    }
}

struct Channel {
    sender: SyncSender<Vec<u8>>,
    thread: JoinHandle<()>,
}

impl Channel {
    fn start(mut file: File) -> Self {
        let (sender, receiver) = sync_channel::<Vec<u8>>(CHANNEL_RECORDS);
        let body =
            move || receiver.iter().for_each(|record| file.write_all(&record).expect("room"));
        let thread = thread::Builder::new().name("log".to_owned()).spawn(body).expect("a thread");
        Self { sender, thread }
    }
}

impl Writer for Channel {
    fn append(&mut self, record: Vec<u8>) {
        self.sender.send(record).expect("the thread runs");
    }

    fn close(self: Box<Self>) {
        drop(self.sender);
        self.thread.join().expect("no panic");
    }
}

/// A file that grows in steps and is mapped a step at a time.
struct Mapped {
    file: File,
    map: MmapMut,
    /// Where the map begins in the file, and how much of it is used.
    start: usize,
    used: usize,
}

impl Mapped {
    fn new(path: &Path) -> Self {
        let file = File::options().read(true).write(true).create_new(true).open(path);
        let file = file.expect("room");
        let map = map(&file, 0);
        Self { file, map, start: 0, used: 0 }
    }
}

/// Maps a step of a file, which is made as long as that.
#[expect(unsafe_code, reason = "a mapping is what is measured here, and only here")]
fn map(file: &File, start: usize) -> MmapMut {
    file.set_len((start + MAP_BYTES) as u64).expect("room");
    let mut options = memmap2::MmapOptions::new();
    options.offset(start as u64).len(MAP_BYTES);
    // SAFETY: the file is a new one in a directory of this process alone; nobody else cuts it, and
    // `Mapped` cuts it only after its map is gone.
    unsafe { options.map_mut(file) }.expect("maps")
}

impl Writer for Mapped {
    fn append(&mut self, record: Vec<u8>) {
        let mut rest = record.as_slice();
        while !rest.is_empty() {
            if self.used == MAP_BYTES {
                (self.start, self.used) = (self.start + MAP_BYTES, 0);
                self.map = map(&self.file, self.start);
            }
            let room = self.map.get_mut(self.used..).expect("within the map");
            let (now, later) = rest.split_at(room.len().min(rest.len()));
            room.split_at_mut(now.len()).0.copy_from_slice(now);
            self.used += now.len();
            rest = later;
        }
    }

    fn close(self: Box<Self>) {
        let Self { file, map, start, used } = *self;
        drop(map);
        file.set_len((start + used) as u64).expect("cuts");
    }
}

/// Slices of the bytes of block batches.
struct Records {
    pool: Vec<u8>,
    ranges: Vec<std::ops::Range<usize>>,
    bytes: u64,
}

impl Records {
    fn generate(count: usize) -> Self {
        let load = CoinLoad::generate(SEED, 60);
        let pool: Vec<u8> =
            load.blocks.iter().flat_map(|block| block.batch.as_bytes()).copied().collect();
        let mut random = Random::new(SEED);
        let mut at = 0;
        let mut next = || {
            let len = 4_000 + random.below(32_001);
            if at + len > pool.len() {
                at = 0;
            }
            at += len;
            at - len..at
        };
        let ranges: Vec<_> = (0..count).map(|_| next()).collect();
        let bytes = ranges.iter().map(|range| range.len() as u64).sum();
        Self { pool, ranges, bytes }
    }

    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.ranges.iter().map(|range| self.pool.get(range.clone()).expect("within the pool"))
    }
}

/// How many syscalls a run of one case makes, if there is `strace`.
fn syscalls(case: usize) -> Option<u64> {
    let dir = tempfile::tempdir().expect("room");
    let report = dir.path().join("strace");
    let program = std::env::current_exe().expect("Linux");
    let mut command = Command::new("strace");
    command.args(["-c", "-f", "-o"]).arg(&report).arg(program).args(["child", &case.to_string()]);
    if !command.status().is_ok_and(|status| status.success()) {
        return None;
    }
    // The last line: "100.00 seconds usecs/call calls [errors] total".
    let text = std::fs::read_to_string(&report).expect("strace wrote it");
    text.lines().last()?.split_whitespace().nth(3)?.parse().ok()
}
