//! Moving the tip to the best block: down to the fork, then up through the pipeline.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bitcoin::BlockHash;

use super::stats::StatsTicket;
use super::{Chainstate, Progress, block_batch, corrupt, put_row};
use crate::block::{CheckedBlock, check_block_witnesses};
use crate::error::Result;
use crate::headers::{Extent, HeaderRef, HeaderStatus};
use crate::pipeline::connect::{ConnectContext, Connected, connect_block};
use crate::pipeline::load::{LoadContext, Loaded, Loader, Source};
use crate::pipeline::scripts::{BlockScripts, ScriptTicket, ScriptsEnd};
use crate::pipeline::{IN_FLIGHT_MAX, IN_FLIGHT_SPENT_MAX, LOAD_AHEAD};
use crate::rejection::Rejection;

/// Blocks of one run of the pipeline: long enough that filling it at the start does not matter.
const PATH_MAX: u32 = 1024;

/// While the coin statistics are behind, they have one in so many parts of the time.
const STATS_SHARE: u32 = 2;

/// What [`Chainstate::advance`] did.
#[must_use]
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Advance {
    /// Blocks connected.
    pub connected: u32,
    /// Blocks disconnected.
    pub disconnected: u32,
    /// Whether the tip is the best block that is stored: none is left to connect. (The coin statistics
    /// may be behind: [`Chainstate::coin_stats_are_behind`].)
    pub done: bool,
    /// Blocks found to break a rule, with the rule.
    pub invalid: Vec<(BlockHash, Rejection)>,
}

/// A block that is connected, while its scripts run.
struct InFlight {
    at: HeaderRef,
    undo: Option<Extent>,
    /// Bytes of the coins it spends.
    spent_len: usize,
    scripts: Option<ScriptTicket>,
    stats: Option<StatsTicket>,
    /// Whether the store has committed it.
    committed: bool,
    /// Rows that its batch took along.
    rows: Vec<HeaderRef>,
    size: Progress,
}

impl InFlight {
    /// Whether its scripts have run, and its coins are summed up.
    fn is_done(&mut self) -> bool {
        self.scripts.as_ref().is_none_or(ScriptTicket::is_done)
            && self.stats.as_mut().is_none_or(StatsTicket::is_done)
    }
}

/// Whether a block has to leave before another one is staged.
fn is_full(in_flight: &VecDeque<InFlight>) -> bool {
    let spent: usize = in_flight.iter().map(|block| block.spent_len).sum();
    in_flight.len() >= IN_FLIGHT_MAX || spent >= IN_FLIGHT_SPENT_MAX
}

/// When a run of the pipeline may pause: after a time or from a height on, with more than a certain
/// work.
#[derive(Clone, Copy)]
struct Pause {
    until: Instant,
    from_height: u32,
    above: u128,
}

/// How a run of the pipeline ended.
enum RunEnd {
    Path,
    Deadline,
    Invalid(HeaderRef, Rejection),
}

impl Chainstate {
    /// Connects stored blocks toward the one with the most work, until the tip is that block or the
    /// deadline has passed or the height of [`Chainstate::pause_from`] is reached; at least one
    /// block is connected if there is one. If the coin statistics are behind, they catch up for a part of
    /// the time, and blocks are connected without them: each call brings both further.
    ///
    /// Every block that was connected or disconnected is a step of its own: a crash at any moment
    /// leaves the state at a block boundary. But no caller sees a reorganisation in the middle: the
    /// deadline counts once the tip has more work than at the start, as in Bitcoin Core's
    /// `ActivateBestChainStep`. Only [`Chainstate::stop_on`] ends it at any block.
    ///
    /// # Errors
    ///
    /// Returns [`crate::Error`] if the machine failed; a block's fault is in [`Advance::invalid`].
    pub fn advance(&mut self, until: Instant) -> Result<Advance> {
        let mut advance = Advance::default();
        let above = self.headers.work(self.tip);
        let pause = Pause { until, from_height: self.pause_from, above };
        let now = Instant::now();
        self.catch_up_stats(now + until.saturating_duration_since(now) / STATS_SHARE)?;
        loop {
            self.write_index_if_large()?;
            let best = self.best_stored().filter(|&best| best != self.tip);
            let Some(best) = best else {
                self.candidates.prune(&self.headers, self.tip);
                self.write_index()?;
                advance.done = true;
                return Ok(advance);
            };
            let fork = self.headers.fork_point(self.tip, best);
            while self.tip != fork {
                self.disconnect_tip()?;
                advance.disconnected += 1;
            }
            match self.connect_path(best, pause, &mut advance.connected)? {
                RunEnd::Path => {}
                RunEnd::Deadline => return Ok(advance),
                RunEnd::Invalid(at, rejection) => {
                    let hash = self.headers.entry(at).hash;
                    tracing::debug!(%hash, %rejection, "block breaks a rule");
                    self.mark_failed(at);
                    advance.invalid.push((hash, rejection));
                }
            }
        }
    }

