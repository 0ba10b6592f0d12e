//! `Node`: builds the parts of a node, and stops them in order.
//!
//! Order of the start: lock, RPC (which tells callers to wait), chain, indexes, peers; then calls run.
//! Order of the stop: RPC answers its last calls, the peers' and the indexes' threads end, the chain's
//! thread writes what is buffered, cookie and pid file go, and the
//! lock with them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow};
use cofferdam_ibd::{AssumeValid, Chainstate, ChainstateOptions, FileSize, TREES};
use cofferdam_storage::{
    BackendOptions, FileSystem, HAND_OVER_BYTES, LogWriter, StdFileSystem, WalOptions,
};

use crate::chain::{ChainHandle, ChainOptions, describe};
use crate::clock::Clock;
use crate::config::{AssumeValidOption, Config, PruneMode, RebuildOption};
use crate::data_dir::DataDir;
use crate::import::{Import, InitLoad};
use crate::index::{self, IndexPlace, Indexes};
use crate::logging::Log;
use crate::monitor::{Monitor, Recorder, Sources};
use crate::notify::Notifier;
use crate::p2p::PeerManager;
use crate::queue_file;
use crate::rebuild::{NeedsRebuild, Rebuild};
use crate::rpc::{self, ActiveCalls, Context, HeaderCache, MiningState, RpcServer, Scans, WarmUp};
use crate::shutdown::Shutdown;
use crate::start_checks;
use crate::waits::{self, EndedByStop};

/// How far ahead of the clock a tip may be (Bitcoin Core's `MAX_FUTURE_BLOCK_TIME`).
const FUTURE_SECONDS_MAX: u32 = 2 * 60 * 60;
/// Share of the cache that the engine gets, and the most it makes use of: coins live in the
/// buffer, the engine's cache has indexes and filters.
const ENGINE_CACHE_SHARE: usize = 4;
const ENGINE_CACHE_BYTES_MAX: usize = 256 << 20;

/// A running node.
#[derive(Debug)]
pub struct Node {
    shutdown: Shutdown,
    chain: ChainHandle,
    /// Where the transaction queue is written to, if it is.
    queue_file: Option<PathBuf>,
    chain_thread: JoinHandle<()>,
    indexes: Arc<Indexes>,
    peers: Option<Arc<PeerManager>>,
    rpc: Option<RpcServer>,
    load: Option<InitLoad>,
    monitor: Option<Monitor>,
    log: Log,
    notifier: Option<Notifier>,
    /// Dropped last: it has the lock.
    data_dir: DataDir,
}

impl Node {
    /// Starts a node. It runs until [`Node::stop`], whatever asks for it through `shutdown`.
    ///
    /// # Errors
    ///
    /// Returns an error, with a text for the user, if the data directory cannot be used or an
    /// address not be listened on. Nothing runs then.
    pub fn start(config: &Config, shutdown: Shutdown) -> Result<Self> {
        Self::start_in(DataDir::open(config)?, config, shutdown, Log::default())
    }

