//! What a valid Bitcoin chain is: headers, blocks, coins, scripts, and the pipeline that connects
//! them to a UTXO set, on any store behind [`cofferdam_storage::Database`].
//!
//! The crate knows no socket, no engine and no wall clock: bytes, events and the time are arguments.
//! A fault of a block is a value ([`Rejection`], with Bitcoin Core's reject string); a fault of the
//! machine is an [`Error`].
//!
//! ```
//! # #[cfg(feature = "kernel")]
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//! use std::time::{Duration, Instant};
//!
//! use cofferdam_ibd::{AssumeValid, ChainParams, Chainstate, ChainstateOptions, Network, TREES, mining};
//! use cofferdam_storage::{MemoryDatabase, StdFileSystem};
//!
//! let dir = tempfile::tempdir()?;
//! let options = ChainstateOptions {
//!     threads: 2,
//!     assume_valid: AssumeValid::Off,
//!     ..ChainstateOptions::new(ChainParams::new(Network::Regtest), dir.path())
//! };
//! let backend = Box::new(MemoryDatabase::new(TREES));
//! let (mut chainstate, _) = Chainstate::open(options, Arc::new(StdFileSystem), backend)?;
//!
//! // A block from anywhere: here one that is mined on the spot.
//! let now = 1_767_225_600;
//! let mut block = mining::assemble_block(&chainstate, &Default::default(), now);
//! mining::solve(&mut block, chainstate.params(), &mut 1_000_000);
//!
//! let _ = chainstate.accept_block(bitcoin::consensus::serialize(&block), now)?;
//! let advance = chainstate.advance(Instant::now() + Duration::from_secs(60))?;
//! assert_eq!((advance.connected, advance.invalid.len()), (1, 0));
//! assert_eq!(chainstate.tip().hash, block.block_hash());
//! chainstate.shutdown()?;
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "kernel"))]
//! # fn main() {}
//! ```

pub mod block;
mod block_files;
mod chainstate;
pub mod coin;
mod coin_stats;
pub mod compress;
mod error;
mod hash;
pub mod header_check;
pub mod headers;
pub mod mining;
pub mod params;
mod pipeline;
pub mod pow;
mod rejection;
pub mod script;
pub mod signet;
pub mod subsidy;
pub mod sync;
mod tables;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod tx;
pub mod tx_queue;
pub mod undo;
pub mod unknown_rules;
pub mod utxo_stats;
pub mod versionbits;
pub mod wire;

pub use block::{CheckedBlock, DECODE_FAILED, RawBlock};
pub use block_files::{BlockFiles, FileSize};
pub use chainstate::{
    Advance, AssumeValid, BlockAccepted, BlockFileUsage, BlockRef, ChainVerification, Chainstate,
    ChainstateOptions, CoinChanges, CoinScanner, HeadersAccepted, Invalidation, Progress, Store,
};
pub use coin::Coin;
pub use coin_stats::{BlockAmounts, CoinStats};
pub use error::{Error, Result};
pub use headers::{HeaderEntry, HeaderRef, HeaderTree};
pub use params::{ChainParams, Network};
pub use pow::HeaderChain;
pub use rejection::{Rejection, RejectionScope};
#[cfg(feature = "kernel")]
pub use script::KernelVerifier;
pub use script::{PreparedTransaction, ScriptFlags, ScriptVerifier, block_script_flags};
pub use subsidy::block_subsidy;
pub use tables::{COIN_STATS, COINS, HEADERS, TREES};
pub use tx_queue::{BlockLimits, QueueLimits, QueuedTx, TxQueue, TxRejection};
pub use utxo_stats::{UtxoHash, UtxoStats};
