//! Does a store keep its promises when the power of a real file system is cut, hundreds of times?
//!
//! A worker process writes to a file system on a loop device and says what was acknowledged; the
//! power is cut at a random moment (see `disk`); the worker is killed, the file system recovered,
//! and another process compares what is left with what the batches give. Most cuts hit a directory
//! that has survived others; every few cuts the file system is made anew, so that the first moments
//! of a directory are hit too. It needs root, and says so where it has to be skipped.
#![cfg(all(target_os = "linux", feature = "rocksdb", feature = "sled", feature = "testing"))]
#![expect(clippy::print_stdout, reason = "counts, seeds and durations; the worker's reports")]
#![expect(clippy::indexing_slicing, reason = "a test fails by a panic")]

mod chain;
mod disk;
mod job;
mod process;
mod worker;

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use cofferdam_storage::BackendKind::{Lsm, Rocksdb, Sled};
use cofferdam_storage::testing::{Effort, Random, effort};
use tempfile::TempDir;

use crate::disk::{Cut, Disk, Kind};
use crate::job::{Job, Mode, Role, Store};
use crate::process::{Progress, Worker};

/// Cuts a directory has to survive before the file system is made anew.
const LIVES: usize = 10;
/// Half of the cuts come within this time after the store was opened.
const WRITING_MICROS_MAX: usize = 60_000;
/// A quarter of the cuts come within this time after the worker was started: it opens the store.
const OPENING_MICROS_MAX: usize = 40_000;
/// Within so many cuts sled without our fsyncs must have lost something.
const CONTROL_CUTS: usize = 60;

/// How a cut went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// The worker failed before the power was cut, so the cut is not to blame.
    BeforeTheCut,
    /// What was left cannot be opened, or is not the state after some batches.
    Broken,
    /// It is, but a batch is missing that was promised to be durable.
    Lost,
    /// It is, but a batch is there that was never written.
    Invented,
}

/// Cuts of one store on one file system.
struct Campaign {
    store: Store,
    disk: Disk,
    seed: u64,
    random: Random,
    cut: usize,
    /// The chain of this directory, and how much of it survived the cut before.
    chain_seed: u64,
    floor: u64,
    tally: Tally,
    errors: TempDir,
}

#[derive(Debug, Default)]
struct Tally {
    cuts: usize,
    /// How many of them came before the worker had opened the store.
    while_opening: usize,
    /// How many took batches that were committed but not promised to be durable.
    took_unpromised: usize,
    /// How many left batches after a missing one, which only a bare engine may do.
    left_gaps: usize,
    /// How many took batches whose promise nobody had heard when the power was cut. A fdatasync
    /// that runs into the forced shutdown may succeed although nothing reaches the disk any more:
    /// both file systems do it to a bare loop of write and fdatasync too, at one cut in thirty. With
    /// the power gone nobody would have learnt of it.
    promised_too_late: usize,
    batches: u64,
}

impl Campaign {
    /// None, with a message, where power cannot be cut.
    fn new(store: Store, kind: Kind, seed: u64) -> Option<Self> {
        let disk = match Disk::new(kind) {
            Ok(disk) => disk,
            Err(why) => {
                println!("SKIPPED power cuts of {store} on {kind:?}: {why}");
                return None;
            }
        };
        let (random, errors) = (Random::new(seed), tempfile::tempdir().expect("a directory"));
        let (cut, chain_seed, floor, tally) = (0, seed, 0, Tally::default());
        Some(Self { store, disk, seed, random, cut, chain_seed, floor, tally, errors })
    }

    fn job(&mut self, role: Role) -> Job {
        let mode = Mode::ALL[self.cut % Mode::ALL.len()];
        let (store, chain_seed, run_seed) = (self.store, self.chain_seed, self.random.next());
        Job { role, store, mode, chain_seed, run_seed, dir: self.disk.path().join("store") }
    }

