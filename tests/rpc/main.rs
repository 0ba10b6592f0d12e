//! Does RPC answer as `bitcoind` does? One module a group of questions.
#![expect(clippy::indexing_slicing, reason = "a test fails by a panic")]

mod access;
mod chain;
mod control;
mod help;
mod hostile;
mod http_client;
mod mainnet;
mod queue;
mod rest;
mod transport;

/// The node under test.
const BINARY: &str = env!("CARGO_BIN_EXE_cofferdam-under-test");
