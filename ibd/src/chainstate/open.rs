//! Opening a chainstate: recover the store, load the block index, find the tip.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use bitcoin::BlockHash;
use bitcoin::consensus::encode;
use bitcoin::hashes::Hash as _;
use cofferdam_storage::{Batch, Count, Database, FileSystem, Recovery, WalBuffered};

use super::stats::StatsKeeper;
use super::{
    AssumeValid, BlockRef, Chainstate, ChainstateOptions, Progress, Store, block_batch, corrupt,
    put_row,
};
use crate::block_files::BlockFiles;
use crate::error::{Error, Result};
use crate::headers::{Candidates, HeaderRow, HeaderStatus, HeaderTree};
use crate::params::ChainParams;
use crate::pipeline::connect::ConnectScratch;
use crate::script::ScriptVerifier;
use crate::tables::{HEADERS, TREES};

/// Most headers that memory is taken for before one was read.
const RESERVE_MAX: u64 = 4_000_000;

impl Chainstate {
    /// Opens the chain in `options.dir`, or begins it with the network's genesis block.
    ///
    /// `backend` has to be opened with [`crate::TREES`]. Scripts are verified by Bitcoin Core's
    /// kernel library.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Storage`] if a file cannot be read or written or the log is corrupt, and
    /// [`Error::Corrupt`] if the directory holds another network's chain or a damaged index.
    #[cfg(feature = "kernel")]
    pub fn open(
        options: ChainstateOptions,
        fs: Arc<dyn FileSystem>,
        backend: Box<dyn Database>,
    ) -> Result<(Self, Recovery)> {
        let verifier = Arc::new(crate::script::KernelVerifier);
        Self::open_with(options, &fs, backend, verifier)
    }

    /// Opens as [`Chainstate::open`] does, with another verifier of scripts.
    ///
    /// # Errors
    ///
    /// As [`Chainstate::open`].
    pub fn open_with(
        options: ChainstateOptions,
        fs: &Arc<dyn FileSystem>,
        backend: Box<dyn Database>,
        verifier: Arc<dyn ScriptVerifier>,
    ) -> Result<(Self, Recovery)> {
        if let Some(missing) = TREES.iter().find(|tree| !backend.trees().contains(tree)) {
            return Err(corrupt(format!(
                "the backend was opened without the tree {}",
                missing.name
            )));
        }
        let params = options.params;
        let files = BlockFiles::open(fs, &options.blocks_dir, params.magic, options.file_size)?;
        let files = Arc::new(files);
        let log = options.dir.join("chainstate").join("log");
        fs.create_dir_all(&log)?;
        let attachments = Arc::clone(&files) as Arc<dyn cofferdam_storage::Attachments>;
        let (store, recovery) =
            WalBuffered::open(options.wal, Arc::clone(fs), &log, backend, attachments)?;
        if store.tip().is_none() {
            begin(&store, &files, &params)?;
        }
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(options.threads.max(1))
            .thread_name(|n| format!("validate-{n}"))
            .build()
            .map_err(|error| Error::Threads { source: Box::new(error) })?;
        let LoadedHeaders { headers, candidates, has_pruned } = load_headers(&store, &params)?;
        let stats = options.coin_stats.then(|| StatsKeeper::open(&store, &params)).transpose()?;
        let mut chainstate = Self {
            assume_valid: match options.assume_valid {
                AssumeValid::Default => params.assume_valid,
                AssumeValid::Off => None,
                AssumeValid::Block(hash) => Some(hash),
            },
            params,
            store,
            files,
            pool: Arc::new(pool),
            verifier,
            tip: headers.genesis(),
            headers,
            candidates,
            dirty: BTreeSet::new(),
            ahead: super::Ahead::default(),
            recent: super::recent::RecentBlocks::default(),
            scratch: ConnectScratch::default(),
            connected: Progress::default(),
            stats,
            version_bits: Mutex::default(),
            unknown_rules: Mutex::default(),
            stop: Arc::default(),
            pause_from: u32::MAX,
            synced: false,
            importing: false,
            scripts_said: None,
            max_tip_age: options.max_tip_age,
            has_pruned,
        };
        chainstate.find_tip()?;
        chainstate.write_index()?;
        Ok((chainstate, recovery))
    }

    fn find_tip(&mut self) -> Result<()> {
        let stored = self.store.tip().ok_or_else(|| corrupt("the store has no tip"))?;
        let hash = BlockHash::from_byte_array(stored.hash);
        let tip = self
            .headers
            .get(&hash)
            .filter(|&at| self.headers.entry(at).height == stored.height)
            .ok_or_else(|| corrupt(format!("the tip {hash} is not in the block index")))?;
        if !self.candidates.is_complete(&self.headers, tip) {
            return Err(corrupt(format!("a block below the tip {hash} is not stored")));
        }
        self.tip = tip;
        self.candidates.start(&mut self.headers, tip);
        Ok(())
    }
}

/// Stores the genesis block; its coinbase is not spendable and makes no coin.
fn begin(store: &Store, files: &BlockFiles, params: &ChainParams) -> Result<()> {
    let genesis = &params.genesis;
    let hash = genesis.block_hash();
    let raw = encode::serialize(genesis);
    // The files of a chain that is indexed anew begin with it.
    let stored = files.is_first(&raw);
    let row = HeaderRow {
        height: 0,
        header: genesis.header,
        status: HeaderStatus::VALID,
        tx_count: 1,
        block: Some(match stored {
            Some(stored) => stored,
            None => files.begin(&raw)?,
        }),
        undo: None,
    };
    let mut batch = Batch::new();
    put_row(&mut batch, &row, &hash);
    store.commit(block_batch(BlockRef { height: 0, hash }, BlockHash::all_zeros(), batch))?;
    Ok(store.sync()?)
}

/// The block index in memory.
struct LoadedHeaders {
    headers: HeaderTree,
    candidates: Candidates,
    has_pruned: bool,
}

/// Reads the block index; rows come in the order of height, so parents come first.
fn load_headers(store: &Store, params: &ChainParams) -> Result<LoadedHeaders> {
    let mut tree = HeaderTree::new(params.genesis.header);
    let (mut candidates, mut has_pruned) = (Candidates::default(), false);
    let (Count::Exact(rows) | Count::Estimate(rows)) = store.len(HEADERS)?;
    // An estimate may be far off: the tree grows by itself too.
    tree.reserve(usize::try_from(rows.min(RESERVE_MAX)).unwrap_or(0));
    for row in store.prefix(HEADERS, &[])? {
        let (key, value) = row?;
        let (row, hash) = HeaderRow::decode_hashed(&key, &value)?;
        if row.height == 0 && row.header != params.genesis.header {
            return Err(corrupt(format!(
                "the chain here begins with block {hash}, which is another network's"
            )));
        }
        let at = tree.load(&row, hash)?;
        // A block that was pruned was here, and has its transactions counted.
        if row.tx_count > 0 {
            candidates.block_loaded(&mut tree, at);
            has_pruned |= row.block.is_none();
        }
    }
    tree.shrink();
    tree.refresh_best(tree.genesis());
    Ok(LoadedHeaders { headers: tree, candidates, has_pruned })
}
