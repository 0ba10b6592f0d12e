//! Coinbases that are repeated: BIP-0030 and BIP-0034.

use std::sync::Arc;

use bitcoin::script::Builder;
use bitcoin::{Block, BlockHash};
use cofferdam_ibd::block::{bip30_applies, bip30_repeat, bip30_unspendable};
use cofferdam_ibd::testing::ModelChain;
use cofferdam_ibd::{
    ChainParams, Chainstate, Coin, CoinStats, HeaderChain, Network, UtxoHash, UtxoStats,
    block_subsidy,
};
use cofferdam_storage::BackendKind;
use cofferdam_tests::chain;

use super::{give, invalid, refused};

/// A block whose coinbase is the same at any height.
fn repeating(model: &ModelChain) -> Block {
    let mut block = model.block(2, Vec::new());
    let coinbase = &mut block.txdata[0];
    coinbase.input[0].script_sig = Builder::new().push_slice(b"the same").into_script();
    model.seal(&mut block);
    block
}

fn plain(model: &mut ModelChain, number: u64) -> Block {
    let block = model.block(number, Vec::new());
    model.connect(&block);
    block
}

fn open(dir: &std::path::Path, params: &ChainParams) -> Chainstate {
    let options = cofferdam_ibd::ChainstateOptions {
        params: Arc::new(params.clone()),
        coin_stats: true,
        ..chain::options(Network::Regtest, dir)
    };
    chain::open_with(options, BackendKind::Sled)
}

/// The statistics that are kept are those of the set, without a coinbase that is going to be
/// overwritten: as in `index/coinstatsindex.cpp` it is lost from the beginning.
fn check_statistics(chainstate: &Chainstate) -> CoinStats {
    let kept = chainstate.coin_stats(&chainstate.tip().hash).expect("readable").expect("kept");
    let is_lost = |coin: &Coin| {
        let block = chainstate.block_at(coin.height).expect("connected");
        coin.coinbase && bip30_unspendable(chainstate.params(), coin.height, &block.hash)
    };
    let coins = chainstate.coins().expect("readable");
    let coins = coins.filter(|entry| !entry.as_ref().is_ok_and(|(_, coin)| is_lost(coin)));
    let scanned = UtxoStats::compute(coins, UtxoHash::Muhash).expect("readable");
    assert_eq!((Some(kept.muhash), kept.txouts), (scanned.muhash, scanned.txouts));
    assert_eq!((kept.total_amount, kept.bogosize), (scanned.total_amount, scanned.bogosize));
    kept
}

/// Regtest before BIP-0034, with a chain of a coinbase, a block between, the same coinbase again.
fn repeated() -> (ChainParams, ModelChain, Vec<Block>) {
    let mut params = ChainParams::new(Network::Regtest);
    params.bip34_height = u32::MAX;
    let mut model = ModelChain::new();
    let first = repeating(&model);
    model.connect(&first);
    let between = plain(&mut model, 2);
    let second = repeating(&model);
    model.connect(&second);
    assert_eq!(first.txdata, second.txdata);
    (params, model, vec![first, between, second])
}

#[test]
fn cve_2012_1909_a_coinbase_does_not_overwrite_an_unspent_one() {
    let (params, _, blocks) = repeated();
    let dir = tempfile::tempdir().expect("temporary");
    let mut chainstate = open(dir.path(), &params);
    give(&mut chainstate, &blocks[..2]);
    let rows = chain::coin_bytes(&chainstate);
    assert_eq!(invalid(&mut chainstate, &blocks[2]), "bad-txns-BIP30");
    assert!(chain::coin_bytes(&chainstate) == rows);
    // From BIP-0034 on it cannot even be written.
    let dir = tempfile::tempdir().expect("temporary");
    let mut modern = open(dir.path(), &ChainParams::new(Network::Regtest));
    assert_eq!(refused(&mut modern, &blocks[0]), "bad-cb-height");
}

