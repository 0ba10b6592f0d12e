//! Blocks that are not what their header commits to, and what is spent twice.

use bitcoin::block::Header;
use bitcoin::consensus::serialize;
use bitcoin::{Block, OutPoint, ScriptBuf, Transaction};
use cofferdam_ibd::block::{RawBlock, is_block_mutated};
use cofferdam_ibd::testing::{ModelChain, transfer};
use cofferdam_ibd::{Chainstate, Network};
use cofferdam_storage::BackendKind;
use cofferdam_tests::chain;

use super::{BACKENDS, anyones, give, invalid, is_condemned, refused, with};

fn is_mutated(block: &Block, check_witness_root: bool) -> bool {
    is_block_mutated(&RawBlock::parse(serialize(block)).expect("a block"), check_witness_root)
}

/// An output of the same block, one that is only in memory, one that is only in the database, one
/// that is in neither but will be read from it: none can be counted twice.
#[test]
fn cve_2018_17144_duplicate_inputs_are_refused_wherever_the_output_is() {
    for backend in BACKENDS {
        let dir = tempfile::tempdir().expect("temporary");
        let (mut model, base) = ModelChain::funded(24);
        let mut chainstate = with(backend, dir.path(), &base);
        let coins = model.spendable(true);
        let warm = model.block(1, vec![transfer(&coins[..1], vec![anyones(5000); 3])]);
        give(&mut chainstate, std::slice::from_ref(&warm));
        model.connect(&warm);
        let young = OutPoint::new(warm.txdata[1].compute_txid(), 0);
        check_duplicates(&mut chainstate, &model, young);
        chainstate.store().checkpoint().expect("flushes");
        check_duplicates(&mut chainstate, &model, young);
        if backend != BackendKind::Memory {
            chainstate.shutdown().expect("closes");
            chainstate = chain::open(Network::Regtest, backend, dir.path());
            check_duplicates(&mut chainstate, &model, young);
        }
        // Nothing of that is held against a block that spends it once.
        let fine = model.block(9, vec![transfer(&[(young, anyones(5000))], vec![anyones(1)])]);
        give(&mut chainstate, std::slice::from_ref(&fine));
        model.connect(&fine);
        assert!(chain::coin_bytes(&chainstate) == model.rows());
    }
}

fn check_duplicates(chainstate: &mut Chainstate, model: &ModelChain, young: OutPoint) {
    let young = (young, anyones(5000));
    let old = model.spendable(true).swap_remove(0);
    let parent = transfer(std::slice::from_ref(&old), vec![anyones(7000)]);
    let own = (OutPoint::new(parent.compute_txid(), 0), anyones(7000));
    let other = model.spendable(true).swap_remove(1);
    for (from, before) in [(&young, None), (&old, None), (&own, Some(&parent))] {
        // Neighbours, and apart.
        for inputs in [vec![from, from], vec![from, &other, from], vec![from; 3]] {
            let inputs: Vec<_> = inputs.into_iter().cloned().collect();
            let bad = transfer(&inputs, vec![anyones(9000)]);
            let txs = before.into_iter().cloned().chain([bad]).collect();
            let block = model.block(2, txs);
            assert_eq!(refused(chainstate, &block), "bad-txns-inputs-duplicate");
        }
        // By two transactions: found by the coins.
        let spend = |to| transfer(std::slice::from_ref(from), vec![anyones(to)]);
        let txs = before.into_iter().cloned().chain([spend(1), spend(2)]).collect();
        let block = model.block(3 + u64::from(before.is_some()), txs);
        let (tip, rows) = (chainstate.tip(), chain::coin_bytes(chainstate));
        if is_condemned(chainstate, block.block_hash()) {
            assert_eq!(refused(chainstate, &block), "duplicate-invalid");
        } else {
            assert_eq!(invalid(chainstate, &block), "bad-txns-inputs-missingorspent");
        }
        assert!((chainstate.tip(), chain::coin_bytes(chainstate)) == (tip, rows));
    }
}

/// Every list of transactions with the same merkle root is refused, and the genuine one is taken
/// all the same, also after a restart.
#[test]
fn cve_2012_2459_a_duplicated_branch_does_not_condemn_the_genuine_block() {
    let dir = tempfile::tempdir().expect("temporary");
    let (mut model, base) = ModelChain::funded(24);
    let mut chainstate = with(BackendKind::Sled, dir.path(), &base);
    let mut mutants = 0;
    for count in 1..14 {
        let coins = model.spendable(true);
        let simple = |coin: &_| transfer(std::slice::from_ref(coin), vec![anyones(3000)]);
        let block = model.block(1, coins.iter().take(count - 1).map(simple).collect());
        for mutant in same_root(&block) {
            assert_eq!(mutant.block_hash(), block.block_hash());
            assert_eq!(refused(&mut chainstate, &mutant), "bad-txns-duplicate");
            assert!(is_mutated(&mutant, true));
            assert!(!is_condemned(&chainstate, block.block_hash()));
            mutants += 1;
        }
        if count % 5 == 0 {
            chainstate.shutdown().expect("closes");
            chainstate = chain::open(Network::Regtest, BackendKind::Sled, dir.path());
        }
        give(&mut chainstate, std::slice::from_ref(&block));
        model.connect(&block);
    }
    assert!(chain::coin_bytes(&chainstate) == model.rows());
    // Of every odd number but one, and of 6, 10 and 12.
    assert_eq!(mutants, 9);
}

