//! `missing_blocks`: which blocks of a peer's chain to ask for, within a window that moves with what is
//! stored.

use crate::BlockRef;
use crate::headers::{HeaderRef, HeaderStatus, HeaderTree};

/// How far beyond the connected chain blocks are asked for (Core's `BLOCK_DOWNLOAD_WINDOW`).
pub const DOWNLOAD_WINDOW: u32 = 1024;

/// How deep below its best block a peer of limited service (BIP-0159) is asked for blocks: 288, and
/// two less for blocks that come meanwhile.
const LIMITED_DEPTH: u32 = 288 - 2;

/// The blocks of a peer's chain that are not stored.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Missing {
    /// In order of height, up to the first one beyond the window.
    pub blocks: Vec<BlockRef>,
    /// Height of the window's last block.
    pub window_end: u32,
}

/// Lists the blocks to ask a peer for whose best header is `best_known`: none if its chain is
/// worse than the connected one, which ends in `tip`. A peer that is `limited` has only the last ones.
#[must_use]
pub fn missing_blocks(
    tree: &HeaderTree,
    tip: HeaderRef,
    best_known: HeaderRef,
    limited: bool,
) -> Missing {
    let best = tree.entry(best_known);
    let is_worse = best.chain_work < tree.entry(tip).chain_work;
    if is_worse || best.status.has(HeaderStatus::FAILED) {
        return Missing::default();
    }
    let fork = tree.entry(tree.fork_point(tip, best_known)).height;
    let base = last_stored(tree, best_known, fork);
    let window_end = base.saturating_add(DOWNLOAD_WINDOW);
    let mut blocks = Vec::new();
    let mut walk = tree.ancestor(best_known, best.height.min(window_end.saturating_add(1)));
    while let Some(at) = walk {
        let entry = tree.entry(at);
        if entry.height <= base {
            break;
        }
        let has_it = !limited || best.height - entry.height < LIMITED_DEPTH;
        if entry.block.is_none() && has_it {
            blocks.push(BlockRef { height: entry.height, hash: entry.hash });
        }
        walk = entry.parent;
    }
    blocks.reverse();
    Missing { blocks, window_end }
}

/// Returns the height of the last block of a chain, from `from` on, whose ancestors are all stored:
/// the window moves with what is stored, since a long fork is connected only once it is whole.
fn last_stored(tree: &HeaderTree, best: HeaderRef, from: u32) -> u32 {
    let is_stored =
        |height| tree.ancestor(best, height).is_some_and(|at| tree.entry(at).chain_tx_count > 0);
    let (mut low, mut high) = (from, tree.entry(best).height);
    while low < high {
        let middle = high - (high - low) / 2;
        if is_stored(middle) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    low
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::headers::Extent;
    use crate::params::{ChainParams, Network};
    use cofferdam_storage::FilePosition;

    #[test]
    fn stored_blocks_worse_chains_and_what_a_limited_peer_lacks_are_not_missing() {
        let genesis = ChainParams::new(Network::Regtest).genesis.header;
        let mut tree = HeaderTree::new(genesis);
        let mut chain = vec![tree.genesis()];
        let mut header = genesis;
        for nonce in 1..=300 {
            header.prev_blockhash = header.block_hash();
            header.nonce = nonce;
            let at = tree
                .insert(&header, header.block_hash(), *chain.last().expect("genesis"))
                .expect("room");
            chain.push(at);
        }
        let position = FilePosition { file: 0, offset: 8 };
        tree.entry_mut(chain[3]).block =
            Some(Extent { position, length: NonZeroU32::MIN, crc32: 0 });
        let heights =
            |missing: Missing| missing.blocks.iter().map(|b| b.height).collect::<Vec<_>>();
        assert_eq!(heights(missing_blocks(&tree, chain[1], chain[5], false)), [2, 4, 5]);
        assert_eq!(missing_blocks(&tree, chain[5], chain[4], false), Missing::default());
        assert_eq!(missing_blocks(&tree, chain[0], chain[5], false).window_end, DOWNLOAD_WINDOW);
        // The window moves with what is stored, connected or not.
        for at in &chain[..=100] {
            tree.set_chain_tx_count(*at, 1);
        }
        let moved = missing_blocks(&tree, chain[0], chain[300], false);
        assert_eq!(moved.window_end, 100 + DOWNLOAD_WINDOW);
        assert_eq!(moved.blocks.first().map(|block| block.height), Some(101));
        for at in &chain[..=100] {
            tree.set_chain_tx_count(*at, 0);
        }
        let limited = missing_blocks(&tree, chain[0], chain[300], true);
        assert_eq!(limited.blocks.first().map(|block| block.height), Some(15));
    }
}
