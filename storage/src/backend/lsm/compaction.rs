//! When runs are merged, which, and how.
//!
//! Runs are in order of age, and only neighbours are merged, so that the newest entry of a key stays
//! the newest. The rules, in their order; one for whose result the disk has no room is passed over:
//!
//! - all of them, when those after the oldest have [`SPACE_RATIO`] times its bytes, and all together
//!   [`SPACE_BYTES_MIN`]: what was deleted is gone for good then. Where the room for it is about to
//!   be used up, a part of the oldest's bytes ([`SCARCE_DIVISOR`]) is enough: without it nothing
//!   would ever be given back to the disk. What was cleared in the oldest counts as if it were
//!   after it: it goes as well;
//! - the newest [`WIDTH`] or more of like size: a run joins while it has at most [`TIER_RATIO`]
//!   times the bytes of the newest one of them;
//! - the newest [`WIDTH`] of those.
//!
//! An entry is written about `log(runs ever written) / log(WIDTH)` times, and a read asks the filters
//! of at most some `WIDTH` runs a tier.

use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use super::cursor::{Cursor, Merge};
use super::filter::foldable_keys;
use super::run::Run;
use super::store::{Member, as_usize};
use super::writer::RunWriter;
use crate::error::{Error, Result};
use crate::file_system::{FileSystem, parent};

/// Runs that are merged at a time, at least.
pub(super) const WIDTH: usize = 8;
/// How much larger than the newest one a run of the same tier may be.
const TIER_RATIO: u64 = 4;
/// How much the runs after the oldest may hold, in its bytes, until all are merged.
const SPACE_RATIO: u64 = 2;
/// The same where space is scarce: a half of its bytes.
const SCARCE_DIVISOR: u64 = 2;
/// Space is scarce while the disk has less than so many times the room that a merge of all needs.
const SCARCE_ROOM: u64 = 2;
/// A smaller database is not merged to save space.
const SPACE_BYTES_MIN: u64 = 1 << 30;
/// The part of its result that a merge leaves free besides, and at least ...
const SPARE_DIVISOR: u64 = 4;
/// ... so much, or as much as a smaller result has: who writes coins needs it meanwhile.
const SPARE_BYTES: u64 = 256 << 20;
/// How often a merge looks whether it has to stop.
const GLANCE_ENTRIES: u32 = 4096;

/// What the rules look at in a run.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Size {
    pub(super) bytes: u64,
    /// Those of trees that were cleared since, whose entries are not counted.
    pub(super) hidden_bytes: u64,
    /// Entries with a value, and without.
    pub(super) puts: u64,
    pub(super) deletes: u64,
}

impl Size {
    /// What a merge reads.
    const fn visible_bytes(&self) -> u64 {
        self.bytes.saturating_sub(self.hidden_bytes)
    }
}

/// Which runs are to be merged.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) range: Range<usize>,
    /// The merge ends if less is free.
    pub(super) keep_bytes: u64,
}

/// Which runs are to be merged; the oldest is the first. A merge of all that ran out of space found
/// that `wanted_bytes_min` have to be free for it.
pub(super) fn choose(runs: &[Size], free_bytes: u64, wanted_bytes_min: u64) -> Option<Choice> {
    let (oldest, newer) = runs.split_first()?;
    let newer_bytes = sum(newer).bytes + oldest.hidden_bytes;
    let oldest_bytes = oldest.visible_bytes();
    let left_bytes = left_bytes(oldest, &sum(runs));
    let wanted_bytes = room_for(left_bytes).max(wanted_bytes_min);
    let is_scarce = free_bytes / SCARCE_ROOM < wanted_bytes;
    let due_bytes = if is_scarce {
        oldest_bytes / SCARCE_DIVISOR
    } else {
        oldest_bytes.saturating_mul(SPACE_RATIO)
    };
    if newer_bytes >= due_bytes
        && oldest_bytes + newer_bytes >= SPACE_BYTES_MIN
        && free_bytes >= wanted_bytes
    {
        return Some(Choice { range: 0..runs.len(), keep_bytes: spare(left_bytes) / 2 });
    }
    let like_bytes_max = runs.last()?.bytes.saturating_mul(TIER_RATIO);
    let like = runs.iter().rev().take_while(|run| run.bytes <= like_bytes_max).count();
    [like, WIDTH].into_iter().filter(|count| (WIDTH..=like).contains(count)).find_map(|count| {
        let range = runs.len() - count..runs.len();
        // No more than there was.
        let bytes = sum(runs.get(range.clone())?).visible_bytes();
        (free_bytes >= room_for(bytes)).then(|| Choice { range, keep_bytes: spare(bytes) / 2 })
    })
}

