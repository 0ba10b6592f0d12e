//! A crash at every operation, in every model, loses nothing that was promised and leaves no
//! state in between; also a crash within the recovery from a crash.
//!
//! Each workload runs once with each line of options; then all disks are opened that a crash at
//! any of its operations can leave (see `walk`). A failure prints a line `COFFERDAM_CRASH='...'`:
//! with that in the environment the test `one_crash_is_repeated` repeats just the failing crash.
//!
//! Threads are real, so what they do falls between other operations from run to run: a repetition
//! records the workload some fifty times.

pub(crate) mod detect;
mod life;
mod script;
mod table;
mod walk;

use std::env;
use std::time::Instant;

use self::script::Script;
use self::table::{MODES, OPTIONS, WORKLOADS};
use self::walk::{Counts, Crash, Plan, Walk};
use crate::testing::{Effort, Limits, Random, effort};

/// Names the one crash to repeat.
const VARIABLE: &str = "COFFERDAM_CRASH";
/// How often a workload is run to repeat one crash.
const REPETITIONS: usize = 50;

/// Crashes in many workloads.
struct Sweep {
    plan: Plan,
    /// The crashes to repeat, and no others.
    only: Option<Vec<Crash>>,
    counts: Counts,
    cells: usize,
}

impl Sweep {
    fn new(plan: Plan) -> Self {
        Self { plan, only: None, counts: Counts::default(), cells: 0 }
    }

    /// All workloads with all options in one mode.
    fn run(mode: &str) {
        let (begun, effort) = (Instant::now(), effort());
        if wanted().is_some() {
            return;
        }
        let mut sweep = Self::new(plan(effort));
        for (number, (workload, _)) in WORKLOADS.iter().enumerate() {
            for (line, (options, _)) in OPTIONS.iter().enumerate() {
                // In a quick run every workload and every line is there, but not all pairs.
                if effort != Effort::Quick || number % OPTIONS.len() == line {
                    sweep.cell(mode, options, workload, 1);
                }
            }
            if effort != Effort::Quick {
                let (states, elapsed) = (sweep.counts.states(), begun.elapsed());
                println!("{mode}: {states} crash states up to `{workload}`, {elapsed:.1?}");
            }
        }
        let first_seed = effort.pick(100, 200, 1000);
        let seeds = first_seed..first_seed + effort.pick(1, 6, 2000);
        println!("{mode} ({effort:?}): random workloads of the seeds {seeds:?}");
        for seed in seeds {
            let (options, _) = OPTIONS[Random::new(!seed).below(OPTIONS.len())];
            sweep.cell(mode, options, "random", seed);
        }
        let Self { counts, cells, .. } = sweep;
        let (states, elapsed) = (counts.states(), begun.elapsed());
        println!("{mode} ({effort:?}): {states} crash states of {cells} workloads, {elapsed:.1?}");
        println!("{mode}: {counts}");
        assert!(states > 0, "nothing was checked");
    }

    /// A workload in a mode with a line of options; the name holds all that repeats it.
    fn cell(&mut self, mode: &str, options: &str, workload: &str, seed: u64) {
        let name = format!("{mode}/{options}/{workload}/{seed}");
        let (_, durability) = MODES.iter().find(|(name, _)| *name == mode).unwrap();
        let (_, change) = OPTIONS.iter().find(|(name, _)| *name == options).unwrap();
        let options = change(super::options(*durability));
        let script = Script::new(&steps_of(workload, seed), seed);
        let mut walk = Walk::new(&name, seed, &options, self.plan);
        walk.only.clone_from(&self.only);
        walk.run(&script);
        self.counts.add(&walk.counts);
        self.cells += 1;
    }
}

/// The steps of a workload: of the table, random, or named by themselves.
fn steps_of(workload: &str, seed: u64) -> String {
    if workload == "random" {
        return random_steps(seed);
    }
    let known = WORKLOADS.iter().find(|(name, _)| *name == workload);
    known.map_or(workload, |(_, steps)| steps).to_owned()
}

/// The crash that the environment asks for.
#[expect(clippy::disallowed_methods, reason = "no product code: only tests are told so")]
fn wanted() -> Option<String> {
    env::var(VARIABLE).ok()
}