    /// Starts a node in a data directory that is locked already.
    pub(crate) fn start_in(
        mut data_dir: DataDir,
        config: &Config,
        shutdown: Shutdown,
        log: Log,
    ) -> Result<Self> {
        let clock = Clock::default();
        log.set_clock(clock.clone());
        if let Some(time) = config.mock_time {
            clock.set_mock(time);
        }
        if config.metrics.is_some() {
            // Before the store is opened: its recovery is reported too.
            Recorder::install();
        }
        data_dir.write_pid()?;
        start_checks::log_assume_valid(config);
        let warm_up = WarmUp::default();
        let rpc = rpc::start(&config.rpc, &mut data_dir, &warm_up)?;
        warm_up.say("Loading block index…");
        let rebuild = Rebuild::new(config, &data_dir);
        let started =
            open_or_rebuild(config, &data_dir, &rebuild, &shutdown).and_then(|chainstate| {
                let options = ChainOptions::new(config, !rebuild.is_scan()?);
                ChainHandle::start(chainstate, clock.clone(), shutdown.clone(), options)
            });
        let (chain, chain_thread) = match started {
            Ok(started) => started,
            Err(error) => {
                if let Some(rpc) = rpc {
                    rpc.stop();
                }
                return Err(error);
            }
        };
        chain.queue().write(|queue| queue.set_limits(config.mining.queue));
        let queue_file = config.mining.persist.then(|| queue_path(&data_dir));
        let indexes = Arc::default();
        let mut node = Self {
            shutdown,
            chain,
            queue_file,
            chain_thread,
            indexes,
            peers: None,
            rpc,
            load: None,
            monitor: None,
            log,
            notifier: None,
            data_dir,
        };
        let started = node.start_services(config, &clock, &warm_up);
        match started.and_then(|()| node.start_load(config, rebuild)) {
            Ok(()) => {
                if let Some(notifier) = &node.notifier {
                    notifier.started();
                }
                Ok(node)
            }
            Err(error) => {
                node.shutdown.request();
                // The first error is the one to tell.
                let _ = node.stop();
                Err(error)
            }
        }
    }

    /// Returns the addresses where peers may connect.
    #[must_use]
    pub fn p2p_addresses(&self) -> Vec<SocketAddr> {
        self.peers.as_ref().map(|peers| peers.bound_addresses()).unwrap_or_default()
    }

    /// Returns the addresses where RPC is served.
    #[must_use]
    pub fn rpc_addresses(&self) -> Vec<SocketAddr> {
        self.rpc.as_ref().map(|rpc| rpc.addresses().to_vec()).unwrap_or_default()
    }

    /// Waits until something asks the node to stop: a signal, a call, or a failure.
    pub fn wait(&self) {
        self.shutdown.wait();
    }

    /// Stops all parts and writes what is buffered.
    ///
    /// # Errors
    ///
    /// Returns an error if the machine failed while the node ran or stopped.
    pub fn stop(self) -> Result<()> {
        tracing::info!("Shutdown in progress...");
        self.shutdown.request();
        if let Some(notifier) = self.notifier {
            notifier.stopping();
        }
        if let Some(load) = self.load {
            load.join();
        }
        if let Some(rpc) = self.rpc {
            rpc.stop();
        }
        if let Some(monitor) = self.monitor {
            monitor.stop();
        }
        if let Some(peers) = self.peers {
            peers.stop();
        }
        self.indexes.stop();
        // Who was stopped before the file was read, or while it was, has not all of it, and leaves it
        // as it is.
        let is_whole = self.chain.is_queue_loaded() && self.shutdown.fatal().is_none();
        if let Some(path) = self.queue_file.filter(|_| is_whole)
            && let Err(error) = queue_file::save(&self.chain, &path)
        {
            tracing::warn!("Failed to dump mempool: {error:#}. Continuing anyway.");
        }
        self.chain.stop();
        let joined = self.chain_thread.join();
        tracing::info!("Shutdown done");
        drop(self.data_dir);
        if let Some(text) = self.shutdown.fatal() {
            return Err(anyhow!(
                "A fatal internal error occurred, see debug.log for details: {text}"
            ));
        }
        joined.map_err(|_| anyhow!("the chain thread panicked"))
    }

    /// Imports what the options name, and what an import that was interrupted has left; then reads the
    /// transaction queue.
    fn start_load(&mut self, config: &Config, rebuild: Rebuild) -> Result<()> {
        let (chain, shutdown) = (self.chain.clone(), self.shutdown.clone());
        let import = Import { chain, shutdown, for_person: false };
        let (blocks, queue_file) = (self.data_dir.blocks_dir(), self.queue_file.clone());
        self.load = Some(InitLoad::start(import, rebuild, blocks, &config.blocks, queue_file)?);
        Ok(())
    }

