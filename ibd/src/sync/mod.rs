//! What to ask which peer for, without sockets and without a clock.
//!
//! Both machines take events and the time in, and give requests out. The time is a [`Duration`]
//! since any fixed moment; it may be a pretended one.
//!
//! [`Duration`]: std::time::Duration

mod download;
mod flow;
mod headers;
mod low_work;
mod missing;
mod peer;
#[cfg(test)]
mod shared_line;
#[cfg(test)]
mod simulation;

pub use download::{BlockRequest, DownloadScheduler};
pub use headers::{HEADERS_MAX, HeaderSync, HeaderTurn, Role};
pub use low_work::{
    HeadersWork, LowWorkGate, Passed, check_headers_alone, headers_work, work_threshold,
};
pub use missing::{DOWNLOAD_WINDOW, Missing, missing_blocks};
pub use peer::BLOCKS_IN_FLIGHT_MAX;

use bitcoin::BlockHash;

/// A connection to a peer; never reused.
pub type PeerId = u64;

/// A peer that has to go, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dropped {
    /// The peer.
    pub peer: PeerId,
    /// Why.
    pub reason: DropReason,
}

/// Why a peer has to go; shown in Bitcoin Core's words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DropReason {
    /// It leads the headers' sync and took too long.
    HeadersTimeout,
    /// The download window cannot move for a block that it owes.
    Stalling,
    /// It owes this block for too long.
    BlockTimeout(BlockHash),
}

impl std::fmt::Display for DropReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::HeadersTimeout => f.write_str("Timeout downloading headers"),
            Self::Stalling => f.write_str("Peer is stalling block download"),
            Self::BlockTimeout(hash) => write!(f, "Timeout downloading block {hash}"),
        }
    }
}
