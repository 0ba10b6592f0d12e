//! `Batch`: writes over any trees that are applied whole or not at all, as one contiguous buffer.
//!
//! The buffer is what the write-ahead log stores; its bytes are described in `FORMAT.md`:
//!
//! ```text
//! put, put_new   kind u8 (1, 2) | tree u8 | key length u16 | value length u32 | key | value
//! delete         kind u8 (3)    | tree u8 | key length u16 | key
//! ```
//!
//! Integers are little-endian. Operations stand in the order in which they were added; the last
//! one for a key wins.

use crate::database::Tree;
use crate::error::{Error, Result};

/// The longest key, in bytes: its length is stored in 16 bits.
pub const KEY_BYTES_MAX: usize = 0xffff;
/// The longest value, in bytes: a value has to fit into a log record with room to spare.
pub const VALUE_BYTES_MAX: usize = 32 << 20;

const KIND_PUT: u8 = 1;
const KIND_PUT_NEW: u8 = 2;
const KIND_DELETE: u8 = 3;
/// What precedes the key of a deletion: kind, tree, key length.
const DELETE_FRONT_BYTES: usize = 4;
/// What precedes the key of a put: as above, and the value's length.
const PUT_FRONT_BYTES: usize = 8;

/// One write of a [`Batch`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op<'a> {
    /// Gives `key` the value, whether or not it had one.
    Put {
        /// The tree's id.
        tree_id: u8,
        /// The key.
        key: &'a [u8],
        /// Its new value.
        value: &'a [u8],
    },
    /// As `Put`; the caller asserts that the key has no value at this point of the batch.
    PutNew {
        /// The tree's id.
        tree_id: u8,
        /// The key.
        key: &'a [u8],
        /// Its value.
        value: &'a [u8],
    },
    /// Takes the key away, if it is there.
    Delete {
        /// The tree's id.
        tree_id: u8,
        /// The key.
        key: &'a [u8],
    },
}

impl<'a> Op<'a> {
    /// The id of the tree written to.
    #[must_use]
    pub const fn tree_id(&self) -> u8 {
        match self {
            Self::Put { tree_id, .. }
            | Self::PutNew { tree_id, .. }
            | Self::Delete { tree_id, .. } => *tree_id,
        }
    }

    /// The key written to.
    #[must_use]
    pub const fn key(&self) -> &'a [u8] {
        match self {
            Self::Put { key, .. } | Self::PutNew { key, .. } | Self::Delete { key, .. } => key,
        }
    }

    /// The value that the key has afterwards; none after a delete.
    #[must_use]
    pub const fn value(&self) -> Option<&'a [u8]> {
        match self {
            Self::Put { value, .. } | Self::PutNew { value, .. } => Some(value),
            Self::Delete { .. } => None,
        }
    }

    /// What it does, as its encoding says it.
    pub(crate) const fn kind(&self) -> u8 {
        match self {
            Self::Put { .. } => KIND_PUT,
            Self::PutNew { .. } => KIND_PUT_NEW,
            Self::Delete { .. } => KIND_DELETE,
        }
    }

    /// Whether operations of that kind have a value; none of an unknown kind has.
    pub(crate) const fn kind_has_value(kind: u8) -> bool {
        matches!(kind, KIND_PUT | KIND_PUT_NEW)
    }

    /// The operation of that kind; none if the kind is unknown, needs a value or may have none, or
    /// if key or value is too long.
    pub(crate) fn of_kind(
        kind: u8,
        tree_id: u8,
        key: &'a [u8],
        value: Option<&'a [u8]>,
    ) -> Option<Self> {
        let bounded = value.is_none_or(|value| value.len() <= VALUE_BYTES_MAX);
        let op = match (kind, value) {
            (KIND_PUT, Some(value)) => Self::Put { tree_id, key, value },
            (KIND_PUT_NEW, Some(value)) => Self::PutNew { tree_id, key, value },
            (KIND_DELETE, None) => Self::Delete { tree_id, key },
            _ => return None,
        };
        (bounded && key.len() <= KEY_BYTES_MAX).then_some(op)
    }

    /// The number of bytes of its encoding.
    pub(crate) const fn byte_len(&self) -> usize {
        match self.value() {
            Some(value) => PUT_FRONT_BYTES + self.key().len() + value.len(),
            None => DELETE_FRONT_BYTES + self.key().len(),
        }
    }
}

