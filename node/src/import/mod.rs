//! Blocks from files into the chain: `cofferdam import`, `-loadblock`, `-reindex`.
//!
//! Two passes. The first finds all blocks by their frames and puts them into the order of the
//! chain; the second reads them in that order, so that it does not matter in which order Core
//! wrote them, and no block waits in memory for its parent. A thread reads and checks ahead; this
//! one sends what is read to the chain's thread. Blocks that are stored already are not read
//! again: an import that was interrupted goes on where it was. Of a block that is there more than
//! once the next copy is read if one is damaged.
//!
//! A file may be one of the chain's own: its blocks are then indexed where they lie.

mod command;
mod from_core;
mod order;
mod progress;
mod scan;
mod startup;

pub(crate) use command::run_import;
pub(crate) use startup::InitLoad;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use bitcoin::BlockHash;
use bitcoin::block::Header;
use cofferdam_ibd::block::CheckedBlock;
use cofferdam_ibd::headers::{Extent, HeaderStatus};
use cofferdam_ibd::params::ChainParams;
use cofferdam_ibd::sync::HEADERS_MAX;
use cofferdam_ibd::{BlockAccepted, Rejection, RejectionScope};
use cofferdam_storage::FilePosition;
use rayon::prelude::{IntoParallelIterator as _, ParallelIterator as _};

use self::order::{Order, Record, order, tell_out_of_order};
use self::progress::ProgressReport;
use self::scan::{BlockFile, Scan};
use crate::chain::{ChainEvent, ChainHandle, Worker};
use crate::shutdown::Shutdown;
use crate::terminal;

/// Blocks that are read and checked together, by bytes and count: enough to keep all cores busy.
/// Two such batches wait at most.
const BATCH_BYTES: u64 = 16 << 20;
const BATCH_BLOCKS: usize = 1024;
const BATCHES_AHEAD: usize = 1;

/// How long blocks are connected before the wish to stop is looked at.
const SLICE: Duration = Duration::from_millis(500);

/// What an import did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Imported {
    /// Whether it was asked to stop before the end.
    pub(crate) interrupted: bool,
    /// Blocks that break a rule.
    pub(crate) rejected: usize,
    /// What was wrong with the files.
    pub(crate) warnings: Vec<String>,
}

/// A file to import.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct SourceFile {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// The number it has among the chain's own block files, if it is one of them.
    pub(crate) number: Option<u32>,
}

/// Where blocks go, and who is told.
#[derive(Clone, Debug)]
pub(crate) struct Import {
    /// The chain.
    pub(crate) chain: ChainHandle,
    /// The wish to stop.
    pub(crate) shutdown: Shutdown,
    /// Whether a person watches the terminal; a node's standard error stays empty.
    pub(crate) for_person: bool,
}

impl Import {
    /// Imports files.
    ///
    /// # Errors
    ///
    /// Returns an error if a file cannot be read or is another network's, or if the machine fails;
    /// what was imported until then is kept.
    pub(crate) fn run(&self, files: &[SourceFile]) -> Result<Imported> {
        let mut imported = Imported::default();
        let mut records = Vec::new();
        for number in 0..files.len() {
            self.find_blocks(files, number, &mut records, &mut imported.warnings)?;
        }
        self.take(files, records, imported)
    }

    /// Imports files, of which some may be missing or no block files: a node runs without them too, as
    /// Bitcoin Core does.
    ///
    /// All of them are found before the first block is taken in, so that the headers of all are known
    /// when it is asked which blocks are assumed to be valid.
    pub(super) fn run_what_can_be_read(&self, files: &[SourceFile]) -> Result<Imported> {
        let mut imported = Imported::default();
        let mut records = Vec::new();
        for (number, SourceFile { path, .. }) in files.iter().enumerate() {
            tracing::info!("Importing blocks file {}...", path.display());
            let found = self.find_blocks(files, number, &mut records, &mut imported.warnings);
            if let Err(error) = found {
                let path = path.display();
                imported.warnings.push(format!("Could not open blocks file {path}: {error:#}"));
            }
        }
        self.take(files, records, imported)
    }

