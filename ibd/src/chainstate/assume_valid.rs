//! Which blocks' scripts are not verified because a user, or the release, took them for valid.

use super::Chainstate;
use crate::headers::HeaderRef;

impl Chainstate {
    /// Returns whether a block's scripts have to be verified, and logs why when that changes.
    pub(super) fn needs_scripts(&mut self, at: HeaderRef) -> bool {
        let reason = self.why_scripts(at);
        if self.scripts_said != Some(reason) {
            self.scripts_said = Some(reason);
            let entry = self.headers.entry(at);
            let (height, hash) = (entry.height, entry.hash);
            match reason {
                Some(reason) => tracing::info!(
                    "Enabling script verification at block #{height} ({hash}): {reason}."
                ),
                None => {
                    tracing::info!("Disabling script verification at block #{height} ({hash}).");
                }
            }
        }
        reason.is_some()
    }

    /// Returns why a block's scripts have to be verified: not below the assumed-valid block, if that
    /// is in the best header chain, the chain has the minimum work, and the block is more than two
    /// weeks of work deep (`ConnectBlock` in Bitcoin Core's `validation.cpp`, whose words these are).
    fn why_scripts(&self, at: HeaderRef) -> Option<&'static str> {
        const TWO_WEEKS_SECONDS: u128 = 14 * 24 * 60 * 60;
        let Some(assumed) = self.assume_valid else {
            return Some("assumevalid=0 (always verify)");
        };
        let Some(assumed) = self.headers.get(&assumed) else {
            return Some("assumevalid hash not in headers");
        };
        if !self.headers.is_ancestor(at, assumed) {
            let is_above = self.headers.entry(at).height > self.headers.entry(assumed).height;
            return Some(if is_above {
                "block height above assumevalid height"
            } else {
                "block not in assumevalid chain"
            });
        }
        let best = self.headers.best();
        if !self.headers.is_ancestor(at, best) {
            return Some("block not in best header chain");
        }
        if self.headers.entry(best).chain_work < self.params.minimum_chain_work {
            return Some("best header chainwork below minimumchainwork");
        }
        let work = |at| self.headers.work(at);
        let above = work(best).saturating_sub(work(at));
        let parent_work = self.headers.entry(best).parent.map_or(0, work);
        let per_block = work(best).saturating_sub(parent_work);
        let seconds = above.saturating_mul(u128::from(self.params.pow_target_spacing));
        // No work at all is not to be divided by: such a chain is beyond what the tree can count.
        let is_recent =
            seconds.checked_div(per_block).is_none_or(|seconds| seconds <= TWO_WEEKS_SECONDS);
        is_recent.then_some("block too recent relative to best header")
    }
}
