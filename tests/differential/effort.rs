//! How many random blocks a run delivers, and from which seed on.

use std::env;

use cofferdam_storage::testing;

/// Blocks to deliver, whatever the effort.
const BLOCKS: &str = "COFFERDAM_DIFFERENTIAL_BLOCKS";
/// Seed of the first universe.
const SEED: &str = "COFFERDAM_DIFFERENTIAL_SEED";

pub(crate) fn blocks() -> u64 {
    number(BLOCKS).unwrap_or_else(|| testing::effort().pick(300, 12_000, 200_000))
}

pub(crate) fn seed() -> u64 {
    number(SEED).unwrap_or(1)
}

#[expect(clippy::disallowed_methods, reason = "who runs the tests says how many, not the code")]
fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text}: it is a number")))
}

/// What repeats the universe of a seed.
pub(crate) fn repeats(seed: u64, blocks: u64) -> String {
    format!("{SEED}={seed} {BLOCKS}={blocks}")
}
