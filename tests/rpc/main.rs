//! Does RPC answer as `bitcoind` does? One module a group of questions.
#![expect(clippy::indexing_slicing, reason = "a test fails by a panic")]

mod chain;
mod mainnet;
mod queue;

/// The node under test.
const BINARY: &str = env!("CARGO_BIN_EXE_cofferdam-under-test");
