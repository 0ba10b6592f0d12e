//! The rules for one transaction.

mod check;
mod inputs;
mod locks;
mod sigops;

pub use check::check_transaction;
pub(crate) use check::{check_with, has_duplicate_inputs};
pub use inputs::{check_tx_inputs, missing_inputs};
pub use locks::{check_sequence_locks, is_final_tx};
pub(crate) use sigops::next_op;
pub use sigops::{legacy_sigop_count, spent_sigop_cost};

/// Cost of a byte or a signature operation outside of the witness (`WITNESS_SCALE_FACTOR`).
pub(crate) const WITNESS_SCALE: u64 = 4;

/// All money there is, in satoshis (`MAX_MONEY`).
pub(crate) const MONEY_MAX: u64 = 21_000_000 * 100_000_000;
