//! The rules for one transaction.

pub(crate) mod check;
mod inputs;
mod locks;
mod sigops;

pub use check::check_transaction;
pub use inputs::check_tx_inputs;
pub use locks::{check_sequence_locks, is_final_tx};
pub(crate) use sigops::next_op;
pub use sigops::{legacy_sigop_count, tx_sigop_cost};

/// Cost of a byte or a signature operation outside of the witness (`WITNESS_SCALE_FACTOR`).
pub(crate) const WITNESS_SCALE: u64 = 4;

/// All money there is, in satoshis (`MAX_MONEY`).
pub(crate) const MONEY_MAX: u64 = 21_000_000 * 100_000_000;
