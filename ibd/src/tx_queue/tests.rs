//! The queue beside a chain, against a plain list of what has to be in it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bitcoin::consensus::serialize;
use bitcoin::{Amount, Block, OutPoint, ScriptBuf, Transaction, TxOut, Txid};
use cofferdam_storage::testing::Random;
use cofferdam_storage::{MemoryDatabase, StdFileSystem};

use super::*;
use crate::chainstate::{AssumeValid, BlockAccepted, Chainstate, ChainstateOptions};
use crate::mining::{self, BlockParts};
use crate::params::{ChainParams, Network};
use crate::tables::TREES;
use crate::testing::{ModelChain, OpTrueVerifier, transfer};

/// A time at which no block of the tests is in the future.
const NOW: u32 = 1_500_000_000;

/// A chain with coins to spend, its model at every height, the queue and what it should have.
struct Harness {
    chain: Chainstate,
    /// The last is the tip's.
    models: Vec<ModelChain>,
    blocks: Vec<Block>,
    queue: TxQueue,
    expected: Vec<Transaction>,
    _dir: tempfile::TempDir,
}

impl Harness {
    fn new(spendable: u32) -> Self {
        Self::with(ChainParams::new(Network::Regtest), spendable)
    }

    fn with(params: ChainParams, spendable: u32) -> Self {
        let dir = tempfile::tempdir().expect("temporary");
        let options = ChainstateOptions {
            threads: 1,
            assume_valid: AssumeValid::Off,
            ..ChainstateOptions::new(params, dir.path())
        };
        let fs: Arc<dyn cofferdam_storage::FileSystem> = Arc::new(StdFileSystem);
        let backend = Box::new(MemoryDatabase::new(TREES));
        let verifier = Arc::new(OpTrueVerifier);
        let (chain, _) = Chainstate::open_with(options, &fs, backend, verifier).expect("opens");
        let (model, blocks) = ModelChain::funded(spendable);
        let mut harness = Self {
            chain,
            models: vec![model],
            blocks: Vec::new(),
            queue: TxQueue::new(QueueLimits::default()),
            expected: Vec::new(),
            _dir: dir,
        };
        harness.feed(&blocks);
        harness
    }

    fn model(&self) -> &ModelChain {
        self.models.last().expect("never empty")
    }

    /// Connects blocks, and lets the queue follow.
    fn feed(&mut self, blocks: &[Block]) {
        let from = self.chain.tip_ref();
        for block in blocks {
            let accepted = self.chain.accept_block(serialize(block), NOW).expect("works");
            assert!(matches!(accepted, BlockAccepted::Stored(_)), "{accepted:?}");
        }
        let advance = self.chain.advance(Instant::now() + Duration::from_secs(600)).expect("works");
        assert_eq!(advance.invalid, vec![]);
        self.queue.follow(&self.chain, from, NOW).expect("works");
    }

    fn send(&mut self, tx: Transaction) -> std::result::Result<Arc<QueuedTx>, TxRejection> {
        let accepted = self.queue.accept(&self.chain, tx.clone(), NOW).expect("works");
        if accepted.is_ok() {
            self.expected.push(tx);
        }
        accepted
    }

    #[track_caller]
    fn refuse(&mut self, tx: Transaction, code: &str) {
        let rejection = self.send(tx).expect_err(code);
        assert_eq!(rejection.code, code);
    }

    /// A block on the tip with these transactions.
    fn extend(&mut self, number: u64, txs: Vec<Transaction>) {
        let block = self.model().block(number, txs);
        let mut model = self.model().clone();
        model.connect(&block);
        self.feed(std::slice::from_ref(&block));
        self.models.push(model);
        self.blocks.push(block);
        self.expected = self.possible(self.expected.clone());
    }

    /// A branch that begins `depth` blocks below the tip and is one block longer.
    fn reorganise(&mut self, depth: usize, random: &mut Random) {
        let keep = self.blocks.len() - depth;
        let gone = self.blocks.split_off(keep);
        self.models.truncate(keep + 1);
        for _ in 0..=depth {
            let block = self.model().random_block(random, 3);
            let mut model = self.model().clone();
            model.connect(&block);
            self.models.push(model);
            self.blocks.push(block);
        }
        let branch = self.blocks[keep..].to_vec();
        self.feed(&branch);
        let back = gone.iter().flat_map(|block| block.txdata.iter().skip(1).cloned());
        let candidates = back.chain(self.expected.clone()).collect();
        self.expected = self.possible(candidates);
    }

