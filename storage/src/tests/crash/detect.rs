//! A small sweep over every mode and every mechanism, for tests that break the store on purpose.

use super::Sweep;
use super::walk::{Counts, Plan};
use crate::testing::Limits;

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
pub(crate) fn detect() -> Counts {
    let limits =
        |exhaustive_units| Limits { exhaustive_units, sampled: 2, torn_stride: 257, torn_edge: 1 };
    let plan = Plan {
        limits: [limits(7), limits(3), limits(0)],
        deeper: [Some(401), None, None],
        deeper_kill: [1, 100],
        cut: 16,
        finish: 64,
    };
    let mut sweep = Sweep::new(plan);
    for (options, mode, steps) in CELLS {
        sweep.cell(mode, options, steps, 1);
    }
    sweep.counts
}

#[test]
fn the_detector_finds_nothing_in_the_store_as_it_is() {
    let begun = std::time::Instant::now();
    let counts = detect();
    println!("{counts} in {:.1?}", begun.elapsed());
    assert!(counts.states() > 10_000);
}