/// Writes over any number of trees, applied whole or not at all.
///
/// ```
/// use cofferdam_storage::{Batch, Op, Tree};
/// let coins = Tree { id: 1, name: "coins" };
/// let mut batch = Batch::new();
/// batch.put(coins, b"k", b"v");
/// assert_eq!(batch.ops().next(), Some(Op::Put { tree_id: 1, key: b"k", value: b"v" }));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    bytes: Vec<u8>,
    len: usize,
}

impl Batch {
    /// Returns an empty batch.
    #[must_use]
    pub const fn new() -> Self {
        Self { bytes: Vec::new(), len: 0 }
    }

    /// Returns an empty batch with room for `bytes` encoded bytes.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), len: 0 }
    }

    /// Adds: `key` of `tree` has `value`.
    ///
    /// # Panics
    ///
    /// If the key exceeds [`KEY_BYTES_MAX`] or the value [`VALUE_BYTES_MAX`].
    pub fn put(&mut self, tree: Tree, key: &[u8], value: &[u8]) {
        self.push(KIND_PUT, tree.id, key, Some(value));
    }

    /// Adds: `key` of `tree`, **which has no value now**, has `value`.
    ///
    /// The assertion lets a buffered store forget a key that is deleted before it was ever
    /// written. If it is false the key may come back after its deletion.
    ///
    /// # Panics
    ///
    /// If the key exceeds [`KEY_BYTES_MAX`] or the value [`VALUE_BYTES_MAX`].
    pub fn put_new(&mut self, tree: Tree, key: &[u8], value: &[u8]) {
        self.push(KIND_PUT_NEW, tree.id, key, Some(value));
    }

    /// Adds: `key` of `tree` has no value.
    ///
    /// # Panics
    ///
    /// If the key exceeds [`KEY_BYTES_MAX`].
    pub fn delete(&mut self, tree: Tree, key: &[u8]) {
        self.push(KIND_DELETE, tree.id, key, None);
    }

    /// Adds one operation as it is.
    ///
    /// # Panics
    ///
    /// As [`Batch::put`].
    pub fn push_op(&mut self, op: Op<'_>) {
        self.push(op.kind(), op.tree_id(), op.key(), op.value());
    }

    fn push(&mut self, kind: u8, tree_id: u8, key: &[u8], value: Option<&[u8]>) {
        let key_len = u16::try_from(key.len()).expect("a key has at most KEY_BYTES_MAX bytes");
        self.bytes.extend_from_slice(&[kind, tree_id]);
        self.bytes.extend_from_slice(&key_len.to_le_bytes());
        if let Some(value) = value {
            assert!(value.len() <= VALUE_BYTES_MAX, "a value has at most VALUE_BYTES_MAX bytes");
            let value_len = u32::try_from(value.len()).expect("VALUE_BYTES_MAX fits 32 bits");
            self.bytes.extend_from_slice(&value_len.to_le_bytes());
        }
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value.unwrap_or_default());
        self.len += 1;
    }

    /// The operations in order.
    #[must_use]
    pub fn ops(&self) -> Ops<'_> {
        Ops { bytes: &self.bytes, offset: 0 }
    }

    /// The number of operations.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no operation.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The number of encoded bytes.
    #[must_use]
    pub const fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    /// The encoded operations.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Takes all operations out and keeps the allocation.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.len = 0;
    }

    /// Reads an encoded batch; checks every operation.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if the bytes are not whole operations of known kinds.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut ops = Ops { bytes, offset: 0 };
        let len = ops.by_ref().count();
        if ops.offset != bytes.len() {
            return Err(Error::corrupt(format!(
                "batch of {} bytes is malformed at byte {}",
                bytes.len(),
                ops.offset
            )));
        }
        Ok(Self { bytes: bytes.to_vec(), len })
    }

    /// The operation that begins at `offset` of the encoding.
    pub(crate) fn op_at(&self, offset: u32) -> Option<Op<'_>> {
        let offset = usize::try_from(offset).ok()?;
        parse(self.bytes.get(offset..)?).map(|(op, _)| op)
    }
}

