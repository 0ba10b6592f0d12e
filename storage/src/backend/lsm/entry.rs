//! The entries of a block: what is added, what is read, and how a key is looked for among them.
//!
//! ```text
//! entry   shared | length of the rest | length of the value + 1, or 0 for a deletion | rest of the key | value
//! ```
//!
//! `shared` is how many bytes the key begins with that the key before begins with, too, always all
//! of them, and 0 for the first entry of a block. Lengths are as in [`crate::coding`]. Files of
//! format 1 have whole keys:
//!
//! ```text
//! entry   key length u16 | length of the value + 1, or 0 for a deletion, u32 | key | value
//! ```

use std::cmp::Ordering;

use crate::coding::{push_len, shared_len, take, take_len};

/// How entries are coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    /// Format 1, read only.
    Whole,
    /// Format 2.
    Shared,
}

/// An entry as it stands in a block.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry<'a> {
    /// So many bytes of the key before.
    pub(super) shared: usize,
    /// The others.
    pub(super) rest: &'a [u8],
    /// Its value, or none for a deletion.
    pub(super) value: Option<&'a [u8]>,
}

/// Adds an entry to a block.
pub(super) fn push_entry(out: &mut Vec<u8>, shared: usize, rest: &[u8], value: Option<&[u8]>) {
    push_len(out, shared);
    push_len(out, rest.len());
    push_len(out, value.map_or(0, |value| value.len() + 1));
    out.extend_from_slice(rest);
    out.extend_from_slice(value.unwrap_or_default());
}

/// Takes an entry off the front of a block; none if it is broken.
pub(super) fn take_entry<'a>(coding: Coding, block: &mut &'a [u8]) -> Option<Entry<'a>> {
    let (shared, rest_len, value_len) = match coding {
        Coding::Shared => (take_len(block)?, take_len(block)?, take_len(block)?),
        Coding::Whole => {
            let (&[k0, k1, v0, v1, v2, v3], after) = block.split_first_chunk()?;
            *block = after;
            let value_len = usize::try_from(u32::from_le_bytes([v0, v1, v2, v3])).ok()?;
            (0, usize::from(u16::from_le_bytes([k0, k1])), value_len)
        }
    };
    let rest = take(block, rest_len)?;
    let value = match value_len.checked_sub(1) {
        Some(len) => Some(take(block, len)?),
        None => None,
    };
    Some(Entry { shared, rest, value })
}

/// Looks for a key in a block: its entry's value, none if it is not there; an error if the block is
/// broken.
///
/// No key is put together: while those before were less, it is known how many bytes of `key` the
/// last one began with, and that tells what those bytes mean that are shared with it.
pub(super) fn find_in<'a>(
    coding: Coding,
    mut block: &'a [u8],
    key: &[u8],
) -> Result<Option<Option<&'a [u8]>>, Broken> {
    let mut matched = 0;
    while !block.is_empty() {
        let Entry { shared, rest, value } = take_entry(coding, &mut block).ok_or(Broken)?;
        if coding == Coding::Whole {
            matched = 0;
        }
        match shared.cmp(&matched) {
            // It differs from `key` where the one before does, which is less.
            Ordering::Greater => continue,
            // It is greater than the one before where that one is as `key`.
            Ordering::Less => return Ok(None),
            Ordering::Equal => {}
        }
        let wanted = key.get(matched..).unwrap_or_default();
        let common = shared_len(rest, wanted);
        match rest.get(common).cmp(&wanted.get(common)) {
            // Both end there.
            Ordering::Equal => return Ok(Some(value)),
            Ordering::Greater => return Ok(None),
            Ordering::Less => matched += common,
        }
    }
    Ok(None)
}

/// A block has an entry that cannot be read, below a right checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Broken;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::testing::Random;

    /// A block of format 1.
    fn push_whole(out: &mut Vec<u8>, key: &[u8], value: Option<&[u8]>) {
        out.extend_from_slice(&u16::try_from(key.len()).unwrap().to_le_bytes());
        let len = value.map_or(0, |value| u32::try_from(value.len()).unwrap() + 1);
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(key);
        out.extend_from_slice(value.unwrap_or_default());
    }

    #[test]
    fn every_key_is_found_and_no_other() {
        let mut random = Random::new(0xb10c);
        for round in 0..500 {
            let mut entries = BTreeMap::new();
            let mut key = Vec::new();
            for _ in 0..random.below(40) {
                let (keep, more) = (random.below(key.len() + 1), random.below(5));
                key.truncate(keep);
                // Few values, so that keys begin alike, and some are beginnings of others.
                key.extend((0..more).map(|_| u8::try_from(random.below(3)).unwrap() * 100));
                let len = random.below(200);
                let value = (!random.one_in(4)).then(|| random.bytes(len));
                entries.insert(key.clone(), value);
            }
            let (mut shared, mut whole, mut before) = (Vec::new(), Vec::new(), Vec::new());
            for (key, value) in &entries {
                let len = shared_len(&before, key);
                push_entry(&mut shared, len, &key[len..], value.as_deref());
                push_whole(&mut whole, key, value.as_deref());
                before.clone_from(key);
            }
            let others = (0..60).map(|_| {
                let len = random.below(8);
                (0..len).map(|_| u8::try_from(random.below(5)).unwrap() * 50).collect()
            });
            let others: Vec<Vec<u8>> = others.collect();
            for key in entries.keys().chain(&others) {
                let expected = entries.get(key).map(Option::as_deref);
                assert_eq!(find_in(Coding::Shared, &shared, key), Ok(expected), "{round} {key:?}");
                assert_eq!(find_in(Coding::Whole, &whole, key), Ok(expected), "{round} {key:?}");
            }
        }
    }

    #[test]
    fn a_block_that_is_cut_off_is_broken() {
        for (coding, cut) in [(Coding::Shared, 3), (Coding::Whole, 6)] {
            let mut block = Vec::new();
            match coding {
                Coding::Shared => push_entry(&mut block, 0, b"key", Some(b"value")),
                Coding::Whole => push_whole(&mut block, b"key", Some(b"value")),
            }
            assert_eq!(block.len(), cut + 8);
            for len in 1..block.len() {
                assert_eq!(find_in(coding, &block[..len], b"key"), Err(Broken), "{len}");
            }
        }
    }
}