    fn start_services(&mut self, config: &Config, clock: &Clock, warm_up: &WarmUp) -> Result<()> {
        let fs: Arc<dyn FileSystem> = Arc::new(StdFileSystem);
        let kind = self.data_dir.backend(config.backend, &fs)?;
        let dir = self.data_dir.chain_dir().join("indexes");
        let place = IndexPlace { kind, dir: &dir, reserve_bytes: config.min_free_bytes };
        self.indexes =
            Arc::new(Indexes::start(config.indexes, place, &self.chain, &self.shutdown)?);
        let notifier = Notifier::start(config.notify.clone(), &self.chain)?;
        let warnings = notifier.warnings();
        self.notifier = Some(notifier);
        warm_up.say("Starting network threads…");
        let peers = PeerManager::start(
            config.p2p.clone(),
            self.chain.clone(),
            (clock.clone(), warnings.clone()),
            config.indexes.serve_filters.then(|| Arc::clone(&self.indexes)),
            self.shutdown.clone(),
            self.data_dir.chain_dir(),
        )?;
        self.peers = Some(Arc::clone(&peers));
        let started = Instant::now();
        let sources = Sources {
            chain: self.chain.clone(),
            peers: Arc::clone(&peers),
            clock: clock.clone(),
            started,
            cache_limit_bytes: config.cache_bytes,
        };
        let shutdown = self.shutdown.clone();
        let monitor = Monitor::start(sources, shutdown, config.metrics, config.show_bars)?;
        let seen = monitor.seen();
        self.monitor = Some(monitor);
        warm_up.finish(Context {
            chain: self.chain.clone(),
            peers,
            clock: clock.clone(),
            shutdown: self.shutdown.clone(),
            calls: ActiveCalls::default(),
            started,
            seen,
            chain_dir: self.data_dir.chain_dir().to_owned(),
            blocks_dir: self.data_dir.blocks_dir().to_owned(),
            warnings,
            log: self.log.clone(),
            log_path: config.log.path(self.data_dir.chain_dir()),
            user_agent: config.p2p.user_agent.clone(),
            headers: HeaderCache::default(),
            indexes: Arc::clone(&self.indexes),
            scans: Scans::default(),
            mining: MiningState::new(config.mining, queue_path(&self.data_dir)),
        });
        Ok(())
    }
}

fn queue_path(data_dir: &DataDir) -> PathBuf {
    data_dir.chain_dir().join("mempool.dat")
}

/// Opens the chain of a node, after what `-reindex` and `-reindex-chainstate` ask for.
fn open_or_rebuild(
    config: &Config,
    data_dir: &DataDir,
    rebuild: &Rebuild,
    shutdown: &Shutdown,
) -> Result<Chainstate> {
    match open_checked(config, data_dir, rebuild, shutdown) {
        Err(error) if config.blocks.rebuild_after_failure && error.is::<NeedsRebuild>() => {
            tracing::warn!("{error}");
            let mut config = config.clone();
            config.blocks.rebuild = RebuildOption::All;
            open_checked(&config, data_dir, rebuild, shutdown)
        }
        opened => opened,
    }
}

fn open_checked(
    config: &Config,
    data_dir: &DataDir,
    rebuild: &Rebuild,
    shutdown: &Shutdown,
) -> Result<Chainstate> {
    rebuild.prepare(config, || open_chainstate(config, data_dir, shutdown))?;
    let mut chainstate = open_chainstate(config, data_dir, shutdown)?;
    start_checks::check_block_files(&chainstate, data_dir.blocks_dir())?;
    rebuild.take_rows(&mut chainstate)?;
    let needs = |text: String| Err(NeedsRebuild(text).into());
    if chainstate.lacks_witnesses() {
        return needs(format!(
            "Witness data for blocks after height {} requires validation. Please restart with -reindex.",
            config.params.segwit_height
        ));
    }
    start_checks::check_pruned(&chainstate, config.blocks.prune)?;
    // While files are indexed anew, no row names those that are not read yet.
    if config.blocks.prune != PruneMode::Off && !rebuild.is_scan()? {
        chainstate.remove_unnamed_files()?;
    }
    let now = config.mock_time.unwrap_or_else(|| Clock::default().seconds());
    let tip = chainstate.headers().entry(chainstate.tip_ref()).header.time;
    if tip > now.saturating_add(FUTURE_SECONDS_MAX) {
        return needs("The block database contains a block which appears to be from the future. This may be due to your computer's date and time being set incorrectly. Only rebuild the block database if you are sure that your computer's date and time are correct".into());
    }
    start_checks::verify_blocks(&chainstate, config.blocks.check)?;
    Ok(chainstate)
}

