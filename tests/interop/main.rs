//! Does the node work together with the real Bitcoin Core, and can it take its place?
//!
//! `scripts/bitcoind` builds Core from the source that the crate `libbitcoinkernel-sys` carries.
//! Where it is missing, the tests that need it say `NOT RUN`; in CI they fail.
#![expect(clippy::indexing_slicing, reason = "a test fails by a panic")]

mod chain_file;
mod corepc;
mod crowd;
mod files;
mod kills;
mod memory;
mod pair;
mod reorgs;
mod restarts;
mod rpc;
mod snapshots;
mod sync;

/// Our node.
const COFFERDAM: &str = env!("CARGO_BIN_EXE_cofferdam-under-test");
