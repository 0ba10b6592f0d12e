//! `Walk`: crashes everywhere in a recorded life, and checks each state that is left.

use std::collections::HashMap;
use std::fmt;
use std::hash::RandomState;
use std::thread;

use bitcoin::BlockHash;
use bitcoin::consensus::deserialize;
use cofferdam_storage::Lsn;
use cofferdam_storage::testing::{
    CrashModel, CrashPoint, CrashPoints, Limits, Random, SimFileSystem, Survival,
};

use super::super::*;
use super::life::{Kept, Reached, live, open};
use super::story::Story;
use crate::headers::HeaderStatus;
use crate::undo::BlockUndo;

/// How much to walk through.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) limits: Limits,
    /// Crash at one in so many operations, chosen by the life's name.
    pub(super) every: u64,
    /// Besides the death of the process, try so many of the disks that it may leave.
    pub(super) per_point: usize,
    /// Give the blocks again after one in so many crashes.
    pub(super) finish: u64,
    /// Crash again while the blocks are given again, after one in so many.
    pub(super) deeper: Option<u64>,
}

/// How many states were opened and checked.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) states: u64,
    pub(super) points: u64,
    pub(super) finished: u64,
    pub(super) deeper: u64,
    /// States whose log had a torn end.
    torn: u64,
    /// States in the middle of a reorganisation.
    middle: u64,
}

impl Counts {
    pub(super) fn add(&mut self, other: &Self) {
        self.states += other.states;
        self.points += other.points;
        self.finished += other.finished;
        self.deeper += other.deeper;
        self.torn += other.torn;
        self.middle += other.middle;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { states, points, finished, deeper, torn, middle } = self;
        write!(f, "{states} states of {points} points, {finished} continued to the end, ")?;
        write!(f, "{deeper} crashed again, {torn} torn, {middle} within a reorganisation")
    }
}

/// All crashes of a life.
pub(super) struct Walk<'a> {
    name: &'a str,
    story: &'a Story,
    wal: WalOptions,
    plan: Plan,
    /// Only this crash: after so many operations, what survived.
    pub(super) only: Option<(u64, String)>,
    pub(super) counts: Counts,
}

/// Prints what is being checked, if that panics.
pub(super) struct Label(pub(super) String);

impl Drop for Label {
    fn drop(&mut self) {
        if thread::panicking() {
            println!("it was {}", self.0);
        }
    }
}

impl<'a> Walk<'a> {
    pub(super) fn new(name: &'a str, story: &'a Story, wal: WalOptions, plan: Plan) -> Self {
        Self { name, story, wal, plan, only: None, counts: Counts::default() }
    }

    /// Lives the story, and crashes everywhere in it.
    pub(super) fn run(&mut self) {
        let (fs, marks) = {
            let _label = Label(format!("{} (while it was lived)", self.name));
            live(self.story, &self.wal)
        };
        let mut points = fs.recording().points();
        let (build, mut seen) = (RandomState::new(), HashMap::new());
        let mut reached = Reached::default();
        let seed =
            self.name.bytes().fold(7, |seed: u64, byte| seed.rotate_left(9) ^ u64::from(byte));
        let mut random = Random::new(seed);
        while let Some(point) = points.advance() {
            if let CrashPoint::Mark(mark) = point {
                reached = marks[usize::try_from(mark).expect("an index")];
            }
            let op = points.ops();
            let every = usize::try_from(self.plan.every).expect("small");
            let is_chosen = match &self.only {
                Some((only, _)) => *only == op,
                None => random.one_in(every),
            };
            if !is_chosen {
                continue;
            }
            self.counts.points += 1;
            // Where every operation is a point, what was possible before has been seen.
            let newest_only = point == CrashPoint::Change && every == 1;
            let mut survivals = points.survivals(&self.plan.limits, newest_only, op << 8);
            match &self.only {
                Some((_, only)) => survivals.retain(|survival| survival.to_string() == *only),
                None => sample(&mut survivals, self.plan.per_point, &mut random),
            }
            for survival in survivals {
                let image = points.image(&survival);
                let promised = if survival == Survival::All { reached.kill } else { reached.power };
                let before = seen.insert(image.digest(&build), promised);
                if before.is_none_or(|before| before < promised) || self.only.is_some() {
                    self.state(&points, &survival, promised, reached.attempted);
                }
            }
        }
    }

    /// Opens and checks what a crash has left, and goes on from there.
    fn state(&mut self, points: &CrashPoints, survival: &Survival, promised: Kept, last: usize) {
        let only = format!("{} {} {survival}", self.name, points.ops());
        let _label = Label(format!("{}='{only}'", super::VARIABLE));
        let image = points.image(survival);
        let (chainstate, lsn) = self.check(&image, promised.lsn);
        let tip = chainstate.tip().hash;
        let legal = &self.story.tips[promised.tip..=last];
        assert!(legal.contains(&tip), "the tip is {:?}, not of {legal:?}", chainstate.tip());
        self.counts.states += 1;
        let work = |tip: &BlockHash| {
            let headers = chainstate.headers();
            headers.get(tip).map(|at| headers.entry(at).chain_work)
        };
        self.counts.middle += u64::from(work(&tip) < work(&self.story.tips[promised.tip]));
        drop(chainstate);
        let number = self.counts.states;
        let all = self.only.is_some();
        if all || number.is_multiple_of(self.plan.finish) {
            // What has been opened is durable.
            let cut = image.after_crash(CrashModel::SyncedOnly, 0);
            let (again, _) = self.check(&cut, lsn);
            assert_eq!(again.tip().hash, tip);
            drop(again);
            self.finish(&image);
            self.counts.finished += 1;
        }
        if self.plan.deeper.is_some_and(|deeper| number.is_multiple_of(deeper)) {
            self.crash_again(&points.image(survival), number);
        }
    }

