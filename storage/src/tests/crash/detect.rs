//! A small sweep over every mode and every mechanism, for tests that break the store on purpose.

use super::Sweep;
use super::walk::Plan;
use crate::testing::{Effort, Limits};

/// Options, mode, steps. Rolled segments, checkpoints, write-backs in the background, batches
/// taken back, steps back, shutdowns and drops are all in it.
const CELLS: [(&str, &str, &str); 10] = [
    ("plain", "strict", "cbbcrdc"),
    ("flush-2", "strict", "ccwbcwkcD"),
    ("tiny-segments", "batched", "cckcd"),
    ("tiny-memtable", "batched", "cprwbDc"),
    ("flush-1", "relaxed", "cwbcykcw"),
    ("plain", "relaxed", "cbbDacXc"),
    ("plain", "async", "ccybbckcd"),
    ("flush-2", "async", "cbcwcyc"),
    ("recycled", "strict", "cbkcbkcwc"),
    ("compressed", "async", "4cb2c3c1cd"),
];

/// Crashes in these; takes less than three seconds.
///
/// # Panics
///
/// If anything promised is lost, or anything else is found.
pub(crate) fn detect() -> u64 {
    let limits =
        |exhaustive_units| Limits { exhaustive_units, sampled: 4, torn_stride: 257, torn_edge: 1 };
    let plan = Plan {
        limits: [limits(7), limits(3), limits(0)],
        deeper: [Some(211), None, None],
        cut: 16,
        finish: 64,
    };
    let mut sweep = Sweep::new(Effort::Quick, plan);
    for (options, mode, steps) in CELLS {
        sweep.named_cell(mode, options, &format!("detect-{steps}"), (1, steps));
    }
    sweep.counts.states()
}

#[test]
fn the_detector_finds_nothing_in_the_store_as_it_is() {
    let begun = std::time::Instant::now();
    let states = detect();
    println!("{states} crash states in {:.1?}", begun.elapsed());
}
