//! `Recording`, `CrashPoints`: one run of a workload, and every disk that a crash within it leaves.
//!
//! The workload runs once, with all its threads. What it did to the disk is then repeated event by
//! event, and between any two events a disk can be made for each [`Survival`].

use std::hash::{BuildHasher, Hash as _, Hasher as _};
use std::vec;

use crate::testing::SimFileSystem;
use crate::testing::crash_survival::{self as survival, Limits, Part, Survival, Unit};
use crate::testing::sim_disk::{Disk, Event, GARBAGE, Pending};

/// What happened to a [`SimFileSystem`] from some time on.
#[derive(Debug, Clone)]
pub struct Recording {
    pub(crate) start: Disk,
    pub(crate) events: Vec<Event>,
}

impl Recording {
    /// Repeats it; the first point is that before the first event.
    #[must_use]
    pub fn points(self) -> CrashPoints {
        let Self { start, events } = self;
        CrashPoints { disk: start, events: events.into_iter(), ops: 0 }
    }

    /// How many operations there are, marks left out.
    #[must_use]
    pub fn ops(&self) -> usize {
        self.events.iter().filter(|event| !matches!(event, Event::Mark(_))).count()
    }
}

/// What was repeated last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrashPoint {
    /// A change that a crash may take: new states are those in which a part of it survives.
    Change,
    /// An fsync, which takes possibilities away; a directory; or a write of what is durably there.
    Sync,
    /// A mark of the caller.
    Mark(u64),
}

/// A disk between two events of a recording.
///
/// ```
/// use std::path::Path;
/// use cofferdam_storage::FileSystem;
/// use cofferdam_storage::testing::{CrashPoint, Limits, SimFileSystem};
///
/// # fn main() -> cofferdam_storage::Result<()> {
/// let fs = SimFileSystem::new();
/// fs.create_dir_all(Path::new("d"))?;
/// fs.record();
/// let file = fs.create_new(Path::new("d/f"))?;
/// fs.sync_dir(Path::new("d"))?;
/// file.write_all_at(0, b"value")?;
/// file.sync_data()?;
/// fs.mark(1); // "the value is durable"
///
/// let (mut promised, mut states) = (0, 0);
/// let mut points = fs.recording().points();
/// while let Some(point) = points.advance() {
///     if let CrashPoint::Mark(mark) = point {
///         promised = mark;
///     }
///     for survival in points.survivals(&Limits::default(), false, 0) {
///         let crashed = points.image(&survival);
///         let kept = crashed.read(Path::new("d/f")).is_ok_and(|bytes| bytes == b"value");
///         assert!(kept || promised == 0, "operation {}, {survival}", points.ops());
///         states += 1;
///     }
/// }
/// assert!(states > 10);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct CrashPoints {
    disk: Disk,
    events: vec::IntoIter<Event>,
    ops: u64,
}

impl CrashPoints {
    /// Repeats the next event; none if all were.
    pub fn advance(&mut self) -> Option<CrashPoint> {
        let event = self.events.next()?;
        let point = match &event {
            Event::Mark(mark) => CrashPoint::Mark(*mark),
            Event::Change(change) if !self.disk.has(change) => CrashPoint::Change,
            _ => CrashPoint::Sync,
        };
        self.ops += u64::from(!matches!(point, CrashPoint::Mark(_)));
        // A change that changes nothing would only be one more that makes no difference.
        if point == CrashPoint::Change || !matches!(event, Event::Change(_)) {
            self.disk.happen(event);
        }
        Some(point)
    }

    /// How many operations were repeated.
    #[must_use]
    pub const fn ops(&self) -> u64 {
        self.ops
    }

    /// Into how many units the changes fall that a crash now may take: sectors, sizes, names.
    #[must_use]
    pub fn units(&self) -> usize {
        survival::units(&self.disk).len()
    }

    /// Whether the newest change that a crash may take gives a file another name or none.
    #[must_use]
    pub fn newest_moves_a_name(&self) -> bool {
        matches!(self.disk.pending.last(), Some(Pending::Rename { .. } | Pending::Remove { .. }))
    }

    /// What a crash now may leave. `newest_only` leaves out what it could also have left before
    /// the last change. `seed` is for what is sampled.
    #[must_use]
    pub fn survivals(&self, limits: &Limits, newest_only: bool, seed: u64) -> Vec<Survival> {
        survival::enumerate(&self.disk, limits, newest_only, seed)
    }

    /// The disk that a crash now leaves.
    #[must_use]
    pub fn image(&self, survival: &Survival) -> SimFileSystem {
        let pending = &self.disk.pending;
        let mut after = match survival {
            Survival::All => return self.disk.after_kill().into(),
            _ => self.disk.durable(),
        };
        match survival {
            Survival::All | Survival::Synced => {}
            Survival::Prefix { changes, bytes } => {
                pending.iter().take(*changes).for_each(|change| after.make_durable(change));
                if let Some(Pending::Write { file, offset, bytes: all }) = pending.get(*changes) {
                    after.write_durable(*file, *offset, all.get(..*bytes).unwrap_or_default());
                }
            }
            Survival::Names { kept, bytes } => {
                let mut kept = kept.iter();
                for change in pending {
                    let keep = change.dir().map_or(*bytes, |_| kept.next() == Some(&true));
                    if keep {
                        after.make_durable(change);
                    }
                }
            }
            Survival::Units { kept, garbage } => {
                let filler = if *garbage { GARBAGE } else { 0 };
                for (unit, kept) in survival::units(&self.disk).into_iter().zip(kept) {
                    if *kept {
                        keep_unit(&mut after, pending, unit, filler);
                    }
                }
            }
        }
        after.reboot();
        after.into()
    }
}

/// Makes one unit durable.
fn keep_unit(disk: &mut Disk, pending: &[Pending], unit: Unit, filler: u8) {
    let Some(change) = pending.get(unit.change) else {
        return;
    };
    match (change, unit.part) {
        (Pending::Write { file, offset, bytes }, Part::Size) => {
            disk.extend_durable(*file, offset + bytes.len(), filler);
        }
        (Pending::Write { file, offset, bytes }, Part::Bytes { from, to }) => {
            // A hole before it shows the filler too.
            disk.extend_durable(*file, offset + to, filler);
            disk.write_durable(*file, offset + from, bytes.get(from..to).unwrap_or_default());
        }
        (change, _) => disk.make_durable(change),
    }
}

impl SimFileSystem {
    /// A number that is the same for disks with the same content.
    pub fn digest(&self, build: &impl BuildHasher) -> u64 {
        self.with_disk(|disk| {
            let mut hasher = build.build_hasher();
            for (name, file) in &disk.names {
                name.hash(&mut hasher);
                disk.files.get(*file).map(|inode| &inode.live).hash(&mut hasher);
            }
            hasher.finish()
        })
    }
}
