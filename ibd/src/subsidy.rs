//! What a block may create (`GetBlockSubsidy` in Bitcoin Core's `validation.cpp`).

use crate::params::ChainParams;

/// Satoshis in a bitcoin.
const COIN: u64 = 100_000_000;

/// Returns the subsidy of the block at `height` in satoshis.
#[must_use]
pub fn block_subsidy(height: u32, params: &ChainParams) -> u64 {
    let halvings = height / params.subsidy_halving_interval;
    (50 * COIN).checked_shr(halvings).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::Network;

    #[test]
    fn halves_until_nothing_is_left() {
        let params = ChainParams::new(Network::Mainnet);
        let cases = [
            (0, 50 * COIN),
            (209_999, 50 * COIN),
            (210_000, 25 * COIN),
            (840_000, 312_500_000),
            (33 * 210_000 - 1, 1),
            (33 * 210_000, 0),
            (64 * 210_000, 0),
            (u32::MAX, 0),
        ];
        for (height, subsidy) in cases {
            assert_eq!(block_subsidy(height, &params), subsidy, "{height}");
        }
        assert_eq!(block_subsidy(150, &ChainParams::new(Network::Regtest)), 25 * COIN);
    }

    /// The sum of Core's `validation_tests.cpp` (`subsidy_limit_test`), in steps of 1000 blocks.
    #[test]
    fn all_money_is_the_known_sum() {
        let params = ChainParams::new(Network::Mainnet);
        let sum: u64 =
            (0..14_000_000).step_by(1000).map(|height| block_subsidy(height, &params) * 1000).sum();
        assert_eq!(sum, 2_099_999_997_690_000);
    }
}
