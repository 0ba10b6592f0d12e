//! The state of a version-bits deployment (BIP-0009), as far as building blocks needs it: which
//! bits a new block signals.
//!
//! Validation reads no state from here: every deployment that changed a rule is buried at a height.

use crate::params::{ChainParams, Network};
use crate::pow::HeaderChain;

/// A deployment that is signalled for from the first period on, without a timeout.
#[derive(Clone, Copy, Debug)]
struct Deployment {
    bit: u8,
    period: u32,
    threshold: u32,
}

/// Regtest's `testdummy` (`DEPLOYMENT_TESTDUMMY` in Bitcoin Core's `kernel/chainparams.cpp`).
const TESTDUMMY: Deployment = Deployment { bit: 28, period: 144, threshold: 108 };

const TOP_MASK: i32 = 0xe000_0000_u32.cast_signed();
const TOP_BITS: i32 = 0x2000_0000;

/// Returns the version of a new block on the chain `parent` (`ComputeBlockVersion`).
pub(crate) fn block_version(params: &ChainParams, parent: &impl HeaderChain) -> i32 {
    let signals = params.network == Network::Regtest && is_signalled(TESTDUMMY, parent);
    TOP_BITS | if signals { 1 << TESTDUMMY.bit } else { 0 }
}

/// Returns whether the deployment is started or locked in for the block after `parent`.
///
/// Walks the periods from the first: defined, started, locked in one period after the threshold was
/// met, active one period later.
fn is_signalled(deployment: Deployment, parent: &impl HeaderChain) -> bool {
    let Deployment { period, threshold, .. } = deployment;
    let period_of_next = (parent.height() + 1) / period;
    if period_of_next == 0 {
        return false;
    }
    for started in 1..period_of_next {
        let first = started * period;
        let count = (first..first + period)
            .filter(|&height| has_bit(parent.header(height).version.to_consensus(), deployment.bit))
            .count();
        if count >= threshold as usize {
            // Locked in during the period after this one.
            return period_of_next == started + 1;
        }
    }
    true
}

const fn has_bit(version: i32, bit: u8) -> bool {
    version & TOP_MASK == TOP_BITS && version >> bit & 1 == 1
}

#[cfg(test)]
mod tests {
    use bitcoin::block::{Header, Version};

    use super::*;

    /// A chain whose headers differ in the version only.
    struct Versions(Vec<i32>, Header);

    impl HeaderChain for Versions {
        fn height(&self) -> u32 {
            u32::try_from(self.0.len() - 1).expect("short")
        }
        fn header(&self, height: u32) -> Header {
            Header { version: Version::from_consensus(self.0[height as usize]), ..self.1 }
        }
    }

    #[test]
    fn testdummy_is_signalled_from_144_to_431() {
        let params = ChainParams::new(Network::Regtest);
        let mut chain = Versions(vec![1], params.genesis.header);
        for height in 1..600 {
            let version = block_version(&params, &chain);
            let expected = if (144..432).contains(&height) { 0x3000_0000 } else { 0x2000_0000 };
            assert_eq!(version, expected, "at height {height}");
            chain.0.push(version);
        }
        let main = ChainParams::new(Network::Mainnet);
        assert_eq!(block_version(&main, &chain), 0x2000_0000);
    }
}
