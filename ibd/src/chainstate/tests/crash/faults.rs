//! An operation of the disk that fails, at any time: the machine's fault is an error and no panic, and
//! what is found afterwards is what a crash could have left.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use bitcoin::consensus::deserialize;
use cofferdam_storage::testing::{CrashModel, Fault, Random, SimFileSystem, effort};
use cofferdam_storage::{Lsn, WalOptions};

use super::super::*;
use super::life::open;
use super::story::{STORIES, Step, Story};
use super::walk::{Label, Walk};
use super::{MODES, OPTIONS, options, plan};

/// What was done before the first error.
struct Stopped {
    failed: bool,
    /// The tips that may be found have numbers up to this one.
    attempted: usize,
    durable: Lsn,
}

/// Lives a story until something fails.
fn live(story: &Story, wal: &WalOptions, fs: &SimFileSystem) -> Stopped {
    let mut stopped = Stopped { failed: true, attempted: 0, durable: 0 };
    let Ok((mut chainstate, _)) = open(fs, story.network, wal.clone()) else {
        return stopped;
    };
    for step in &story.steps {
        let now = Instant::now();
        if let Step::Advance(through) | Step::AdvanceOnce(through) = step {
            stopped.attempted += through.len();
        }
        let done = match step {
            Step::Headers(numbers) => {
                let header = |number: &usize| deserialize(&story.blocks[*number][..80]);
                let headers = numbers.iter().map(|number| header(number).expect("a header"));
                chainstate.accept_headers(&headers.collect::<Vec<_>>(), NOW).map(drop)
            }
            Step::Accept(number) => {
                chainstate.accept_block(story.blocks[*number].clone(), NOW).map(drop)
            }
            Step::Advance(_) => chainstate.advance(now + Duration::from_secs(600)).map(drop),
            Step::AdvanceOnce(_) => chainstate.advance(now).map(drop),
            Step::Sync | Step::Drop => chainstate.sync(),
            Step::Prune => chainstate.finished_block_files().and_then(|files| {
                chainstate.prune_files(&files.iter().map(|file| file.number).collect())
            }),
            Step::Checkpoint | Step::Reopen => chainstate.store.checkpoint().map_err(Into::into),
        };
        if let Err(error) = done {
            assert!(matches!(error, Error::Storage(_)), "{error:?}");
            return stopped;
        }
        stopped.durable = stopped.durable.max(chainstate.store.durable_lsn());
    }
    stopped.failed = chainstate.shutdown().is_err();
    stopped
}

#[test]
fn a_failing_disk_is_an_error_and_leaves_a_state_of_the_history() {
    let stories: Vec<_> = STORIES.iter().map(|(name, tell)| (name, tell())).collect();
    let kinds = [ErrorKind::StorageFull, ErrorKind::Other, ErrorKind::Interrupted];
    let (mut runs, mut failed) = (0, 0);
    for seed in 0..effort().pick(60, 2000, 20_000) {
        let mut random = Random::new(seed);
        let (name, story) = &stories[random.below(stories.len())];
        let mode = MODES[random.below(MODES.len())].0;
        let line = OPTIONS[random.below(OPTIONS.len())].0;
        let wal = options(mode, line);
        let fs = story.base.copy();
        let at = u64::try_from(random.below(400)).expect("small");
        let kind = kinds[random.below(kinds.len())];
        let fault = Fault { at: fs.ops() + at, kind, sticky: random.one_in(2) };
        let name = format!("seed {seed}: {mode}/{line}/{name}");
        let _label = Label(format!("{name}, {fault:?}"));
        fs.inject(fault);
        let stopped = live(story, &wal, &fs);
        let mut walk = Walk::new(&name, story, wal, plan(effort()));
        for image in [fs.copy(), fs.after_crash(CrashModel::SyncedOnly, seed)] {
            let (chainstate, _) = walk.check(&image, stopped.durable);
            let legal = &story.tips[..=stopped.attempted];
            assert!(legal.contains(&chainstate.tip().hash), "{:?}", chainstate.tip());
            drop(chainstate);
            walk.finish(&image);
        }
        runs += 1;
        failed += u64::from(stopped.failed);
    }
    println!("{runs} lives with a failing operation, {failed} of which ended in an error");
    assert!(failed * 3 > runs, "{failed} of {runs}");
}
