//! The stages a block passes on its way into the UTXO set.
//!
//! ```text
//! load (read, parse, check, read coins ahead, make the batch; parallel) -> connect (in order, the
//!   chainstate's thread) -> scripts (parallel, across blocks) -> commit (in order)
//! ```
//!
//! Block N+1 is connected while block N's scripts run: its effects are staged in the store, where
//! only later reads of the same thread see them. A commit waits for its block's scripts. The first
//! invalid block decides, whatever finished first; whatever was staged behind it is taken back.
//!
//! Bounds: [`LOAD_AHEAD`] blocks are loaded ahead and [`IN_FLIGHT_MAX`] are staged, at 4 MB of
//! bytes each at most; the coins that they spend, of which a block can have 244 MB, count by
//! [`READ_AHEAD_BYTES_MAX`] and [`IN_FLIGHT_SPENT_MAX`].

pub(crate) mod connect;
pub(crate) mod effects;
pub(crate) mod load;
pub(crate) mod prefetch;
pub(crate) mod scripts;
pub(crate) mod spent;

/// Blocks that are read, parsed and checked ahead of the one being connected. Enough to keep a few
/// cores busy; at 4 MB a block at most 64 MB, and for what each does to the table of coins about its
/// own length, at most 7 MB (where all of it are outputs of nine bytes).
pub(crate) const LOAD_AHEAD: usize = 16;

/// Bytes of coins that are read ahead for one block: those of a usual block are a tenth of it, and one
/// that spends scripts of 10,000 bytes reads the rest when it is connected.
pub(crate) const READ_AHEAD_BYTES_MAX: usize = 4 << 20;

/// Bytes of spent coins of the blocks whose scripts are running, after which no other block is staged.
pub(crate) const IN_FLIGHT_SPENT_MAX: usize = if cfg!(test) { 64 << 10 } else { 32 << 20 };

/// Blocks whose scripts may be running: each is staged in the store, where every later read asks
/// every staged block first.
pub(crate) const IN_FLIGHT_MAX: usize = 8;
