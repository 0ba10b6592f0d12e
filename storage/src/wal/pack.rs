//! Packs a batch for the log, and unpacks it: what an operation has in common with the one before
//! is not said again.
//!
//! The outputs of a transaction have keys that differ in their last bytes only, and a batch knows a
//! few trees and lengths. `FORMAT.md` describes the bytes:
//!
//! ```text
//! packed batch   length of the batch u32 | operations
//! operation      head u8 | tree u8 ? | key length ? | shared ? | rest of the key | value length, value ?
//! ```
//!
//! Lengths are as in [`crate::coding`]. Random bytes stay as they are: that a hash cannot be made shorter is why this
//! is no general compressor, which finds no more at many times the cost.

use crate::batch::{Batch, KEY_BYTES_MAX, Op};
use crate::coding::{push_len, shared_len, take, take_byte, take_len};
use crate::error::{Error, Result};

/// What precedes the operations: the size of the batch that they are.
const PREFIX_BYTES: usize = 4;
/// Bits of an operation's head: what it does.
const KIND: u8 = 0b11;
/// Bit: the tree is said. It is that of the operation before otherwise, at first 0.
const TREE: u8 = 1 << 2;
/// Bit: the key's length is said. It is that of the key before otherwise, at first 0.
const KEY_LEN: u8 = 1 << 3;
/// Bit: it is said how many bytes the key begins with that the key before begins with, too.
const SHARED: u8 = 1 << 4;
/// Saying it costs a byte, and comparing costs time: fewer shared bytes are stored again.
const SHARED_BYTES_MIN: usize = 4;

/// Appends `batch` to `out`, packed. Says whether that was shorter; if not, `out` is as before.
pub(crate) fn pack(batch: &Batch, out: &mut Vec<u8>) -> bool {
    let start = out.len();
    let Ok(batch_len) = u32::try_from(batch.byte_len()) else { return false };
    out.extend_from_slice(&batch_len.to_le_bytes());
    let (mut tree, mut before): (u8, &[u8]) = (0, &[]);
    for op in batch.ops() {
        let (key, value) = (op.key(), op.value());
        let shared = worthwhile(before, key);
        let flag = |set: bool, bit| if set { bit } else { 0 };
        let mut head = op.kind() & KIND;
        head |= flag(op.tree_id() != tree, TREE);
        head |= flag(key.len() != before.len(), KEY_LEN);
        head |= flag(shared > 0, SHARED);
        out.push(head);
        if head & TREE != 0 {
            out.push(op.tree_id());
        }
        if head & KEY_LEN != 0 {
            push_len(out, key.len());
        }
        if shared > 0 {
            push_len(out, shared);
        }
        out.extend_from_slice(key.get(shared..).unwrap_or_default());
        if let Some(value) = value {
            push_len(out, value.len());
            out.extend_from_slice(value);
        }
        (tree, before) = (op.tree_id(), key);
    }
    let shorter = out.len() - start < batch.byte_len();
    if !shorter {
        out.truncate(start);
    }
    shorter
}

/// Undoes [`pack`]: a batch of at most `bytes_max` encoded bytes.
///
/// Nothing is allocated for what is stated, only for what is there: an operation is made if it fits
/// the size stated, which is within the bound.
pub(crate) fn unpack(packed: &[u8], bytes_max: usize) -> Result<Batch> {
    let bad = |why: &str| Error::corrupt(format!("a packed batch {why}"));
    let (prefix, mut rest) =
        packed.split_first_chunk::<PREFIX_BYTES>().ok_or_else(|| bad("has no length"))?;
    let batch_len = usize::try_from(u32::from_le_bytes(*prefix)).unwrap_or(usize::MAX);
    if batch_len > bytes_max {
        return Err(bad("states a length that it cannot have"));
    }
    let mut batch = Batch::with_capacity(batch_len.min(packed.len()));
    let (mut tree, mut key) = (0, Vec::new());
    while !rest.is_empty() {
        let op = take_op(&mut rest, &mut tree, &mut key).ok_or_else(|| bad("is malformed"))?;
        if batch.byte_len() + op.byte_len() > batch_len {
            return Err(bad("is longer than it states"));
        }
        batch.push_op(op);
    }
    if batch.byte_len() == batch_len { Ok(batch) } else { Err(bad("is shorter than it states")) }
}

/// The operation at the front of `rest`; `tree` and `key` are those of the one before, and then its
/// own.
fn take_op<'a: 'o, 'o>(rest: &mut &'a [u8], tree: &mut u8, key: &'o mut Vec<u8>) -> Option<Op<'o>> {
    let head = take_byte(rest)?;
    let kind = head & KIND;
    if head & !(KIND | TREE | KEY_LEN | SHARED) != 0 {
        return None;
    }
    if head & TREE != 0 {
        *tree = take_byte(rest)?;
    }
    let key_len = if head & KEY_LEN != 0 { take_len(rest)? } else { key.len() };
    let shared = if head & SHARED != 0 { take_len(rest)? } else { 0 };
    if key_len > KEY_BYTES_MAX || shared > key.len() {
        return None;
    }
    key.truncate(shared);
    key.extend_from_slice(take(rest, key_len.checked_sub(shared)?)?);
    let value = if Op::kind_has_value(kind) {
        let value_len = take_len(rest)?;
        Some(take(rest, value_len)?)
    } else {
        None
    };
    Op::of_kind(kind, *tree, key, value)
}

