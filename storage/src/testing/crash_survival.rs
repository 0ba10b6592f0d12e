//! `Survival`: what of the unsynced changes a crash leaves, and which of these to try.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use crate::testing::Random;
use crate::testing::sim_disk::{Disk, Pending, SECTOR_BYTES};

/// What of the changes that no fsync has covered survives a crash. Displayed and parsed as one
/// word, so that a failing test can say how to repeat it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Survival {
    /// Everything: only the process died. What was not synced still is not.
    All,
    /// Nothing.
    Synced,
    /// The first changes, and of the next one, if it is a write, the first bytes.
    Prefix {
        /// How many changes survive whole.
        changes: usize,
        /// How many bytes of the next one survive.
        bytes: usize,
    },
    /// Some units: sectors, sizes and names, one by one.
    Units {
        /// Which, in the order in which they came.
        kept: Vec<bool>,
        /// Whether holes show garbage instead of zeros.
        garbage: bool,
    },
    /// Some names, made, renamed or removed; of the bytes all or nothing.
    Names {
        /// Which, in the order in which they came.
        kept: Vec<bool>,
        /// Whether bytes and sizes survive.
        bytes: bool,
    },
}

/// How many states to try where trying all is too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Up to so many unsynced units, every subset.
    pub exhaustive_units: usize,
    /// Beyond: every prefix, each single drop, each single keep, and so many pairs and random
    /// subsets each.
    pub sampled: usize,
    /// Tear a write at every sector, at every so many bytes,
    pub torn_stride: usize,
    /// and everywhere in so many bytes at its beginning and its end: headers and checksums.
    pub torn_edge: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { exhaustive_units: 12, sampled: 32, torn_stride: 1, torn_edge: 0 }
    }
}

/// What survives or not as a whole.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unit {
    /// The pending change.
    pub(crate) change: usize,
    /// Which part of it.
    pub(crate) part: Part,
}

/// A part of a change.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Part {
    /// The size of the file after a write that extends it.
    Size,
    /// What a write puts into one sector.
    Bytes { from: usize, to: usize },
    /// All of it.
    Whole,
}

/// The units of all pending changes.
pub(crate) fn units(disk: &Disk) -> Vec<Unit> {
    let mut units = Vec::new();
    for (change, pending) in disk.pending.iter().enumerate() {
        let Pending::Write { file, offset, bytes } = pending else {
            units.push(Unit { change, part: Part::Whole });
            continue;
        };
        let durable_len = disk.files.get(*file).map_or(0, |inode| inode.durable.len());
        if offset + bytes.len() > durable_len {
            units.push(Unit { change, part: Part::Size });
        }
        let mut from = 0;
        while from < bytes.len() {
            let to = bytes.len().min(from + SECTOR_BYTES - (offset + from) % SECTOR_BYTES);
            units.push(Unit { change, part: Part::Bytes { from, to } });
            from = to;
        }
    }
    units
}

/// What a crash may leave; see [`CrashPoints::survivals`](crate::testing::CrashPoints::survivals).
pub(crate) fn enumerate(
    disk: &Disk,
    limits: &Limits,
    newest_only: bool,
    seed: u64,
) -> Vec<Survival> {
    let newest = disk.pending.len().checked_sub(1).filter(|_| newest_only);
    let mut all = vec![Survival::All];
    if newest.is_none() {
        all.push(Survival::Synced);
    }
    prefixes(disk, limits, newest, &mut all);
    names(disk, limits, newest, &mut Random::new(seed), &mut all);
    subsets(disk, limits, newest, &mut Random::new(!seed), &mut all);
    all
}

fn prefixes(disk: &Disk, limits: &Limits, newest: Option<usize>, all: &mut Vec<Survival>) {
    let whole = disk.pending.len();
    // The last one whole is the same as all of it durable.
    let from = newest.map_or(1, |newest| newest + 1);
    all.extend((from..=whole).map(|changes| Survival::Prefix { changes, bytes: 0 }));
    if let Some(Pending::Write { offset, bytes, .. }) = disk.pending.last() {
        let len = bytes.len();
        let stride = limits.torn_stride.max(1);
        let torn = |bytes: &usize| {
            let in_sector = (offset + bytes) % SECTOR_BYTES;
            *bytes <= limits.torn_edge
                || *bytes + limits.torn_edge >= len
                || in_sector < 2
                || in_sector == SECTOR_BYTES - 1
                || (offset + bytes).is_multiple_of(stride)
        };
        let changes = whole - 1;
        all.extend((1..len).filter(torn).map(|bytes| Survival::Prefix { changes, bytes }));
    }
}

fn names(
    disk: &Disk,
    limits: &Limits,
    newest: Option<usize>,
    random: &mut Random,
    all: &mut Vec<Survival>,
) {
    let is_name: Vec<bool> = disk.pending.iter().map(|change| change.dir().is_some()).collect();
    let count = is_name.iter().filter(|is_name| **is_name).count();
    if count == 0 {
        return;
    }
    let newest_is_name = newest.is_some() && is_name.last() == Some(&true);
    let newest_is_bytes = newest.is_some() && is_name.last() == Some(&false);
    for kept in masks(count, limits, random) {
        if newest_is_name && kept.last() != Some(&true) {
            continue;
        }
        if !newest_is_bytes {
            all.push(Survival::Names { kept: kept.clone(), bytes: false });
        }
        all.push(Survival::Names { kept, bytes: true });
    }
}

