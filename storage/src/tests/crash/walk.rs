//! `Walk`: crashes everywhere in a recorded life, and everywhere in the recovery from that, and
//! checks each state that is left.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::thread;

use super::life::{Reached, live};
use super::script::Script;
use crate::testing::{CrashPoint, CrashPoints, Limits, Model, SimFileSystem, Survival};
use crate::tests::{BlockFiles, LOG_DIR, PLACES, Store, block_bytes, open_all_to_read};
use crate::{Database as _, FilePosition, FileSystem as _, KeyRange, WalOptions};

/// What lives after the first do. The first only opens.
const LIVES: [&str; 6] = ["", "c", "cb", "ck", "pd", "ycD"];
/// What a store that is continued to its end does.
const REST: &str = "csrkbD";

/// How much to walk through.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    /// In the first life, and in those after it.
    pub(super) limits: [Limits; 3],
    /// Crash in the recovery from one in so many states, by depth.
    pub(super) deeper: [Option<u64>; 3],
    /// The same, if only the process died: just after a file was renamed or removed, and otherwise. The next
    /// crash may take what this one has left unsynced.
    pub(super) deeper_kill: [u64; 2],
    /// Cut the power after one in so many openings.
    pub(super) cut: u64,
    /// Continue to the end after one in so many.
    pub(super) finish: u64,
}

/// How many states were opened and checked.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    /// By model, P0 to P4.
    pub(super) models: [u64; 5],
    /// By depth.
    pub(super) depths: [u64; 3],
    pub(super) cut: u64,
    pub(super) finished: u64,
    pub(super) points: u64,
    /// Points at which every subset was tried.
    pub(super) exhaustive: u64,
}

impl Counts {
    pub(super) fn states(&self) -> u64 {
        self.models.iter().sum()
    }

    pub(super) fn add(&mut self, other: &Self) {
        let pairs = [(&mut self.models[..], &other.models[..]), (&mut self.depths, &other.depths)];
        for (to, from) in pairs {
            to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
        }
        self.cut += other.cut;
        self.finished += other.finished;
        self.points += other.points;
        self.exhaustive += other.exhaustive;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, count) in self.models.iter().enumerate() {
            write!(f, "P{number} {count}, ")?;
        }
        let [first, second, third] = self.depths;
        write!(f, "by depth {first} {second} {third}; ")?;
        write!(f, "{} opened again, {} continued; ", self.cut, self.finished)?;
        write!(f, "{} points, {} of them with every subset", self.points, self.exhaustive)
    }
}

/// A crash: in which life, after how many operations, what survived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Crash {
    pub(super) life: usize,
    pub(super) op: u64,
    pub(super) survival: Survival,
}

impl fmt::Display for Crash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.life, self.op, self.survival)
    }
}

impl FromStr for Crash {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.splitn(3, '/');
        let mut next = || parts.next().ok_or_else(|| format!("`{text}` is not a crash"));
        let number = |text: &str| text.parse().map_err(|_| format!("`{text}` is not a number"));
        let (life, op, survival) = (number(next()?)?, number(next()?)?, next()?.parse()?);
        Ok(Self { life: usize::try_from(life).unwrap_or(0), op, survival })
    }
}

/// All crashes of a workload.
pub(super) struct Walk<'a> {
    pub(super) cell: &'a str,
    pub(super) seed: u64,
    pub(super) options: &'a WalOptions,
    pub(super) plan: Plan,
    /// Only these crashes, one after the other.
    pub(super) only: Option<Vec<Crash>>,
    pub(super) counts: Counts,
    kills: [u64; 2],
    /// The crashes so far.
    path: Vec<Crash>,
}

/// Prints how to repeat what is being checked, if that panics.
struct Label<'a>(&'a str, &'a [Crash]);

impl Drop for Label<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            let crashes: Vec<String> = self.1.iter().map(ToString::to_string).collect();
            println!("repeat with COFFERDAM_CRASH='{} {}'", self.0, crashes.join(" "));
        }
    }
}

/// What was found after a crash.
struct Found {
    version: usize,
    torn: bool,
}

impl<'a> Walk<'a> {
    pub(super) fn new(cell: &'a str, seed: u64, options: &'a WalOptions, plan: Plan) -> Self {
        let (counts, path) = (Counts::default(), Vec::new());
        Self { cell, seed, options, plan, only: None, counts, kills: [0; 2], path }
    }

