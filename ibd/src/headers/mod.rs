//! All known headers, the best one, and where each block's bytes are.

mod candidates;
mod entry;
mod presync;
mod row;
mod tree;

pub(crate) use candidates::Candidates;
pub use entry::{HeaderEntry, HeaderRef};
pub use presync::{ChainStart, HeadersSync, HeadersSyncParams, Processed, Salt, SyncPhase};
pub use row::{Extent, HeaderRow, HeaderStatus};
pub use tree::{ChainView, HeaderTree};