    /// Runs the pipeline over the next blocks between the tip and `target`.
    fn connect_path(
        &mut self,
        target: HeaderRef,
        pause: Pause,
        connected: &mut u32,
    ) -> Result<RunEnd> {
        let path = self.path_to(target)?;
        let pool = Arc::clone(&self.pool);
        let context = LoadContext {
            files: Arc::clone(&self.files),
            params: Arc::clone(&self.params),
            reader: self.store.read_handle(),
        };
        let first = self.headers.entry(self.tip).height.saturating_add(1);
        let mut loader = Loader::new(&pool, context, first, path, std::mem::take(&mut self.ahead));
        let mut in_flight = VecDeque::new();
        let end = self.run_pipeline(&mut loader, pause, &mut in_flight, connected);
        self.take_back(in_flight);
        let tip_height = self.headers.entry(self.tip).height;
        // A pause is over soon, and what was loaded for the next blocks is of use then.
        let (ahead, ready) = loader.end();
        self.ahead = ahead;
        for (at, block) in ready {
            let height = self.headers.entry(at).height;
            self.recent.insert(height, at, block, tip_height);
        }
        if end.is_ok() && self.stats.is_some() {
            self.write_index()?;
        }
        end
    }

    /// Stages block after block, and commits them in order. What is in flight afterwards is behind
    /// a failure.
    fn run_pipeline(
        &mut self,
        loader: &mut Loader<'_>,
        pause: Pause,
        in_flight: &mut VecDeque<InFlight>,
        connected: &mut u32,
    ) -> Result<RunEnd> {
        let mut parent = self.tip;
        // For all blocks of the run or none: the statistics take no block whose parent they have not.
        let with_stats = self.has_coin_stats();
        let end = loop {
            let is_over = Instant::now() >= pause.until
                || self.headers.entry(parent).height >= pause.from_height;
            let is_above = self.headers.work(parent) > pause.above;
            if is_above && is_over || self.stop.load(Ordering::Relaxed) {
                break RunEnd::Deadline;
            }
            while is_full(in_flight) {
                if let Some(end) = self.commit_oldest(in_flight, connected)? {
                    return Ok(end);
                }
            }
            let Some(loaded) = loader.next()? else {
                break RunEnd::Path;
            };
            let at = loaded.at;
            match self.stage(parent, loaded, in_flight.is_empty(), with_stats)? {
                Ok(staged) => in_flight.push_back(staged),
                Err(rejection) => break RunEnd::Invalid(at, rejection),
            }
            parent = at;
            // The fewer are staged, the fewer every read has to ask.
            while in_flight.front_mut().is_some_and(InFlight::is_done) {
                if let Some(end) = self.commit_oldest(in_flight, connected)? {
                    return Ok(end);
                }
            }
        };
        while !in_flight.is_empty() {
            if let Some(end) = self.commit_oldest(in_flight, connected)? {
                return Ok(end);
            }
        }
        Ok(end)
    }

    /// Returns the blocks between the tip (left out) and `target`, at most [`PATH_MAX`].
    fn path_to(&mut self, target: HeaderRef) -> Result<VecDeque<(HeaderRef, Source)>> {
        let from = self.headers.entry(self.tip).height;
        let to = self.headers.entry(target).height.min(from.saturating_add(PATH_MAX));
        let mut walk = self.headers.ancestor(target, to);
        let mut path = VecDeque::new();
        while let Some(at) = walk.filter(|&at| at != self.tip) {
            let entry = self.headers.entry(at);
            let hash = entry.hash;
            let (extent, parent, height) = (entry.block, entry.parent, entry.height);
            let source = match (self.recent.take(height, at), extent) {
                (Some(block), _) => Source::Ready(block),
                (None, Some(extent)) => Source::Stored(extent),
                (None, None) => return Err(corrupt(format!("block {hash} is not stored"))),
            };
            path.push_front((at, source));
            walk = parent;
        }
        Ok(path)
    }

