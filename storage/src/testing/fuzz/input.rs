//! `Input`: a fuzzer's bytes as choices. Where they end every choice is 0.

use crate::batch::{Batch, Op};
use crate::database::Tree;

/// The trees of the stores under test.
pub(super) const TREES: [Tree; 2] = [Tree { id: 1, name: "a" }, Tree { id: 2, name: "b" }];

/// A tree that is not open.
const UNKNOWN_TREE_ID: u8 = 9;

/// What is left of the bytes.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    /// Begins with all bytes.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Whether the bytes have ended.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        self.array::<1>().map_or(0, |[byte]| byte)
    }

    /// A number below `bound`, which is at most 256.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()).checked_rem(bound).unwrap_or(0)
    }

    /// Yes or no.
    pub fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    pub(super) fn u16(&mut self) -> u16 {
        self.array().map_or(0, u16::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> u64 {
        self.array().map_or(0, u64::from_le_bytes)
    }

    /// The next bytes, fewer at the end.
    pub(super) fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(len.min(self.rest.len()));
        self.rest = rest;
        taken
    }

    /// Up to seven operations on few keys of [`TREES`], and seldom one of another tree.
    pub(super) fn batch(&mut self) -> Batch {
        let mut batch = Batch::new();
        for _ in 0..self.below(8) {
            let how = self.byte();
            let tree_id = if how == u8::MAX { UNKNOWN_TREE_ID } else { 1 + (how >> 2 & 1) };
            let key_len = self.below(3);
            let key: Vec<u8> = self.bytes(key_len).iter().map(|byte| byte & 7).collect();
            let key = key.as_slice();
            if how & 3 == 0 {
                batch.push_op(Op::Delete { tree_id, key });
                continue;
            }
            let value_len = self.below(64);
            let value = self.bytes(value_len);
            batch.push_op(match how & 3 {
                1 => Op::PutNew { tree_id, key, value },
                _ => Op::Put { tree_id, key, value },
            });
        }
        batch
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*array)
    }
}
