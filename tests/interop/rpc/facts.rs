//! The chain that both nodes are asked about, and the values that the list of calls names.

use std::collections::BTreeMap;

use bitcoin::consensus::encode::serialize_hex;
use bitcoin::{Amount, Block, Transaction, TxOut};
use cofferdam_ibd::testing::{ModelChain, transfer};
use cofferdam_storage::testing::Random;
use cofferdam_tests::daemon::{ADDRESS, Daemon};
use serde_json::{Value, json};

const SEED: u64 = 0x0c0f_fe18_9c11;
/// Coinbases that can be spent when the payments begin.
const FUNDS: u32 = 30;
/// Blocks with payments.
const BLOCKS: u32 = 20;
/// The fork leaves the chain this many blocks below the tip.
const FORK_BELOW: u32 = 4;
/// What the waiting transaction pays.
const FEE: u64 = 10_000;
/// Nothing has this hash.
const UNKNOWN: &str = "00000000000000000000000000000000000000000000000000000000000000ab";
const GENESIS: &str = "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206";
const GENESIS_TX: &str = "4a5e1e4baab89f3a32518a88c31bc87f618f76673e2cc77ab2127b7afdeda33b";

/// Blocks, a block of a fork, and values by name.
#[derive(Debug)]
pub(super) struct Facts {
    blocks: Vec<Block>,
    fork: Block,
    values: BTreeMap<&'static str, String>,
}

impl Facts {
    /// Makes a chain.
    pub(super) fn new() -> Self {
        let mut random = Random::new(SEED);
        let (mut chain, mut blocks) = ModelChain::funded(FUNDS);
        let mut fork = None;
        for left in (0..BLOCKS).rev() {
            let block = chain.random_block(&mut random, 8);
            if left + 1 == FORK_BELOW {
                fork = Some(chain.block(7, Vec::new()));
            }
            chain.connect(&block);
            blocks.push(block);
        }
        let fork = fork.expect("the fork is below the tip");
        let values = values(&chain, &blocks, &fork);
        Self { blocks, fork, values }
    }

    /// Gives a node the chain, and the time right after it.
    pub(super) fn give_to(&self, node: &Daemon) {
        let tip = self.blocks.last().expect("blocks");
        let _ = node.rpc("setmocktime", json!([tip.header.time + 600]));
        for block in self.blocks.iter().chain([&self.fork]) {
            let verdict = node.rpc("submitblock", json!([serialize_hex(block)]));
            assert!(verdict.is_null() || verdict == "inconclusive", "{verdict}");
        }
        assert_eq!(node.best(), tip.block_hash().to_string());
    }

    /// Adds what only a node can tell.
    pub(super) fn ask(&mut self, node: &Daemon) {
        let args = json!([[self.values["TXID"]], self.values["PAY"]]);
        let proof = node.rpc("gettxoutproof", args);
        self.values.insert("PROOF", proof.as_str().expect("hex").to_owned());
    }

    /// Reads the parameters of a call.
    pub(super) fn params(&self, text: &str) -> Value {
        let mut text = text.to_owned();
        // Longer names first: one may begin with another.
        let mut names: Vec<_> = self.values.iter().collect();
        names.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        for (name, value) in names {
            text = text.replace(&format!("${name}"), value);
        }
        assert!(!text.contains('$'), "{text}");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }
}

fn values(chain: &ModelChain, blocks: &[Block], fork: &Block) -> BTreeMap<&'static str, String> {
    let tip = blocks.last().expect("blocks");
    let paying = blocks.iter().enumerate().rfind(|(_, block)| block.txdata.len() > 3);
    let (index, pay) = paying.expect("a block with payments");
    let tx = &pay.txdata[1];
    let waiting = waiting(chain, 0);
    let from = waiting.input[0].previous_output;
    let mut orphan = tip.header;
    orphan.prev_blockhash = fork.header.merkle_root.to_raw_hash().into();
    BTreeMap::from([
        ("ADDRESS", ADDRESS.to_owned()),
        ("UNKNOWN", UNKNOWN.to_owned()),
        ("GENESIS", GENESIS.to_owned()),
        ("GENESISTX", GENESIS_TX.to_owned()),
        ("TIP", tip.block_hash().to_string()),
        ("TIPHEX", serialize_hex(tip)),
        ("TIPHEADER", serialize_hex(&tip.header)),
        ("ORPHANHEADER", serialize_hex(&orphan)),
        ("NEXT", serialize_hex(&chain.block(3, Vec::new()))),
        ("FORK", fork.block_hash().to_string()),
        ("FORKHEX", serialize_hex(fork)),
        ("PAY", pay.block_hash().to_string()),
        ("PAYHEIGHT", (index + 1).to_string()),
        ("PAYHEX", serialize_hex(tx)),
        ("TXID", tx.compute_txid().to_string()),
        ("SPENT", tx.input[0].previous_output.txid.to_string()),
        ("COINBASE", tip.txdata[0].compute_txid().to_string()),
        ("RAWTX", serialize_hex(&waiting)),
        ("RAWTXID", waiting.compute_txid().to_string()),
        ("RAWTXFROM", from.txid.to_string()),
        ("RAWTXVOUT", from.vout.to_string()),
        ("RIVAL", serialize_hex(&self::waiting(chain, 1))),
    ])
}

/// A payment of a coin that nobody has spent yet; `more` pays more and so is another one.
fn waiting(chain: &ModelChain, more: u64) -> Transaction {
    let coins = chain.spendable(true);
    // Core's own policy takes a witness program, and no bare script like this one.
    let coin = coins.into_iter().find(|(_, output)| output.script_pubkey.is_p2wsh());
    let coin = coin.expect("a coin of a witness program");
    let value = Amount::from_sat(coin.1.value.to_sat() - FEE + more);
    let script = coin.1.script_pubkey.clone();
    transfer(&[coin], vec![TxOut { value, script_pubkey: script }])
}