    /// Runs a script from an empty disk, and crashes everywhere in it.
    pub(super) fn run(&mut self, script: &Script) {
        self.life(0, &SimFileSystem::new(), script, Reached::default());
    }

    /// Lives on a disk, and crashes everywhere in that.
    fn life(&mut self, life: usize, fs: &SimFileSystem, script: &Script, start: Reached) {
        let depth = self.path.len();
        fs.record();
        let marks = {
            let _label = Label(self.cell, &self.path);
            live(fs, script, self.options, start)
        };
        let mut points = fs.recording().points();
        let mut seen = Seen::default();
        let mut reached = start;
        let limits = self.plan.limits[depth];
        self.point(life, &points, script, (reached, false), &mut seen);
        let mut units = points.units();
        while let Some(point) = points.advance() {
            let exhaustive = units <= limits.exhaustive_units;
            units = points.units();
            let newest_only = match point {
                CrashPoint::Change => true,
                // What it leaves could have been left before it.
                CrashPoint::Sync if exhaustive => continue,
                CrashPoint::Sync => false,
                CrashPoint::Mark(mark) => {
                    let before = reached;
                    reached = marks[usize::try_from(mark).unwrap()];
                    if (before.kill, before.power) == (reached.kill, reached.power) {
                        continue;
                    }
                    false
                }
            };
            self.counts.points += 1;
            self.counts.exhaustive += u64::from(units <= limits.exhaustive_units);
            self.point(life, &points, script, (reached, newest_only), &mut seen);
        }
    }

    /// Everything that a crash at this point may leave.
    fn point(
        &mut self,
        life: usize,
        points: &CrashPoints,
        script: &Script,
        (reached, newest_only): (Reached, bool),
        seen: &mut Seen,
    ) {
        let (depth, op) = (self.path.len(), points.ops());
        let survivals = match &self.only {
            Some(only) => {
                let crash = only.get(depth).filter(|crash| (crash.life, crash.op) == (life, op));
                crash.map(|crash| crash.survival.clone()).into_iter().collect()
            }
            None => {
                let seed = self.seed ^ op << 8;
                points.survivals(&self.plan.limits[depth], newest_only, seed)
            }
        };
        for survival in survivals {
            let image = points.image(&survival);
            let killed = survival == Survival::All;
            let promised = if killed { reached.kill } else { reached.power };
            if !killed && self.only.is_none() && !seen.is_new(&image, promised) {
                continue;
            }
            self.path.push(Crash { life, op, survival });
            self.state(points, script, promised, reached);
            self.path.pop();
        }
    }

    /// Opens and checks what the last crash has left, and goes on from there.
    fn state(&mut self, points: &CrashPoints, script: &Script, promised: usize, reached: Reached) {
        let depth = self.path.len() - 1;
        let Crash { op, survival, .. } = self.path.last().cloned().unwrap();
        let killed = survival == Survival::All;
        let image = points.image(&survival);
        let found = self.check(&image, script, (promised, reached));
        {
            // A power cut may tear although only whole things survive: an fsync of the log can
            // cover a record that was written after the fsync of what it refers to.
            let _label = Label(self.cell, &self.path);
            assert!(!(killed && depth == 0 && found.torn), "a kill tears nothing");
        }
        self.counts.models[model(&survival)] += 1;
        self.counts.depths[depth] += 1;
        let number = self.counts.states();
        let all = self.only.is_some();
        if all || number.is_multiple_of(self.plan.cut) {
            // What has been opened is durable.
            let cut = image.after_crash(crate::testing::CrashModel::SyncedOnly, 0);
            let again = self.check(&cut, script, exactly(found.version));
            assert!(!again.torn, "recovery leaves nothing to cut");
            self.counts.cut += 1;
        }
        if all || number.is_multiple_of(self.plan.finish) {
            let _label = Label(self.cell, &self.path);
            let rest = script.fork(found.version, REST, self.seed ^ number);
            live(&image, &rest, self.options, Reached::at(found.version));
            self.check(&image, &rest, exactly(rest.last()));
            self.counts.finished += 1;
        }
        let (mut nth, mut number) = (self.plan.deeper[depth], number);
        if killed && depth == 0 {
            let kind = usize::from(!points.newest_moves_a_name());
            self.kills[kind] += 1;
            (nth, number) = (Some(self.plan.deeper_kill[kind]), self.kills[kind]);
        }
        let deeper = nth.filter(|nth| number.is_multiple_of(*nth));
        let life = match &self.only {
            Some(only) => only.get(depth + 1).map(|crash| crash.life),
            None => deeper.map(|nth| usize::try_from(number / nth).unwrap() % LIVES.len()),
        };
        if let Some(life) = life {
            let fork = script.fork(found.version, LIVES[life], self.seed ^ op << 16);
            let power = if killed { reached.power } else { found.version };
            let lsn = |version: usize| script.versions[version].lsn;
            let torn = lsn(reached.attempted) + reached.torn - lsn(found.version);
            let start = Reached { power, torn, ..Reached::at(found.version) };
            self.life(life, &points.image(&survival), &fork, start);
        }
    }

