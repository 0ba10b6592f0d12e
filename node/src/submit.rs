//! How a block comes in: checked on the caller's thread, stored and connected on the chain's.

use cofferdam_ibd::BlockAccepted;
use cofferdam_ibd::block::{CheckedBlock, RawBlock, is_block_mutated};

use crate::chain::{BlockSource, ChainHandle, SLICE, Stopped, Submitted, Worker};
use crate::unrequested::{Welcome, welcome};

/// With the best header at most this far above the tip, a block is connected before its sender's
/// next message is read.
const NEAR_TIP_BLOCKS: u32 = 16;

impl ChainHandle {
    /// Checks a block on this thread, then stores and connects it on the chain's.
    pub(crate) fn submit(&self, raw: Vec<u8>, source: BlockSource) -> Result<Submitted, Stopped> {
        match RawBlock::parse(raw) {
            Ok(block) => self.submit_parsed(block, source),
            Err(error) => Ok(Submitted::rejected(error.into())),
        }
    }

    /// As [`Self::submit`], of a block that has been read.
    pub(crate) fn submit_parsed(
        &self,
        block: RawBlock,
        source: BlockSource,
    ) -> Result<Submitted, Stopped> {
        let submitted = self.submit_in_silence(block, source)?;
        if let Some(BlockAccepted::Rejected(rejection)) = &submitted.accepted {
            tracing::error!("ProcessNewBlock: AcceptBlock FAILED ({rejection})");
        }
        Ok(submitted)
    }

    fn submit_in_silence(
        &self,
        block: RawBlock,
        source: BlockSource,
    ) -> Result<Submitted, Stopped> {
        let block = match CheckedBlock::check(block, self.params()) {
            Ok(block) => block,
            Err(rejection) => return Ok(Submitted::rejected(rejection)),
        };
        self.change(move |worker| {
            if source == BlockSource::Unrequested {
                let now = worker.clock.seconds();
                let accepted = match welcome(&mut worker.chainstate, block.header(), now)? {
                    Welcome::Yes => return worker.submit(block, source),
                    Welcome::No => None,
                    Welcome::Rejected(rejection) => Some(BlockAccepted::Rejected(rejection)),
                };
                return Ok(Submitted { accepted, invalid: None, connected: false });
            }
            worker.submit(block, source)
        })
    }

    /// Returns whether a block is not the one that its header commits to, as far as can be seen;
    /// nothing can be said of a block whose parent is not known.
    pub(crate) fn is_mutated(&self, block: &RawBlock) -> Result<bool, Stopped> {
        let prev = block.header().prev_blockhash;
        let height = self.query(move |chain| {
            let headers = chain.headers();
            headers.get(&prev).map(|parent| headers.entry(parent).height + 1)
        })?;
        let Some(height) = height else { return Ok(false) };
        Ok(is_block_mutated(block, height >= self.params().segwit_height))
    }
}

impl Worker {
    /// Stores a block and, if its source asks for that, connects it.
    pub(crate) fn submit(
        &mut self,
        block: CheckedBlock,
        source: BlockSource,
    ) -> cofferdam_ibd::Result<Submitted> {
        let hash = block.hash();
        let now = self.clock.seconds();
        let accepted = self.chainstate.accept_checked(block, now)?;
        let mut invalid = None;
        while matches!(accepted, BlockAccepted::Stored(_)) && self.connects_at_once(source) {
            let advance = self.connect(SLICE)?;
            let found = advance.invalid.into_iter().find(|(failed, _)| *failed == hash);
            invalid = invalid.or(found.map(|(_, rejection)| rejection));
            if advance.done || self.is_ending() {
                break;
            }
        }
        let at = self.chainstate.headers().get(&hash);
        let connected = at.is_some_and(|at| self.chainstate.is_connected(at));
        Ok(Submitted { accepted: Some(accepted), invalid, connected })
    }

    fn connects_at_once(&self, source: BlockSource) -> bool {
        let headers = self.chainstate.headers();
        let ahead =
            headers.entry(headers.best()).height.saturating_sub(self.chainstate.tip().height);
        source == BlockSource::User || ahead <= NEAR_TIP_BLOCKS
    }
}