/// The operations of a [`Batch`], in order.
#[derive(Debug, Clone)]
pub struct Ops<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl Ops<'_> {
    /// Where the next operation begins.
    pub(crate) const fn offset(&self) -> usize {
        self.offset
    }

    /// The size of the operations that are left.
    pub(crate) const fn remaining_bytes(&self) -> usize {
        self.bytes.len().saturating_sub(self.offset)
    }
}

impl<'a> Iterator for Ops<'a> {
    type Item = Op<'a>;

    /// Stops at the first malformed operation, which [`Batch::decode`] has excluded.
    fn next(&mut self) -> Option<Op<'a>> {
        let (op, size) = parse(self.bytes.get(self.offset..)?)?;
        self.offset += size;
        Some(op)
    }
}

/// The operation at the front of `bytes` and its encoded size.
fn parse(bytes: &[u8]) -> Option<(Op<'_>, usize)> {
    let (&[kind, tree_id, low, high], rest) = bytes.split_first_chunk::<DELETE_FRONT_BYTES>()?;
    let key_len = usize::from(u16::from_le_bytes([low, high]));
    let op = if Op::kind_has_value(kind) {
        let (value_len, rest) = rest.split_first_chunk::<4>()?;
        let value_len = usize::try_from(u32::from_le_bytes(*value_len)).ok()?;
        let (key, rest) = rest.split_at_checked(key_len)?;
        Op::of_kind(kind, tree_id, key, Some(rest.get(..value_len)?))
    } else {
        Op::of_kind(kind, tree_id, rest.get(..key_len)?, None)
    }?;
    Some((op, op.byte_len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TREE: Tree = Tree { id: 7, name: "seven" };

    fn example() -> Batch {
        let mut batch = Batch::new();
        batch.put(TREE, b"a", b"1");
        batch.put_new(TREE, b"", b"");
        batch.delete(TREE, b"bb");
        batch
    }

    #[test]
    fn operations_come_back_in_order() {
        let batch = example();
        let ops: Vec<Op<'_>> = batch.ops().collect();
        assert_eq!(
            ops,
            [
                Op::Put { tree_id: 7, key: b"a", value: b"1" },
                Op::PutNew { tree_id: 7, key: b"", value: b"" },
                Op::Delete { tree_id: 7, key: b"bb" },
            ]
        );
        assert_eq!((batch.len(), batch.byte_len()), (3, 10 + 8 + 6));
    }

    #[test]
    fn decode_undoes_encode() {
        let batch = example();
        assert_eq!(Batch::decode(batch.as_bytes()).unwrap(), batch);
    }

    #[test]
    fn every_truncation_within_an_operation_is_refused() {
        let batch = example();
        let ends = [0, 10, 18, 24];
        for len in 0..=batch.byte_len() {
            let result = Batch::decode(&batch.as_bytes()[..len]);
            assert_eq!(result.is_ok(), ends.contains(&len), "length {len}");
        }
    }

    #[test]
    fn unknown_kind_is_refused() {
        assert!(matches!(Batch::decode(&[9, 0, 0, 0, 0, 0, 0, 0]), Err(Error::Corrupt { .. })));
    }

    #[test]
    #[should_panic(expected = "KEY_BYTES_MAX")]
    fn a_key_that_is_too_long_is_misuse() {
        Batch::new().delete(TREE, &vec![0; KEY_BYTES_MAX + 1]);
    }
}