fn subsets(
    disk: &Disk,
    limits: &Limits,
    newest: Option<usize>,
    random: &mut Random,
    all: &mut Vec<Survival>,
) {
    let units = units(disk);
    let fresh = newest.map_or(0..units.len(), |newest| {
        units.iter().position(|unit| unit.change >= newest).unwrap_or(0)..units.len()
    });
    for kept in masks(units.len(), limits, random) {
        let any = |range: Range<usize>| kept.get(range).is_some_and(|kept| kept.contains(&true));
        if newest.is_some() && !any(fresh.clone()) {
            continue;
        }
        if has_hole(&units, &kept) {
            all.push(Survival::Units { kept: kept.clone(), garbage: true });
        }
        all.push(Survival::Units { kept, garbage: false });
    }
}

/// Whether a part of a write survives and a sector of it does not.
fn has_hole(units: &[Unit], kept: &[bool]) -> bool {
    let (mut change, mut some, mut hole) = (usize::MAX, false, false);
    for (unit, kept) in units.iter().zip(kept) {
        if unit.change != change {
            (change, some, hole) = (unit.change, false, false);
        }
        some |= *kept;
        hole |= !kept && matches!(unit.part, Part::Bytes { .. });
        if some && hole {
            return true;
        }
    }
    false
}

/// Which subsets of `count` units to try.
fn masks(count: usize, limits: &Limits, random: &mut Random) -> Vec<Vec<bool>> {
    if count <= limits.exhaustive_units {
        return (0..1_u64 << count)
            .map(|mask| (0..count).map(|bit| mask >> bit & 1 == 1).collect())
            .collect();
    }
    let only = |wanted: bool, units: &[usize]| -> Vec<bool> {
        (0..count).map(|unit| units.contains(&unit) == wanted).collect()
    };
    let mut masks: Vec<Vec<bool>> =
        (0..=count).map(|end| (0..count).map(|unit| unit < end).collect()).collect();
    for unit in 0..count {
        masks.push(only(true, &[unit]));
        masks.push(only(false, &[unit]));
    }
    for _ in 0..limits.sampled {
        let pair = [random.below(count), random.below(count)];
        masks.push(only(true, &pair));
        masks.push(only(false, &pair));
        masks.push((0..count).map(|_| random.one_in(2)).collect());
    }
    masks
}

impl fmt::Display for Survival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = |kept: &[bool]| -> String {
            kept.iter().map(|kept| if *kept { '1' } else { '0' }).collect()
        };
        match self {
            Self::All => f.write_str("all"),
            Self::Synced => f.write_str("synced"),
            Self::Prefix { changes, bytes } => write!(f, "prefix:{changes}+{bytes}"),
            Self::Units { kept, garbage } => {
                write!(f, "units:{}:{}", bits(kept), if *garbage { "garbage" } else { "zeros" })
            }
            Self::Names { kept, bytes } => {
                write!(f, "names:{}:{}", bits(kept), if *bytes { "bytes" } else { "empty" })
            }
        }
    }
}

