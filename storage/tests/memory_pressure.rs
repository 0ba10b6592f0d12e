//! Does a store under load keep within a small memory limit, with several times as much data?
//!
//! A worker process is put into a memory cgroup (version 1 or 2) before it opens the store. The
//! limit counts the page cache too, so the kernel's total always rises to the limit; what must
//! stay below it is what cannot be dropped. It needs root, and says so where it has to be skipped.
#![cfg(all(target_os = "linux", feature = "rocksdb", feature = "testing"))]
#![expect(clippy::print_stdout, reason = "what was measured; the worker's report")]

use std::fs;
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use cofferdam_storage::testing::{Random, effort};
use cofferdam_storage::{
    BackendKind, BackendOptions, Batch, BlockBatch, Database, KeyRange, NoAttachments,
    StdFileSystem, Tip, Tree, WalBuffered, WalOptions,
};

const COINS: Tree = Tree { id: 1, name: "coins" };
const KEY_BYTES: usize = 36;
/// Larger than a coin's, so that the load is soon large.
const VALUE_BYTES: usize = 220;
const BATCH_ENTRIES: u64 = 2_000;
/// One entry in so many is deleted, this many batches after it was made.
const DELETED_ONE_IN: u64 = 10;
const DELETED_AFTER_BATCHES: u64 = 50;
/// Old entries that are read back per batch, as a node reads the coins a block spends.
const READS_PER_BATCH: usize = 10;
const SEED: u64 = 0x0c0f_3e30;

/// A limit and what is to fit in it, in MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Load {
    limit: u64,
    /// Of keys and values that are live at the end.
    live: u64,
    memtable: usize,
    cache: usize,
}

/// Half as much again as the limit: enough for an idea, in seconds.
const QUICK: Load = Load { limit: 80, live: 120, memtable: 16, cache: 8 };
/// Four times the limit.
const FULL: Load = Load { limit: 192, live: 768, memtable: 64, cache: 16 };
/// Sixteen times the limit.
const LONG: Load = Load { limit: 192, live: 4 * 768, memtable: 64, cache: 16 };

/// Entry `number` of the load.
fn entry(number: u64) -> (Vec<u8>, Vec<u8>) {
    let mut random = Random::new(Random::new(SEED ^ number).next());
    (random.bytes(KEY_BYTES), random.bytes(VALUE_BYTES))
}

const fn is_deleted(number: u64) -> bool {
    number.is_multiple_of(DELETED_ONE_IN)
}

impl Load {
    fn batches(self) -> u64 {
        let entry_bytes = u64::try_from(KEY_BYTES + VALUE_BYTES).expect("small");
        let live = (self.live << 20) / entry_bytes;
        let made = live * DELETED_ONE_IN / (DELETED_ONE_IN - 1);
        made / BATCH_ENTRIES + DELETED_AFTER_BATCHES
    }

    fn open(self, dir: &Path) -> WalBuffered<Box<dyn Database>> {
        let engine = BackendOptions { cache_bytes: self.cache << 20 };
        let backend = BackendKind::Rocksdb.open(&dir.join("engine"), &[COINS], &engine);
        let options = WalOptions { memtable_bytes: self.memtable << 20, ..WalOptions::default() };
        let (log, fs) = (dir.join("log"), Arc::new(StdFileSystem));
        let backend = backend.expect("the engine opens");
        let opened = WalBuffered::open(options, fs, &log, backend, Arc::new(NoAttachments));
        opened.expect("the store opens").0
    }

    /// The worker: writes all of it, opens it again, checks it.
    fn run(self, dir: &Path) {
        let store = self.open(dir);
        let (mut random, mut prev_hash) = (Random::new(SEED), [0; 32]);
        for number in 0..self.batches() {
            for _ in 0..READS_PER_BATCH {
                let old = (number * BATCH_ENTRIES)
                    .checked_sub(1)
                    .map_or(0, |newest| random.next() % newest.max(1));
                let (key, value) = entry(old);
                let found = store.get(COINS, &key).expect("it reads");
                assert!(number == 0 || is_deleted(old) || found == Some(value), "entry {old}");
            }
            let height = u32::try_from(number).expect("few");
            let mut hash = [1; 32];
            hash[..8].copy_from_slice(&number.to_le_bytes());
            let (tip, batch) = (Tip { height, hash }, batch(number));
            store.commit(BlockBatch { tip, prev_hash, batch }).expect("it commits");
            prev_hash = hash;
        }
        drop(store);
        self.check(&self.open(dir));
        println!("@done");
    }

    /// Every row is one of the load's, and there are as many as there should be.
    fn check(self, store: &dyn Database) {
        let entries = self.batches() * BATCH_ENTRIES;
        let deletable = entries - DELETED_AFTER_BATCHES * BATCH_ENTRIES;
        let mut rows = 0;
        for row in store.range(COINS, KeyRange::all()).expect("it reads") {
            let (key, value) = row.expect("it reads");
            assert_eq!((key.len(), value.len()), (KEY_BYTES, VALUE_BYTES));
            rows += 1;
        }
        assert_eq!(rows, entries - deletable.div_ceil(DELETED_ONE_IN), "rows");
        for number in (0..entries).step_by(499) {
            let (key, value) = entry(number);
            let gone = is_deleted(number) && number < deletable;
            let found = store.get(COINS, &key).expect("it reads");
            assert!(found == (!gone).then_some(value), "entry {number}");
        }
    }
}

