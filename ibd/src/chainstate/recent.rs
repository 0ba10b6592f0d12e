//! `RecentBlocks`: blocks that were accepted lately, still parsed, until they are connected.
//!
//! Invariants:
//! - what is kept is at most the bound in bytes;
//! - what makes room is of least use for the next blocks of the chain: first what lies at or below
//!   the tip (forks), from the lowest up; then what lies furthest above it. From several peers blocks
//!   come in any order, and those that the chain waits for longest would go first by age.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::block::CheckedBlock;
use crate::headers::HeaderRef;

/// Memory of blocks kept parsed, so that a block that is connected soon after it came is not read
/// and checked twice.
const RECENT_BYTES_MAX: usize = 48 * 1024 * 1024;

/// Parsed blocks by height.
#[derive(Debug)]
pub(super) struct RecentBlocks {
    blocks: BTreeMap<(u32, HeaderRef), Arc<CheckedBlock>>,
    bytes: usize,
    bytes_max: usize,
}

impl Default for RecentBlocks {
    fn default() -> Self {
        Self { blocks: BTreeMap::new(), bytes: 0, bytes_max: RECENT_BYTES_MAX }
    }
}

impl RecentBlocks {
    /// Keeps a block of a chain whose tip is `tip_height` now, or drops it if others are wanted sooner.
    pub(super) fn insert(
        &mut self,
        height: u32,
        at: HeaderRef,
        block: Arc<CheckedBlock>,
        tip_height: u32,
    ) {
        self.take(height, at);
        self.bytes += block.memory_bytes();
        self.blocks.insert((height, at), block);
        while self.bytes > self.bytes_max {
            let lowest = self.blocks.first_key_value().map(|(key, _)| *key);
            let highest = self.blocks.last_key_value().map(|(key, _)| *key);
            let Some((height, at)) = lowest.filter(|key| key.0 <= tip_height).or(highest) else {
                break;
            };
            self.take(height, at);
        }
    }

    /// Hands a block out, and keeps it no longer.
    pub(super) fn take(&mut self, height: u32, at: HeaderRef) -> Option<Arc<CheckedBlock>> {
        let block = self.blocks.remove(&(height, at))?;
        self.bytes -= block.memory_bytes();
        Some(block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::headers::HeaderTree;
    use crate::params::{ChainParams, Network};
    use crate::testing::checked;

    /// The heights that are left of `heights`, kept in this order with room for `count` blocks.
    fn kept(count: usize, heights: &[u32], tip: u32) -> Vec<u32> {
        let params = ChainParams::new(Network::Regtest);
        let at = HeaderTree::new(params.genesis.header).genesis();
        let block = Arc::new(checked(&params.genesis));
        let mut recent =
            RecentBlocks { bytes_max: count * block.memory_bytes(), ..Default::default() };
        for &height in heights {
            recent.insert(height, at, Arc::clone(&block), tip);
        }
        let kept: Vec<_> = recent.blocks.keys().map(|key| key.0).collect();
        for &height in &kept {
            assert!(recent.take(height, at).is_some());
            assert!(recent.take(height, at).is_none());
        }
        assert_eq!(recent.bytes, 0);
        kept
    }

    #[test]
    fn what_is_furthest_above_the_tip_goes_first() {
        assert_eq!(kept(3, &[20, 11, 30, 12, 13], 10), [11, 12, 13]);
        assert_eq!(kept(3, &[11, 12, 13, 14], 10), [11, 12, 13]);
    }

    #[test]
    fn forks_below_the_tip_make_room_before_what_is_above() {
        assert_eq!(kept(3, &[9, 10, 11, 12], 10), [10, 11, 12]);
        assert_eq!(kept(3, &[9, 10, 11, 12, 13, 14], 10), [11, 12, 13]);
    }

    #[test]
    fn a_block_that_comes_twice_counts_once() {
        assert_eq!(kept(3, &[11, 12, 11, 12, 11, 13], 10), [11, 12, 13]);
    }
}
