//! Blocks and transactions as the bytes they came in.

mod cursor;
mod transactions;
mod view;

pub use cursor::DecodeError;
pub use transactions::Transactions;
pub(crate) use view::count_len;
pub use view::{InputRef, OutputRef, TxRef, WitnessRef};