fn batch(number: u64) -> Batch {
    let mut batch = Batch::new();
    let numbers = |batch: u64| batch * BATCH_ENTRIES..(batch + 1) * BATCH_ENTRIES;
    for (key, value) in numbers(number).map(entry) {
        batch.put_new(COINS, &key, &value);
    }
    if let Some(old) = number.checked_sub(DELETED_AFTER_BATCHES) {
        for number in numbers(old).filter(|number| is_deleted(*number)) {
            batch.delete(COINS, &entry(number).0);
        }
    }
    batch
}

/// A memory cgroup; removed when dropped.
#[derive(Debug)]
struct Cgroup {
    path: PathBuf,
    version_2: bool,
}

impl Cgroup {
    /// # Errors
    ///
    /// Why that is not possible here: the test is then skipped.
    fn new(limit_bytes: u64) -> Result<Self, String> {
        let version_1 = Path::new("/sys/fs/cgroup/memory");
        let version_2 = !version_1.is_dir();
        let root = if version_2 { Path::new("/sys/fs/cgroup") } else { version_1 };
        let path = root.join(format!("cofferdam-test-{}", std::process::id()));
        fs::create_dir(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let cgroup = Self { path, version_2 };
        let limit = limit_bytes.to_string();
        if version_2 {
            // The root may not have handed the controller down yet.
            let _may_have = fs::write(root.join("cgroup.subtree_control"), "+memory");
            cgroup.write("memory.max", &limit)?;
            // The file is absent where there is no swap.
            let _no_swap = cgroup.write("memory.swap.max", "0");
        } else {
            cgroup.write("memory.limit_in_bytes", &limit)?;
            // The kernel may be without it.
            let _no_swap = cgroup.write("memory.memsw.limit_in_bytes", &limit);
        }
        Ok(cgroup)
    }

    fn write(&self, file: &str, text: &str) -> Result<(), String> {
        let path = self.path.join(file);
        fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// The number after `name` in a file of lines, or the whole file's.
    fn number(&self, file: &str, name: &str) -> Option<u64> {
        let text = fs::read_to_string(self.path.join(file)).ok()?;
        let mut values = text.lines().filter_map(|line| {
            if name.is_empty() { Some(line) } else { line.strip_prefix(name)?.strip_prefix(' ') }
        });
        values.next()?.parse().ok()
    }

    /// Memory that cannot be dropped: what processes allocated.
    fn allocated(&self) -> u64 {
        let name = if self.version_2 { "anon" } else { "rss" };
        self.number("memory.stat", name).expect("the controller tells")
    }

    /// The highest total, page cache included; kernels before 5.19 do not tell in version 2.
    fn peak(&self) -> Option<u64> {
        let file = if self.version_2 { "memory.peak" } else { "memory.max_usage_in_bytes" };
        self.number(file, "")
    }

    fn kills(&self) -> u64 {
        let file = if self.version_2 { "memory.events" } else { "memory.oom_control" };
        self.number(file, "oom_kill").expect("the controller tells")
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // A process that has just ended may be in it for a moment.
        for _ in 0..200 {
            if fs::remove_dir(&self.path).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Killed when dropped, so that the cgroup can be removed.
struct Worker(Child);

impl Drop for Worker {
    fn drop(&mut self) {
        // It may have ended already.
        let _killed = self.0.kill();
        let _waited = self.0.wait();
    }
}

/// Not a test: the process that is put under pressure.
#[test]
#[ignore = "it is started by the other test"]
fn worker() {
    let mut line = String::new();
    if !std::io::stdin().is_terminal() {
        std::io::stdin().read_line(&mut line).expect("a line");
    }
    if let Some((name, dir)) = line.trim_end().split_once(' ') {
        let loads = [("quick", QUICK), ("full", FULL), ("long", LONG)];
        let load = loads.into_iter().find(|(known, _)| *known == name).expect("a load");
        load.1.run(Path::new(dir));
    }
}

#[test]
fn more_than_the_memory_limit_is_written_within_it() {
    let (name, load) = effort().pick(("quick", QUICK), ("full", FULL), ("long", LONG));
    let limit = load.limit << 20;
    let cgroup = match Cgroup::new(limit) {
        Ok(cgroup) => cgroup,
        Err(why) => {
            println!("SKIPPED, it needs root and memory cgroups: {why}");
            return;
        }
    };
    let dir = tempfile::tempdir().expect("a directory");
    let started = Instant::now();
    let program = std::env::current_exe().expect("a program");
    let worker = Command::new(program)
        .args(["--ignored", "--exact", "worker", "--nocapture"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn();
    let mut worker = Worker(worker.expect("the program starts again"));
    if let Err(why) = cgroup.write("cgroup.procs", &worker.0.id().to_string()) {
        println!("SKIPPED, it needs root and memory cgroups: {why}");
        return;
    }
    // It has waited for this line.
    let mut orders = worker.0.stdin.take().expect("piped");
    writeln!(orders, "{name} {}", dir.path().display()).expect("it listens");

    let mut allocated = 0;
    let status = loop {
        allocated = allocated.max(cgroup.allocated());
        match worker.0.try_wait().expect("a child") {
            Some(status) => break status,
            None => thread::sleep(Duration::from_millis(5)),
        }
    };
    let (kills, peak, elapsed) = (cgroup.kills(), cgroup.peak(), started.elapsed());
    println!(
        "{load:?} in MiB, seed {SEED:#x}: allocated at most {} MiB, with page cache {:?} MiB, \
         {kills} processes killed, {elapsed:.1?}",
        allocated >> 20,
        peak.map(|bytes| bytes >> 20),
    );
    assert_eq!(kills, 0);
    assert!(status.success(), "{status}");
    assert!(allocated < limit);
    assert!(peak.is_none_or(|peak| peak <= limit), "{peak:?}");
}