impl FromStr for Survival {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("`{text}` is not what a crash leaves");
        let bits = |bits: &str| bits.chars().map(|bit| bit == '1').collect::<Vec<bool>>();
        let mut parts = text.split(':');
        let (kind, first, second) = (parts.next(), parts.next(), parts.next());
        match (kind, first, second) {
            (Some("all"), None, None) => Ok(Self::All),
            (Some("synced"), None, None) => Ok(Self::Synced),
            (Some("prefix"), Some(counts), None) => {
                let (changes, bytes) = counts.split_once('+').ok_or_else(bad)?;
                let number = |text: &str| text.parse().map_err(|_| bad());
                Ok(Self::Prefix { changes: number(changes)?, bytes: number(bytes)? })
            }
            (Some("units"), Some(kept), Some(filler)) => {
                Ok(Self::Units { kept: bits(kept), garbage: filler == "garbage" })
            }
            (Some("names"), Some(kept), Some(bytes)) => {
                Ok(Self::Names { kept: bits(kept), bytes: bytes == "bytes" })
            }
            _ => Err(bad()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::hash::RandomState;
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::file_system::{File, FileSystem as _};
    use crate::testing::{CrashPoints, SimFileSystem};

    /// A durable name, and what happened to the file after it.
    fn recorded(work: impl FnOnce(&SimFileSystem, &Arc<dyn File>)) -> CrashPoints {
        let fs = SimFileSystem::new();
        fs.create_dir_all(Path::new("d")).unwrap();
        let file = fs.create_new(Path::new("d/f")).unwrap();
        fs.sync_dir(Path::new("d")).unwrap();
        fs.record();
        work(&fs, &file);
        let mut points = fs.recording().points();
        while points.advance().is_some() {}
        points
    }

    /// What is under the name after each crash; none if there is nothing.
    fn contents(points: &CrashPoints, survivals: &[Survival]) -> HashSet<Option<Vec<u8>>> {
        let read = |survival| points.image(survival).read(Path::new("d/f")).ok();
        survivals.iter().map(read).collect()
    }

    fn no_torn() -> Limits {
        Limits { torn_stride: usize::MAX, ..Limits::default() }
    }

    #[test]
    fn a_survival_is_read_back_from_its_words() {
        for survival in [
            Survival::All,
            Survival::Synced,
            Survival::Prefix { changes: 3, bytes: 17 },
            Survival::Units { kept: vec![true, false, true], garbage: true },
            Survival::Units { kept: vec![], garbage: false },
            Survival::Names { kept: vec![false], bytes: true },
        ] {
            assert_eq!(survival.to_string().parse(), Ok(survival));
        }
        for bad in ["", "prefix:1", "units:01", "all:1", "prefix:x+1"] {
            assert!(bad.parse::<Survival>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_write_over_two_sectors_survives_in_every_way() {
        let points = recorded(|_, file| file.write_all_at(500, &[7; 24]).unwrap());
        assert_eq!(points.units(), 3, "a size and two sectors");
        let survivals = points.survivals(&no_torn(), false, 0);
        let file = |filler: u8, first: u8, second: u8| {
            let first = [vec![filler; 500], vec![first; 12]].concat();
            Some([first, vec![second; 12]].concat())
        };
        let mut expected = HashSet::from([
            Some(vec![]),
            // Sizes without bytes, bytes without the size of the whole, holes of both kinds.
            file(0, 0, 0),
            file(0xa5, 0xa5, 0xa5),
            file(0, 7, 7),
        ]);
        for filler in [0, 0xa5] {
            expected.insert(file(filler, 7, filler));
            expected.insert(file(filler, filler, 7));
            expected.insert(file(filler, 7, 7).map(|bytes| bytes[..512].to_vec()));
        }
        // Torn at the edge of a sector.
        expected.insert(file(0, 7, 7).map(|bytes| bytes[..511].to_vec()));
        expected.insert(file(0, 7, 7).map(|bytes| bytes[..513].to_vec()));
        let found = contents(&points, &survivals);
        let short = |bytes: &Option<Vec<u8>>| bytes.as_ref().map(|bytes| bytes[..].len());
        let odd: Vec<_> = found.symmetric_difference(&expected).map(short).collect();
        assert!(odd.is_empty(), "lengths of what is too much or missing: {odd:?}");
    }

    #[test]
    fn names_survive_before_their_bytes_and_one_without_the_other() {
        let points = recorded(|fs, _| {
            let file = fs.create_new(Path::new("d/new")).unwrap();
            file.write_all_at(0, b"bytes").unwrap();
            fs.rename(Path::new("d/new"), Path::new("d/f")).unwrap();
        });
        let survivals = points.survivals(&no_torn(), false, 0);
        let empty = contents(&points, &survivals);
        assert!(empty.contains(&Some(vec![])) && empty.contains(&Some(b"bytes".to_vec())));
        let new = |survival| points.image(survival).read(Path::new("d/new")).is_ok();
        assert!(survivals.iter().any(new), "the rename is lost, the name of the new file is not");
    }

    #[test]
    fn every_subset_is_tried_up_to_the_bound_and_a_sample_beyond_it() {
        let write = |sectors: usize| {
            recorded(move |_, file| file.write_all_at(0, &vec![7; sectors * 512]).unwrap())
        };
        let subsets = |points: &CrashPoints| {
            let survivals = points.survivals(&no_torn(), false, 0);
            let kept = survivals.into_iter().filter_map(|survival| match survival {
                Survival::Units { kept, .. } => Some(kept),
                _ => None,
            });
            kept.collect::<HashSet<_>>().len()
        };
        assert_eq!(subsets(&write(11)), 1 << 12);
        let sampled = subsets(&write(40));
        assert!((41 * 3..300).contains(&sampled), "{sampled}");
    }

    /// What a crash leaves after a change is what it left before, and what the change adds.
    #[test]
    fn the_newest_states_are_just_those_that_were_not_possible_before() {
        let fs = SimFileSystem::new();
        fs.create_dir_all(Path::new("d")).unwrap();
        fs.record();
        let file = fs.create_new(Path::new("d/f")).unwrap();
        file.write_all_at(0, &[1; 700]).unwrap();
        file.write_all_at(300, &[2; 700]).unwrap();
        fs.rename(Path::new("d/f"), Path::new("d/g")).unwrap();
        let (build, limits) = (RandomState::new(), no_torn());
        let mut points = fs.recording().points();
        let digests = |points: &CrashPoints, newest_only| -> HashSet<u64> {
            let survivals = points.survivals(&limits, newest_only, 0);
            survivals.iter().map(|survival| points.image(survival).digest(&build)).collect()
        };
        let mut before = digests(&points, false);
        while points.advance().is_some() {
            let all = digests(&points, false);
            before.extend(digests(&points, true));
            assert!(all.is_subset(&before), "operation {}", points.ops());
        }
    }
}
