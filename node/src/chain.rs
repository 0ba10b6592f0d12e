//! `ChainHandle`: the way to the one thread that owns the [`Chainstate`].
//!
//! Everything that reads or changes the chain is a job sent to that thread. Between jobs the
//! thread connects stored blocks, a slice of [`SLICE`] at a time, so that no job waits long.
//!
//! Invariants:
//! - a job's reply is sent after the tip change that it caused was published: who has the reply
//!   finds the block announced, and in the UTXO set;
//! - after a machine error nothing is written: the chainstate is dropped as a crash would leave
//!   it, the node stops, and every later job is refused.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use cofferdam_ibd::params::ChainParams;
use cofferdam_ibd::{Advance, BlockRef, Chainstate, HeaderRef};

use crate::busy::Busy;
use crate::chain_parts::{Awaited, Waiting};
pub(crate) use crate::chain_parts::{
    BlockSource, ChainEvent, ChainOptions, ChainView, Stopped, Submitted,
};
use crate::clock::Clock;
use crate::config::PruneMode;
pub(crate) use crate::failure::describe;
use crate::failure::{PanicGuard, headline};
use crate::prune::Pruner;
use crate::shutdown::Shutdown;
use crate::tx_queue::SharedQueue;
use crate::waits::EndedByStop;
#[cfg(test)]
pub(crate) use tests::{open as open_for_tests, start as start_for_tests};

/// Jobs that may wait; a sender beyond that waits itself, and with it its peer.
const JOBS_MAX: usize = 64;

/// Jobs that run before blocks are connected again.
const JOBS_IN_A_ROW: usize = 32;

/// How long blocks are connected before jobs are looked at: short for whoever waits for a reply,
/// long against the cost of starting the pipeline.
pub(crate) const SLICE: Duration = Duration::from_millis(50);

/// How long anybody waits for stored blocks to be connected.
const SETTLE_TIME: Duration = Duration::from_secs(1);