    /// Those that can be in blocks after the tip, taken in this order.
    fn possible(&self, candidates: Vec<Transaction>) -> Vec<Transaction> {
        let coins = [self.model().spendable(true), self.model().spendable(false)].concat();
        let mut free: BTreeSet<OutPoint> =
            coins.into_iter().map(|(outpoint, _)| outpoint).collect();
        let mut possible = Vec::new();
        for tx in candidates {
            let is_free = |input: &bitcoin::TxIn| free.contains(&input.previous_output);
            if tx.base_size() >= 65 && tx.input.iter().all(is_free) {
                for input in &tx.input {
                    free.remove(&input.previous_output);
                }
                free.extend(outputs(&tx).into_iter().map(|(outpoint, _)| outpoint));
                possible.push(tx);
            }
        }
        possible
    }

    /// Coins of chain and queue that nothing queued spends.
    fn coins(&self) -> Vec<(OutPoint, TxOut)> {
        let mut coins = self.model().spendable(true);
        coins.extend(self.queue.iter().flat_map(|queued| outputs(&queued.tx)));
        coins.retain(|(outpoint, output)| {
            self.queue.spender(outpoint).is_none()
                && output.value > Amount::from_sat(1000)
                && output.script_pubkey == ScriptBuf::from_bytes(vec![0x51])
        });
        coins
    }

    #[track_caller]
    fn check(&self) {
        let queued: Vec<Txid> = self.queue.iter().map(|queued| queued.txid).collect();
        let expected: Vec<Txid> = self.expected.iter().map(Transaction::compute_txid).collect();
        assert_eq!(queued, expected);
        let sum = |part: fn(&QueuedTx) -> u64| self.queue.iter().map(|tx| part(tx)).sum::<u64>();
        assert_eq!(self.queue.vsize(), sum(QueuedTx::vsize));
        assert_eq!(self.queue.fees(), sum(|tx| tx.fee));
        assert_eq!(self.queue.memory_bytes() as u64, sum(|tx| tx.memory_bytes() as u64));
        let inputs: usize = self.expected.iter().map(|tx| tx.input.len()).sum();
        assert_eq!(self.queue.spenders.len(), inputs);
        for queued in self.queue.iter() {
            assert_eq!(self.queue.get_by_wtxid(&queued.wtxid).map(|tx| tx.txid), Some(queued.txid));
            for parent in self.queue.parents(&queued.txid) {
                assert!(self.queue.children(&parent).contains(&queued.txid));
            }
        }
    }
}

fn outputs(tx: &Transaction) -> Vec<(OutPoint, TxOut)> {
    let txid = tx.compute_txid();
    (0..).map(|vout| OutPoint::new(txid, vout)).zip(tx.output.iter().cloned()).collect()
}

/// Spends a coin into equal outputs and a fee; a word makes it long enough to be none of 64 bytes.
fn pay(from: &(OutPoint, TxOut), count: u64, fee: u64) -> Transaction {
    let value = from.1.value.to_sat() - fee;
    let each = Amount::from_sat(value / count);
    let output = TxOut { value: each, script_pubkey: ScriptBuf::from_bytes(vec![0x51]) };
    let mut to = vec![output; usize::try_from(count).expect("few")];
    to[0].value += Amount::from_sat(value % count);
    let word = ScriptBuf::from_bytes(vec![0x6a, 4, 1, 2, 3, 4]);
    to.push(TxOut { value: Amount::ZERO, script_pubkey: word });
    transfer(std::slice::from_ref(from), to)
}

#[test]
fn the_queue_is_what_a_plain_list_says_through_blocks_and_reorganisations() {
    let mut reorganised = 0;
    for seed in 0..8 {
        let random = &mut Random::new(seed);
        let mut it = Harness::new(12);
        for step in 0..60 {
            match random.below(8) {
                0..=3 => {
                    let coins = it.coins();
                    if !coins.is_empty() && it.expected.len() < CLUSTER_MAX - 1 {
                        let coin = &coins[random.below(coins.len())];
                        let fee = 1 + random.next() % 5000;
                        if coin.1.value.to_sat() > fee + 10_000 {
                            let tx = pay(coin, 1 + random.next() % 3, fee);
                            it.send(tx).expect("spends what is free");
                        }
                    }
                }
                4 => {
                    let limits = BlockLimits { weight: 10_000, ..BlockLimits::default() };
                    let chosen = it.queue.select(&limits, true);
                    let txs = chosen.iter().map(|queued| queued.tx.clone()).collect();
                    it.extend(random.next(), txs);
                }
                5 => {
                    // Another's block: in conflict with the queue more often than not.
                    let block = it.model().random_block(random, 3);
                    it.extend(random.next(), block.txdata[1..].to_vec());
                }
                6 if it.blocks.len() > 3 => {
                    it.reorganise(1 + random.below(3), random);
                    reorganised += 1;
                }
                _ => it.extend(random.next(), vec![]),
            }
            it.check();
            assert!(step < 60);
        }
    }
    assert!(reorganised > 10, "{reorganised}");
}

