//! Tools to prove this crate, or a user of it, correct (feature `testing`).
//!
//! - [`ModelChain`]: regtest blocks made on the spot, and the coins that they have to leave.
//! - [`Fault`]: a block that breaks one rule, with Bitcoin Core's name for it.
//! - [`OpTrueVerifier`]: verdicts on the scripts of these blocks, where there is no interpreter.
//! - [`fuzz`]: what a fuzzer calls.

mod fault;
#[cfg(test)]
mod fixtures;
pub mod fuzz;
mod model_chain;
mod op_true;

pub use self::fault::Fault;
#[cfg(test)]
pub(crate) use self::fixtures::{
    Chain, block, checked, coin, coinbase, mine, mine_header, outpoint, parsed, payment,
};
pub use self::model_chain::{ModelChain, Place, transfer};
pub use self::op_true::OpTrueVerifier;