/// How many bytes both keys begin with, if they are worth mentioning.
fn worthwhile(before: &[u8], key: &[u8]) -> usize {
    let first = key.get(..SHARED_BYTES_MIN);
    if first.is_some() && before.get(..SHARED_BYTES_MIN) == first {
        shared_len(before, key)
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::Tree;
    use crate::error::hex;
    use crate::testing::Random;

    const COINS: Tree = Tree { id: 1, name: "coins" };
    const META: Tree = Tree { id: 2, name: "meta" };
    const MAX: usize = 1 << 20;

    /// What a transaction does: spends, and outputs with keys that begin alike.
    fn transaction() -> Batch {
        let mut batch = Batch::new();
        batch.delete(COINS, &[5; 36]);
        for output in 0..3 {
            let mut key = [7; 36];
            key[32] = output;
            batch.put_new(COINS, &key, b"coin");
        }
        batch.put(META, b"rows", &[9; 300]);
        batch
    }

    fn packed(batch: &Batch) -> Vec<u8> {
        let mut out = Vec::new();
        assert!(pack(batch, &mut out));
        out
    }

    #[test]
    fn the_bytes_are_those_of_the_format_document() {
        let bytes = packed(&transaction());
        let expected = [
            "f0010000",
            &format!("0f0124{}", "05".repeat(36)),
            &format!("02{}04{}", "07".repeat(32) + "00070707", hex(b"coin")),
            &format!("122001070707 04{}", hex(b"coin")),
            &format!("122002070707 04{}", hex(b"coin")),
            &format!("0d0204{}ac02{}", hex(b"rows"), "09".repeat(300)),
        ];
        assert_eq!(hex(&bytes), expected.concat().replace(' ', ""));
    }

    #[test]
    fn unpacking_undoes_packing() {
        let mut random = Random::new(0x9ac4);
        for round in 0..2000 {
            let mut batch = Batch::new();
            let mut key = Vec::new();
            for _ in 0..random.below(12) {
                let (keep, more) = (random.below(key.len() + 1), random.below(40));
                key.truncate(keep);
                key.extend(random.bytes(more));
                let tree = if random.one_in(4) { META } else { COINS };
                let len = if random.one_in(8) { random.below(40_000) } else { random.below(60) };
                match random.below(3) {
                    0 => batch.put(tree, &key, &random.bytes(len)),
                    1 => batch.put_new(tree, &key, &random.bytes(len)),
                    _ => batch.delete(tree, &key),
                }
            }
            let mut out = vec![1, 2, 3];
            if pack(&batch, &mut out) {
                assert!(out.len() - 3 < batch.byte_len(), "{round}");
                assert_eq!(unpack(&out[3..], MAX).unwrap(), batch, "{round}");
            } else {
                assert_eq!(out, [1, 2, 3], "{round}");
            }
        }
    }

    #[test]
    fn a_batch_that_does_not_shrink_is_left_alone() {
        assert!(!pack(&Batch::new(), &mut Vec::new()));
        let mut one = Batch::new();
        one.delete(COINS, b"key");
        assert!(!pack(&one, &mut Vec::new()));
    }

    #[test]
    fn what_was_not_packed_is_refused() {
        let bytes = packed(&transaction());
        for len in 0..bytes.len() {
            assert!(matches!(unpack(&bytes[..len], MAX), Err(Error::Corrupt { .. })), "{len}");
        }
        let len = transaction().byte_len();
        assert!(unpack(&bytes, len).is_ok() && unpack(&bytes, len - 1).is_err());
        // Head, what it is about: unknown kind, unknown bit, more shared than there was, a key that
        // is shorter than what it shares, endless and excessive lengths.
        for operation in
            ["00", "20", "130101", "0b0261621b010161", "0a8080808080", "0affffffff7f", "0a03"]
        {
            let bytes: Vec<u8> = [200, 0, 0, 0]
                .into_iter()
                .chain(
                    (0..operation.len())
                        .step_by(2)
                        .map(|at| u8::from_str_radix(&operation[at..at + 2], 16).unwrap()),
                )
                .collect();
            let error = unpack(&bytes, MAX).unwrap_err().to_string();
            assert!(error.contains("is malformed"), "{operation}: {error}");
        }
    }

    /// Four bytes can ask for a key of 64 KiB: what is made stays within what was stated.
    #[test]
    fn a_packed_batch_cannot_drive_an_allocation() {
        let key = vec![3; KEY_BYTES_MAX];
        let mut batch = Batch::new();
        for _ in 0..10 {
            batch.delete(COINS, &key);
        }
        let mut bytes = packed(&batch);
        assert!(bytes.len() < KEY_BYTES_MAX + 100);
        assert_eq!(unpack(&bytes, MAX).unwrap(), batch);
        bytes[..4].copy_from_slice(&100_000_u32.to_le_bytes());
        assert!(unpack(&bytes, MAX).unwrap_err().to_string().contains("longer than it states"));
        bytes[..4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(unpack(&bytes, MAX).unwrap_err().to_string().contains("cannot have"));
    }
}
