//! Scripts that run on many threads while something else goes wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bitcoin::hex::FromHex as _;
use bitcoin::{Block, OutPoint, ScriptBuf, Transaction, TxOut};
use cofferdam_ibd::testing::{Fault, ModelChain, transfer};
use cofferdam_ibd::wire::{OutputRef, TxRef};
use cofferdam_ibd::{
    Chainstate, KernelVerifier, Network, PreparedTransaction, Result, ScriptFlags, ScriptVerifier,
    TREES,
};
use cofferdam_storage::testing::{Random, effort};
use cofferdam_storage::{BackendKind, FileSystem, MemoryDatabase, StdFileSystem};
use cofferdam_tests::chain;

use super::{anyones, give, invalid};

type Change = fn(&mut Transaction, &(OutPoint, TxOut));

/// Bitcoin Core left scripts running that pointed into what an early return had freed. Here a block
/// is found invalid at each of its transactions in turn, by its coins and by its script, while all
/// threads are busy with it and with the one before it.
#[test]
fn cve_2024_52911_a_fault_at_any_index_while_all_threads_are_busy() {
    const TXS: usize = 96;
    let (mut model, base) = ModelChain::funded(24);
    let coin = model.spendable(true).swap_remove(0);
    let many = model.block(1, vec![transfer(&[coin], vec![anyones(5000); 2 * TXS])]);
    model.connect(&many);
    let txid = many.txdata[1].compute_txid();
    let simple = |vout: usize| {
        let vout = u32::try_from(vout).expect("small");
        transfer(&[(OutPoint::new(txid, vout), anyones(5000))], vec![anyones(4000)])
    };
    // The block before: its scripts may still run when the fault is found.
    let busy = model.block(2, (0..TXS).map(simple).collect());
    let mut after = model.clone();
    after.connect(&busy);
    let nobodys = after.spendable(false).swap_remove(0);
    let faults: [(Change, &str); 3] = [
        (|tx, _| tx.input[0].previous_output.vout = 9_999_999, "bad-txns-inputs-missingorspent"),
        (|tx, _| tx.output[0] = anyones(5001), "bad-txns-in-belowout"),
        (|tx, nobodys| tx.input[0].previous_output = nobodys.0, "block-script-verify-flag-failed"),
    ];
    let dir = tempfile::tempdir().expect("temporary");
    let blocks = [&base[..], &[many]].concat();
    let stride = effort().pick(12, 2, 1);
    let mut count = 0;
    for index in (0..TXS).step_by(stride) {
        for (fault, code) in faults {
            let mut options = chain::options(Network::Regtest, &dir.path().join(count.to_string()));
            options.threads = 8;
            let mut chainstate = chain::open_with(options, BackendKind::Memory);
            give(&mut chainstate, &blocks);
            chain::store(&mut chainstate, &[bitcoin::consensus::serialize(&busy)]);
            let mut txs: Vec<_> = (TXS..2 * TXS).map(simple).collect();
            fault(&mut txs[index], &nobodys);
            let block = after.block(3, txs);
            assert_eq!(invalid(&mut chainstate, &block), code, "at {index}");
            assert_eq!(chainstate.tip().hash, after.tip().hash);
            assert!(chain::coin_bytes(&chainstate) == after.rows(), "{code} at {index}");
            let fine = after.block(3, (TXS..2 * TXS).map(simple).collect());
            give(&mut chainstate, &[fine]);
            count += 1;
        }
    }
    println!("{count} invalid blocks");
}

/// Counts the inputs whose scripts were begun.
#[derive(Debug, Default)]
struct Counting(Arc<AtomicUsize>);

#[derive(Debug)]
struct Counted<'a>(Arc<AtomicUsize>, Box<dyn PreparedTransaction + 'a>);

impl ScriptVerifier for Counting {
    fn prepare<'a>(
        &self,
        tx: TxRef<'a>,
        spent: &'a [OutputRef<'a>],
        flags: ScriptFlags,
    ) -> Result<Box<dyn PreparedTransaction + 'a>> {
        let prepared = KernelVerifier.prepare(tx, spent, flags)?;
        Ok(Box::new(Counted(Arc::clone(&self.0), prepared)))
    }
}

impl PreparedTransaction for Counted<'_> {
    fn input_count(&self) -> usize {
        self.1.input_count()
    }

    fn verify_input(&self, input: usize) -> bool {
        self.0.fetch_add(1, Ordering::Relaxed);
        self.1.verify_input(input)
    }
}

/// A script with as many signatures as 201 operations can check, each of which hashes nearly the
/// whole transaction anew.
fn slow_script() -> ScriptBuf {
    const ROUNDS: usize = 50;
    let key = "210279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";
    let mut script: Vec<u8> = Vec::from_hex(key).expect("hex");
    for _ in 0..ROUNDS {
        // OP_2DUP OP_CHECKSIG OP_DROP OP_CODESEPARATOR
        script.extend([0x6e, 0xac, 0x75, 0xab]);
    }
    // OP_2DROP OP_TRUE
    script.extend([0x6d, 0x51]);
    script.into()
}