fn sum(runs: &[Size]) -> Size {
    runs.iter().fold(Size::default(), |sum, run| Size {
        bytes: sum.bytes + run.bytes,
        hidden_bytes: sum.hidden_bytes + run.hidden_bytes,
        puts: sum.puts + run.puts,
        deletes: sum.deletes + run.deletes,
    })
}

/// About how many bytes there are once all runs are one.
///
/// A coin is put once and deleted once, so that each deletion takes one other entry with it, unless a
/// merge of newer runs has taken that already: what the oldest run has, which is all that was there
/// when all were merged last, is hardly ever less at the end. An entry with a value has as many bytes
/// as in that run, which has no deletions, or as in all of them if that is more. Entries that replace
/// others make this too much. Where it is too little, the merge ends before it has used up the disk.
fn left_bytes(oldest: &Size, all: &Size) -> u64 {
    let bytes_each = |size: &Size| size.visible_bytes().div_ceil((size.puts + size.deletes).max(1));
    let left = all.puts.saturating_sub(all.deletes);
    let bytes = left.saturating_mul(bytes_each(oldest).max(bytes_each(all)));
    bytes.max(oldest.visible_bytes()).min(all.visible_bytes())
}

/// How much has to be free for a merge with so many bytes of result.
fn room_for(bytes: u64) -> u64 {
    bytes.saturating_add(spare(bytes))
}

fn spare(bytes: u64) -> u64 {
    (bytes / SPARE_DIVISOR).max(bytes.min(SPARE_BYTES))
}

/// What a merge is told.
pub(super) struct MergeJob<'a> {
    pub(super) fs: &'a dyn FileSystem,
    pub(super) path: &'a Path,
    pub(super) number: u64,
    pub(super) seed: u64,
    /// The oldest first.
    pub(super) inputs: &'a [Member],
    /// Whether no run is older than these: deletions have nothing left to hide.
    pub(super) with_oldest: bool,
    /// Ends with [`Error::NoSpace`] if less is free.
    pub(super) keep_bytes: u64,
    pub(super) stop: &'a AtomicBool,
}

