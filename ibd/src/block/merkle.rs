//! The merkle tree of a block, and its flaw (`consensus/merkle.cpp` of Bitcoin Core).

use crate::hash::hash_pair;

/// Returns the root of the tree over `leaves`, and whether the leaves are a mutation: two equal
/// nodes side by side, which is how the same root comes out of another list (CVE-2012-2459).
///
/// The root of no leaves is zero.
#[must_use]
pub fn merkle_root(mut leaves: Vec<[u8; 32]>) -> ([u8; 32], bool) {
    let mut mutated = false;
    let mut len = leaves.len();
    while len > 1 {
        // Each level is written over the front of the one below it.
        let level = leaves.get(..len).unwrap_or_default();
        mutated |= level.as_chunks::<2>().0.iter().any(|[a, b]| a == b);
        for node in 0..len.div_ceil(2) {
            let left = leaves.get(2 * node).copied().unwrap_or_default();
            let right = leaves.get(2 * node + 1).copied().filter(|_| 2 * node + 1 < len);
            if let Some(slot) = leaves.get_mut(node) {
                *slot = hash_pair(&left, &right.unwrap_or(left));
            }
        }
        len = len.div_ceil(2);
    }
    (leaves.first().copied().unwrap_or_default(), mutated)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves(numbers: &[u8]) -> Vec<[u8; 32]> {
        numbers.iter().map(|&number| [number; 32]).collect()
    }

    #[test]
    fn an_odd_level_repeats_its_last_node() {
        assert_eq!(merkle_root(vec![]), ([0; 32], false));
        assert_eq!(merkle_root(leaves(&[7])), ([7; 32], false));
        let (left, right) = (hash_pair(&[1; 32], &[2; 32]), hash_pair(&[3; 32], &[3; 32]));
        assert_eq!(merkle_root(leaves(&[1, 2, 3])), (hash_pair(&left, &right), false));
    }

    /// The example of Core's `merkle.cpp`.
    #[test]
    fn a_repeated_end_has_the_same_root_and_is_noticed() {
        let (root, mutated) = merkle_root(leaves(&[1, 2, 3, 4, 5, 6]));
        assert!(!mutated);
        assert_eq!(merkle_root(leaves(&[1, 2, 3, 4, 5, 6, 5, 6])), (root, true));
        let (root, mutated) = merkle_root(leaves(&[1, 2, 3]));
        assert!(!mutated);
        assert_eq!(merkle_root(leaves(&[1, 2, 3, 3])), (root, true));
        // Equal leaves that are no pair do no harm.
        assert!(!merkle_root(leaves(&[1, 2, 2, 3])).1);
    }
}