    /// The second pass.
    fn take(
        &self,
        files: &[SourceFile],
        records: Vec<Record>,
        mut imported: Imported,
    ) -> Result<Imported> {
        let Order { blocks, unknown_parent, duplicates, copies } =
            self.chain.query(move |chain| {
                tell_out_of_order(&records, chain.headers());
                order(&records, chain.headers())
            })?;
        if unknown_parent > 0 {
            imported.warnings.push(format!(
                "{unknown_parent} blocks were left out: their ancestors are in none of the files"
            ));
        }
        tracing::info!("{} blocks to import, {duplicates} found twice", blocks.len());
        let failed = Arc::default();
        self.hear_of_failed(&failed)?;
        let mut run = Run { import: self, files, copies, failed, rejected: HashSet::new() };
        run.take_headers(&blocks)?;
        let blocks = run.wanted(blocks)?;
        run.take_blocks(&blocks)?;
        imported.rejected = run.rejected.len() + run.failed().len();
        imported.interrupted = self.shutdown.is_requested();
        Ok(imported)
    }

    /// The first pass, over one of the files.
    fn find_blocks(
        &self,
        files: &[SourceFile],
        file: usize,
        records: &mut Vec<Record>,
        warnings: &mut Vec<String>,
    ) -> Result<()> {
        let Some(SourceFile { path, number }) = files.get(file) else {
            return Ok(());
        };
        if self.shutdown.is_requested() {
            return Ok(());
        }
        if let Some(number) = number {
            let percent = file * 100 / files.len();
            tracing::info!("Reindexing block file blk{number:05}.dat ({percent}% complete)...");
        }
        let params = self.chain.params();
        let scan = BlockFile::open(path)
            .and_then(|mut opened| opened.scan(params, &|| self.shutdown.is_requested()))
            .with_context(|| format!("reading block file {}", path.display()))?;
        if number.is_none() {
            judge(path, &scan, params, warnings)?;
        }
        tracing::info!("{}: {} blocks", path.display(), scan.blocks.len());
        records.extend(scan.blocks.into_iter().map(|found| Record {
            hash: found.header.block_hash(),
            found,
            file,
        }));
        Ok(())
    }

    /// Connects whatever is stored, until nothing is left to do or a stop is asked for.
    pub(crate) fn connect(&self) -> Result<()> {
        while !self.shutdown.is_requested()
            && !self.chain.change(|worker| worker.connect(SLICE))?.done
        {}
        Ok(())
    }

    /// Collects the blocks that turn out to break a rule when they are connected.
    fn hear_of_failed(&self, failed: &Arc<Mutex<HashSet<BlockHash>>>) -> Result<()> {
        let (failed, for_person) = (Arc::downgrade(failed), self.for_person);
        self.chain.subscribe(Box::new(move |event| {
            if let (ChainEvent::Invalid { hash, rejection, .. }, Some(failed)) =
                (event, failed.upgrade())
                && failed.lock().unwrap_or_else(PoisonError::into_inner).insert(*hash)
            {
                report_rejection(hash, rejection, for_person);
            }
        }))?;
        Ok(())
    }
}

/// Says what is wrong with a file.
fn judge(path: &Path, scan: &Scan, params: &ChainParams, warnings: &mut Vec<String>) -> Result<()> {
    let path = path.display();
    if let (true, Some(foreign)) = (scan.blocks.is_empty(), scan.foreign) {
        bail!(
            "block file {path} is of network {foreign}, and this data directory of network {}",
            params.network
        );
    }
    if let Some(offset) = scan.cut_off_at {
        warnings.push(format!("{path}: the block at offset {offset} is cut off by the end of the file; {} before it were read", scan.blocks.len()));
    }
    if scan.garbage_bytes > 0 {
        warnings
            .push(format!("{path}: {} bytes are no block and were skipped", scan.garbage_bytes));
    }
    if scan.blocks.is_empty() && scan.cut_off_at.is_none() {
        warnings.push(format!("{path}: no blocks of network {}", params.network));
    }
    Ok(())
}

/// A block that was read and checked, or what is wrong with it.
struct Checked {
    record: Record,
    block: std::result::Result<CheckedBlock, Rejection>,
    /// Where it is in the chain's own files.
    stored: Option<Extent>,
}

/// The second pass.
struct Run<'a> {
    import: &'a Import,
    files: &'a [SourceFile],
    /// What else there is of a block, if its first copy is damaged.
    copies: HashMap<BlockHash, Vec<Record>>,
    /// Blocks that broke a rule when they were connected; the chain's thread adds to them.
    failed: Arc<Mutex<HashSet<BlockHash>>>,
    /// Blocks that were refused.
    rejected: HashSet<BlockHash>,
}