impl MergeJob<'_> {
    /// Writes the runs as one; none if nothing is left of them.
    pub(super) fn run(&self) -> Result<Option<Run>> {
        let Size { puts, deletes, .. } = sum(&sizes(self.inputs));
        // Perhaps there will be far fewer.
        let entries_max = foldable_keys(as_usize(puts + deletes));
        let mut writer =
            RunWriter::create(self.fs, self.path, (self.number, self.seed), entries_max)?;
        for id in tree_ids(self.inputs.iter().map(|input| &*input.run)) {
            self.merge_tree(id, &mut writer)?;
        }
        if writer.is_empty() { Ok(None) } else { writer.finish().map(Some) }
    }

    fn merge_tree(&self, id: u8, writer: &mut RunWriter) -> Result<()> {
        let mut cursors = Vec::new();
        for input in self.inputs.iter().rev() {
            if let Some(tree) = input.visible_tree(id) {
                cursors.push(Cursor::first(&input.run, tree)?);
            }
        }
        let mut merge = Merge::new(cursors);
        let mut glance = 0;
        while merge.advance()? {
            glance += 1;
            if glance == GLANCE_ENTRIES {
                glance = 0;
                self.check(writer.byte_len())?;
            }
            if let Some((key, value)) = merge.entry()
                && (value.is_some() || !self.with_oldest)
            {
                writer.push(id, key, value)?;
            }
        }
        Ok(())
    }

    /// Fails if the merge has to end early, which has written so many bytes.
    fn check(&self, written_bytes: u64) -> Result<()> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(Error::misuse("the database is being closed"));
        }
        let dir = parent(self.path);
        let free_bytes = self.fs.free_bytes(dir)?.unwrap_or(u64::MAX);
        if free_bytes >= self.keep_bytes {
            return Ok(());
        }
        let path = dir.to_path_buf();
        // Before it, and as far as one can tell now.
        Err(Error::NoSpace { path, free_bytes, wanted_bytes: room_for(written_bytes) })
    }
}

