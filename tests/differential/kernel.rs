//! `Kernel`: Bitcoin Core's own validation in this process, with its verdicts and reasons.
//!
//! The kernel library tells a verdict through a callback, as a class without a reason; the reasons
//! are in its log. Both come on the thread that called, before the call returns: the lines of one
//! call are collected in a variable of the thread.

use std::cell::RefCell;
use std::path::Path;
use std::sync::{Arc, Mutex, Once};

use bitcoin::BlockHash;
use bitcoin::block::Header;
use bitcoin::hashes::Hash as _;
use bitcoinkernel::prelude::*;
use bitcoinkernel::{
    Block as KernelBlock, BlockHash as KernelHash, BlockHeader, BlockTreeEntry,
    BlockValidationResult, BlockValidationStateRef, ChainType, ChainstateManager, Context, Log,
    LogCategory, LogLevel, Logger, ProcessBlockHeaderResult, ProcessBlockResult, ValidationMode,
};
use cofferdam_ibd::{ChainParams, Coin, Network, RejectionScope};

use crate::verdict::{Accepted, DECODE, Fault, Outcome};

thread_local! {
    static LINES: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

struct Lines;

impl Log for Lines {
    fn log(&self, message: &str) {
        LINES.with_borrow_mut(|lines| lines.push(message.trim_end().to_owned()));
    }
}

/// Starts the log, once in a process: it is the library's, not a chain's.
fn start_log() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        let logger = Logger::new(Lines).expect("the log starts");
        logger.set_level_category(LogCategory::Validation, LogLevel::Debug);
        logger.enable_category(LogCategory::Validation);
        // For the rest of the process.
        std::mem::forget(logger);
    });
}

/// A call of `block_checked`: a block's hash, and what it breaks.
type Checked = Arc<Mutex<Vec<(BlockHash, Option<RejectionScope>)>>>;

/// A chain of Bitcoin Core's, its databases in memory, its block files below a folder.
pub(crate) struct Kernel {
    chain: ChainstateManager,
    checked: Checked,
    _context: Context,
}

impl Kernel {
    pub(crate) fn open(params: &ChainParams, dir: &Path) -> Self {
        start_log();
        let checked = Checked::default();
        let collected = Arc::clone(&checked);
        let builder = match &params.signet_challenge {
            Some(challenge) => Context::builder().signet(challenge.as_bytes()),
            None => Context::builder().chain_type(chain_type(params.network)),
        };
        let context = builder
            .with_block_checked_validation(
                move |block: KernelBlock, state: BlockValidationStateRef<'_>| {
                    let hash = BlockHash::from_byte_array(block.hash().to_bytes());
                    collected.lock().expect("no panic").push((hash, scope_of(&state)));
                },
            )
            .build()
            .expect("a context");
        let path = |name: &str| dir.join(name).to_str().expect("UTF-8").to_owned();
        let chain = ChainstateManager::builder(&context, &path("data"), &path("blocks"))
            .expect("options")
            .chainstate_db_in_memory(true)
            .block_tree_db_in_memory(true)
            .worker_threads(1)
            .build()
            .expect("opens");
        LINES.take();
        Self { chain, checked, _context: context }
    }

    /// Gives Core a block's bytes, as a peer would whom it asked for them.
    pub(crate) fn deliver(&self, raw: &[u8]) -> Outcome {
        LINES.take();
        self.checked.lock().expect("no panic").clear();
        let Ok(block) = KernelBlock::new(raw) else {
            let fault = Fault::told(DECODE, RejectionScope::Bytes);
            return Outcome { accepted: Accepted::Rejected(fault), ..Outcome::default() };
        };
        let result = self.chain.process_block(&block);
        let mut checked = std::mem::take(&mut *self.checked.lock().expect("no panic"));
        let lines = LINES.take();
        let accepted = match result {
            ProcessBlockResult::NewBlock => Accepted::Stored,
            ProcessBlockResult::Duplicate => Accepted::Duplicate,
            ProcessBlockResult::Rejected => {
                let last = checked.pop().and_then(|(_, scope)| scope);
                let reason = find(&lines, "AcceptBlock FAILED (").expect("the log has it");
                let reason = reason.strip_suffix(')').expect("in parentheses");
                Accepted::Rejected(Fault::told(reason, last.expect("a scope")))
            }
        };
        let mut outcome = Outcome { accepted, ..Outcome::default() };
        for (hash, scope) in checked {
            let Some(scope) = scope else {
                outcome.connected += 1;
                continue;
            };
            let found = find(&lines, &format!("ConnectBlock {hash} failed, "));
            let fault = Fault::told(&found.expect("the log has it"), scope);
            outcome.invalid.push((hash, fault));
        }
        outcome
    }

    /// Gives Core a header.
    pub(crate) fn deliver_header(&self, header: &Header) -> Result<(), Fault> {
        LINES.take();
        let raw = bitcoin::consensus::serialize(header);
        let parsed = BlockHeader::new(&raw).expect("80 bytes");
        let state = match self.chain.process_block_header(&parsed).expect("works") {
            ProcessBlockHeaderResult::Valid => return Ok(()),
            ProcessBlockHeaderResult::Invalid(state) => state,
        };
        let lines = LINES.take();
        let hash = header.block_hash();
        let reason = if find(&lines, &format!("header {hash} has prev block not found")).is_some() {
            "prev-blk-not-found".to_owned()
        } else if find(&lines, &format!("header {hash} has prev block invalid")).is_some() {
            "bad-prevblk".to_owned()
        } else if find(&lines, &format!("block {hash} is marked invalid")).is_some() {
            format!("duplicate-invalid, block {hash} was previously marked invalid")
        } else {
            let found = find(&lines, &format!("Header: {hash}, "));
            found.unwrap_or_else(|| panic!("no reason in {lines:?}"))
        };
        Err(Fault::told(&reason, scope(state.result())))
    }

    /// Height and hash of the tip.
    pub(crate) fn tip(&self) -> (u32, BlockHash) {
        let tip = self.chain.active_chain().tip();
        (u32::try_from(tip.height()).expect("a height"), hash_of(&tip))
    }

    /// Whether the block is in the active chain.
    pub(crate) fn is_active(&self, hash: &BlockHash) -> bool {
        self.chain.active_chain().contains(&self.entry(hash))
    }

    /// Hashes of the active chain above `height`, lowest first.
    pub(crate) fn active_above(&self, height: u32) -> Vec<BlockHash> {
        let chain = self.chain.active_chain();
        let heights = height as usize + 1..=self.tip().0 as usize;
        heights.map(|at| hash_of(&chain.at_height(at).expect("up to the tip"))).collect()
    }

    /// A block and the coins that its transactions after the coinbase spend, from Core's files.
    pub(crate) fn read(&self, hash: &BlockHash) -> (bitcoin::Block, Vec<Vec<Coin>>) {
        let entry = self.entry(hash);
        let block = self.chain.read_block_data(&entry).expect("the block is stored");
        let raw = block.consensus_encode().expect("encodes");
        let undo = self.chain.read_spent_outputs(&entry).expect("the undo data are stored");
        let spent = undo.iter().map(|tx| tx.coins().map(|coin| coin_of(&coin)).collect());
        (bitcoin::consensus::deserialize(&raw).expect("a block"), spent.collect())
    }

    fn entry(&self, hash: &BlockHash) -> BlockTreeEntry<'_> {
        let hash = KernelHash::from(hash.to_byte_array());
        self.chain.get_block_tree_entry(&hash).expect("a known block")
    }
}