/// The two blocks of 2010 that are allowed to: what they overwrite is lost for good, and going down
/// past the block that made it first is no error.
#[test]
fn a_listed_repeat_overwrites_and_is_taken_back() {
    let (mut params, model, blocks) = repeated();
    params.bip30_repeats = vec![(3, blocks[2].block_hash())];
    params.bip30_overwritten = vec![(1, blocks[0].block_hash())];
    let dir = tempfile::tempdir().expect("temporary");
    let mut chainstate = open(dir.path(), &params);
    let subsidy = block_subsidy(1, &params);
    for (block, txouts) in blocks.iter().zip([0, 1, 2]) {
        give(&mut chainstate, std::slice::from_ref(block));
        let kept = check_statistics(&chainstate);
        // The genesis block's is the other that nobody can spend.
        assert_eq!((kept.txouts, kept.unspendable), (txouts, 2 * subsidy));
        assert_eq!(kept.block.bip30, if txouts == 0 { subsidy } else { 0 });
    }
    assert!(chain::coin_bytes(&chainstate) == model.rows());
    let (_, coin) = chainstate.coins().expect("readable").flatten().last().expect("coins");
    assert!(model.rows().len() == 2 && [2, 3].contains(&coin.height));

    // Down past all of it, to a longer branch, and up again.
    let mut other = ModelChain::new();
    let branch: Vec<_> = (0..4).map(|_| plain(&mut other, 3)).collect();
    give(&mut chainstate, &branch);
    assert_eq!(chainstate.tip().hash, other.tip().hash);
    assert!(chain::coin_bytes(&chainstate) == other.rows());
    check_statistics(&chainstate);
    let (mut longer, mut more) = (model, Vec::new());
    for _ in 0..3 {
        more.push(plain(&mut longer, 4));
    }
    give(&mut chainstate, &more);
    assert_eq!(chainstate.tip().height, 6);
    assert!(chain::coin_bytes(&chainstate) == longer.rows());
    check_statistics(&chainstate);
}

/// Only that block, at that height.
#[test]
fn a_repeat_is_allowed_by_hash_and_height() {
    let (params, _, blocks) = repeated();
    for listed in [(3, blocks[1].block_hash()), (2, blocks[2].block_hash())] {
        let params = ChainParams { bip30_repeats: vec![listed], ..params.clone() };
        let dir = tempfile::tempdir().expect("temporary");
        let mut chainstate = open(dir.path(), &params);
        give(&mut chainstate, &blocks[..2]);
        assert_eq!(invalid(&mut chainstate, &blocks[2]), "bad-txns-BIP30");
    }
}

/// The main network's heights and hashes, by Bitcoin Core's source.
#[test]
fn mainnet_has_two_repeats_bip34_from_227931_and_bip30_again_from_1983702() {
    struct Known(u32, ChainParams);
    impl HeaderChain for Known {
        fn height(&self) -> u32 {
            self.0
        }
        fn header(&self, _: u32) -> bitcoin::block::Header {
            self.1.genesis.header
        }
    }
    let mut params = ChainParams::new(Network::Mainnet);
    let hash = |text: &str| text.parse::<BlockHash>().expect("a hash");
    let repeats = [
        (91_842, "00000000000a4d0a398161ffc163c503763b1f4360639393e0e4c8e300e0caec"),
        (91_880, "00000000000743f190a18c5577a3c2d2a1f610ae9601ac046a38084ccb7cd721"),
    ];
    let overwritten = [
        (91_722, "00000000000271a2dc26e7667f8419f2e15416dc6955e5a6c6cdf3f2574dd08e"),
        (91_812, "00000000000af0aed4792b1acee3d966af36cf5def14935db8de83d6f9306f2f"),
    ];
    for (height, text) in repeats {
        assert!(bip30_repeat(&params, height, &hash(text)));
        assert!(!bip30_repeat(&params, height + 1, &hash(text)));
        assert!(!bip30_repeat(&params, height, &params.genesis.block_hash()));
    }
    for (height, text) in overwritten {
        assert!(bip30_unspendable(&params, height, &hash(text)));
        assert!(!bip30_unspendable(&params, height, &params.genesis.block_hash()));
    }
    assert_eq!(params.bip34_height, 227_931);
    // A chain whose block at that height is the known one.
    let any = params.genesis.block_hash();
    params.bip34_hash = Some(any);
    for (height, applies) in
        [(227_931, true), (227_932, false), (1_983_701, false), (1_983_702, true), (u32::MAX, true)]
    {
        let parent = Known(height - 1, params.clone());
        assert_eq!(bip30_applies(&params, &parent, height, &any), applies, "{height}");
    }
}
