//! Does a block that breaks a rule of the UTXO set stop the chain exactly before it, for Bitcoin
//! Core's reason, whatever was staged behind it?
//!
//! A builder that takes every script as valid makes regtest chains with one fault; the chain under
//! test gets all blocks at once, so that blocks behind the fault are connected while it is found.
#![expect(clippy::indexing_slicing, reason = "a test fails by a panic")]

use std::sync::Arc;

use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash as _;
use bitcoin::transaction::Version;
use bitcoin::{
    Amount, Block, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness,
    WitnessMerkleNode,
};
use cofferdam_ibd::wire::{OutputRef, TxRef};
use cofferdam_ibd::{
    Chainstate, Network, PreparedTransaction, Result, ScriptFlags, ScriptVerifier, TREES, mining,
};
use cofferdam_storage::{BackendKind, FileSystem, MemoryDatabase, StdFileSystem};
use cofferdam_tests::chain;

/// Coinbases up to this height are mature in the block after `FUNDED`.
const MATURE: usize = 20;
const FUNDED: usize = MATURE + 100;
/// Blocks behind the one with the fault.
const BEHIND: usize = 4;

/// Takes every script as valid: chains with a bad script have to be built somehow.
#[derive(Debug)]
struct AcceptAll;

impl ScriptVerifier for AcceptAll {
    fn prepare<'a>(
        &self,
        tx: TxRef<'a>,
        _: &'a [OutputRef<'a>],
        _: ScriptFlags,
    ) -> Result<Box<dyn PreparedTransaction + 'a>> {
        Ok(Box::new(Accepted(tx.input_count())))
    }
}

#[derive(Debug)]
struct Accepted(usize);

impl PreparedTransaction for Accepted {
    fn input_count(&self) -> usize {
        self.0
    }
    fn verify_input(&self, _: usize) -> bool {
        true
    }
}

/// A chain that grows block by block.
struct Builder {
    chainstate: Chainstate,
    blocks: Vec<Block>,
    _dir: tempfile::TempDir,
}

impl Builder {
    /// Mines [`FUNDED`] blocks; the first coinbase cannot be spent, the others by anybody.
    fn funded() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let fs: Arc<dyn FileSystem> = Arc::new(StdFileSystem);
        let options = chain::options(Network::Regtest, dir.path());
        let backend = Box::new(MemoryDatabase::new(TREES));
        let opened = Chainstate::open_with(options, &fs, backend, Arc::new(AcceptAll));
        let mut builder =
            Self { chainstate: opened.expect("opens").0, blocks: Vec::new(), _dir: dir };
        for height in 1..=FUNDED {
            // OP_FALSE, OP_TRUE.
            let script = if height == 1 { vec![0x00] } else { vec![0x51] };
            let block = builder.mine(script.into(), &[]);
            builder.connect(block);
        }
        builder
    }

    /// Mines a block with these transactions on the tip.
    fn mine(&self, script: ScriptBuf, txs: &[Transaction]) -> Block {
        let mut block = mining::assemble_block(&self.chainstate, &script, chain::NOW);
        block.txdata.extend_from_slice(txs);
        self.solve(&mut block);
        block
    }

    fn solve(&self, block: &mut Block) {
        let root = block.witness_root().unwrap_or_else(WitnessMerkleNode::all_zeros);
        let commitment = Block::compute_witness_commitment(&root, &[0; 32]);
        let script = block.txdata[0].output[1].script_pubkey.as_bytes()[..6].to_vec();
        block.txdata[0].output[1].script_pubkey =
            [&script[..], commitment.as_ref()].concat().into();
        block.header.merkle_root = block.compute_merkle_root().expect("has a coinbase");
        assert!(mining::solve(block, self.chainstate.params(), &mut 1_000_000));
    }

    fn connect(&mut self, block: Block) {
        chain::store(&mut self.chainstate, &[bitcoin::consensus::serialize(&block)]);
        chain::settle(&mut self.chainstate);
        self.blocks.push(block);
    }

    /// Spends the coinbase of the block at `height`.
    fn spend(&self, height: usize, value: u64) -> Transaction {
        spend(OutPoint::new(self.blocks[height - 1].txdata[0].compute_txid(), 0), value)
    }
}

fn spend(previous_output: OutPoint, value: u64) -> Transaction {
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output,
            script_sig: ScriptBuf::new(),
            sequence: Sequence::MAX,
            witness: Witness::new(),
        }],
        output: vec![TxOut { value: Amount::from_sat(value), script_pubkey: vec![0x51].into() }],
    }
}