#[test]
fn a_block_of_the_queue_is_valid_with_all_fees_and_empties_it() {
    let mut it = Harness::new(8);
    for _ in 0..10 {
        let coins = it.coins();
        let tx = pay(coins.last().expect("some"), 3, 1000);
        it.send(tx).expect("free");
    }
    let chosen = it.queue.select(&BlockLimits::default(), true);
    assert_eq!(chosen.len(), 10);
    let parts = BlockParts {
        fees: chosen.iter().map(|queued| queued.fee).sum(),
        transactions: chosen.iter().map(|queued| queued.tx.clone()).collect(),
        version: None,
    };
    let script = ScriptBuf::from_bytes(vec![0x51]);
    let mut block = mining::assemble_block_of(&it.chain, &script, NOW, parts);
    assert_eq!(block.txdata[0].output[0].value.to_sat(), 50_0000_0000 + 10_000);
    let tested = it.chain.try_block(serialize(&block), NOW, false).expect("works");
    assert_eq!(tested, Ok(()));
    assert!(mining::solve(&mut block, it.chain.params(), &mut 1_000_000));
    it.feed(&[block]);
    assert!(it.queue.is_empty());
}

#[test]
fn what_is_not_valid_does_not_enter() {
    let mut it = Harness::new(8);
    let coins = it.coins();
    let tx = pay(&coins[0], 1, 500);
    it.send(tx.clone()).expect("free");
    it.refuse(tx.clone(), "txn-already-in-mempool");
    it.refuse(pay(&coins[0], 2, 500), "txn-mempool-conflict");
    let mut unknown = coins[1].clone();
    unknown.0.vout = 77;
    it.refuse(pay(&unknown, 1, 500), "bad-txns-inputs-missingorspent");
    let mut greedy = pay(&coins[1], 1, 500);
    greedy.output[0].value = coins[1].1.value + Amount::ONE_SAT;
    it.refuse(greedy, "bad-txns-in-belowout");
    let mut late = pay(&coins[1], 1, 500);
    late.lock_time = bitcoin::absolute::LockTime::from_consensus(100_000);
    late.input[0].sequence = bitcoin::Sequence::ZERO;
    it.refuse(late, "non-final");
    let mut young = pay(&coins[1], 1, 500);
    young.input[0].sequence = bitcoin::Sequence::from_height(1000);
    it.refuse(young, "non-BIP68-final");
    let mut wrong = pay(&coins[1], 1, 500);
    wrong.input[0].script_sig = ScriptBuf::from_bytes(vec![0x51]);
    let rejection = it.send(wrong).expect_err("its script fails");
    assert!(rejection.code.starts_with("mempool-script-verify-flag-failed ("), "{rejection}");
    assert!(rejection.to_string().contains("input 0 of "), "{rejection}");
    it.refuse(it.blocks.first().map_or_else(|| coinbase(&it), coinbase_of), "coinbase");
    it.extend(1, vec![tx.clone()]);
    it.refuse(tx, "txn-already-known");
    it.check();
}

/// A block before that height may have them, and a queue that had them could fill none after it.
#[test]
fn relative_lock_times_hold_in_the_queue_before_they_do_in_blocks() {
    let params = ChainParams { csv_height: 1_000_000, ..ChainParams::new(Network::Regtest) };
    let mut it = Harness::with(params, 8);
    let mut young = pay(&it.coins()[0], 1, 500);
    young.input[0].sequence = bitcoin::Sequence::from_height(1000);
    it.refuse(young.clone(), "non-BIP68-final");
    it.extend(1, vec![young]);
    it.check();
}

fn coinbase(it: &Harness) -> Transaction {
    coinbase_of(&it.model().block(9, vec![]))
}

fn coinbase_of(block: &Block) -> Transaction {
    block.txdata[0].clone()
}

#[test]
fn a_cluster_and_the_memory_are_bounded() {
    let mut it = Harness::new(8);
    let mut coin = it.coins()[0].clone();
    for _ in 0..CLUSTER_MAX {
        let tx = pay(&coin, 1, 1000);
        it.send(tx.clone()).expect("a chain of the longest allowed");
        coin = outputs(&tx)[0].clone();
    }
    it.refuse(pay(&coin, 1, 1000), "too-large-cluster");
    let bytes = it.queue.memory_bytes();
    it.queue.set_limits(QueueLimits { bytes });
    let other = it.coins().iter().find(|other| other.0 != coin.0).expect("some").clone();
    it.refuse(pay(&other, 1, 1000), "mempool full");
    it.queue.set_limits(QueueLimits { bytes: bytes + 2000 });
    it.send(pay(&other, 1, 1000)).expect("there is room");
    it.check();
}