    /// Opens a disk; checks all that can be seen. Returns which version it is.
    fn check(
        &self,
        fs: &SimFileSystem,
        script: &Script,
        (promised, reached): (usize, Reached),
    ) -> Found {
        let _label = Label(self.cell, &self.path);
        let opened = open_all_to_read(fs, self.options.clone());
        let (store, recovery, files) = opened.unwrap_or_else(|error| panic!("{}", error.chain()));
        let lsn = recovery.to_lsn;
        let read = Model::read(&store).unwrap().without(PLACES.id);
        let legal = promised..=reached.attempted;
        let version = legal
            .clone()
            .find(|v| script.versions[*v].lsn == lsn && script.versions[*v].model == read);
        let Some(version) = version else {
            let lsns = legal.map(|v| script.versions[v].lsn).collect::<Vec<_>>();
            let whole = script.versions.iter().position(|v| v.lsn == lsn && v.model == read);
            panic!("{lsn} batches, of version {whole:?}; legal are {lsns:?}; {recovery:?}");
        };
        let expected = &script.versions[version];
        assert_eq!((store.tip(), recovery.tip), (expected.tip, expected.tip), "tip");
        assert_eq!((store.durable_lsn(), store.durable_tip()), (lsn, expected.tip), "durable");
        if let Some(torn) = recovery.torn {
            assert!(torn.bytes > 0, "{torn:?}");
            let last = script.versions[reached.attempted].lsn + reached.torn;
            assert!(lsn + torn.records <= last, "{torn:?} beyond {lsn}, of {last} attempted");
        }
        check_places(&store, &files, &expected.places);
        let names = fs.list(Path::new(LOG_DIR)).unwrap();
        assert!(names.iter().all(|name| name.starts_with("wal-")), "stray files: {names:?}");
        Found { version, torn: recovery.torn.is_some() }
    }
}

/// Checks that all bytes outside the store that it refers to are there.
fn check_places(
    store: &Store,
    files: &BlockFiles,
    expected: &std::collections::BTreeMap<u32, crate::Tip>,
) {
    let mut count = 0;
    for entry in store.range(PLACES, KeyRange::all()).unwrap() {
        let (key, row) = entry.unwrap();
        let number = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().unwrap());
        let bytes = block_bytes(&expected[&number(&key)]);
        let at = FilePosition { file: number(&row[..4]), offset: number(&row[4..]) };
        assert_eq!(files.0.read(at, bytes.len()).unwrap(), bytes, "attached bytes at {at:?}");
        count += 1;
    }
    assert_eq!(count, expected.len(), "places");
}

/// What must be there if that version is.
const fn exactly(version: usize) -> (usize, Reached) {
    (version, Reached::at(version))
}

/// The number of a survival's model.
const fn model(survival: &Survival) -> usize {
    match survival {
        Survival::All => 0,
        Survival::Prefix { .. } => 1,
        Survival::Synced => 2,
        Survival::Units { .. } => 3,
        Survival::Names { .. } => 4,
    }
}

/// Disks that were checked, each with what it had to hold.
#[derive(Default)]
struct Seen {
    build: RandomState,
    disks: HashMap<u64, usize>,
}

impl Seen {
    fn is_new(&mut self, image: &SimFileSystem, promised: usize) -> bool {
        let digest = image.digest(&self.build);
        let before = self.disks.insert(digest, promised);
        before.is_none_or(|before| before < promised)
    }
}