/// A block whose scripts take many seconds: inputs of [`slow_script`] in a transaction of 900 kB.
fn slow_block(inputs: usize) -> (Vec<Block>, Block) {
    // A signature that is well formed and wrong, of all outputs.
    const SIGNATURE: &str = "093006020101020101 01";
    let (mut model, mut blocks) = ModelChain::funded(24);
    let coin = model.spendable(true).swap_remove(0);
    let slow = TxOut { script_pubkey: slow_script(), ..anyones(5000) };
    let made = model.block(1, vec![transfer(&[coin], vec![slow.clone(); inputs])]);
    model.connect(&made);
    let txid = made.txdata[1].compute_txid();
    blocks.push(made);
    let vouts = 0..u32::try_from(inputs).expect("small");
    let from: Vec<_> = vouts.map(|vout| (OutPoint::new(txid, vout), slow.clone())).collect();
    let mut padding = anyones(0);
    padding.script_pubkey = [&[0x6a][..], &vec![0; 900_000]].concat().into();
    let mut tx = transfer(&from, vec![padding]);
    let signature: Vec<u8> = Vec::from_hex(&SIGNATURE.replace(' ', "")).expect("hex");
    for input in &mut tx.input {
        input.script_sig = signature.clone().into();
    }
    let block = model.block(1, vec![tx]);
    (blocks, block)
}

/// A block can be made that takes a node minutes. It is bounded by what one input can take, and
/// whoever wants to stop need not wait for all of them.
#[test]
fn cve_2025_46598_a_slow_block_is_left_when_the_node_stops() {
    const INPUTS: usize = 300;
    let (base, block) = slow_block(INPUTS);
    let dir = tempfile::tempdir().expect("temporary");
    let begun = Arc::new(AtomicUsize::new(0));
    let options = chain::options(Network::Regtest, dir.path());
    let fs: Arc<dyn FileSystem> = Arc::new(StdFileSystem);
    let backend = Box::new(MemoryDatabase::new(TREES));
    let verifier = Arc::new(Counting(Arc::clone(&begun)));
    let mut chainstate = Chainstate::open_with(options, &fs, backend, verifier).expect("opens").0;
    give(&mut chainstate, &base);
    let before = (chainstate.tip(), chain::coin_bytes(&chainstate));
    chain::store(&mut chainstate, &[bitcoin::consensus::serialize(&block)]);
    begun.store(0, Ordering::Relaxed);

    let stop = Arc::new(AtomicBool::new(false));
    chainstate.stop_on(Arc::clone(&stop));
    let stopper = {
        let begun = Arc::clone(&begun);
        std::thread::Builder::new().spawn(move || {
            while begun.load(Ordering::Relaxed) < 4 {
                std::thread::sleep(Duration::from_millis(5));
            }
            stop.store(true, Ordering::Relaxed);
            Instant::now()
        })
    };
    let started = Instant::now();
    let advance = chain::advance(&mut chainstate);
    let stopped = stopper.expect("a thread").join().expect("no panic");
    println!("4 inputs began in {:.1?}, left {:.1?} later", stopped - started, stopped.elapsed());
    assert_eq!((advance.connected, advance.done, advance.invalid.len()), (0, false, 0));
    assert!((chainstate.tip(), chain::coin_bytes(&chainstate)) == before);
    // What was begun ends on its thread; nothing else begins.
    let at_return = begun.load(Ordering::Relaxed);
    std::thread::sleep(Duration::from_millis(500));
    let after = begun.load(Ordering::Relaxed);
    assert!(
        after <= at_return + 2 && after < INPUTS / 4,
        "{after} of {INPUTS} inputs, {at_return}"
    );
    chainstate.shutdown().expect("closes");
}

/// A block that is slow does not hold up the news that one before it is invalid.
#[test]
fn scripts_behind_an_invalid_block_are_not_run_to_their_end() {
    const INPUTS: usize = 300;
    let (mut blocks, slow) = slow_block(INPUTS);
    let dir = tempfile::tempdir().expect("temporary");
    let begun = Arc::new(AtomicUsize::new(0));
    let options = chain::options(Network::Regtest, dir.path());
    let fs: Arc<dyn FileSystem> = Arc::new(StdFileSystem);
    let backend = Box::new(MemoryDatabase::new(TREES));
    let verifier = Arc::new(Counting(Arc::clone(&begun)));
    let mut chainstate = Chainstate::open_with(options, &fs, backend, verifier).expect("opens").0;
    // The slow block again, behind one with a script that fails.
    let mut model = ModelChain::new();
    blocks.iter().for_each(|block| model.connect(block));
    let mut random = Random::new(1);
    let bad = model.faulty_block(Fault::Script, &mut random).expect("coins of nobody");
    model.connect(&bad);
    let behind = model.block(1, slow.txdata[1..].to_vec());
    give(&mut chainstate, &blocks);
    blocks = vec![bad.clone(), behind];
    let raw: Vec<_> = blocks.iter().map(bitcoin::consensus::serialize).collect();
    chain::store(&mut chainstate, &raw);
    begun.store(0, Ordering::Relaxed);
    let advance = chain::advance(&mut chainstate);
    assert_eq!(advance.invalid[0].0, bad.block_hash());
    std::thread::sleep(Duration::from_millis(500));
    let begun = begun.load(Ordering::Relaxed);
    assert!(begun < INPUTS / 4, "{begun} of {INPUTS} inputs");
}
