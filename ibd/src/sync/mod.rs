//! What to ask which peer for, without sockets and without a clock.
//!
//! Both machines take events and the time in, and give requests out. The time is a [`Duration`]
//! since any fixed moment; it may be a pretended one.
//!
//! [`Duration`]: std::time::Duration

mod download;
mod headers;
mod low_work;

pub use download::{
    BLOCKS_IN_FLIGHT_MAX, DOWNLOAD_WINDOW, DownloadScheduler, Missing, missing_blocks,
};
pub use headers::{HEADERS_MAX, HeaderSync};
pub use low_work::{
    HeadersWork, LowWorkGate, Passed, check_headers_alone, headers_work, work_threshold,
};

/// A connection to a peer; never reused.
pub type PeerId = u64;

/// A peer that has to go, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dropped {
    /// The peer.
    pub peer: PeerId,
    /// Why, for the log.
    pub reason: &'static str,
}