fn serialized(blocks: &[Block]) -> Vec<Vec<u8>> {
    blocks.iter().map(bitcoin::consensus::serialize).collect()
}

/// Gives a chain good blocks, `bad` and blocks behind it, and checks where it stops and why.
fn check(good: &[Block], bad: &Block, behind: &[Block], code: &str) {
    let dirs = [tempfile::tempdir(), tempfile::tempdir()].map(|dir| dir.expect("temporary"));
    let mut clean = chain::open(Network::Regtest, BackendKind::Memory, dirs[0].path());
    chain::store(&mut clean, &serialized(good));
    chain::settle(&mut clean);

    let mut tested = chain::open(Network::Regtest, BackendKind::Memory, dirs[1].path());
    chain::store(&mut tested, &serialized(good));
    chain::store(&mut tested, &serialized(std::slice::from_ref(bad)));
    chain::store(&mut tested, &serialized(behind));
    let advance = chain::advance(&mut tested);
    let invalid: Vec<_> =
        advance.invalid.iter().map(|(hash, rejection)| (*hash, rejection.code.as_ref())).collect();
    assert_eq!(invalid, [(bad.block_hash(), code)]);
    assert!(advance.done);
    assert_eq!(tested.tip(), clean.tip(), "{code}");
    assert_eq!(chain::coin_bytes(&tested), chain::coin_bytes(&clean), "{code}");
}

#[test]
fn failing_script_aborts_from_its_block_on() {
    let mut builder = Builder::funded();
    // A block that is fine, one that spends OP_FALSE, and four that are staged behind it.
    let fine = builder.mine(vec![0x51].into(), &[builder.spend(2, 50)]);
    builder.connect(fine);
    for height in [1, 3, 4, 5, 6] {
        let block = builder.mine(vec![0x51].into(), &[builder.spend(height, 50)]);
        builder.connect(block);
    }
    let (good, rest) = builder.blocks.split_at(FUNDED + 1);
    assert_eq!(rest.len(), 1 + BEHIND);
    check(good, &rest[0], &rest[1..], "block-script-verify-flag-failed");
}

#[test]
fn the_first_invalid_block_decides() {
    let mut builder = Builder::funded();
    // A failing script, and right behind it a coin that does not exist: found first, told never.
    let script = builder.mine(vec![0x51].into(), &[builder.spend(1, 50)]);
    builder.connect(script);
    let missing = spend(OutPoint::new(Txid::all_zeros(), 7), 1);
    let missing = builder.mine(vec![0x51].into(), &[missing]);
    let (good, rest) = builder.blocks.split_at(FUNDED);
    check(good, &rest[0], &[missing], "block-script-verify-flag-failed");
}

#[test]
fn each_fault_of_the_coins_has_cores_reason() {
    const COIN: u64 = 100_000_000;
    let builder = Builder::funded();
    let twice = [builder.spend(2, 50), builder.spend(2, 60)];
    let chained = builder.spend(2, 50 * COIN);
    let child = spend(OutPoint::new(chained.compute_txid(), 0), 50 * COIN + 1);
    let cases: [(&[Transaction], &str); 5] = [
        (&[spend(OutPoint::new(Txid::all_zeros(), 7), 1)], "bad-txns-inputs-missingorspent"),
        (&twice, "bad-txns-inputs-missingorspent"),
        (&[builder.spend(MATURE + 2, 50)], "bad-txns-premature-spend-of-coinbase"),
        (&[builder.spend(2, 50 * COIN + 1)], "bad-txns-in-belowout"),
        (&[chained, child], "bad-txns-in-belowout"),
    ];
    for (txs, code) in cases {
        let bad = builder.mine(vec![0x51].into(), txs);
        check(&builder.blocks, &bad, &[], code);
    }
    // A spender before what it spends.
    let parent = builder.spend(2, 50);
    let child = spend(OutPoint::new(parent.compute_txid(), 0), 50);
    let bad = builder.mine(vec![0x51].into(), &[child, parent]);
    check(&builder.blocks, &bad, &[], "bad-txns-inputs-missingorspent");
    // One satoshi more than subsidy and fees.
    let mut bad = builder.mine(vec![0x51].into(), &[builder.spend(2, 50 * COIN - 1)]);
    bad.txdata[0].output[0].value += Amount::from_sat(2);
    builder.solve(&mut bad);
    check(&builder.blocks, &bad, &[], "bad-cb-amount");
    bad.txdata[0].output[0].value -= Amount::from_sat(1);
    builder.solve(&mut bad);
    let mut fine = builder;
    fine.connect(bad);
}