    /// Connects a block to the staged state, and starts its scripts. A block without any is
    /// committed at once if it is `first`, and so waits for no other. Its coins are summed up if it is
    /// `with_stats`.
    fn stage(
        &mut self,
        parent: HeaderRef,
        loaded: Loaded,
        first: bool,
        with_stats: bool,
    ) -> Result<std::result::Result<InFlight, Rejection>> {
        let context = ConnectContext {
            params: &self.params,
            store: &self.store,
            parent: self.headers.chain(parent),
        };
        let Loaded { at, block, ahead, effects } = loaded;
        let connected = connect_block(&context, &block, &ahead, effects, &mut self.scratch)?;
        let Connected { mut batch, spent, flags } = match connected {
            Ok(connected) => connected,
            Err(rejection) => {
                self.check_read_back(at, &block)?;
                return Ok(Err(rejection));
            }
        };
        let size = Progress::of(&block, spent.len());
        let prev = self.headers.entry(parent).hash;
        let entry = self.headers.entry(at);
        let mut row = entry.row();
        if row.undo.is_none() {
            let stored =
                row.block.ok_or_else(|| corrupt(format!("block {} is not stored", entry.hash)))?;
            self.store.wait_for_space_in(self.files.dir(), spent.undo().len())?;
            row.undo = Some(self.files.append_undo(stored, &prev, spent.undo())?);
        }
        row.status.set(HeaderStatus::VALID);
        let this = self.block_ref(at);
        self.dirty.remove(&at);
        let mut rows = self.take_dirty(&mut batch);
        rows.push(at);
        put_row(&mut batch, &row, &this.hash);
        let batch = block_batch(this, prev, batch);
        let needs_scripts = self.needs_scripts(at);
        let committed = first && !needs_scripts && !with_stats;
        let stored =
            if committed { self.store.commit(batch).map(|_| ()) } else { self.store.stage(batch) };
        if let Err(error) = stored {
            self.dirty.extend(rows);
            return Err(error.into());
        }
        let spent_len = spent.undo().len();
        let work = Arc::new(BlockScripts { block, spent, flags });
        let stats =
            with_stats.then(|| StatsTicket::start(&self.pool, &self.params, &work, this.height));
        let scripts = needs_scripts.then(|| ScriptTicket::start(&self.pool, &self.verifier, &work));
        Ok(Ok(InFlight { at, undo: row.undo, spent_len, scripts, stats, committed, rows, size }))
    }

    /// Waits for the scripts of the oldest staged block, and commits it. If that fails, the block
    /// stays in flight.
    fn commit_oldest(
        &mut self,
        in_flight: &mut VecDeque<InFlight>,
        connected: &mut u32,
    ) -> Result<Option<RunEnd>> {
        let Some(oldest) = in_flight.front_mut() else {
            return Ok(None);
        };
        let scripts = oldest.scripts.take();
        let work = scripts.as_ref().map(ScriptTicket::work);
        let at = oldest.at;
        match scripts.map_or(Ok(ScriptsEnd::Passed), |scripts| scripts.wait(&self.stop))? {
            ScriptsEnd::Passed => {}
            ScriptsEnd::Failed(failed) => {
                if let Some(work) = &work {
                    self.check_read_back(at, &work.block)?;
                }
                let described = work.map(|work| work.describe(self.verifier.as_ref(), failed));
                let rejection = described.transpose()?;
                let unknown = || Rejection::consensus("block-script-verify-flag-failed");
                let rejection = rejection.unwrap_or_else(unknown);
                return Ok(Some(RunEnd::Invalid(at, rejection)));
            }
            ScriptsEnd::Stopped => return Ok(Some(RunEnd::Deadline)),
        }
        let delta = oldest.stats.take().map(StatsTicket::wait).transpose()?;
        if !oldest.committed {
            self.store.commit_staged()?;
        }
        let entry = self.headers.entry_mut(oldest.at);
        entry.status.set(HeaderStatus::VALID);
        entry.status.set(HeaderStatus::UNDO);
        entry.undo = oldest.undo;
        self.tip = oldest.at;
        let this = self.block_ref(self.tip);
        if let Some((stats, delta)) = self.stats.as_mut().zip(delta) {
            stats.connect(this, &delta)?;
        }
        self.connected += oldest.size;
        *connected += 1;
        in_flight.pop_front();
        Ok(None)
    }

    /// Before a block is called invalid: its witnesses, which are not checked when it is read back
    /// to be connected, are still those that were accepted. Else the machine is to blame.
    fn check_read_back(&self, at: HeaderRef, block: &CheckedBlock) -> Result<()> {
        let entry = self.headers.entry(at);
        // As it was when the block was accepted.
        let expected = entry.height >= self.params.segwit_height
            && !entry.status.has(HeaderStatus::NO_WITNESS);
        check_block_witnesses(block, expected).map_err(|rejection| {
            corrupt(format!("the witnesses of stored block {}: {rejection}", entry.hash))
        })
    }

    /// Takes back what is staged and not committed: the state is the tip's again.
    fn take_back(&mut self, in_flight: VecDeque<InFlight>) {
        let staged = self.store.abort_staged();
        if staged > 0 {
            tracing::debug!(staged, "took staged blocks back");
        }
        for block in in_flight {
            self.dirty.extend(block.rows);
        }
    }
}

const _: () = assert!(IN_FLIGHT_MAX <= LOAD_AHEAD, "what is staged was loaded before");