fn plan(effort: Effort) -> Plan {
    let limits = |exhaustive_units, sampled, torn_stride, torn_edge| Limits {
        exhaustive_units,
        sampled,
        torn_stride,
        torn_edge,
    };
    Plan {
        limits: effort.pick(
            [limits(6, 4, 211, 2), limits(3, 2, 1009, 1), limits(0, 1, 4001, 0)],
            [limits(12, 24, 61, 10), limits(6, 4, 301, 1), limits(4, 2, 1009, 1)],
            [limits(12, 200, 1, 30), limits(12, 32, 17, 30), limits(8, 8, 101, 2)],
        ),
        deeper: effort.pick(
            [Some(1000), None, None],
            [Some(800), None, None],
            [Some(100), Some(5000), None],
        ),
        deeper_kill: effort.pick([6, 100], [2, 40], [1, 1]),
        cut: effort.pick(16, 16, 4),
        finish: effort.pick(100, 100, 10),
    }
}

/// Fifteen to thirty steps.
fn random_steps(seed: u64) -> String {
    const STEPS: &[u8] = b"ccccccbbeersstpapyyykkwdDxX1234";
    let mut random = Random::new(seed);
    (0..15 + random.below(16)).map(|_| char::from(STEPS[random.below(STEPS.len())])).collect()
}

/// A process is killed after a segment got its name and before the directory was fsynced; the next
/// one names another segment, and is cut short before its fsync of the directory: the later name
/// survives, the earlier one does not.
#[test]
fn recovery_names_no_segment_before_those_it_needs_have_their_names_for_good() {
    assert!(every_kill_then_cut("strict", "tiny-segments", "ccc").depths[1] > 1000);
}

/// A process is killed after the marker got its name and before the directory was fsynced; the
/// next one removes the segments, and is cut short: they are gone, and so is the marker.
#[test]
fn segments_go_only_once_the_marker_has_its_name_for_good() {
    assert!(every_kill_then_cut("strict", "plain", "cd").depths[1] > 1000);
}

/// A crash in the recovery from every kill.
fn every_kill_then_cut(mode: &str, options: &str, steps: &str) -> Counts {
    let mut plan = plan(Effort::Quick);
    plan.deeper_kill = [1, 1];
    let mut sweep = Sweep::new(plan);
    sweep.cell(mode, options, steps, 1);
    println!("{}", sweep.counts);
    sweep.counts
}

/// A process is killed after the marker of a clean shutdown got its name; the next one removes the
/// segments, and is cut short: the removals survive, the name of the marker does not.
#[test]
fn opening_removes_nothing_before_the_marker_has_its_name_for_good() {
    let mut plan = plan(Effort::Quick);
    plan.deeper_kill = [1, 1];
    let mut sweep = Sweep::new(plan);
    sweep.cell("strict", "plain", "cd", 1);
    assert!(sweep.counts.depths[1] > 1000, "{}", sweep.counts);
}

/// The third life is the recovery from a crash within the recovery from a crash.
#[test]
fn a_recovery_from_a_crash_within_a_recovery_is_one_too() {
    let mut plan = plan(Effort::Quick);
    plan.deeper = [Some(200), Some(20), None];
    let mut sweep = Sweep::new(plan);
    sweep.cell("strict", "flush-1", "cckcd", 1);
    assert!(sweep.counts.depths[2] > 1000, "{}", sweep.counts);
}

/// What the environment asks for; see the module's documentation.
#[test]
fn one_crash_is_repeated() {
    let Some(wanted) = wanted() else { return };
    let mut words = wanted.split_whitespace();
    let cell: Vec<&str> = words.next().unwrap().split('/').collect();
    let mut sweep = Sweep::new(plan(Effort::Long));
    sweep.only = Some(words.map(|word| word.parse().unwrap()).collect());
    for _ in 0..REPETITIONS {
        sweep.cell(cell[0], cell[1], cell[2], cell[3].parse().unwrap());
    }
    println!("{wanted}: {}", sweep.counts);
    assert!(sweep.counts.states() > 0, "there was no operation of that number");
}

#[test]
fn strict_keeps_every_acknowledged_batch() {
    Sweep::run("strict");
}

#[test]
fn batched_keeps_every_acknowledged_batch() {
    Sweep::run("batched");
}

#[test]
fn relaxed_keeps_everything_through_a_kill() {
    Sweep::run("relaxed");
}

#[test]
fn asynchronous_keeps_what_it_reported_durable() {
    Sweep::run("async");
}