type Subscriber = Box<dyn Fn(&ChainEvent<'_>) + Send>;
type Job = Box<dyn FnOnce(&mut Worker) -> cofferdam_ibd::Result<()> + Send>;

#[derive(Debug)]
struct Shared {
    params: Arc<ChainParams>,
    view: Mutex<ChainView>,
    moved: Condvar,
    busy: Busy,
    shutdown: Shutdown,
    queue: SharedQueue,
    prune: PruneMode,
    /// Whether block files are being imported.
    loading: AtomicBool,
    /// Whether the queue has what waited when the node last stopped, as far as it can be had.
    queue_loaded: AtomicBool,
}

impl Shared {
    fn view(&self) -> MutexGuard<'_, ChainView> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends jobs to the chain's thread; clones reach the same thread.
#[derive(Clone, Debug)]
pub(crate) struct ChainHandle {
    jobs: SyncSender<Job>,
    shared: Arc<Shared>,
}

impl ChainHandle {
    /// Starts the thread that owns `chainstate`.
    pub(crate) fn start(
        mut chainstate: Chainstate,
        clock: Clock,
        shutdown: Shutdown,
        options: ChainOptions,
    ) -> Result<(Self, JoinHandle<()>)> {
        let (jobs, queue) = sync_channel(JOBS_MAX);
        chainstate.stop_on(shutdown.flag());
        if let Some(height) = options.stop_at_height {
            chainstate.pause_from(height);
        }
        let genesis = chainstate.tip();
        let view = ChainView {
            tip: genesis,
            best_header: genesis,
            best_header_time: 0,
            initial_download: true,
        };
        let shared = Arc::new(Shared {
            params: Arc::clone(chainstate.params()),
            view: Mutex::new(view),
            moved: Condvar::new(),
            busy: Busy::new(clock.clone()),
            shutdown,
            queue: SharedQueue::default(),
            prune: options.pruner.mode(),
            loading: AtomicBool::new(true),
            queue_loaded: AtomicBool::new(false),
        });
        // The tip that is found may be new; those that the import leads to count when it is over.
        chainstate.set_importing(!options.files_indexed);
        let published = chainstate.tip_ref();
        let mut worker = Worker {
            chainstate,
            clock,
            shared: Arc::clone(&shared),
            subscribers: Vec::new(),
            waiting: Vec::new(),
            awaited: Vec::new(),
            published,
            pruner: options.pruner,
            stop_at_height: options.stop_at_height,
            stopping: false,
        };
        worker.publish()?;
        let imports = !options.files_indexed || options.loads_files;
        let importing = imports || worker.chainstate.has_blocks_to_connect();
        worker.chainstate.set_importing(importing);
        let thread = std::thread::Builder::new()
            .name("chain".into())
            .spawn(move || worker.run(&queue))
            .context("starting the chain thread")?;
        Ok((Self { jobs, shared }, thread))
    }

    /// Returns the network's rules.
    pub(crate) fn params(&self) -> &Arc<ChainParams> {
        &self.shared.params
    }

    /// Returns how long the thread was away for single jobs.
    pub(crate) fn busy(&self) -> &Busy {
        &self.shared.busy
    }

    /// Returns the transactions that wait for a block.
    pub(crate) fn queue(&self) -> &SharedQueue {
        &self.shared.queue
    }

    /// Returns how block files are pruned.
    pub(crate) fn prune_mode(&self) -> PruneMode {
        self.shared.prune
    }

    /// Returns whether block files are being imported: true until the import after the start is
    /// over.
    pub(crate) fn is_loading(&self) -> bool {
        self.shared.loading.load(Ordering::Relaxed)
    }

    /// Tells that the import after the start is over: from here on a new tip ends the initial
    /// download, the one that is there as well (`UpdateIBDStatus`).
    pub(crate) fn loaded(&self) {
        // Of a node that stops nobody asks.
        let _ = self.change(|worker| {
            worker.chainstate.set_importing(false);
            Ok(())
        });
        self.shared.loading.store(false, Ordering::Relaxed);
    }

    /// Returns whether the queue has what waited when the node last stopped, as far as it can be had:
    /// before, what is written would be less than there was (`GetLoadTried`).
    pub(crate) fn is_queue_loaded(&self) -> bool {
        self.shared.queue_loaded.load(Ordering::Relaxed)
    }

    /// Tells that it has.
    pub(crate) fn queue_loaded(&self) {
        self.shared.queue_loaded.store(true, Ordering::Relaxed);
    }

    /// Returns what is known without asking the thread.
    pub(crate) fn view(&self) -> ChainView {
        *self.shared.view()
    }

    /// Waits until the tip meets `wanted`, the time is over or the node stops; returns the tip.
    pub(crate) fn wait_for_tip(
        &self,
        time: Option<Duration>,
        wanted: impl Fn(BlockRef) -> bool,
    ) -> BlockRef {
        /// How long a stop of the node may go unnoticed.
        const GLANCE: Duration = Duration::from_millis(250);
        let end = time.map(|time| Instant::now() + time);
        let mut view = self.shared.view();
        while !wanted(view.tip) && !self.shared.shutdown.is_requested() {
            let left = end.map_or(GLANCE, |end| end.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                break;
            }
            let waited = self.shared.moved.wait_timeout(view, left.min(GLANCE));
            view = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        view.tip
    }

    /// Runs `read` on the chain's thread; a failure is the caller's to report.
    pub(crate) fn query<T, F>(&self, read: F) -> Result<T, Stopped>
    where
        T: Send + 'static,
        F: FnOnce(&mut Chainstate) -> T + Send + 'static,
    {
        self.change(|worker| Ok(read(&mut worker.chainstate)))
    }

    /// Runs `change` on the chain's thread; a failure there stops the node.
    pub(crate) fn change<T, F>(&self, change: F) -> Result<T, Stopped>
    where
        T: Send + 'static,
        F: FnOnce(&mut Worker) -> cofferdam_ibd::Result<T> + Send + 'static,
    {
        let (reply, replied) = sync_channel(1);
        self.send(move |worker| {
            let answer = change(worker)?;
            worker.publish()?;
            // Who asked may have gone.
            let _ = reply.send(answer);
            Ok(())
        })?;
        replied.recv().map_err(|_| Stopped)
    }

    /// Sends a job to the chain's thread, without waiting for it; a failure there stops the node.
    pub(crate) fn send(
        &self,
        job: impl FnOnce(&mut Worker) -> cofferdam_ibd::Result<()> + Send + 'static,
    ) -> Result<(), Stopped> {
        self.jobs.send(Box::new(job)).map_err(|_| Stopped)
    }

    /// Connects what is stored, for a while, before any other job.
    pub(crate) fn settle(&self) -> Result<(), Stopped> {
        self.change(|worker| worker.connect(SETTLE_TIME).map(|_| ()))
    }

    /// Waits as long for what is stored to be connected between jobs: however many wait, and however
    /// often, the thread does for none of them what it would not do anyway.
    pub(crate) fn wait_until_connected(&self) -> Result<(), Stopped> {
        let (reply, replied) = sync_channel(1);
        let end = Instant::now() + SETTLE_TIME;
        self.send(move |worker| {
            worker.waiting.push(Waiting { reply, end });
            Ok(())
        })?;
        replied.recv().map_err(|_| Stopped)
    }

    /// Tells that every block file has been read: those that are not needed may go.
    pub(crate) fn block_files_indexed(&self) -> Result<(), Stopped> {
        self.change(|worker| {
            worker.pruner.set_files_indexed();
            worker.connect(SLICE).map(|_| ())
        })
    }

    /// Tells `subscriber` of every change from now on.
    pub(crate) fn subscribe(&self, subscriber: Subscriber) -> Result<(), Stopped> {
        self.change(move |worker| {
            worker.subscribers.push(subscriber);
            Ok(())
        })
    }

    /// Ends the thread, after the jobs sent before; what is buffered is written.
    pub(crate) fn stop(&self) {
        let job: Job = Box::new(|worker| {
            worker.stopping = true;
            Ok(())
        });
        let _ = self.jobs.send(job);
    }
}

/// The chain's thread.
pub(crate) struct Worker {
    /// The chain.
    pub(crate) chainstate: Chainstate,
    /// The time.
    pub(crate) clock: Clock,
    shared: Arc<Shared>,
    subscribers: Vec<Subscriber>,
    /// Who waits for stored blocks to be connected: a peer once at most.
    waiting: Vec<Waiting>,
    /// Blocks of users that are not finished, one of each at most.
    pub(crate) awaited: Vec<Awaited>,
    published: HeaderRef,
    /// Which block files go.
    pub(crate) pruner: Pruner,
    stop_at_height: Option<u32>,
    stopping: bool,
}

impl Worker {
    /// Returns whether the node is about to stop.
    pub(crate) fn is_ending(&self) -> bool {
        self.shared.shutdown.is_requested()
    }

    /// Connects stored blocks for `time` at most, and tells who has to know.
    pub(crate) fn connect(&mut self, time: Duration) -> cofferdam_ibd::Result<Advance> {
        let advance = self.chainstate.advance(Instant::now() + time)?;
        for (hash, rejection) in &advance.invalid {
            tracing::warn!("Block validation error: {rejection} (block {hash})");
            if let Some(awaited) = self.awaited.iter_mut().find(|awaited| awaited.hash == *hash) {
                awaited.invalid = Some(rejection.clone());
            }
            let (chainstate, hash) = (&self.chainstate, *hash);
            let initial_download = self.shared.view().initial_download;
            self.tell(&ChainEvent::Invalid { chainstate, initial_download, hash, rejection });
        }
        self.publish()?;
        let initial_download = self.shared.view().initial_download;
        self.pruner.run(&mut self.chainstate, initial_download)?;
        Ok(advance)
    }

    /// Answers those who wait for stored blocks: all if there are none left, or whose time is over.
    fn answer_waiting(&mut self, idle: bool) {
        let now = Instant::now();
        self.waiting.retain(|waiting| {
            let is_over = idle || now >= waiting.end;
            if is_over {
                // Who asked may have gone.
                let _ = waiting.reply.send(());
            }
            !is_over
        });
    }

    /// Tells who has to know that a user rejected a block.
    pub(crate) fn tell_invalidated(&mut self, at: HeaderRef) -> cofferdam_ibd::Result<()> {
        self.publish()?;
        let (chainstate, initial_download) =
            (&self.chainstate, self.shared.view().initial_download);
        self.tell(&ChainEvent::Invalidated { chainstate, initial_download, at });
        Ok(())
    }

    fn run(mut self, queue: &Receiver<Job>) {
        let _guard = PanicGuard(self.shared.shutdown.clone());
        match self.serve(queue) {
            Ok(()) => match self.chainstate.shutdown() {
                Ok(()) => tracing::info!("Chain state written"),
                Err(error) => match EndedByStop::from_error(&error, &self.shared.shutdown) {
                    Some(ended) => tracing::warn!("{ended}"),
                    None => self.shared.shutdown.fail(&describe(&error)),
                },
            },
            Err(error) => match EndedByStop::from_error(&error, &self.shared.shutdown) {
                Some(ended) => {
                    tracing::warn!("{ended}");
                    // The reserve is there for what is buffered; what fits not is replayed.
                    let _ = self.chainstate.shutdown();
                }
                None => {
                    let text = headline(&error);
                    tracing::error!(
                        "A fatal internal error occurred: {text} ({})",
                        describe(&error)
                    );
                    self.shared.shutdown.fail(&text);
                    if matches!(error, cofferdam_ibd::Error::Disconnect { .. }) {
                        // Only reading failed: what was acknowledged is kept, and the next start
                        // finds what is gone.
                        let _ = self.chainstate.shutdown();
                    }
                }
            },
        }
        self.shared.moved.notify_all();
    }

    fn serve(&mut self, queue: &Receiver<Job>) -> cofferdam_ibd::Result<()> {
        // Blocks may have been stored and not connected when the node last stopped.
        let mut idle = false;
        let busy = self.shared.busy.clone();
        while !self.stopping {
            for waiting in 0..JOBS_IN_A_ROW {
                let job = if idle && waiting == 0 {
                    queue.recv().map_err(|_| TryRecvError::Disconnected)
                } else {
                    queue.try_recv()
                };
                match job {
                    Ok(job) => busy.during(|| job(self))?,
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return Ok(()),
                }
                if self.stopping {
                    return Ok(());
                }
            }
            // Of a node that stops nothing is connected any more: the next job says so.
            let connected = busy.during(|| self.connect(SLICE))?;
            let is_done = connected.done && !self.chainstate.coin_stats_are_behind();
            idle = is_done || self.is_ending();
            self.answer_waiting(idle);
        }
        Ok(())
    }

    /// Makes the new state known, if it is new.
    pub(crate) fn publish(&mut self) -> cofferdam_ibd::Result<()> {
        let tip_ref = self.chainstate.tip_ref();
        let from = std::mem::replace(&mut self.published, tip_ref);
        if from != tip_ref {
            self.shared.queue.follow(&self.chainstate, from, self.clock.seconds())?;
        }
        let headers = self.chainstate.headers();
        let best = headers.entry(headers.best());
        let best_header = BlockRef { height: best.height, hash: best.hash };
        let best_header_time = best.header.time;
        let tip = self.chainstate.tip();
        let now = self.clock.seconds();
        let initial_download = self.chainstate.is_initial_block_download(now);
        let view = ChainView { tip, best_header, best_header_time, initial_download };
        *self.shared.view() = view;
        if from == tip_ref {
            return Ok(());
        }
        self.shared.moved.notify_all();
        self.tell(&ChainEvent::Tip { chainstate: &self.chainstate, from, initial_download });
        if self.stop_at_height.is_some_and(|height| tip.height >= height) {
            tracing::info!("Stopping at height {}", tip.height);
            self.shared.shutdown.request();
        }
        Ok(())
    }

    /// Returns the transactions that wait for a block.
    pub(crate) fn queue(&self) -> &SharedQueue {
        &self.shared.queue
    }

    fn tell(&self, event: &ChainEvent<'_>) {
        event.log();
        for subscriber in &self.subscribers {
            subscriber(event);
        }
    }
}

#[cfg(test)]
mod tests {
    use cofferdam_ibd::block::{CheckedBlock, RawBlock};
    use cofferdam_ibd::{AssumeValid, BlockAccepted, ChainstateOptions, Network, TREES, mining};
    use cofferdam_storage::{MemoryDatabase, StdFileSystem};

    use super::*;
    use crate::config::BlocksConfig;

    /// A chain of regtest.
    pub(crate) fn open(dir: &std::path::Path) -> Chainstate {
        let options = ChainstateOptions {
            threads: 1,
            assume_valid: AssumeValid::Off,
            ..ChainstateOptions::new(ChainParams::new(Network::Regtest), dir)
        };
        let backend = Box::new(MemoryDatabase::new(TREES));
        Chainstate::open(options, Arc::new(StdFileSystem), backend).unwrap().0
    }

    /// A chain of regtest that has a thread, and a block for it.
    pub(crate) fn start(dir: &std::path::Path) -> (ChainHandle, JoinHandle<()>, CheckedBlock) {
        let chainstate = open(dir);
        let clock = Clock::default();
        let mut block =
            mining::assemble_block(&chainstate, &bitcoin::ScriptBuf::new(), clock.seconds());
        assert!(mining::solve(&mut block, chainstate.params(), &mut 1_000_000));
        let raw = RawBlock::parse(bitcoin::consensus::serialize(&block)).unwrap();
        let block = CheckedBlock::check(raw, chainstate.params()).unwrap();
        let pruner = Pruner::new(&BlocksConfig::default(), Network::Regtest, true);
        let (files_indexed, loads_files) = (true, false);
        let options = ChainOptions { pruner, stop_at_height: None, files_indexed, loads_files };
        let (chain, thread) =
            ChainHandle::start(chainstate, clock, Shutdown::default(), options).unwrap();
        (chain, thread, block)
    }

    #[test]
    fn who_waits_for_stored_blocks_takes_no_time_of_the_thread() {
        let dir = tempfile::tempdir().unwrap();
        let (chain, thread, block) = start(dir.path());
        let (reply, replied) = sync_channel(1);
        let height = chain.change(move |worker| {
            let now = worker.clock.seconds();
            let accepted = worker.chainstate.accept_checked(block, now)?;
            assert!(matches!(accepted, BlockAccepted::Stored(_)), "{accepted:?}");
            worker.waiting.push(Waiting { reply, end: Instant::now() + SETTLE_TIME });
            Ok(worker.chainstate.tip().height)
        });
        assert_eq!(height, Ok(0), "the blocks are connected between jobs");
        assert_eq!(replied.recv(), Ok(()));
        assert_eq!(chain.view().tip.height, 1);
        // With nothing to connect there is nothing to wait for, and after a stop nobody waits.
        assert_eq!(chain.wait_until_connected(), Ok(()));
        chain.stop();
        thread.join().unwrap();
        assert_eq!(chain.wait_until_connected(), Err(Stopped));
    }
}
