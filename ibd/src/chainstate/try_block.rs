//! Would a block be valid on the tip? (`TestBlockValidity` in Bitcoin Core's `validation.cpp`)

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use cofferdam_storage::ReadAhead;

use super::Chainstate;
use crate::block::{CheckedBlock, RawBlock, check_block_context};
use crate::error::Result;
use crate::header_check::check_header_context;
use crate::pipeline::connect::{ConnectContext, Connected, connect_block};
use crate::pipeline::effects::Effects;
use crate::pipeline::scripts::{BlockScripts, ScriptTicket, ScriptsEnd};
use crate::pow::HeaderChain as _;
use crate::rejection::Rejection;
use crate::signet::check_signet_solution;

impl Chainstate {
    /// Checks all rules for a block on the tip, scripts too, and changes nothing. Proof of work, and
    /// on a signet the block's signature, are looked at only if `finished`.
    ///
    /// # Errors
    ///
    /// Returns [`crate::Error`] if the machine failed; the block's fault is the inner error.
    pub fn try_block(
        &mut self,
        bytes: Vec<u8>,
        now: u32,
        finished: bool,
    ) -> Result<std::result::Result<(), Rejection>> {
        let block = match RawBlock::parse(bytes) {
            Ok(block) => block,
            Err(error) => return Ok(Err(error.into())),
        };
        if block.header().prev_blockhash != self.tip().hash {
            return Ok(Err(Rejection::consensus("inconclusive-not-best-prevblk")));
        }
        let checked = if finished {
            CheckedBlock::check(block, &self.params)
        } else {
            CheckedBlock::check_without_work(block)
        };
        let block = match checked {
            Ok(block) => block,
            Err(rejection) => return Ok(Err(rejection)),
        };
        if finished
            && let Err(rejection) =
                check_signet_solution(&self.params, &block, self.verifier.as_ref())?
        {
            return Ok(Err(rejection));
        }
        let parent = self.headers.chain(self.tip);
        let in_context = check_header_context(&self.params, &parent, block.header(), now)
            .and_then(|()| check_block_context(&self.params, &parent, &block));
        if let Err(rejection) = in_context {
            return Ok(Err(rejection));
        }
        self.try_spends(block)
    }

    fn try_spends(&mut self, block: CheckedBlock) -> Result<std::result::Result<(), Rejection>> {
        let context = ConnectContext {
            params: &self.params,
            store: &self.store,
            parent: self.headers.chain(self.tip),
        };
        let ahead = ReadAhead::default();
        let effects = Effects::new(&self.params, &block, context.parent.height() + 1);
        let connected = connect_block(&context, &block, &ahead, effects, &mut self.scratch)?;
        let Connected { spent, flags, .. } = match connected {
            Ok(connected) => connected,
            Err(rejection) => return Ok(Err(rejection)),
        };
        let work = Arc::new(BlockScripts { block: Arc::new(block), spent, flags });
        let ticket = ScriptTicket::start(&self.pool, &self.verifier, &work);
        Ok(match ticket.wait(&AtomicBool::new(false))? {
            ScriptsEnd::Failed(failed) => Err(work.describe(self.verifier.as_ref(), failed)?),
            ScriptsEnd::Passed | ScriptsEnd::Stopped => Ok(()),
        })
    }
}
