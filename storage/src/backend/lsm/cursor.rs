//! `Cursor`: one run, entry by entry; `Merge`: several at once, the newest entry of each key.

use std::cmp::Ordering;
use std::ops::Range;
use std::sync::Arc;

use super::entry::take_entry;
use super::run::{BROKEN_ENTRY, Run, TreeSpan, front_of};
use crate::error::Result;

/// Bytes that are read at a time while all of a run is read.
const SCAN_BYTES: u64 = 256 << 10;
/// Bytes that are read at a time while a range is: it may end soon.
const RANGE_BYTES: u64 = 32 << 10;

/// A position in a tree of a run.
#[derive(Debug)]
pub(super) struct Cursor {
    run: Arc<Run>,
    /// Blocks that were read and not looked at, and those that were not read.
    next: usize,
    read_end: usize,
    end: usize,
    /// What was read; the current block is `block..block_end` of it.
    buffer: Vec<u8>,
    block: usize,
    block_end: usize,
    /// The current entry, and where the next one begins.
    key: Vec<u8>,
    front: u64,
    value: Option<Range<usize>>,
    next_at: usize,
    /// It is behind the last entry.
    ended: bool,
    read_bytes: u64,
}

impl Cursor {
    /// At the first entry of a tree.
    pub(super) fn first(run: &Arc<Run>, tree: &TreeSpan) -> Result<Self> {
        let mut cursor = Self::new(run, tree, tree.first, SCAN_BYTES);
        cursor.step()?;
        Ok(cursor)
    }

    /// At the first entry of a tree that is not before `key`.
    pub(super) fn seek(run: &Arc<Run>, tree: &TreeSpan, key: &[u8]) -> Result<Self> {
        let first = run.block_of(tree, key, &mut Vec::new())?.unwrap_or(tree.first);
        let mut cursor = Self::new(run, tree, first, RANGE_BYTES);
        cursor.step()?;
        while cursor.entry().is_some_and(|(found, _)| found < key) {
            cursor.step()?;
        }
        Ok(cursor)
    }

    fn new(run: &Arc<Run>, tree: &TreeSpan, first: usize, read_bytes: u64) -> Self {
        Self {
            run: Arc::clone(run),
            next: first,
            read_end: first,
            end: tree.end,
            buffer: Vec::new(),
            block: 0,
            block_end: 0,
            key: Vec::new(),
            front: 0,
            value: None,
            next_at: 0,
            ended: false,
            read_bytes,
        }
    }

    /// The current entry; none behind the last.
    pub(super) fn entry(&self) -> Option<(&[u8], Option<&[u8]>)> {
        let value = self.value.clone().map(|at| self.buffer.get(at).unwrap_or_default());
        (!self.ended).then_some((&self.key, value))
    }

    /// Goes to the next entry.
    pub(super) fn step(&mut self) -> Result<()> {
        if self.next_at >= self.block_end && !self.next_block()? {
            self.ended = true;
            return Ok(());
        }
        let mut rest = self.buffer.get(self.next_at..self.block_end).unwrap_or_default();
        let entry = take_entry(self.run.coding(), &mut rest)
            .filter(|entry| entry.shared <= self.key.len())
            .ok_or_else(|| self.run.corrupt(BROKEN_ENTRY))?;
        self.key.truncate(entry.shared);
        self.key.extend_from_slice(entry.rest);
        self.front = front_of(&self.key);
        self.next_at = self.block_end - rest.len();
        self.value = entry.value.map(|value| self.next_at - value.len()..self.next_at);
        Ok(())
    }

    /// Goes to the next block; returns whether there is one.
    fn next_block(&mut self) -> Result<bool> {
        if self.next >= self.end {
            return Ok(false);
        }
        let len = if self.next < self.read_end {
            // Behind the checksum of the block before.
            let from = self.run.offset_of(self.next - 1);
            let step = self.run.offset_of(self.next) - from;
            self.block += usize::try_from(step).unwrap_or(usize::MAX);
            let bytes = self.buffer.get(self.block..).unwrap_or_default();
            self.run.check_block(self.next, bytes)?
        } else {
            let from = self.run.offset_of(self.next);
            self.read_end = self.next + 1;
            while self.read_end < self.end
                && self.run.offset_of(self.read_end + 1) - from <= self.read_bytes
            {
                self.read_end += 1;
            }
            self.block = 0;
            self.run.read_blocks(self.next, self.read_end, &mut self.buffer)?
        };
        self.block_end = self.block + len;
        self.next_at = self.block;
        self.next += 1;
        Ok(len > 0)
    }
}

/// The newest entry of each key of several runs, in ascending order.
#[derive(Debug)]
pub(super) struct Merge {
    /// The newest run first.
    cursors: Vec<Cursor>,
    /// Those that stand at the current key, the newest first.
    current: Vec<usize>,
}

impl Merge {
    /// Merges; the first one is that of the newest run.
    pub(super) fn new(cursors: Vec<Cursor>) -> Self {
        Self { current: Vec::with_capacity(cursors.len()), cursors }
    }

    /// Goes to the next key; returns whether there is one.
    pub(super) fn advance(&mut self) -> Result<bool> {
        for at in self.current.drain(..) {
            if let Some(cursor) = self.cursors.get_mut(at) {
                cursor.step()?;
            }
        }
        let mut least: Option<(u64, &[u8])> = None;
        for (at, cursor) in self.cursors.iter().enumerate() {
            let Some((key, _)) = cursor.entry() else {
                continue;
            };
            let order = match least {
                None => Ordering::Less,
                Some((front, least)) => cursor.front.cmp(&front).then_with(|| key.cmp(least)),
            };
            match order {
                Ordering::Less => {
                    self.current.clear();
                    self.current.push(at);
                    least = Some((cursor.front, key));
                }
                Ordering::Equal => self.current.push(at),
                Ordering::Greater => {}
            }
        }
        Ok(least.is_some())
    }

    /// The current key with its newest value; none if it is deleted.
    pub(super) fn entry(&self) -> Option<(&[u8], Option<&[u8]>)> {
        self.cursors.get(*self.current.first()?)?.entry()
    }
}