/// The trees that any of the runs has, in order.
fn tree_ids<'a>(runs: impl Iterator<Item = &'a Run>) -> Vec<u8> {
    let mut ids: Vec<u8> = runs.flat_map(|run| run.trees().iter().map(|tree| tree.id)).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// What the rules look at in the runs.
pub(super) fn sizes(runs: &[Member]) -> Vec<Size> {
    let size = |member: &Member| {
        let mut size = Size { bytes: member.run.byte_len(), ..Size::default() };
        for tree in member.run.trees() {
            if member.hidden.contains(&tree.id) {
                size.hidden_bytes += member.run.tree_bytes(tree);
            } else {
                size.puts += tree.puts;
                size.deletes += tree.deletes;
            }
        }
        size
    };
    runs.iter().map(size).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const PLENTY: u64 = u64::MAX;

    /// Runs of entries of one byte.
    fn of(bytes: &[u64]) -> Vec<Size> {
        let size = |&bytes: &u64| Size { bytes, puts: bytes, ..Size::default() };
        bytes.iter().map(size).collect()
    }

    fn chosen(bytes: &[u64], free_bytes: u64) -> Option<Range<usize>> {
        choose(&of(bytes), free_bytes, 0).map(|choice| choice.range)
    }

    #[test]
    fn equal_runs_are_merged_by_eight_and_all_when_they_are_large() {
        assert_eq!(chosen(&[], PLENTY), None);
        assert_eq!(chosen(&[10; WIDTH - 1], PLENTY), None);
        assert_eq!(chosen(&[10; WIDTH], PLENTY), Some(0..WIDTH));
        let mut bytes = vec![1000];
        bytes.extend([10; WIDTH]);
        assert_eq!(chosen(&bytes, PLENTY), Some(1..WIDTH + 1));
        assert_eq!(chosen(&[500 * MIB, 500 * MIB], PLENTY), None);
        assert_eq!(chosen(&[500 * MIB, 500 * MIB, 500 * MIB], PLENTY), Some(0..3));
        assert_eq!(chosen(&[1], PLENTY), None);
    }

    #[test]
    fn without_room_to_merge_all_the_newest_are_merged() {
        let mut bytes = vec![10_000 * MIB, 10_000 * MIB];
        bytes.extend([1000 * MIB; WIDTH + 4]);
        let all = 0..bytes.len();
        assert_eq!(chosen(&bytes, 50_000 * MIB), Some(all.clone()));
        assert_eq!(chosen(&bytes, 30_000 * MIB), Some(2..all.end), "all of like size");
        assert_eq!(chosen(&bytes, 11_000 * MIB), Some(6..all.end), "eight of them");
        assert_eq!(chosen(&bytes, 9000 * MIB), None);
        // Those that came since, and all again once there is room.
        bytes.extend([10 * MIB; WIDTH]);
        assert_eq!(chosen(&bytes, 9000 * MIB), Some(all.end..all.end + WIDTH));
        assert_eq!(chosen(&bytes, 50_000 * MIB), Some(0..bytes.len()));
    }

    fn size(bytes: u64, puts: u64, deletes: u64) -> Size {
        Size { bytes, puts, deletes, ..Size::default() }
    }

    #[test]
    fn what_was_cleared_needs_no_room_and_is_given_back() {
        let kept = size(100 * MIB, MIB, 0);
        let oldest = Size { bytes: 10_000 * MIB, hidden_bytes: 9900 * MIB, ..kept };
        for runs in [vec![oldest], vec![oldest, kept, kept]] {
            let range = choose(&runs, 1000 * MIB, 0).map(|choice| choice.range);
            assert_eq!(range, Some(0..runs.len()), "{} runs", runs.len());
            assert_eq!(choose(&runs, 100 * MIB, 0), None);
        }
        assert_eq!(choose(&[Size { hidden_bytes: 0, ..oldest }], PLENTY, 0), None);
        // Much of little is not worth a merge, as elsewhere.
        let small = Size { bytes: 900 * MIB, hidden_bytes: 800 * MIB, ..kept };
        assert_eq!(choose(&[small], PLENTY, 0), None);
    }

    #[test]
    fn what_is_deleted_needs_no_room() {
        let oldest = size(6000 * MIB, 100 * MIB, 0);
        let newer = size(12_000 * MIB, 120 * MIB, 120 * MIB);
        let range = |runs: &[Size], free| choose(runs, free, 0).map(|choice| choice.range);
        assert_eq!(range(&[oldest, newer], 8000 * MIB), Some(0..2), "6,000 and a quarter");
        assert_eq!(range(&[oldest, newer], 7000 * MIB), None);
        // Not tried again with what was too little, since something is different than it seems.
        assert_eq!(choose(&[oldest, newer], 8000 * MIB, 8001 * MIB), None);
        assert!(choose(&[oldest, newer], 8001 * MIB, 8001 * MIB).is_some());
        // While the room is about to be used up, less than twice the oldest is enough.
        let newer = size(4000 * MIB, 40 * MIB, 40 * MIB);
        assert_eq!(range(&[oldest, newer], 20_000 * MIB), None);
        assert_eq!(range(&[oldest, newer], 10_000 * MIB), Some(0..2));
    }

    /// Merges of newer runs have left deletions whose entries are gone.
    #[test]
    fn what_was_there_at_the_last_merge_of_all_has_room() {
        let oldest = size(6000 * MIB, 100 * MIB, 0);
        let newer = size(12_000 * MIB, 60 * MIB, 180 * MIB);
        let runs = [oldest, newer];
        assert_eq!(choose(&runs, 7000 * MIB, 0), None);
        let choice = choose(&runs, 8000 * MIB, 0).unwrap();
        assert_eq!(choice, Choice { range: 0..2, keep_bytes: 750 * MIB });
    }

    /// A database of one size that is written over and over stays within a bound, and an entry is
    /// not written often.
    #[test]
    fn the_files_and_the_writing_are_bounded() {
        for live in [1_u64, 20, 500] {
            let (mut runs, mut written, mut most, mut widest) = (Vec::new(), 0, 0, 0);
            let rounds = 5000;
            for _ in 0..rounds {
                runs.push(100 * MIB);
                written += 100 * MIB;
                while let Some(range) = chosen(&runs, PLENTY) {
                    let merged: u64 = runs.drain(range.clone()).sum();
                    // All together there is no more than what is alive.
                    let alive = 100 * MIB * live;
                    let left = if range.start == 0 { merged.min(alive) } else { merged };
                    written += left;
                    runs.insert(range.start, left);
                }
                most = most.max(runs.iter().sum());
                widest = widest.max(runs.len());
            }
            let bound = 100 * MIB * live * (2 + SPACE_RATIO) + SPACE_BYTES_MIN;
            assert!(most <= bound, "{live}: {most}");
            assert!(written <= rounds * 100 * MIB * 6, "{live}: {written}");
            assert!(widest <= 4 * WIDTH, "{live}: {widest} runs");
        }
    }

    const PUT_BYTES: u64 = 60;
    const DELETE_BYTES: u64 = 40;

    /// A database on a disk, of which only sizes are known.
    struct Simulated {
        disk_bytes: u64,
        /// Entries written back at a time, and those that are alive.
        batch: u64,
        alive: u64,
        alive_max: u64,
        /// Whether entries replace others, instead of being deleted.
        replaces: bool,
        runs: Vec<Size>,
        written_bytes: u64,
        widest: usize,
    }

    impl Simulated {
        fn free_bytes(&self) -> u64 {
            self.disk_bytes.checked_sub(sum(&self.runs).bytes).expect("the disk is full")
        }

        fn push(&mut self, at: usize, puts: u64, deletes: u64) {
            let bytes = puts * PUT_BYTES + deletes * DELETE_BYTES;
            self.written_bytes += bytes;
            self.runs.insert(at, size(bytes, puts, deletes));
            self.widest = self.widest.max(self.runs.len());
            self.free_bytes();
        }

        /// Grows, and is of one size from then on.
        fn write_back(&mut self) {
            let grows = self.alive < self.alive_max;
            let deletes = if self.replaces { 0 } else { self.batch / if grows { 4 } else { 2 } };
            let puts = self.batch - deletes;
            self.alive =
                if self.replaces && !grows { self.alive } else { self.alive + puts - deletes };
            self.push(self.runs.len(), puts, deletes);
        }

        fn merge(&mut self) {
            while let Some(Choice { range, .. }) = choose(&self.runs, self.free_bytes(), 0) {
                let inputs = sum(&self.runs[range.clone()]);
                // Nothing cancels out before all are merged, at worst.
                let whole = range.len() == self.runs.len();
                let (puts, deletes) =
                    if whole { (self.alive, 0) } else { (inputs.puts, inputs.deletes) };
                // Inputs and result are there together, and what is written back meanwhile.
                self.push(range.end, puts, deletes);
                for _ in 0..(puts + deletes) / (8 * self.batch) {
                    self.write_back();
                }
                self.runs.drain(range);
            }
        }
    }

    /// Four times what is alive, and the log, are enough for any history.
    #[test]
    fn merging_keeps_any_disk_from_filling_up() {
        let alive_max = 10_500 * MIB / PUT_BYTES;
        for (disk_mib, batch_mib) in [
            (44_000, 150),
            (44_000, 10),
            (60_000, 150),
            (80_000, 150),
            (44_000, 1500),
            (60_000, 5000),
        ] {
            for replaces in [false, true] {
                let mut simulated = Simulated {
                    disk_bytes: disk_mib * MIB,
                    batch: batch_mib * MIB / PUT_BYTES,
                    alive: 0,
                    alive_max,
                    replaces,
                    runs: Vec::new(),
                    written_bytes: 0,
                    widest: 0,
                };
                let rounds = 400_000 / batch_mib;
                for _ in 0..rounds {
                    simulated.write_back();
                    simulated.merge();
                }
                let Simulated { batch, written_bytes, widest, .. } = simulated;
                let label = format!("{disk_mib} by {batch_mib}, replaces: {replaces}");
                println!("{label}: {widest} runs, {written_bytes} bytes of {rounds} rounds");
                // One merge at a time: runs come while the largest goes on.
                let meanwhile = usize::try_from(alive_max / (8 * batch)).unwrap();
                assert!(widest <= 4 * WIDTH + 2 * meanwhile, "{label}: {widest} runs");
                assert!(written_bytes <= 400_000 * MIB * 8, "{label}: {written_bytes}");
            }
        }
    }
}
