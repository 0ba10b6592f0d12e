//! Sorting on a few threads: what a write-back begins with, and what the end of a sync waits for.
//!
//! The slice is parted at its median, each part sorted by itself: no memory beside it. A thread that
//! cannot be had makes the sort slower, not impossible.

use std::cmp::Ordering;
use std::sync::atomic::{AtomicBool, Ordering as Memory};
use std::thread;

/// More threads bring little: what follows, writing, is done by one.
const THREADS_MAX: usize = 4;

/// A part is worth a thread from so many items on.
const ITEMS_MIN: usize = 1 << 15;

/// Sorts by `compare`, a total order; equal items may change places.
pub(super) fn sort_by<T: Send>(items: &mut [T], compare: &(impl Fn(&T, &T) -> Ordering + Sync)) {
    let threads = thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
    let unsorted = AtomicBool::new(false);
    sort_parts(items, threads, compare, &unsorted);
    if unsorted.into_inner() {
        items.sort_unstable_by(compare);
    }
}

/// Sorts on so many threads; sets `unsorted` if one of them could not be had.
fn sort_parts<T: Send>(
    items: &mut [T],
    threads: usize,
    compare: &(impl Fn(&T, &T) -> Ordering + Sync),
    unsorted: &AtomicBool,
) {
    if threads < 2 || items.len() < 2 * ITEMS_MIN {
        items.sort_unstable_by(compare);
        return;
    }
    let middle = items.len() / 2;
    items.select_nth_unstable_by(middle, compare);
    let (low, high) = items.split_at_mut(middle);
    thread::scope(|scope| {
        let here = threads / 2;
        let other = thread::Builder::new().name("cofferdam-sort".to_owned());
        let sort_high = move || sort_parts(high, threads - here, compare, unsorted);
        if other.spawn_scoped(scope, sort_high).is_err() {
            unsorted.store(true, Memory::Relaxed);
        }
        sort_parts(low, here, compare, unsorted);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers in no order, many of them equal.
    fn numbers(count: u64) -> Vec<u64> {
        (0..count).map(|at| at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48).collect()
    }

    #[test]
    fn parts_are_sorted_into_one_order() {
        for (count, threads) in
            [(0, 4), (1, 2), (65_535, 2), (65_536, 2), (300_000, 3), (300_000, 8)]
        {
            let mut sorted = numbers(count);
            let unsorted = AtomicBool::new(false);
            sort_parts(&mut sorted, threads, &u64::cmp, &unsorted);
            let mut expected = numbers(count);
            expected.sort_unstable();
            assert!(sorted == expected, "{count} on {threads}");
            assert!(!unsorted.into_inner());
        }
    }
}
