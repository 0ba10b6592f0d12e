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

/// Returns the double hash of the parts, one after the other.
pub(crate) fn sha256d(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
    }
    hash_32(&hasher.finalize().into())
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
        let bytes: Vec<u8> = (0..=255).cycle().take(1000).collect();
        for len in 0..300 {
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
