//! `cofferdam import`: block files into a data directory.
//!
//! Two passes. The first finds all blocks by their frames and puts them into the order of the
//! chain; the second reads them in that order, so that it does not matter in which order Core
//! wrote them, and no block waits in memory for its parent. A thread reads and checks ahead; this
//! one owns the chainstate, stores and connects. Blocks that are stored already are not read
//! again: an import that was interrupted goes on where it was.

mod order;
mod progress;
mod scan;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use bitcoin::BlockHash;
use bitcoin::block::Header;
use cofferdam_ibd::block::CheckedBlock;
use cofferdam_ibd::headers::HeaderStatus;
use cofferdam_ibd::params::ChainParams;
use cofferdam_ibd::sync::HEADERS_MAX;
use cofferdam_ibd::{BlockAccepted, Chainstate, Rejection, UtxoHash};
use rayon::prelude::{IntoParallelIterator as _, ParallelIterator as _};

use self::order::{Order, Record, order};
use self::progress::ProgressReport;
use self::scan::{BlockFile, Scan};
use crate::clock::Clock;
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

/// Imports files.
///
/// # Errors
///
/// Returns an error if a file cannot be read or is another network's, or if the machine fails;
/// what was imported until then is kept.
pub(crate) fn import(
    chainstate: &mut Chainstate,
    files: &[PathBuf],
    clock: &Clock,
    shutdown: &Shutdown,
) -> Result<Imported> {
    let mut imported = Imported::default();
    let params = Arc::clone(chainstate.params());
    let records = find_blocks(files, &params, shutdown, &mut imported.warnings)?;
    let Order { blocks, unknown_parent, duplicates } = order(&records, chainstate.headers());
    drop(records);
    if unknown_parent > 0 {
        imported.warnings.push(format!(
            "{unknown_parent} blocks were left out: their ancestors are in none of the files"
        ));
    }
    tracing::info!("{} blocks to import, {duplicates} found twice", blocks.len());
    chainstate.stop_on(shutdown.flag());
    let mut run = Run { chainstate, clock, shutdown, failed: HashSet::new(), rejected: 0 };
    run.take_headers(&blocks)?;
    let blocks: Vec<Record> = blocks.into_iter().filter(|record| run.is_wanted(record)).collect();
    run.take_blocks(files, &blocks)?;
    imported.rejected = run.rejected;
    imported.interrupted = shutdown.is_requested();
    Ok(imported)
}

/// Prints what the chain is now.
///
/// # Errors
///
/// Returns an error if the UTXO set cannot be read.
pub(crate) fn print_summary(chainstate: &Chainstate) -> Result<()> {
    let stats = chainstate.utxo_stats(UtxoHash::Both)?;
    let tip = chainstate.tip();
    terminal::print_line(&format!("height {}", tip.height));
    terminal::print_line(&format!("tip {}", tip.hash));
    terminal::print_line(&format!("utxos {}", stats.txouts));
    for (name, hash) in [("hash_serialized_3", stats.hash_serialized_3), ("muhash", stats.muhash)] {
        if let Some(hash) = hash {
            terminal::print_line(&format!("{name} {hash}"));
        }
    }
    Ok(())
}

fn find_blocks(
    files: &[PathBuf],
    params: &ChainParams,
    shutdown: &Shutdown,
    warnings: &mut Vec<String>,
) -> Result<Vec<Record>> {
    let mut records = Vec::new();
    for (file, path) in files.iter().enumerate() {
        if shutdown.is_requested() {
            break;
        }
        let what = || format!("reading block file {}", path.display());
        let scan = BlockFile::open(path)
            .and_then(|mut opened| opened.scan(params, &|| shutdown.is_requested()))
            .with_context(what)?;
        judge(path, &scan, params, warnings)?;
        tracing::info!("{}: {} blocks", path.display(), scan.blocks.len());
        records.extend(scan.blocks.into_iter().map(|found| Record {
            hash: found.header.block_hash(),
            found,
            file,
        }));
    }
    Ok(records)
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

/// A block that was read and checked, with its bytes, or what is wrong with it.
type Checked = (Record, std::result::Result<CheckedBlock, Rejection>);

/// The second pass.
struct Run<'a> {
    chainstate: &'a mut Chainstate,
    clock: &'a Clock,
    shutdown: &'a Shutdown,
    /// Blocks that break a rule, and their descendants.
    failed: HashSet<BlockHash>,
    rejected: usize,
}

