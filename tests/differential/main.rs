//! Does Cofferdam say of every block what Bitcoin Core says of it?
//!
//! Both run in this process and get the same bytes in the same order: Core's `ChainstateManager`
//! from its kernel library, and `cofferdam_ibd::Chainstate`. After every delivery the verdict, what
//! it condemns, the reject reason and the tip are compared, and now and then the UTXO set, which is
//! rebuilt from Core's own block and undo files.
#![expect(clippy::indexing_slicing, reason = "a test fails by a panic")]

mod chain_data;
mod coin_set;
mod damage;
mod draft;
mod effort;
mod generator;
mod kernel;
mod mutants;
mod orders;
mod pair;
mod signet;
mod verdict;
mod wallet;
