//! A crash at every operation, in every model, loses nothing that was promised and leaves no
//! state in between; also a crash within the recovery from a crash.
//!
//! Each workload runs once with each line of options; then all disks are opened that a crash at
//! any of its operations can leave (see `walk`). A failure prints a line `COFFERDAM_CRASH='...'`:
//! with that in the environment just the failing crash is repeated.
//!
//! Threads are real, so what they do falls between other operations from run to run: a repetition
//! records the workload some fifty times.

mod detect;
mod life;
mod script;
mod table;
mod walk;

use std::env;
use std::time::{Duration, Instant};

use self::script::Script;
use self::table::{MODES, OPTIONS, WORKLOADS};
use self::walk::{Counts, Crash, Plan, Walk};
use crate::WalOptions;
use crate::testing::{Effort, Limits, Random, effort};

/// Names the one crash to repeat.
const VARIABLE: &str = "COFFERDAM_CRASH";
/// How often a workload is run to repeat one crash.
const REPETITIONS: usize = 50;

/// Crashes in many workloads.
struct Sweep {
    effort: Effort,
    plan: Plan,
    wanted: Option<String>,
    counts: Counts,
    cells: usize,
}

impl Sweep {
    fn new(effort: Effort, plan: Plan) -> Self {
        Self { effort, plan, wanted: wanted(), counts: Counts::default(), cells: 0 }
    }

    /// All workloads with all options in one mode.
    fn run(mode: &str) {
        let (begun, effort) = (Instant::now(), effort());
        let mut sweep = Self::new(effort, plan(effort));
        for (number, (workload, steps)) in WORKLOADS.iter().enumerate() {
            for (line, (options, _)) in OPTIONS.iter().enumerate() {
                // In a quick run every workload and every line is there, but not all pairs.
                if effort != Effort::Quick || number % OPTIONS.len() == line {
                    sweep.named_cell(mode, options, workload, (1, steps));
                }
            }
        }
        let first_seed = effort.pick(100, 200, 1000);
        let seeds = first_seed..first_seed + effort.pick(1, 20, 2000);
        println!("{mode} ({effort:?}): random workloads of the seeds {seeds:?}");
        for seed in seeds {
            let (options, _) = OPTIONS[Random::new(!seed).below(OPTIONS.len())];
            sweep.named_cell(mode, options, "random", (seed, &random_steps(seed)));
        }
        sweep.report(mode, begun.elapsed());
    }

    /// A workload in a mode with a line of options; the name holds all that repeats it.
    fn named_cell(
        &mut self,
        mode: &str,
        options: &str,
        workload: &str,
        (seed, steps): (u64, &str),
    ) {
        let cell = format!("{mode}/{options}/{workload}/{seed}");
        let (_, durability) = MODES.iter().find(|(name, _)| *name == mode).unwrap();
        let (_, change) = OPTIONS.iter().find(|(name, _)| *name == options).unwrap();
        self.cell(&cell, seed, steps, &change(super::options(*durability)));
    }

    fn cell(&mut self, cell: &str, seed: u64, steps: &str, options: &WalOptions) {
        let mut only = None;
        if let Some(wanted) = &self.wanted {
            let mut words = wanted.split_whitespace();
            if words.next() != Some(cell) {
                return;
            }
            only = Some(words.map(|word| word.parse().unwrap()).collect::<Vec<Crash>>());
        }
        let script = Script::new(steps, seed);
        for _ in 0..if only.is_some() { REPETITIONS } else { 1 } {
            let mut walk = Walk::new(cell, seed, options, self.plan);
            walk.only.clone_from(&only);
            walk.run(&script);
            self.counts.add(&walk.counts);
        }
        self.cells += 1;
    }

    fn report(&self, mode: &str, elapsed: Duration) {
        let Self { effort, counts, cells, .. } = self;
        let states = counts.states();
        println!("{mode} ({effort:?}): {states} crash states of {cells} workloads, {elapsed:.1?}");
        println!("{mode}: {counts}");
        assert!(states > 0 || self.wanted.is_some(), "nothing was checked");
    }
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
            [limits(6, 4, 101, 2), limits(4, 2, 1009, 1), limits(0, 1, 4001, 0)],
            [limits(12, 32, 17, 30), limits(8, 8, 101, 2), limits(4, 2, 1009, 1)],
            [limits(12, 200, 1, 30), limits(12, 32, 17, 30), limits(8, 8, 101, 2)],
        ),
        deeper: effort.pick(
            [Some(500), None, None],
            [Some(400), None, None],
            [Some(100), Some(5000), None],
        ),
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