impl Run<'_> {
    /// Takes all headers in; those that break a rule are left out with their descendants.
    fn take_headers(&mut self, blocks: &[Record]) -> Result<()> {
        for chunk in blocks.chunks(HEADERS_MAX) {
            if self.shutdown.is_requested() {
                return Ok(());
            }
            let mut rest: Vec<&Record> = chunk.iter().collect();
            while !rest.is_empty() {
                rest.retain(|record| !self.descends_from_failed(record));
                let headers: Vec<Header> = rest.iter().map(|record| record.found.header).collect();
                let Err(rejection) =
                    self.chainstate.accept_headers(&headers, self.clock.seconds())?
                else {
                    break;
                };
                let known = self.chainstate.headers();
                let bad = rest.iter().position(|record| {
                    known
                        .get(&record.hash)
                        .is_none_or(|at| known.entry(at).status.has(HeaderStatus::FAILED))
                });
                let bad = bad.context("a header was refused and all are known")?;
                if let Some(record) = rest.get(bad).copied() {
                    self.reject(record, &rejection);
                }
                rest.drain(..=bad);
            }
        }
        Ok(())
    }

    /// Returns whether a block has to be read: its header is good and it is not stored.
    fn is_wanted(&self, record: &Record) -> bool {
        !self.failed.contains(&record.hash) && !self.chainstate.has_block(&record.hash)
    }

    fn take_blocks(&mut self, files: &[PathBuf], blocks: &[Record]) -> Result<()> {
        let bytes = blocks.iter().map(|record| u64::from(record.found.length)).sum();
        let mut report = ProgressReport::start(bytes);
        let params = Arc::clone(self.chainstate.params());
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
        self.connect()?;
        while let Ok(batch) = batches.recv() {
            if self.shutdown.is_requested() {
                return Ok(());
            }
            let (count, bytes) =
                (batch.len(), batch.iter().map(|(record, _)| u64::from(record.found.length)).sum());
            for (record, checked) in batch {
                self.take_block(&record, checked)?;
            }
            self.connect()?;
            report.add(count, bytes, self.chainstate.tip().height);
        }
        Ok(())
    }

    fn take_block(
        &mut self,
        record: &Record,
        checked: std::result::Result<CheckedBlock, Rejection>,
    ) -> Result<()> {
        if self.descends_from_failed(record) {
            return Ok(());
        }
        match checked {
            Ok(block) => {
                let accepted = self.chainstate.accept_checked(block, self.clock.seconds())?;
                if let BlockAccepted::Rejected(rejection) = accepted {
                    self.reject(record, &rejection);
                }
            }
            Err(rejection) => self.reject(record, &rejection),
        }
        Ok(())
    }

    fn connect(&mut self) -> Result<()> {
        loop {
            let advance = self.chainstate.advance(Instant::now() + SLICE)?;
            for (hash, rejection) in advance.invalid {
                if self.failed.insert(hash) {
                    self.rejected += 1;
                    report_rejection(&hash, &rejection);
                }
            }
            if advance.done || self.shutdown.is_requested() {
                return Ok(());
            }
        }
    }

    fn descends_from_failed(&mut self, record: &Record) -> bool {
        let descends = self.failed.contains(&record.found.header.prev_blockhash);
        if descends {
            self.failed.insert(record.hash);
        }
        descends
    }

    fn reject(&mut self, record: &Record, rejection: &Rejection) {
        if self.failed.insert(record.hash) {
            self.rejected += 1;
            report_rejection(&record.hash, rejection);
        }
    }
}

fn report_rejection(hash: &BlockHash, rejection: &Rejection) {
    tracing::warn!("block {hash} is not valid and was left out with its descendants: {rejection}");
    terminal::print_warning(&format!(
        "block {hash} is not valid and was left out with its descendants: {rejection}"
    ));
}

/// Reads and checks blocks in order, until all are read or nobody listens.
fn read_ahead(
    files: &[PathBuf],
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
        let check = |(record, raw): (Record, Vec<u8>)| (record, CheckedBlock::parse(raw, params));
        let checked: Vec<Checked> = batch.into_par_iter().map(check).collect();
        if sender.send(checked).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

fn read_block(
    files: &[PathBuf],
    record: &Record,
    opened: &mut Option<(usize, BlockFile)>,
) -> Result<Vec<u8>> {
    let path = files.get(record.file).context("a record of no file")?;
    let what =
        || format!("reading block file {} at offset {}", path.display(), record.found.offset);
    if opened.as_ref().is_none_or(|(file, _)| *file != record.file) {
        *opened = Some((record.file, BlockFile::open(path).with_context(what)?));
    }
    let (_, file) = opened.as_mut().context("the file was just opened")?;
    file.read_at(record.found.offset, record.found.length).with_context(what)
}