    /// Gives all blocks again, and shuts down: the end is that of the story.
    pub(super) fn finish(&mut self, fs: &SimFileSystem) {
        let mut chainstate = open(fs, self.story.network, self.wal.clone()).expect("opens").0;
        for raw in &self.story.blocks {
            let accepted = chainstate.accept_block(raw.clone(), NOW).expect("works");
            let known_bad = |hash| self.story.failed.contains(&hash);
            if let BlockAccepted::Rejected(rejection) = &accepted {
                assert!(known_bad(header_hash(raw)), "{rejection}");
            }
        }
        chainstate.remove_unnamed_files().expect("works");
        self.check_no_file_is_forgotten(&chainstate);
        let advanced = advance(&mut chainstate);
        let fresh = advanced.invalid.iter().all(|(hash, _)| self.story.failed.contains(hash));
        assert!(fresh && advanced.done, "{advanced:?}");
        self.check_end(&chainstate);
        chainstate.shutdown().expect("closes");
        let (chainstate, _) = self.check(fs, 0);
        self.check_end(&chainstate);
    }

    /// Of a pruned chain every file but the last is named by a row.
    fn check_no_file_is_forgotten(&self, chainstate: &Chainstate) {
        let last = chainstate.last_block_file();
        let numbers = chainstate.files.numbers().expect("readable");
        let finished = chainstate.finished_block_files().expect("readable");
        let is_named = |number| finished.iter().any(|file| file.number == number);
        let forgotten = numbers.into_iter().filter(|&number| number < last && !is_named(number));
        let forgotten: Vec<u32> = forgotten.collect();
        assert!(!chainstate.has_pruned() || forgotten.is_empty(), "{forgotten:?}");
    }

    fn check_end(&self, chainstate: &Chainstate) {
        let end = self.story.end();
        assert_eq!(chainstate.tip().hash, end);
        assert_eq!(Some(&digest(chainstate, COINS)), self.story.coins.get(&end));
    }

    /// Crashes at some points while the blocks are given again, and ends the story after each.
    fn crash_again(&mut self, fs: &SimFileSystem, seed: u64) {
        const CRASHES: usize = 8;
        let mut random = Random::new(seed);
        fs.record();
        self.finish(fs);
        let recording = fs.recording();
        let ops = recording.ops();
        for _ in 0..CRASHES {
            let op = u64::try_from(random.below(ops)).expect("small");
            let mut points = recording.clone().points();
            while points.ops() < op && points.advance().is_some() {}
            let survivals = points.survivals(&self.plan.limits, false, seed);
            let survival = &survivals[random.below(survivals.len())];
            let _label = Label(format!("(then at operation {op}: {survival})"));
            let image = points.image(survival);
            drop(self.check(&image, 0));
            self.finish(&image);
            self.counts.deeper += 1;
        }
    }

    /// Opens a disk; checks all that can be seen. Returns the number of the newest batch too.
    pub(super) fn check(&mut self, fs: &SimFileSystem, promised: Lsn) -> (Chainstate, Lsn) {
        let opened = open(fs, self.story.network, self.wal.clone());
        let (chainstate, recovery) = opened.unwrap_or_else(|error| panic!("{error:?}"));
        assert!(recovery.to_lsn >= promised, "{promised} was promised: {recovery:?}");
        self.counts.torn += u64::from(recovery.torn.is_some());
        let tip = chainstate.tip();
        let coins = self.story.coins.get(&tip.hash);
        assert_eq!(Some(&digest(&chainstate, COINS)), coins, "the coins at {tip:?}");
        self.check_index(&chainstate);
        (chainstate, recovery.to_lsn)
    }

    /// What a row names is there, and what is connected has all it needs to be disconnected.
    fn check_index(&self, chainstate: &Chainstate) {
        // No life changes a row of the base: now and then suffices.
        let with_base = self.counts.states.is_multiple_of(64);
        for at in chainstate.headers.iter() {
            let entry = chainstate.headers.entry(at);
            if entry.height < self.story.base_height && !with_base {
                continue;
            }
            if let Some(extent) = entry.block {
                let raw = chainstate.files.read_block(extent).expect("the bytes are there");
                assert_eq!(header_hash(&raw), entry.hash, "another block's bytes");
            }
            let undo = entry.undo.map(|extent| chainstate.files.read_undo(extent));
            let undo = undo.map(|bytes| BlockUndo::decode(&bytes.expect("the bytes are there")));
            if let Some(undo) = undo {
                assert_eq!(undo.expect("whole").0.len() + 1, entry.tx_count as usize);
            }
            let failed = entry.status.has(HeaderStatus::FAILED);
            assert!(!failed || self.story.failed.contains(&entry.hash), "{entry:?}");
            if chainstate.is_connected(at) && entry.height > 0 {
                let valid = entry.status.has(HeaderStatus::VALID);
                let stored = entry.block.is_some() && entry.undo.is_some();
                assert!(valid && (stored || chainstate.has_pruned()), "{entry:?}");
            }
        }
    }
}

/// Keeps the first, which is the death of the process, and some others.
fn sample(survivals: &mut Vec<Survival>, count: usize, random: &mut Random) {
    let mut kept = survivals.drain(..1).collect::<Vec<_>>();
    while kept.len() <= count && !survivals.is_empty() {
        kept.push(survivals.swap_remove(random.below(survivals.len())));
    }
    *survivals = kept;
}

fn header_hash(raw: &[u8]) -> BlockHash {
    deserialize::<bitcoin::block::Header>(&raw[..80]).expect("a header").block_hash()
}
