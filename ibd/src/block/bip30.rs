//! BIP-0030: no block overwrites an unspent output. When this has to be looked for, and the blocks
//! before the rule that did it (`ConnectBlock` in Bitcoin Core's `validation.cpp`).

use bitcoin::BlockHash;

use crate::params::ChainParams;
use crate::pow::HeaderChain;

/// From this height on the heights in coinbases no longer exclude repetitions: that of this block
/// is in a coinbase from before BIP-0034.
const BIP34_IMPLIES_BIP30_LIMIT: u32 = 1_983_702;

/// Returns whether the block is one of two in the chain that overwrite an unspent coinbase
/// (`IsBIP30Repeat`).
#[must_use]
pub fn bip30_repeat(params: &ChainParams, height: u32, hash: &BlockHash) -> bool {
    params.bip30_repeats.contains(&(height, *hash))
}

/// Returns whether the block is one of two whose coinbase was overwritten, and so lost
/// (`IsBIP30Unspendable`).
#[must_use]
pub fn bip30_unspendable(params: &ChainParams, height: u32, hash: &BlockHash) -> bool {
    params.bip30_overwritten.contains(&(height, *hash))
}

/// Returns whether the outputs of the block after `parent`, with that height and hash, have to be
/// looked up.
///
/// On the known chain coinbases differ from BIP-0034 on, for each has its height in it.
#[must_use]
pub fn bip30_applies(
    params: &ChainParams,
    parent: &impl HeaderChain,
    height: u32,
    hash: &BlockHash,
) -> bool {
    if height >= BIP34_IMPLIES_BIP30_LIMIT {
        return true;
    }
    if bip30_repeat(params, height, hash) {
        return false;
    }
    let on_known_chain = params.bip34_hash.is_some_and(|known| {
        parent.height() >= params.bip34_height
            && parent.header(params.bip34_height).block_hash() == known
    });
    !on_known_chain
}

/// Returns whether no valid block can overwrite an output, so that only the reason why a block is not
/// valid has to be looked for: each block after the first has to begin its coinbase with its
/// height (BIP-0034), and no height's script begins with another's. So no coinbase is ever repeated;
/// nor, from one transaction to the next, is any that spends one: its inputs would have to be there
/// again.
#[must_use]
pub const fn never_repeats(params: &ChainParams) -> bool {
    params.bip34_height <= 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::Network;
    use bitcoin::block::Header;
    use bitcoin::hashes::Hash as _;

    /// A chain on which the block at the height of BIP-0034 is the genesis block of the network.
    struct Stub(u32, Header);

    impl HeaderChain for Stub {
        fn height(&self) -> u32 {
            self.0
        }

        fn header(&self, _: u32) -> Header {
            self.1
        }
    }

    fn applies(params: &ChainParams, height: u32, hash: BlockHash) -> bool {
        bip30_applies(params, &Stub(height - 1, params.genesis.header), height, &hash)
    }

    #[test]
    fn outputs_are_looked_up_until_bip34_on_the_known_chain() {
        let mut params = ChainParams::new(Network::Mainnet);
        let any = BlockHash::all_zeros();
        let first = params.bip34_height;
        // Another chain than the known one.
        assert!(applies(&params, first + 1, any));
        params.bip34_hash = Some(params.genesis.block_hash());
        assert!(applies(&params, first, any));
        assert!(!applies(&params, first + 1, any));
        assert!(!applies(&params, BIP34_IMPLIES_BIP30_LIMIT - 1, any));
        assert!(applies(&params, BIP34_IMPLIES_BIP30_LIMIT, any));
        assert!(applies(&ChainParams::new(Network::Testnet4), 100_000, any));
    }

    #[test]
    fn coinbases_never_repeat_where_each_has_its_height() {
        let never = |network| never_repeats(&ChainParams::new(network));
        assert!(never(Network::Regtest) && never(Network::Signet) && never(Network::Testnet4));
        assert!(!never(Network::Mainnet) && !never(Network::Testnet3));
        let mut params = ChainParams::new(Network::Regtest);
        params.bip34_height = 2;
        assert!(!never_repeats(&params));
        // No height's push is how another's begins.
        let pushed =
            |height: u32| bitcoin::script::Builder::new().push_int(i64::from(height)).into_bytes();
        let edges =
            [1, 2, 16, 17, 127, 128, 255, 256, 32_767, 32_768, 8_388_607, 8_388_608, u32::MAX];
        for a in edges {
            for b in edges {
                assert_eq!(pushed(a).starts_with(&pushed(b)), a == b, "{a} {b}");
            }
        }
    }

    #[test]
    fn two_blocks_repeat_a_coinbase() {
        let params = ChainParams::new(Network::Mainnet);
        let pairs = params.bip30_repeats.iter().zip(&params.bip30_overwritten);
        assert_eq!(pairs.len(), 2);
        for (&(height, hash), &(first, repeated)) in pairs {
            assert!(!applies(&params, height, hash));
            assert!(applies(&params, height + 1, hash));
            assert!(bip30_repeat(&params, height, &hash));
            assert!(bip30_unspendable(&params, first, &repeated));
            assert!(!bip30_repeat(&params, first, &repeated));
            assert!(!bip30_repeat(&ChainParams::new(Network::Regtest), height, &hash));
        }
    }
}
