//! Does Cofferdam say of every block what Bitcoin Core says of it?
//!
//! Both run in this process and get the same bytes in the same order: Core's `ChainstateManager`
//! from its kernel library, and `cofferdam_ibd::Chainstate`. After every delivery the verdict, what
//! it condemns, the reject reason, how many blocks were connected and the tip are compared, and now
//! and then the UTXO set, which is rebuilt from Core's own block and undo files.
//!
//! - `chain_data`: the real chains and headers of `tests/data`, and the reorganisations in them;
//! - `mutants`: one table with a block for every reject reason, and blocks that just pass;
//! - `orders`: random chains with forks, headers first, faults and restarts, in random orders;
//! - `damage`: blocks with damaged bytes;
//! - `signet`: solutions of signets.
//!
//! `COFFERDAM_EFFORT` says how much of it is done. The random chains can be told apart from that:
//! a million blocks, from the universe of seed 1,000 on, are
//!
//! ```text
//! COFFERDAM_DIFFERENTIAL_BLOCKS=1000000 COFFERDAM_DIFFERENTIAL_SEED=1000 \
//!     cargo nextest run --release --workspace --all-features --test differential \
//!     --no-capture -E 'test(random_chains)'
//! ```
//!
//! A failure names the two variables' values that repeat it, in a second.
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