const fn chain_type(network: Network) -> ChainType {
    match network {
        Network::Mainnet => ChainType::Mainnet,
        Network::Testnet3 => ChainType::Testnet,
        Network::Testnet4 => ChainType::Testnet4,
        Network::Signet => ChainType::Signet,
        Network::Regtest => ChainType::Regtest,
    }
}

fn hash_of(entry: &BlockTreeEntry<'_>) -> BlockHash {
    BlockHash::from_byte_array(entry.block_hash().to_bytes())
}

fn coin_of(coin: &impl CoinExt) -> Coin {
    let output = coin.output();
    Coin {
        height: coin.confirmation_height(),
        coinbase: coin.is_coinbase(),
        output: bitcoin::TxOut {
            value: bitcoin::Amount::from_sat(u64::try_from(output.value()).expect("an amount")),
            script_pubkey: output.script_pubkey().to_bytes().into(),
        },
    }
}

fn scope_of(state: &BlockValidationStateRef<'_>) -> Option<RejectionScope> {
    match state.mode() {
        ValidationMode::Valid => None,
        ValidationMode::Invalid => Some(scope(state.result())),
        ValidationMode::InternalError => panic!("Core failed: {:?}", LINES.take()),
    }
}

/// Core's class of a verdict in the words of `cofferdam_ibd`.
fn scope(result: BlockValidationResult) -> RejectionScope {
    match result {
        BlockValidationResult::Consensus | BlockValidationResult::InvalidHeader => {
            RejectionScope::Header
        }
        BlockValidationResult::CachedInvalid => RejectionScope::Cached,
        BlockValidationResult::Mutated => RejectionScope::Bytes,
        BlockValidationResult::MissingPrev => RejectionScope::MissingPrev,
        BlockValidationResult::InvalidPrev => RejectionScope::InvalidPrev,
        BlockValidationResult::TimeFuture => RejectionScope::Time,
        BlockValidationResult::HeaderLowWork => RejectionScope::LowWork,
        BlockValidationResult::Unset => panic!("invalid without a class"),
    }
}

/// What follows `what` in the last line that has it.
fn find(lines: &[String], what: &str) -> Option<String> {
    let after = |line: &String| line.split_once(what).map(|(_, rest)| rest.to_owned());
    lines.iter().rev().find_map(after)
}