impl Run<'_> {
    fn failed(&self) -> MutexGuard<'_, HashSet<BlockHash>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes all headers in; those that break a rule are left out with their descendants.
    fn take_headers(&mut self, blocks: &[Record]) -> Result<()> {
        let mut left_out: HashSet<BlockHash> = HashSet::new();
        for chunk in blocks.chunks(HEADERS_MAX) {
            if self.import.shutdown.is_requested() {
                return Ok(());
            }
            let mut rest: Vec<Record> = chunk.to_vec();
            while !rest.is_empty() {
                rest.retain(|record| {
                    let descends = left_out.contains(&record.found.header.prev_blockhash);
                    if descends {
                        left_out.insert(record.hash);
                    }
                    !descends
                });
                let headers = rest.iter().map(|record| record.found.header).collect();
                let Some((bad, rejection)) = self.give_headers(headers)? else {
                    break;
                };
                let record = rest.get(bad).context("a header was refused and all are known")?;
                left_out.insert(record.hash);
                self.reject(record.hash, &rejection);
                rest.drain(..=bad);
            }
        }
        Ok(())
    }

    /// Gives headers to the chain; returns the first one that it refuses, and why.
    fn give_headers(&self, headers: Vec<Header>) -> Result<Option<(usize, Rejection)>> {
        Ok(self.import.chain.change(move |worker| {
            let now = worker.clock.seconds();
            let Err(rejection) = worker.chainstate.accept_headers(&headers, now)? else {
                return Ok(None);
            };
            let known = worker.chainstate.headers();
            let is_bad = |header: &Header| {
                let at = known.get(&header.block_hash());
                at.is_none_or(|at| known.entry(at).status.has(HeaderStatus::FAILED))
            };
            let bad = headers.iter().position(is_bad);
            Ok(Some((bad.unwrap_or(headers.len()), rejection)))
        })?)
    }

    /// Leaves out the blocks that need not be read: those that are stored, and those whose header
    /// was refused.
    fn wanted(&self, blocks: Vec<Record>) -> Result<Vec<Record>> {
        Ok(self.import.chain.query(move |chain| {
            let is_wanted = |record: &Record| {
                let headers = chain.headers();
                headers.get(&record.hash).is_some_and(|at| {
                    let entry = headers.entry(at);
                    entry.block.is_none() && !entry.status.has(HeaderStatus::FAILED)
                })
            };
            blocks.into_iter().filter(is_wanted).collect()
        })?)
    }

    fn take_blocks(&mut self, blocks: &[Record]) -> Result<()> {
        let bytes = blocks.iter().map(|record| u64::from(record.found.length)).sum();
        let mut report = ProgressReport::start(bytes, self.import.for_person);
        let (files, params) = (self.files, Arc::clone(self.import.chain.params()));
        std::thread::scope(|scope| {
            let (sender, receiver) = sync_channel(BATCHES_AHEAD);
            let reader = std::thread::Builder::new()
                .name("import-read".into())
                .spawn_scoped(scope, move || read_ahead(files, blocks, &params, &sender))
                .context("starting the thread that reads")?;
            let taken = self.take_batches(&receiver, &mut report);
            // Lets the reader see that nobody listens any more.
            drop(receiver);
            let read = reader.join().map_err(|_| anyhow!("the thread that reads panicked"))?;
            taken.and(read)
        })?;
        report.finish();
        Ok(())
    }

    fn take_batches(
        &mut self,
        batches: &Receiver<Vec<Checked>>,
        report: &mut ProgressReport,
    ) -> Result<()> {
        // Blocks that an earlier run stored may wait.
        self.import.connect()?;
        while let Ok(batch) = batches.recv() {
            if self.import.shutdown.is_requested() {
                return Ok(());
            }
            let lengths = batch.iter().map(|checked| u64::from(checked.record.found.length));
            let (count, bytes) = (batch.len(), lengths.sum());
            self.take_batch(batch)?;
            self.import.connect()?;
            report.add(count, bytes, self.import.chain.view().tip.height);
        }
        Ok(())
    }

    fn take_batch(&mut self, batch: Vec<Checked>) -> Result<()> {
        let refused = self.import.chain.change(move |worker| {
            let mut refused = Vec::new();
            for checked in batch {
                let hash = checked.record.hash;
                if let BlockAccepted::Rejected(rejection) = accept(worker, checked)? {
                    refused.push((hash, rejection));
                }
            }
            Ok(refused)
        })?;
        for (hash, rejection) in refused {
            // A child of a block that is not valid is no fault of its own.
            let is_child = matches!(rejection.code.as_ref(), "bad-prevblk" | "duplicate-invalid");
            if !is_child && !self.take_copy(hash, &rejection)? {
                self.reject(hash, &rejection);
            }
        }
        Ok(())
    }

    /// Takes another copy of a block that was refused, if only its bytes were wrong; returns whether
    /// there is one. Blocks above may have been taken before: the header was known to all.
    fn take_copy(&mut self, hash: BlockHash, rejection: &Rejection) -> Result<bool> {
        if rejection.scope != RejectionScope::Bytes {
            return Ok(false);
        }
        for record in self.copies.remove(&hash).unwrap_or_default() {
            let raw = read_block(self.files, &record, &mut None)?;
            let checked = check(self.files, record, raw, self.import.chain.params());
            let accepted = self.import.chain.change(move |worker| accept(worker, checked))?;
            if !matches!(accepted, BlockAccepted::Rejected(_)) {
                tracing::warn!("block {hash}: a copy is damaged ({rejection}), another is taken");
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn reject(&mut self, hash: BlockHash, rejection: &Rejection) {
        if self.rejected.insert(hash) {
            report_rejection(&hash, rejection, self.import.for_person);
        }
    }
}

fn report_rejection(hash: &BlockHash, rejection: &Rejection, for_person: bool) {
    let text = format!(
        "block {hash} was left out with its descendants: it is not valid, or damaged: {rejection}"
    );
    tracing::warn!("{text}");
    if for_person {
        terminal::print_warning(&text);
    }
}

/// Reads and checks blocks in order, until all are read or nobody listens.
fn read_ahead(
    files: &[SourceFile],
    blocks: &[Record],
    params: &ChainParams,
    sender: &SyncSender<Vec<Checked>>,
) -> Result<()> {
    let mut opened: Option<(usize, BlockFile)> = None;
    let mut rest = blocks;
    while !rest.is_empty() {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while let Some((record, behind)) = rest.split_first() {
            if bytes >= BATCH_BYTES || batch.len() >= BATCH_BLOCKS {
                break;
            }
            batch.push((*record, read_block(files, record, &mut opened)?));
            bytes += u64::from(record.found.length);
            rest = behind;
        }
        let check = |(record, raw)| check(files, record, raw, params);
        let checked: Vec<Checked> = batch.into_par_iter().map(check).collect();
        if sender.send(checked).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

fn check(files: &[SourceFile], record: Record, raw: Vec<u8>, params: &ChainParams) -> Checked {
    let number = files.get(record.file).and_then(|file| file.number);
    let stored = number.and_then(|file| {
        let offset = u32::try_from(record.found.offset).ok()?;
        Extent::of(FilePosition { file, offset }, &raw)
    });
    Checked { record, block: CheckedBlock::parse(raw, params), stored }
}

/// Gives a block to the chain.
fn accept(worker: &mut Worker, checked: Checked) -> cofferdam_ibd::Result<BlockAccepted> {
    let now = worker.clock.seconds();
    match (checked.block, checked.stored) {
        (Err(rejection), _) => Ok(BlockAccepted::Rejected(rejection)),
        (Ok(block), None) => worker.chainstate.accept_checked(block, now),
        (Ok(block), Some(stored)) => worker.chainstate.accept_stored(block, stored, now),
    }
}

fn read_block(
    files: &[SourceFile],
    record: &Record,
    opened: &mut Option<(usize, BlockFile)>,
) -> Result<Vec<u8>> {
    let path = &files.get(record.file).context("a record of no file")?.path;
    let what =
        || format!("reading block file {} at offset {}", path.display(), record.found.offset);
    if opened.as_ref().is_none_or(|(file, _)| *file != record.file) {
        *opened = Some((record.file, BlockFile::open(path).with_context(what)?));
    }
    let (_, file) = opened.as_mut().context("the file was just opened")?;
    file.read_at(record.found.offset, record.found.length).with_context(what)
}