    fn start(&mut self, role: Role) -> Worker {
        let errors: PathBuf = self.errors.path().join("errors");
        Worker::start(&self.job(role), &errors)
    }

    /// An empty file system, and a new chain.
    fn begin_anew(&mut self) {
        self.disk.format();
        (self.chain_seed, self.floor) = (self.random.next(), 0);
    }

    /// One cut and what it left.
    ///
    /// # Errors
    ///
    /// If that was not what was promised, with all that there is to know.
    fn cut(&mut self) -> Result<(), (Fault, String)> {
        self.cut += 1;
        let what = match self.random.below(6) {
            0 => Cut::Everything,
            1 | 2 => Cut::Journal,
            _ => Cut::Nothing,
        };
        self.cut_as(what).map_err(|(fault, error)| {
            let Self { store, seed, cut, chain_seed, .. } = self;
            let place = format!("{store}, seed {seed:#x}, cut {cut}, chain {chain_seed:#x}");
            (fault, format!("{place}, what reached the disk: {what:?}: {fault:?}: {error}"))
        })
    }

    fn cut_as(&mut self, what: Cut) -> Result<(), (Fault, String)> {
        let before = |error| (Fault::BeforeTheCut, error);
        let mut worker = self.start(Role::Write);
        let micros_max = if self.random.one_in(4) {
            OPENING_MICROS_MAX
        } else {
            worker.wait_opened().map_err(before)?;
            WRITING_MICROS_MAX
        };
        let micros = u64::try_from(self.random.below(micros_max)).expect("small");
        thread::sleep(Duration::from_micros(micros));
        worker.assert_runs().map_err(before)?;
        let heard = worker.progress();
        self.disk.cut(what);
        let said = worker.kill();
        self.disk.restart();

        let checked = self.start(Role::Check).wait().map_err(|error| (Fault::Broken, error))?;
        let found = checked.found.expect("a check that ends well says what it found");
        self.judge(heard, said, found)
    }

    /// Compares what was heard of a worker before the cut, and what it has said altogether, with
    /// what a check found.
    fn judge(
        &mut self,
        heard: Progress,
        said: Progress,
        found: (u64, u64),
    ) -> Result<(), (Fault, String)> {
        let (unbroken, newest) = found;
        if unbroken < heard.promised.max(self.floor) {
            return Err((Fault::Lost, format!("batch {} is lost: {heard:?}", unbroken + 1)));
        }
        let committed = said.newest.max(self.floor);
        let in_flight = u64::try_from(worker::GROUP_MAX).expect("small");
        if newest > committed + in_flight {
            return Err((Fault::Invented, format!("batch {newest} is there: {said:?}")));
        }
        let tally = &mut self.tally;
        tally.cuts += 1;
        tally.while_opening += usize::from(!said.opened);
        tally.took_unpromised += usize::from(newest < committed);
        tally.left_gaps += usize::from(unbroken < newest);
        tally.promised_too_late += usize::from(unbroken < said.promised);
        tally.batches += newest.saturating_sub(self.floor);
        self.floor = unbroken;
        if unbroken < newest {
            self.begin_anew();
        }
        Ok(())
    }
}

/// Cuts a store's power again and again; nothing that was promised may be lost.
fn survives(store: Store, kind: Kind, seed: u64) {
    let cuts = effort().pick(3, 150, 2_000);
    let Some(mut campaign) = Campaign::new(store, kind, seed) else { return };
    let started = Instant::now();
    for index in 0..cuts {
        if index % LIVES == 0 {
            campaign.begin_anew();
        }
        if let Err((_, error)) = campaign.cut() {
            panic!("{kind:?}: {error}");
        }
    }
    let (tally, elapsed) = (&campaign.tally, started.elapsed());
    println!("{store} on {kind:?}, seed {seed:#x}: {tally:?} in {elapsed:.1?}");
    let gaps_allowed = matches!(store, Store::Bare(_));
    assert!(gaps_allowed || tally.left_gaps == 0, "{tally:?}");
}

