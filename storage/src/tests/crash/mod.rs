//! A crash at every operation, in every model, loses nothing that was promised and leaves no
//! state in between; also a crash within the recovery from a crash.
//!
//! Each workload runs once with each line of options; then all disks are opened that a crash at
//! any of its operations can leave (see `walk`). A failure prints a line `COFFERDAM_CRASH='...'`:
//! with that in the environment just the failing crash is repeated.
//!
//! Threads are real, so the recording of a workload differs a little from run to run; the
//! repetition runs it until an operation of that number and kind fails, or gives up.

mod life;
mod script;
mod table;
mod walk;

use std::env;
use std::time::{Duration, Instant};

use self::script::Script;
use self::table::{OPTIONS, WORKLOADS};
use self::walk::{Counts, Crash, Plan, Walk};
use super::options;
use crate::testing::{Effort, Limits, Random, effort};
use crate::{Durability, WalOptions};

/// Names the one crash to repeat.
const VARIABLE: &str = "COFFERDAM_CRASH";
/// How often a workload is run to repeat one crash.
const REPETITIONS: usize = 50;

/// All workloads with all options in one mode.
struct Sweep {
    mode: (&'static str, Durability),
    effort: Effort,
    counts: Counts,
    cells: usize,
}

impl Sweep {
    fn run(name: &'static str, durability: Durability) {
        let begun = Instant::now();
        let mode = (name, durability);
        let mut sweep = Self { mode, effort: effort(), counts: Counts::default(), cells: 0 };
        for (number, (workload, steps)) in WORKLOADS.iter().enumerate() {
            for (line, (option, change)) in OPTIONS.iter().enumerate() {
                // In a quick run every workload and every line is there, but not all pairs.
                if sweep.effort != Effort::Quick || number % OPTIONS.len() == line {
                    let cell = format!("{name}/{option}/{workload}/1");
                    sweep.cell(&cell, 1, steps, &change(options(durability)));
                }
            }
        }
        let mut random = Random::new(sweep.effort.pick(11, 12, 13));
        for _ in 0..sweep.effort.pick(1, 8, 400) {
            let seed = random.next() >> 32;
            let (option, change) = OPTIONS[random.below(OPTIONS.len())];
            let cell = format!("{name}/{option}/random/{seed}");
            sweep.cell(&cell, seed, &random_steps(seed), &change(options(durability)));
        }
        sweep.report(begun.elapsed());
    }

    fn cell(&mut self, cell: &str, seed: u64, steps: &str, options: &WalOptions) {
        let script = Script::new(steps, seed);
        let Some(wanted) = wanted() else {
            let mut walk = Walk::new(cell, seed, options, plan(self.effort));
            walk.run(&script);
            self.counts.add(&walk.counts);
            self.cells += 1;
            return;
        };
        let mut words = wanted.split_whitespace();
        if words.next() != Some(cell) {
            return;
        }
        let crashes: Vec<Crash> = words.map(|word| word.parse().unwrap()).collect();
        for _ in 0..REPETITIONS {
            let mut walk = Walk::new(cell, seed, options, plan(self.effort));
            walk.only = Some(crashes.clone());
            walk.run(&script);
            self.counts.add(&walk.counts);
        }
        self.cells += 1;
    }

    fn report(&self, elapsed: Duration) {
        let (Self { mode: (name, _), effort, counts, cells }, states) =
            (self, self.counts.states());
        println!(
            "{name} ({effort:?}): {states} crash states of {cells} workloads in {elapsed:.1?}"
        );
        println!("{name}: {counts}");
        assert!(states > 0, "{VARIABLE} names no crash of this mode, or it did not come again");
    }
}

/// The crash that the environment asks for.
#[expect(clippy::disallowed_methods, reason = "no product code: only tests are told so")]
fn wanted() -> Option<String> {
    env::var(VARIABLE).ok()
}

fn plan(effort: Effort) -> Plan {
    let limits =
        |units, sampled, torn_stride| Limits { exhaustive_units: units, sampled, torn_stride };
    Plan {
        limits: effort.pick(
            [limits(6, 4, 101), limits(4, 2, 1009), limits(0, 1, 4001)],
            [limits(12, 32, 17), limits(8, 8, 101), limits(4, 2, 1009)],
            [limits(12, 200, 1), limits(12, 32, 17), limits(8, 8, 101)],
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
    Sweep::run("strict", Durability::Strict);
}

#[test]
fn batched_keeps_every_acknowledged_batch() {
    Sweep::run("batched", Durability::Batched { blocks: 1, interval_ms: 1 });
}

#[test]
fn relaxed_keeps_everything_through_a_kill() {
    Sweep::run("relaxed", Durability::Relaxed { interval_ms: 1 });
}

#[test]
fn asynchronous_keeps_what_it_reported_durable() {
    Sweep::run("async", Durability::Async);
}