/// Opens the chain of a data directory.
///
/// # Errors
///
/// Returns an error if the directory is another engine's or network's, is damaged, or cannot be
/// read and written; [`EndedByStop`] if a stop was asked for while it waited. A stop ends long work
/// of the chain from then on.
pub(crate) fn open_chainstate(
    config: &Config,
    data_dir: &DataDir,
    shutdown: &Shutdown,
) -> Result<Chainstate> {
    let fs: Arc<dyn FileSystem> = Arc::new(StdFileSystem);
    start_checks::settle_xor_key(&*fs, data_dir.blocks_dir(), config.blocks.plain)?;
    tracing::info!("init message: Loading block index…");
    let kind = data_dir.backend(config.backend, &fs)?;
    let engine_bytes = (config.cache_bytes / ENGINE_CACHE_SHARE).min(ENGINE_CACHE_BYTES_MAX);
    let path = data_dir.chain_dir().join("chainstate").join(kind.name());
    let what = || format!("Error opening the chain state in {}", data_dir.chain_dir().display());
    let backend = kind
        .open(&path, TREES, &BackendOptions { cache_bytes: engine_bytes })
        .map_err(|error| anyhow!(describe(&error)))
        .with_context(what)?;
    let options = ChainstateOptions {
        params: Arc::new(config.params.clone()),
        threads: config.threads,
        assume_valid: match config.assume_valid {
            AssumeValidOption::Default => AssumeValid::Default,
            AssumeValidOption::CheckAll => AssumeValid::Off,
            AssumeValidOption::Block(hash) => AssumeValid::Block(hash),
        },
        dir: data_dir.chain_dir().to_owned(),
        blocks_dir: data_dir.blocks_dir().to_owned(),
        max_tip_age: config.max_tip_age,
        file_size: if config.blocks.fast_prune { FileSize::Small } else { FileSize::Core },
        coin_stats: config.coin_stats,
        wal: WalOptions {
            durability: config.durability,
            writer: LogWriter::Thread { bytes_min: HAND_OVER_BYTES },
            memtable_bytes: config.cache_bytes - engine_bytes,
            reserve_bytes: config.min_free_bytes,
            no_space_hook: Some(waits::wait_for_space(shutdown.clone())),
            replay_hook: Some(waits::watch_replay(shutdown.clone())),
            ..WalOptions::default()
        },
    };
    let (mut chainstate, recovery) = Chainstate::open(options, fs, backend).map_err(|error| {
        match EndedByStop::from_error(&error, shutdown) {
            Some(ended) => ended.into(),
            None => anyhow!(describe(&error)).context(what()),
        }
    })?;
    chainstate.stop_on(shutdown.flag());
    let tip = chainstate.tip();
    // A tip that cannot be taken back would end the node at the next reorganisation.
    chainstate
        .read_undo(&tip.hash)
        .map_err(|error| anyhow!(describe(&error)))
        .context("Corrupted block database detected")?;
    tracing::info!("Opened {kind} chain state: height {}, tip {}", tip.height, tip.hash);
    if recovery.records > 0 || recovery.torn.is_some() {
        tracing::info!(
            "Recovered after an unclean stop: {} records ({} bytes) replayed in {:?}, cut off: {:?}",
            recovery.records,
            recovery.bytes,
            recovery.elapsed,
            recovery.torn
        );
    }
    index::check_statistics(&chainstate)?;
    Ok(chainstate)
}