/// Not a test: the process that the tests start again and again.
#[test]
#[ignore = "it is started by the other tests"]
fn worker() {
    let mut line = String::new();
    if !std::io::stdin().is_terminal() {
        std::io::stdin().read_line(&mut line).expect("a line");
    }
    // The harness may have begun a line of its own.
    println!();
    if !line.is_empty() {
        worker::work(&line.parse().expect("a job"));
    }
}

#[test]
fn buffered_rocksdb_survives_power_cuts_on_ext4() {
    survives(Store::Buffered(Rocksdb), Kind::Ext4, 0x0c0f_f301);
}

#[test]
fn buffered_rocksdb_survives_power_cuts_on_xfs() {
    survives(Store::Buffered(Rocksdb), Kind::Xfs, 0x0c0f_f302);
}

#[test]
fn buffered_sled_survives_power_cuts_on_ext4() {
    survives(Store::Buffered(Sled), Kind::Ext4, 0x0c0f_f303);
}

#[test]
fn buffered_sled_survives_power_cuts_on_xfs() {
    survives(Store::Buffered(Sled), Kind::Xfs, 0x0c0f_f304);
}

#[test]
fn buffered_lsm_survives_power_cuts_on_ext4() {
    survives(Store::Buffered(Lsm), Kind::Ext4, 0x0c0f_f309);
}

#[test]
fn buffered_lsm_survives_power_cuts_on_xfs() {
    survives(Store::Buffered(Lsm), Kind::Xfs, 0x0c0f_f30a);
}

#[test]
fn what_bare_rocksdb_flushed_survives_power_cuts_on_ext4() {
    survives(Store::Bare(Rocksdb), Kind::Ext4, 0x0c0f_f305);
}

#[test]
fn what_bare_rocksdb_flushed_survives_power_cuts_on_xfs() {
    survives(Store::Bare(Rocksdb), Kind::Xfs, 0x0c0f_f306);
}

#[test]
fn what_bare_sled_flushed_survives_power_cuts_on_ext4() {
    survives(Store::Bare(Sled), Kind::Ext4, 0x0c0f_f307);
}

#[test]
fn what_bare_sled_flushed_survives_power_cuts_on_xfs() {
    survives(Store::Bare(Sled), Kind::Xfs, 0x0c0f_f308);
}

/// The control: these tests can see a loss, and the fsyncs of the backend are needed.
#[test]
fn bare_lsm_survives_power_cuts_on_ext4() {
    survives(Store::Bare(Lsm), Kind::Ext4, 0x0c0f_f30b);
}

#[test]
fn sled_without_the_fsyncs_of_its_backend_is_seen_to_lose_data() {
    let seed = 0x0c0f_f309;
    let Some(mut campaign) = Campaign::new(Store::BareSledCrate, Kind::Ext4, seed) else { return };
    let stop_at_the_first = effort() == Effort::Quick;
    let (mut broken, mut lost, mut cuts) = (0, 0, 0);
    while cuts < CONTROL_CUTS && !(stop_at_the_first && broken + lost > 0) {
        if cuts % LIVES == 0 {
            campaign.begin_anew();
        }
        let went = campaign.cut();
        if went.is_err() {
            campaign.begin_anew();
        }
        match went {
            Ok(()) => {}
            Err((Fault::Broken, error)) => {
                broken += 1;
                println!("{}", error.lines().next().unwrap_or_default());
            }
            Err((Fault::Lost, error)) => {
                lost += 1;
                println!("{error}");
            }
            Err((_, error)) => panic!("{error}"),
        }
        cuts += 1;
    }
    println!("seed {seed:#x}: {broken} broken and {lost} with a loss of {cuts} cuts");
    assert!(broken + lost > 0, "nothing was lost: {:?}", campaign.tally);
}