/// Blocks with more transactions, the last ones again, whose root is the same.
fn same_root(block: &Block) -> Vec<Block> {
    let count = block.txdata.len();
    let repeated = (1..=count).map(|len| {
        let mut mutant = block.clone();
        mutant.txdata.extend_from_slice(&block.txdata[count - len..]);
        mutant
    });
    repeated
        .filter(|mutant| mutant.compute_merkle_root() == Some(block.header.merkle_root))
        .collect()
}

/// Transactions of 64 bytes look like the inner nodes of a tree: without a coinbase they may be a
/// level of it, and the header is that of a genuine block.
#[test]
fn cve_2017_12842_sixty_four_bytes_without_a_coinbase_condemn_nothing() {
    let dir = tempfile::tempdir().expect("temporary");
    let (model, base) = ModelChain::funded(24);
    let mut chainstate = with(BackendKind::Memory, dir.path(), &base);
    let coin = model.spendable(true).swap_remove(0);
    let mut tx = transfer(std::slice::from_ref(&coin), vec![anyones(1)]);
    tx.input[0].witness.clear();
    tx.output[0].script_pubkey = ScriptBuf::from_bytes(vec![0x51; 4]);
    assert_eq!(tx.base_size(), 64);
    for count in 1..4 {
        let mut block = model.block(1, vec![tx.clone(); count]);
        block.txdata.remove(0);
        model.seal_header(&mut block);
        assert!(is_mutated(&block, true) && is_mutated(&block, false));
        let header: Header = block.header;
        let known = chainstate.accept_headers(&[header], chain::NOW).expect("works");
        assert!(known.is_ok());
        let code = refused(&mut chainstate, &block);
        assert!(["bad-cb-missing", "bad-txns-duplicate"].contains(&&*code), "{code}");
        assert!(!is_condemned(&chainstate, block.block_hash()));
    }
    // With a coinbase such a transaction is one like any other.
    let block = model.block(2, vec![tx]);
    assert!(!is_mutated(&block, true));
    give(&mut chainstate, &[block]);
}

type Change = fn(&mut Vec<Transaction>);

/// Witnesses that the block's commitment does not cover, in every way.
#[test]
fn witness_malleation_condemns_nothing() {
    let dir = tempfile::tempdir().expect("temporary");
    let (mut model, base) = ModelChain::funded(24);
    let mut chainstate = with(BackendKind::Memory, dir.path(), &base);
    let coins = model.spendable(true);
    let witnessed = coins.iter().find(|(_, output)| output.script_pubkey.is_p2wsh());
    let plain = coins.iter().find(|(_, output)| !output.script_pubkey.is_p2wsh());
    let simple = |coin: Option<&_>| {
        transfer(std::slice::from_ref(coin.expect("a coin")), vec![anyones(3000)])
    };
    let block = model.block(1, vec![simple(witnessed), simple(plain)]);
    let changes: [(Change, &str); 5] = [
        (|txs| txs[1].input[0].witness.push([1]), "bad-witness-merkle-match"),
        (|txs| txs[1].input[0].witness.clear(), "bad-witness-merkle-match"),
        (|txs| txs[2].input[0].witness.push([1]), "bad-witness-merkle-match"),
        (|txs| txs[0].input[0].witness.clear(), "bad-witness-nonce-size"),
        (|txs| txs[0].input[0].witness.push([0; 32]), "bad-witness-nonce-size"),
    ];
    for (change, code) in changes {
        let mut mutant = block.clone();
        change(&mut mutant.txdata);
        assert_eq!(mutant.block_hash(), block.block_hash());
        assert_eq!(refused(&mut chainstate, &mutant), code);
        assert!(is_mutated(&mutant, true));
        assert!(!is_condemned(&chainstate, block.block_hash()));
    }
    // A block without a commitment, and witnesses that anybody could add.
    let bare = model.block(2, vec![simple(plain)]);
    let mut mutant = bare.clone();
    mutant.txdata[1].input[0].witness.push([1]);
    assert_eq!(refused(&mut chainstate, &mutant), "unexpected-witness");
    assert!(!is_condemned(&chainstate, bare.block_hash()));
    for genuine in [&block, &bare] {
        assert!(!is_condemned(&chainstate, genuine.block_hash()));
        chain::store(&mut chainstate, &[serialize(genuine)]);
    }
    chain::settle(&mut chainstate);
    model.connect(&block);
    assert!(chain::coin_bytes(&chainstate) == model.rows());
}
