//! The double SHA-256 of transactions and of the nodes of Merkle trees: half of the time that it
//! takes to check a block.

use sha2::block_api::compress256;
use sha2::{Digest as _, Sha256};

/// What SHA-256 starts from (FIPS 180-4, section 5.3.3).
const INITIAL: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

/// The block that ends a message of 64 bytes: a one bit, zeros, the length in bits.
const PADDING_OF_64: [u8; 64] = {
    let mut block = [0; 64];
    (block[0], block[62]) = (0x80, 0x02);
    block
};

/// A block that begins with 32 bytes of message and ends it.
const PADDING_OF_32: [u8; 64] = {
    let mut block = [0; 64];
    (block[32], block[62]) = (0x80, 0x01);
    block
};

/// Messages up to this length, which most transactions are, are hashed in one go.
const SHORT_LEN_MAX: usize = BLOCK_LEN * SHORT_BLOCKS - PADDING_LEN_MIN;
const SHORT_BLOCKS: usize = 8;
const BLOCK_LEN: usize = 64;
/// A one bit, and the length.
const PADDING_LEN_MIN: usize = 1 + 8;

/// Returns the double hash of the parts, one after the other.
pub(crate) fn sha256d(parts: &[&[u8]]) -> [u8; 32] {
    let len = parts.iter().map(|part| part.len()).sum();
    if len <= SHORT_LEN_MAX {
        return hash_short(parts, len);
    }
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
    }
    hash_32(&hasher.finalize().into())
}

/// Hashes a short message: padded by hand, so that no part of it is kept for later.
fn hash_short(parts: &[&[u8]], len: usize) -> [u8; 32] {
    let mut padded = [0; BLOCK_LEN * SHORT_BLOCKS];
    let mut at = 0;
    for part in parts {
        if let Some(to) = padded.get_mut(at..at + part.len()) {
            to.copy_from_slice(part);
        }
        at += part.len();
    }
    if let Some(end) = padded.get_mut(len) {
        *end = 0x80;
    }
    let used = (len + PADDING_LEN_MIN).div_ceil(BLOCK_LEN) * BLOCK_LEN;
    let message = padded.get_mut(..used).unwrap_or_default();
    if let Some(length) = message.last_chunk_mut::<8>() {
        *length = (len as u64 * 8).to_be_bytes();
    }
    let mut state = INITIAL;
    compress256(&mut state, message.as_chunks::<BLOCK_LEN>().0);
    hash_32(&to_bytes(state))
}

/// Returns the double hash of two hashes.
pub(crate) fn hash_pair(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    let mut node = [0; 64];
    let (first, second) = node.split_at_mut(32);
    first.copy_from_slice(left);
    second.copy_from_slice(right);
    let mut state = INITIAL;
    compress256(&mut state, &[node, PADDING_OF_64]);
    hash_32(&to_bytes(state))
}

/// Returns the hash of a hash.
fn hash_32(hash: &[u8; 32]) -> [u8; 32] {
    let mut block = PADDING_OF_32;
    block.iter_mut().zip(hash).for_each(|(to, from)| *to = *from);
    let mut state = INITIAL;
    compress256(&mut state, &[block]);
    to_bytes(state)
}

fn to_bytes(state: [u32; 8]) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (word, to) in state.iter().zip(bytes.as_chunks_mut::<4>().0) {
        *to = word.to_be_bytes();
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::hashes::{Hash as _, sha256d as other};

    #[test]
    fn hashes_are_those_of_another_implementation() {
        let bytes: Vec<u8> = (0..=255).cycle().take(2000).collect();
        for len in 0..700 {
            let message = &bytes[len..2 * len];
            let expected = other::Hash::hash(message).to_byte_array();
            assert_eq!(sha256d(&[message]), expected, "{len}");
            let (a, b) = message.split_at(len / 3);
            assert_eq!(sha256d(&[a, &[], b]), expected, "{len} in parts");
        }
        let (left, right) = ([7; 32], [9; 32]);
        assert_eq!(hash_pair(&left, &right), sha256d(&[&left, &right]));
    }
}
