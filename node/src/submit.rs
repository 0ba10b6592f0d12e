//! How a block comes in: checked on the caller's thread, stored and connected on the chain's.

use bitcoin::BlockHash;
use cofferdam_ibd::BlockAccepted;
use cofferdam_ibd::block::{CheckedBlock, RawBlock, is_block_mutated};

use crate::chain::{BlockSource, ChainHandle, SLICE, Stopped, Submitted, Worker};
use crate::chain_parts::Awaited;
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
        let submitted = self.change(move |worker| {
            if source == BlockSource::Unrequested {
                let now = worker.clock.seconds();
                let accepted = match welcome(&mut worker.chainstate, block.header(), now)? {
                    Welcome::Yes => return worker.submit(block, source),
                    Welcome::No => None,
                    Welcome::Rejected(rejection) => Some(BlockAccepted::Rejected(rejection)),
                };
                return Ok(Submitted::of(accepted));
            }
            worker.submit(block, source)
        })?;
        self.finish(submitted)
    }

    /// Waits until a user's block is connected or refused, or nothing is left to connect: that may take
    /// long where many blocks are stored, and the thread has other jobs meanwhile.
    pub(crate) fn finish(&self, mut submitted: Submitted) -> Result<Submitted, Stopped> {
        while let Some(hash) = submitted.pending {
            submitted = self.change(move |worker| worker.go_on(hash, submitted))?;
        }
        Ok(submitted)
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
    /// Stores a block and, if its source asks for that, connects what is stored, for a while: whatever
    /// is left to do then, others have not waited long. A user's is to be [finished](ChainHandle::finish).
    pub(crate) fn submit(
        &mut self,
        block: CheckedBlock,
        source: BlockSource,
    ) -> cofferdam_ibd::Result<Submitted> {
        let hash = block.hash();
        let now = self.clock.seconds();
        let accepted = self.chainstate.accept_checked(block, now)?;
        let is_stored = matches!(accepted, BlockAccepted::Stored(_));
        let submitted = Submitted::of(Some(accepted));
        if is_stored && source == BlockSource::User {
            self.awaited.push(Awaited { hash, invalid: None });
            return self.go_on(hash, submitted);
        }
        if is_stored && self.is_near_tip() {
            let _ = self.connect(SLICE)?;
        }
        Ok(Submitted { connected: self.is_connected(&hash), ..submitted })
    }

    /// Connects what is stored, for a while; the block is finished if nothing is left.
    fn go_on(
        &mut self,
        hash: BlockHash,
        mut submitted: Submitted,
    ) -> cofferdam_ibd::Result<Submitted> {
        let is_over = self.connect(SLICE)?.done || self.is_ending();
        submitted.pending = (!is_over).then_some(hash);
        if is_over {
            // Another job, or none, may have been the one that found the fault.
            let at = self.awaited.iter().position(|awaited| awaited.hash == hash);
            submitted.invalid = at.and_then(|at| self.awaited.swap_remove(at).invalid);
            submitted.connected = self.is_connected(&hash);
        }
        Ok(submitted)
    }

    fn is_connected(&self, hash: &BlockHash) -> bool {
        let at = self.chainstate.headers().get(hash);
        at.is_some_and(|at| self.chainstate.is_connected(at))
    }

    fn is_near_tip(&self) -> bool {
        let headers = self.chainstate.headers();
        let best = headers.entry(headers.best()).height;
        best.saturating_sub(self.chainstate.tip().height) <= NEAR_TIP_BLOCKS
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::consensus::serialize;
    use bitcoin::{Amount, ScriptBuf};
    use cofferdam_ibd::mining;

    use super::*;
    use crate::chain::{open_for_tests, start_for_tests};

    const BLOCKS: u32 = 6;

    /// Blocks on each other, of which the last one claims `extra` satoshis too many.
    fn blocks(extra: u64) -> Vec<CheckedBlock> {
        let dir = tempfile::tempdir().unwrap();
        let mut chain = open_for_tests(dir.path());
        let now = crate::clock::Clock::default().seconds();
        let make = |height| {
            let mut block = mining::assemble_block(&chain, &ScriptBuf::new(), now);
            if height == BLOCKS {
                block.txdata[0].output[0].value += Amount::from_sat(extra);
                block.header.merkle_root = block.compute_merkle_root().unwrap();
            }
            assert!(mining::solve(&mut block, chain.params(), &mut 1_000_000));
            let raw = serialize(&block);
            let _ = chain.accept_block(raw.clone(), now).unwrap();
            let _ = chain.advance(std::time::Instant::now()).unwrap();
            CheckedBlock::parse(raw, chain.params()).unwrap()
        };
        (1..=BLOCKS).map(make).collect()
    }

    /// Stores all blocks but the last and then submits that one, on a thread that connects a single
    /// block before it looks at what else there is to do; returns that and the height then.
    fn submit(chain: &ChainHandle, extra: u64, source: BlockSource) -> (Submitted, u32) {
        let mut blocks = blocks(extra);
        let last = blocks.pop().unwrap();
        let submitted = chain.change(move |worker| {
            worker.chainstate.pause_from(0);
            let now = worker.clock.seconds();
            for block in blocks {
                let accepted = worker.chainstate.accept_checked(block, now)?;
                assert!(matches!(accepted, BlockAccepted::Stored(_)), "{accepted:?}");
            }
            let submitted = worker.submit(last, source)?;
            Ok((submitted, worker.chainstate.tip().height))
        });
        submitted.unwrap()
    }

    #[test]
    fn a_block_on_many_that_wait_does_not_hold_the_thread() {
        for source in [BlockSource::Requested, BlockSource::User] {
            let dir = tempfile::tempdir().unwrap();
            let (chain, thread, _) = start_for_tests(dir.path());
            let (submitted, height) = submit(&chain, 0, source);
            assert_eq!((submitted.connected, height), (false, 1), "{source:?}");
            assert_eq!(submitted.pending.is_some(), source == BlockSource::User);
            let finished = chain.finish(submitted).unwrap();
            if source == BlockSource::User {
                assert!(finished.connected && finished.pending.is_none(), "{finished:?}");
                assert_eq!(chain.view().tip.height, BLOCKS);
            }
            chain.stop();
            thread.join().unwrap();
        }
    }

    #[test]
    fn who_waits_for_a_block_is_told_whenever_it_turns_out_to_break_a_rule() {
        let dir = tempfile::tempdir().unwrap();
        let (chain, thread, _) = start_for_tests(dir.path());
        let (submitted, _) = submit(&chain, 1, BlockSource::User);
        // It may be found between the jobs as well.
        chain.wait_until_connected().unwrap();
        let finished = chain.finish(submitted).unwrap();
        assert_eq!(finished.invalid.map(|rejection| rejection.code), Some("bad-cb-amount".into()));
        assert!(!finished.connected);
        assert_eq!(chain.view().tip.height, BLOCKS - 1);
        chain.stop();
        thread.join().unwrap();
    }
}
