//! Verify the scripts of real blocks, with the outputs that they spend, by number of threads; and of
//! one transaction with 20,000 inputs, whose cost must not grow with the square of their number.
//!
//! The last column compares with bare signature checks by libsecp256k1 on the same machine, as many
//! as the block has inputs: what is above 100 % is hashing, the interpreter and this project.
//! `COFFERDAM_ROUNDS` is the number of rounds (3).
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]
#![expect(clippy::indexing_slicing, reason = "a benchmark panics on anything unexpected")]

use std::time::Instant;

use bitcoin::ScriptBuf;
use bitcoin::secp256k1::{Message, Secp256k1, SecretKey};
use cofferdam_benches::chain_maker::wide_transaction;
use cofferdam_benches::report::{Sample, Table, alternate, from_env, process_time};
use cofferdam_benches::{single_blocks, spent_outputs};
use cofferdam_ibd::wire::{OutputRef, Transactions};
use cofferdam_ibd::{
    ChainParams, KernelVerifier, Network, RawBlock, ScriptFlags, ScriptVerifier as _,
    block_script_flags,
};
use rayon::prelude::{IntoParallelIterator as _, ParallelIterator as _};

/// Inputs of the wide transaction.
const WIDE: usize = 20_000;
/// Bare checks in one measurement.
const BARE: usize = 2_000;

/// Transactions to verify, with what they spend.
struct Work {
    name: String,
    txs: Transactions,
    /// One list for each transaction; none for a coinbase.
    spent: Vec<Vec<(u64, ScriptBuf)>>,
    flags: ScriptFlags,
}

impl Work {
    fn inputs(&self) -> usize {
        self.spent.iter().map(Vec::len).sum()
    }

    /// Verifies everything; inputs of one transaction in parallel too.
    fn run(&self) {
        let check = |index: usize| {
            let spent: Vec<OutputRef<'_>> = self.spent[index]
                .iter()
                .map(|(value, script)| OutputRef { value: *value, script })
                .collect();
            let tx = self.txs.get(index).expect("in range");
            let prepared =
                KernelVerifier.prepare(tx, &spent, self.flags).expect("the kernel works");
            (0..spent.len()).into_par_iter().all(|input| prepared.verify_input(input))
        };
        let wanted = (0..self.txs.len()).into_par_iter().filter(|&tx| !self.spent[tx].is_empty());
        assert!(wanted.map(check).all(|fine| fine), "{}", self.name);
    }
}

fn real_blocks() -> Vec<Work> {
    let mut work = Vec::new();
    for (name, raw) in single_blocks(90_000) {
        let Some(mut spent) = spent_outputs(&name) else { continue };
        let network =
            if name.starts_with("mainnet") { Network::Mainnet } else { Network::Testnet3 };
        let height = name.rsplit(' ').next().expect("a height").parse().expect("a number");
        let block = RawBlock::parse(raw).expect("a block");
        let flags = block_script_flags(&ChainParams::new(network), height, &block.hash());
        let mut rest = spent.drain(..);
        let lists = block.txs().iter().enumerate().map(|(index, tx)| {
            rest.by_ref().take(if index == 0 { 0 } else { tx.input_count() }).collect()
        });
        let spent = lists.collect();
        work.push(Work { name, txs: block.txs().clone(), spent, flags });
    }
    work
}

fn wide() -> Work {
    let (raw, spent) = wide_transaction(WIDE);
    let txs = Transactions::of_transaction(raw).expect("a transaction");
    let params = ChainParams::new(Network::Regtest);
    let flags = block_script_flags(&params, 1_000, &params.genesis.block_hash());
    Work { name: format!("one transaction, {WIDE} inputs"), txs, spent: vec![spent], flags }
}

/// CPU seconds of one bare check of an ECDSA signature.
fn bare() -> f64 {
    let secp = Secp256k1::new();
    let secret = SecretKey::from_slice(&[7; 32]).expect("in range");
    let key = secret.public_key(&secp);
    let message = Message::from_digest([9; 32]);
    let (signature, key) = (secp.sign_ecdsa(&message, &secret).serialize_der(), key.serialize());
    let started = process_time();
    for _ in 0..BARE {
        let key = bitcoin::secp256k1::PublicKey::from_slice(&key).expect("a key");
        let signature = signature.to_signature().expect("a signature");
        secp.verify_ecdsa(&message, &signature, &key).expect("it is its signature");
    }
    (process_time() - started).as_secs_f64() / BARE as f64
}

fn main() {
    let mut work = real_blocks();
    work.push(wide());
    let rounds = from_env("COFFERDAM_ROUNDS", 3);
    let pools: Vec<rayon::ThreadPool> = [1, 2]
        .map(|threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build())
        .map(|pool| pool.expect("threads"))
        .into();
    let bare = Sample::new((0..rounds.max(3)).map(|_| bare()).collect()).median();
    println!("A bare ECDSA check: {:.1} us\n", bare * 1e6);
    let mut table = Table::new(&[
        "block",
        "inputs",
        "inputs/s, 1 thread",
        "2 threads",
        "speed-up",
        "us of CPU per input",
        "bare checks",
    ]);
    for work in &work {
        let samples = alternate(rounds, &pools, |pool| {
            let (started, processor) = (Instant::now(), process_time());
            pool.install(|| work.run());
            (started.elapsed().as_secs_f64(), (process_time() - processor).as_secs_f64())
        });
        let wall = |at: usize| Sample::new(samples[at].iter().map(|(wall, _)| *wall).collect());
        let cpu = Sample::new(samples[0].iter().map(|(_, cpu)| *cpu).collect()).median();
        let inputs = work.inputs() as f64;
        let (one, two) = (wall(0).median(), wall(1).median());
        table.row([
            work.name.clone(),
            work.inputs().to_string(),
            format!("{:.0}", inputs / one),
            format!("{:.0}", inputs / two),
            format!("{:.2}", one / two),
            format!("{:.1}", cpu * 1e6 / inputs),
            format!("{:.0} %", cpu / inputs / bare * 100.0),
        ]);
    }
    println!("{table}");
}