#[test]
fn blocks_take_the_best_packages_first_and_parents_before_children() {
    let mut it = Harness::new(8);
    let coins = it.coins();
    let low = pay(&coins[0], 1, 200);
    let child = pay(&outputs(&low)[0], 1, 100_000);
    let middle = pay(&coins[1], 1, 2000);
    let nothing = pay(&coins[2], 1, 0);
    for tx in [&low, &middle, &nothing, &child] {
        it.send(tx.clone()).expect("free");
    }
    let ids = |txs: &[&Transaction]| txs.iter().map(|tx| tx.compute_txid()).collect::<Vec<_>>();
    let select = |it: &Harness, limits: BlockLimits| {
        it.queue.select(&limits, true).iter().map(|queued| queued.txid).collect::<Vec<_>>()
    };
    let limits = BlockLimits::default();
    // The child pays for its parent; who pays nothing waits.
    assert_eq!(select(&it, limits), ids(&[&low, &child, &middle]));
    let package = it.queue.chunk(&low.compute_txid());
    assert_eq!((package.fee, package), (100_200, it.queue.chunk(&child.compute_txid())));
    let chunks = |chunks: Vec<Chunk>| -> Vec<_> {
        chunks.into_iter().map(|chunk| (chunk.package.fee, chunk.txids)).collect()
    };
    let together = (100_200, ids(&[&low, &child]));
    assert_eq!(
        chunks(it.queue.cluster_chunks(&low.compute_txid())),
        std::slice::from_ref(&together)
    );
    let alone = [(2000, ids(&[&middle])), (0, ids(&[&nothing]))];
    assert_eq!(chunks(it.queue.chunks()), [&[together][..], &alone].concat());
    assert_eq!(chunks(it.queue.cluster_chunks(&coins[0].0.txid)), []);
    assert!(it.queue.prioritise(nothing.compute_txid(), 1_000_000));
    assert_eq!(select(&it, limits), ids(&[&nothing, &low, &child, &middle]));
    assert!(it.queue.prioritise(middle.compute_txid(), -2000));
    assert_eq!(select(&it, limits), ids(&[&nothing, &low, &child]));
    let rich = BlockLimits { fee_rate_min: 5_000_000, ..limits };
    assert_eq!(select(&it, rich), ids(&[&nothing]));
    let weight = 8000 + low.weight().to_wu() * 2 + 1;
    let small = BlockLimits { weight, ..limits };
    assert_eq!(select(&it, small), ids(&[&nothing, &low]), "no child without its parent");
    // Mined, it needs no help any more.
    it.extend(3, vec![nothing]);
    assert_eq!(it.queue.deltas().count(), 1);
    it.check();
}

#[test]
fn witnesses_stay_out_of_a_block_that_may_have_none() {
    let mut it = Harness::new(12);
    let witness =
        it.model().spendable(true).into_iter().find(|coin| coin.1.script_pubkey.is_p2wsh());
    let tx = pay(&witness.expect("every fourth"), 1, 1000);
    it.send(tx.clone()).expect("free");
    it.send(pay(&outputs(&tx)[0], 1, 1000)).expect("free");
    assert_eq!(it.queue.select(&BlockLimits::default(), true).len(), 2);
    assert_eq!(it.queue.select(&BlockLimits::default(), false).len(), 0);
}

#[test]
fn two_children_that_pay_alike_pay_for_their_parent_together() {
    let mut it = Harness::new(8);
    let parent = pay(&it.coins()[0], 2, 2000);
    let outputs = outputs(&parent);
    let children = [pay(&outputs[0], 1, 30_000), pay(&outputs[1], 1, 30_000)];
    for tx in [&parent, &children[0], &children[1]] {
        it.send(tx.clone()).expect("free");
    }
    // With one child alone the other would pay the better rate behind it.
    let chunks = it.queue.cluster_chunks(&parent.compute_txid());
    assert_eq!(chunks.iter().map(|chunk| chunk.package.fee).collect::<Vec<_>>(), [62_000]);
    assert_eq!(chunks[0].txids.len(), 3);
    assert_eq!(chunks[0].txids[0], parent.compute_txid());
    assert_eq!(it.queue.chunks(), chunks);
    assert_eq!(it.queue.chunk(&children[1].compute_txid()), chunks[0].package);
}
