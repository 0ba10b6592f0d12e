//! When runs are merged, which, and how.
//!
//! Runs are in order of age, and only neighbours are merged, so that the newest entry of a key stays
//! the newest. The rules, in their order:
//!
//! - all of them, when those after the oldest have [`SPACE_RATIO`] times its bytes, and all together
//!   [`SPACE_BYTES_MIN`]: what was deleted is gone for good then;
//! - the newest [`WIDTH`] or more of like size: a run joins while it has at most [`TIER_RATIO`]
//!   times the bytes of the newest one of them.
//!
//! An entry is written about `log(runs ever written) / log(WIDTH)` times, and a read asks the filters
//! of at most some `WIDTH` runs a tier.

use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use super::cursor::{Cursor, Merge};
use super::run::Run;
use super::store::{Member, as_usize};
use super::writer::RunWriter;
use crate::error::{Error, Result};
use crate::file_system::FileSystem;

/// Runs that are merged at a time, at least.
pub(super) const WIDTH: usize = 8;
/// How much larger than the newest one a run of the same tier may be.
const TIER_RATIO: u64 = 4;
/// How much the runs after the oldest may hold, in its bytes, until all are merged.
const SPACE_RATIO: u64 = 2;
/// A smaller database is not merged to save space.
const SPACE_BYTES_MIN: u64 = 1 << 30;
/// How often a merge looks whether it has to stop.
const GLANCE_ENTRIES: u32 = 4096;

/// Which runs are to be merged, by their bytes in order of age, the oldest first.
pub(super) fn choose(bytes: &[u64]) -> Option<Range<usize>> {
    let (&oldest, newer) = bytes.split_first()?;
    let newer_bytes: u64 = newer.iter().sum();
    if newer_bytes >= oldest.saturating_mul(SPACE_RATIO) && oldest + newer_bytes >= SPACE_BYTES_MIN
    {
        return Some(0..bytes.len());
    }
    let newest = *bytes.last()?;
    let like = bytes.iter().rev().take_while(|&&run| run <= newest.saturating_mul(TIER_RATIO));
    let count = like.count();
    (count >= WIDTH).then(|| bytes.len() - count..bytes.len())
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
    pub(super) stop: &'a AtomicBool,
}

impl MergeJob<'_> {
    /// Writes the runs as one; none if nothing is left of them.
    pub(super) fn run(&self) -> Result<Option<Run>> {
        let entries: u64 = self.inputs.iter().map(|input| input.run.entries()).sum();
        let mut writer =
            RunWriter::create(self.fs, self.path, (self.number, self.seed), as_usize(entries))?;
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
                if self.stop.load(Ordering::Relaxed) {
                    return Err(Error::misuse("the database is being closed"));
                }
            }
            if let Some((key, value)) = merge.entry()
                && (value.is_some() || !self.with_oldest)
            {
                writer.push(id, key, value)?;
            }
        }
        Ok(())
    }
}

/// The trees that any of the runs has, in order.
fn tree_ids<'a>(runs: impl Iterator<Item = &'a Run>) -> Vec<u8> {
    let mut ids: Vec<u8> = runs.flat_map(|run| run.trees().iter().map(|tree| tree.id)).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// Runs, the oldest first, by their bytes.
pub(super) fn sizes(runs: &[Member]) -> Vec<u64> {
    runs.iter().map(|member| member.run.byte_len()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn equal_runs_are_merged_by_eight_and_all_when_they_are_large() {
        assert_eq!(choose(&[]), None);
        assert_eq!(choose(&[10; WIDTH - 1]), None);
        assert_eq!(choose(&[10; WIDTH]), Some(0..WIDTH));
        let mut bytes = vec![1000];
        bytes.extend([10; WIDTH]);
        assert_eq!(choose(&bytes), Some(1..WIDTH + 1));
        assert_eq!(choose(&[500 * MIB, 500 * MIB]), None);
        assert_eq!(choose(&[500 * MIB, 500 * MIB, 500 * MIB]), Some(0..3));
        assert_eq!(choose(&[1]), None);
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
                while let Some(range) = choose(&runs) {
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
}
