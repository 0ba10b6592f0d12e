//! The rules for one block.

mod bip30;
mod check;
mod context;
mod merkle;
mod raw;
mod spends;
mod witness;

pub use bip30::{bip30_applies, bip30_repeat, bip30_unspendable, never_repeats};
pub use check::{CheckedBlock, is_block_mutated};
pub use context::check_block_context;
pub(crate) use context::check_block_witnesses;
pub use merkle::merkle_root;
pub use raw::{DECODE_FAILED, RawBlock};
pub(crate) use spends::Source;
pub(crate) use witness::commitment_index;

/// Greatest weight of a block (`MAX_BLOCK_WEIGHT`).
pub const WEIGHT_MAX: u64 = 4_000_000;
/// Greatest cost of a block's signature operations (`MAX_BLOCK_SIGOPS_COST`).
pub const SIGOPS_COST_MAX: u64 = 80_000;
