//! Taking in headers and blocks: checked, stored and indexed, not yet connected.

use std::sync::Arc;

use bitcoin::block::Header;

use super::{BlockRef, Chainstate};
use crate::block::{CheckedBlock, check_block_context};
use crate::error::Result;
use crate::header_check::check_header_context;
use crate::headers::{Extent, HeaderRef, HeaderStatus};
use crate::pow::check_work_of;
use crate::rejection::{Rejection, RejectionScope};
use crate::signet::check_signet_solution;

/// What taking in headers did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeadersAccepted {
    /// The last of the headers given; the tip if none was given.
    pub last: BlockRef,
    /// How many were not known before.
    pub new: usize,
}

/// What taking in a block did.
#[must_use]
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BlockAccepted {
    /// The block passed the checks that need no coins, and is stored.
    Stored(BlockRef),
    /// The block was stored before.
    Duplicate(BlockRef),
    /// The block breaks a rule; nothing was stored.
    Rejected(Rejection),
}

impl Chainstate {
    /// Takes in headers, each the child of a known one or of the one before it.
    ///
    /// `now` is the time in seconds since 1970. On a rejection the headers before the bad one are
    /// kept.
    ///
    /// # Errors
    ///
    /// Returns [`crate::Error`] if the machine failed; a header's fault is the inner error.
    pub fn accept_headers(
        &mut self,
        headers: &[Header],
        now: u32,
    ) -> Result<std::result::Result<HeadersAccepted, Rejection>> {
        let known = self.headers.len();
        let mut last = self.tip;
        for header in headers {
            match self.accept_header(header, now)? {
                Ok(at) => last = at,
                Err(rejection) => {
                    self.write_index()?;
                    return Ok(Err(rejection));
                }
            }
        }
        self.write_index()?;
        Ok(Ok(HeadersAccepted { last: self.block_ref(last), new: self.headers.len() - known }))
    }

    /// Takes in a header; its fault is logged in Bitcoin Core's words (`AcceptBlockHeader`).
    fn accept_header(
        &mut self,
        header: &Header,
        now: u32,
    ) -> Result<std::result::Result<HeaderRef, Rejection>> {
        let hash = header.block_hash();
        if let Some(at) = self.headers.get(&hash) {
            if self.headers.entry(at).status.has(HeaderStatus::FAILED) {
                tracing::debug!("AcceptBlockHeader: block {hash} is marked invalid");
                let detail = format!("block {hash} was previously marked invalid");
                let rejection = Rejection::new("duplicate-invalid", RejectionScope::Cached);
                return Ok(Err(rejection.with_detail(detail)));
            }
            return Ok(Ok(at));
        }
        let fault = |check: &str, rejection: &Rejection| {
            tracing::debug!("AcceptBlockHeader: Consensus::{check}: {hash}, {rejection}");
        };
        if let Err(rejection) = check_work_of(&hash, header.bits, &self.params) {
            fault("CheckBlockHeader", &rejection);
            return Ok(Err(rejection));
        }
        let prev = header.prev_blockhash;
        let Some(parent) = self.headers.get(&prev) else {
            tracing::debug!("header {hash} has prev block not found: {prev}");
            return Ok(Err(Rejection::new("prev-blk-not-found", RejectionScope::MissingPrev)));
        };
        if self.headers.entry(parent).status.has(HeaderStatus::FAILED) {
            tracing::debug!("header {hash} has prev block invalid: {prev}");
            return Ok(Err(Rejection::new("bad-prevblk", RejectionScope::InvalidPrev)));
        }
        let chain = self.headers.chain(parent);
        if let Err(rejection) = check_header_context(&self.params, &chain, header, now) {
            fault("ContextualCheckBlockHeader", &rejection);
            return Ok(Err(rejection));
        }
        let at = self.headers.insert(header, hash, parent)?;
        self.dirty.insert(at);
        Ok(Ok(at))
    }

    /// Takes in a block's bytes: parses and checks them, takes in the header, stores the block.
    ///
    /// It is connected by [`Chainstate::advance`]. Blocks may come in any order whose headers are
    /// known.
    ///
    /// # Errors
    ///
    /// Returns [`crate::Error`] if the machine failed; a block's fault is
    /// [`BlockAccepted::Rejected`].
    pub fn accept_block(&mut self, raw: Vec<u8>, now: u32) -> Result<BlockAccepted> {
        match CheckedBlock::parse(raw, &self.params) {
            Ok(block) => self.accept_checked(block, now),
            Err(rejection) => Ok(BlockAccepted::Rejected(rejection)),
        }
    }

    /// Takes in a block that [`CheckedBlock::check`] passed, on any thread.
    ///
    /// # Errors
    ///
    /// As [`Chainstate::accept_block`].
    pub fn accept_checked(&mut self, block: CheckedBlock, now: u32) -> Result<BlockAccepted> {
        self.accept_block_at(block, None, now)
    }

    /// Takes in a block that [`CheckedBlock::check`] passed and that stands in a block file of this
    /// chain already, at `stored`: what is done with all of them after the index was lost.
    ///
    /// # Errors
    ///
    /// As [`Chainstate::accept_block`].
    pub fn accept_stored(
        &mut self,
        block: CheckedBlock,
        stored: Extent,
        now: u32,
    ) -> Result<BlockAccepted> {
        self.accept_block_at(block, Some(stored), now)
    }

    fn accept_block_at(
        &mut self,
        block: CheckedBlock,
        stored: Option<Extent>,
        now: u32,
    ) -> Result<BlockAccepted> {
        if let Err(rejection) = check_signet_solution(&self.params, &block, self.verifier.as_ref())?
        {
            return Ok(BlockAccepted::Rejected(rejection));
        }
        let at = match self.accept_header(block.header(), now)? {
            Ok(at) => at,
            Err(rejection) => return Ok(BlockAccepted::Rejected(rejection)),
        };
        let entry = self.headers.entry(at);
        let Some(parent) = entry.parent.filter(|_| entry.block.is_none()) else {
            return Ok(BlockAccepted::Duplicate(self.block_ref(at)));
        };
        let context = check_block_context(&self.params, &self.headers.chain(parent), &block);
        if let Err(rejection) = context {
            if rejection.scope == RejectionScope::Header {
                self.mark_failed(at);
            }
            tracing::error!("AcceptBlock: {rejection}");
            return Ok(BlockAccepted::Rejected(rejection));
        }
        let extent = match stored {
            Some(extent) => extent,
            None => {
                self.store.wait_for_space(block.total_size())?;
                self.store.wait_for_space_in(self.files.dir(), block.total_size())?;
                self.files.append_block(block.bytes())?
            }
        };
        let height = entry.height;
        let before_segwit = height < self.params.segwit_height;
        let entry = self.headers.entry_mut(at);
        entry.block = Some(extent);
        entry.status.set(HeaderStatus::DATA);
        if before_segwit {
            entry.status.set(HeaderStatus::NO_WITNESS);
        } else {
            entry.status.clear(HeaderStatus::NO_WITNESS);
        }
        // A block of 4 MB has at most 66,000 transactions.
        entry.tx_count = u32::try_from(block.txids().len()).unwrap_or(u32::MAX);
        self.dirty.insert(at);
        let tip_height = self.headers.entry(self.tip).height;
        self.recent.insert(height, at, Arc::new(block), tip_height);
        self.candidates.block_stored(&mut self.headers, at);
        Ok(BlockAccepted::Stored(self.block_ref(at)))
    }
}
