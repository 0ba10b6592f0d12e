//! A crash at every operation of the disk, while blocks are connected, disconnected and reorganised,
//! leaves the state of some block of the history, and what the durability mode promises.
//!
//! Log, block files and database share one simulated disk. A story is lived once in each mode with
//! each line of options; then all disks are opened that a crash at any of its operations can leave
//! (see `walk`). A failure prints a line `COFFERDAM_IBD_CRASH='...'`: with that in the environment
//! `one_crash_is_repeated` repeats just the failing one. Threads are real, so what they do falls
//! between other operations from run to run: a repetition lives the story some thirty times.

mod faults;
mod life;
mod story;
mod walk;

use std::env;
use std::time::{Duration, Instant};

use cofferdam_storage::testing::{Effort, Limits, effort};
use cofferdam_storage::{Durability, SegmentFiles, WalOptions};

use self::story::{STORIES, Story};
use self::walk::{Counts, Plan, Walk};

/// Names the one crash to repeat.
const VARIABLE: &str = "COFFERDAM_IBD_CRASH";
/// How often a story is lived to repeat one crash.
const REPETITIONS: usize = 30;

const MODES: [(&str, Durability); 4] = [
    ("strict", Durability::Strict),
    ("batched", Durability::Batched { blocks: 1, interval_ms: 1 }),
    ("relaxed", Durability::Relaxed { interval_ms: 1 }),
    ("async", Durability::Async),
];

type Change = fn(WalOptions) -> WalOptions;

/// What makes write-backs, new segments and their removal happen in a story of a dozen blocks.
const OPTIONS: [(&str, Change); 5] = [
    ("plain", |options| options),
    ("flush-1", |options| WalOptions { flush_every_blocks: Some(1), ..options }),
    ("tiny-memtable", |options| WalOptions { memtable_bytes: 1, ..options }),
    ("segments", |options| WalOptions {
        flush_every_blocks: Some(3),
        segment_bytes: 4700,
        compress_bytes_min: Some(64),
        ..options
    }),
    ("recycled", |options| WalOptions {
        segment_files: SegmentFiles::Recycled,
        flush_every: Some(Duration::ZERO),
        flush_every_blocks: Some(2),
        segment_bytes: 5000,
        ..options
    }),
];

fn options(mode: &str, line: &str) -> WalOptions {
    let (_, durability) = MODES.iter().find(|(name, _)| *name == mode).expect("a mode");
    let (_, change) = OPTIONS.iter().find(|(name, _)| *name == line).expect("a line of options");
    change(WalOptions {
        durability: *durability,
        segment_bytes: 6000,
        verify_freshness: true,
        ..WalOptions::default()
    })
}

fn plan(effort: Effort) -> Plan {
    let limits = |exhaustive_units, sampled, torn_stride, torn_edge| Limits {
        exhaustive_units,
        sampled,
        torn_stride,
        torn_edge,
    };
    Plan {
        limits: effort.pick(limits(2, 1, 4001, 0), limits(4, 3, 1009, 1), limits(8, 16, 101, 4)),
        every: effort.pick(7, 1, 1),
        per_point: effort.pick(1, 3, usize::MAX - 1),
        finish: effort.pick(8, 8, 2),
        deeper: effort.pick(Some(60), Some(400), Some(50)),
    }
}

/// Lives all stories in a mode, each with all lines of options, or with one of them if quick.
fn sweep(mode: &str) {
    if wanted().is_some() {
        return;
    }
    let (begun, effort) = (Instant::now(), effort());
    let mut counts = Counts::default();
    let mut lives = 0;
    for (number, (name, tell)) in STORIES.iter().enumerate() {
        let story = tell();
        for (line, (options, _)) in OPTIONS.iter().enumerate() {
            if effort == Effort::Quick && number % OPTIONS.len() != line {
                continue;
            }
            cell((mode, options, name), &story, plan(effort), None, &mut counts);
            lives += 1;
        }
        println!("{mode}: {counts} up to `{name}`, {:.1?}", begun.elapsed());
    }
    let states = counts.states;
    println!(
        "{mode} ({effort:?}): {states} crash states of {lives} lives, {:.1?}",
        begun.elapsed()
    );
    assert!(states > 300 && counts.finished > 30 && counts.deeper > 10, "{counts}");
}

fn cell(
    (mode, line, name): (&str, &str, &str),
    story: &Story,
    plan: Plan,
    only: Option<(u64, String)>,
    counts: &mut Counts,
) {
    let name = format!("{mode}/{line}/{name}");
    let mut walk = Walk::new(&name, story, options(mode, line), plan);
    walk.only = only;
    walk.run();
    counts.add(&walk.counts);
}

#[expect(clippy::disallowed_methods, reason = "no product code: only tests are told so")]
fn wanted() -> Option<String> {
    env::var(VARIABLE).ok()
}

/// What the environment asks for; see the module's documentation.
#[test]
fn one_crash_is_repeated() {
    let Some(wanted) = wanted() else { return };
    let words: Vec<&str> = wanted.split_whitespace().collect();
    let names: Vec<&str> = words[0].split('/').collect();
    let (_, tell) = STORIES.iter().find(|(name, _)| *name == names[2]).expect("a story");
    let only = (words[1].parse().expect("an operation"), words[2].to_owned());
    let (story, mut counts) = (tell(), Counts::default());
    for _ in 0..REPETITIONS {
        let cell_names = (names[0], names[1], names[2]);
        cell(cell_names, &story, plan(Effort::Long), Some(only.clone()), &mut counts);
    }
    println!("{wanted}: {counts}");
    assert!(counts.states > 0, "there was no operation of that number");
}

#[test]
fn strict_keeps_every_connected_block() {
    sweep("strict");
}

#[test]
fn batched_keeps_every_connected_block() {
    sweep("batched");
}

#[test]
fn relaxed_keeps_every_connected_block_through_a_kill() {
    sweep("relaxed");
}

#[test]
fn asynchronous_keeps_what_it_reported_durable() {
    sweep("async");
}
