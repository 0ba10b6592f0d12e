//! `RawBlock`: a block as the bytes it came in, read and not yet checked.

use bitcoin::BlockHash;
use bitcoin::block::Header;

use crate::rejection::{Rejection, RejectionScope};
use crate::wire::{DecodeError, Transactions};

/// The code of the [`Rejection`] of bytes that are no block.
pub const DECODE_FAILED: &str = "block-decode-failed";

/// A block that can be read; nothing else is known of it.
#[derive(Clone, Debug)]
pub struct RawBlock {
    header: Header,
    hash: BlockHash,
    txs: Transactions,
}

impl RawBlock {
    /// Reads a block; what follows it is cut off, as in Bitcoin Core.
    ///
    /// # Errors
    ///
    /// Returns what is wrong where, if Bitcoin Core could not read the block.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, DecodeError> {
        let (header, txs) = Transactions::of_block(bytes)?;
        Ok(Self { hash: header.block_hash(), header, txs })
    }

    /// Returns the header.
    #[must_use]
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// Returns the hash of the header.
    #[must_use]
    pub const fn hash(&self) -> BlockHash {
        self.hash
    }

    /// Returns the transactions.
    #[must_use]
    pub const fn txs(&self) -> &Transactions {
        &self.txs
    }

    /// Returns the block's bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.txs.bytes()
    }
}

impl From<DecodeError> for Rejection {
    /// Bytes that are no block say nothing about any header.
    fn from(error: DecodeError) -> Self {
        Self::new(DECODE_FAILED, RejectionScope::Bytes).with_detail(error.to_string())
    }
}
