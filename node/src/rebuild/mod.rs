//! `Rebuild`: block index and chain state made anew from the block files, over as many starts as it
//! takes (`-reindex`, `-reindex-chainstate`, `import --from-core`).
//!
//! ```text
//! blocks/index/WHERE     says that the block index is there: without it the files have to be read anew
//! blocks/index/REBUILD   the step that comes next, if something is being built anew
//! blocks/index/ROWS      the rows of the block index, while the chain state is made anew
//! chainstate/MARKED      `WHERE` was made; directories of earlier versions have neither
//! ```
//!
//! Invariants: a step is on disk before it is begun, and can be begun again; what a step removes is
//! gone, durably, before the next step is on disk.

mod rows;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use cofferdam_ibd::Chainstate;
use cofferdam_storage::{BackendKind, FileSystem, StdFileSystem, write_atomic};

use crate::config::{Config, RebuildOption};
use crate::data_dir::{BACKEND_FILE, DataDir, INDEX_FILE, written_backend};
use crate::start_checks::{check_block_files, check_pruned};

const WHERE_TEXT: &str = "The block index is in the chain state: see the directory chainstate.\n";

/// The chain cannot be opened, and building it anew would help.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct NeedsRebuild(pub(crate) String);

impl std::fmt::Display for NeedsRebuild {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = &self.0;
        write!(f, "{text}.\nPlease restart with -reindex or -reindex-chainstate to recover.")
    }
}

impl std::error::Error for NeedsRebuild {}

/// What comes next, as `REBUILD` says it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// Take block files over: those that are here came that way.
    TakeFiles,
    /// Remove index, chain state and undo data.
    WipeAll,
    /// Read the block files.
    Scan,
    /// Remove the chain state; the rows are saved.
    WipeChainstate,
    /// Take the saved rows over.
    TakeRows,
}

const STEPS: [(Step, &str); 5] = [
    (Step::TakeFiles, "take files"),
    (Step::WipeAll, "wipe"),
    (Step::Scan, "scan"),
    (Step::WipeChainstate, "wipe chainstate"),
    (Step::TakeRows, "take rows"),
];

/// The directories that are rebuilt, and how far that is.
#[derive(Debug)]
pub(crate) struct Rebuild {
    fs: Arc<dyn FileSystem>,
    chain_dir: PathBuf,
    /// Where block files are, which may be another disk (`-blocksdir`); the index stays.
    blocks: PathBuf,
    index: PathBuf,
    prune: bool,
}

impl Rebuild {
    /// The rebuilding of a data directory.
    pub(crate) fn new(config: &Config, data_dir: &DataDir) -> Self {
        Self {
            fs: Arc::new(StdFileSystem),
            chain_dir: data_dir.chain_dir().to_owned(),
            blocks: data_dir.blocks_dir().to_owned(),
            index: data_dir.chain_dir().join("blocks").join("index"),
            prune: config.blocks.prune != crate::config::PruneMode::Off,
        }
    }

    /// Does what has to be done before the chain is opened. `open` opens it as it is, to save the
    /// rows of its index.
    ///
    /// # Errors
    ///
    /// Returns [`NeedsRebuild`] if index or chain state is missing, or blocks are of which the chain
    /// state would be made anew, and an error if the disk refuses.
    pub(crate) fn prepare(
        &self,
        config: &Config,
        open: impl FnOnce() -> Result<Chainstate>,
    ) -> Result<()> {
        if config.backend == Some(BackendKind::Memory) {
            return self.mark();
        }
        let step = self.step()?;
        match (config.blocks.rebuild, step) {
            (RebuildOption::All, _) => self.begin(Step::WipeAll)?,
            // Rows that are saved are of the chain state that is gone.
            (RebuildOption::Chainstate, None) if self.has_chainstate()? => {
                self.check_marks()?;
                let chainstate = open()?;
                // What it would be made of has to be there before it goes.
                check_block_files(&chainstate, &self.blocks)?;
                check_pruned(&chainstate, config.blocks.prune)?;
                rows::save(&self.fs, &self.index, &chainstate)?;
                chainstate.shutdown().context("closing the chain state")?;
                self.begin(Step::WipeChainstate)?;
            }
            (RebuildOption::Chainstate, None) if self.has_block_files()? => {
                tracing::warn!(
                    "The block index is gone with the chain state: -reindex-chainstate does what -reindex does"
                );
                self.begin(Step::WipeAll)?;
            }
            (RebuildOption::Chainstate, None) => {}
            (RebuildOption::Nothing | RebuildOption::Chainstate, Some(Step::TakeFiles)) => bail!(
                "import --from-core was interrupted, and some block files are missing. Run it again, or start with -reindex to go without them"
            ),
            (RebuildOption::Nothing | RebuildOption::Chainstate, Some(_)) => {}
            (RebuildOption::Nothing, None) => self.check_marks()?,
        }
        match self.step()? {
            Some(Step::WipeAll) => {
                self.wipe_chainstate(config)?;
                self.wipe_derived_files()?;
                self.begin(Step::Scan)?;
            }
            Some(Step::WipeChainstate) => {
                self.wipe_chainstate(config)?;
                self.begin(Step::TakeRows)?;
            }
            Some(Step::TakeFiles | Step::Scan | Step::TakeRows) | None => {}
        }
        self.mark()
    }

    /// Gives a chain that was just opened the rows that were saved for it.
    ///
    /// # Errors
    ///
    /// Returns an error if they cannot be read or stored.
    pub(crate) fn take_rows(&self, chainstate: &mut Chainstate) -> Result<()> {
        if self.step()? != Some(Step::TakeRows) {
            return Ok(());
        }
        chainstate.take_rows(rows::load(&self.index)?).context("taking over the block index")?;
        self.finish()
    }

    /// Returns whether the block files have to be read.
    pub(crate) fn is_scan(&self) -> Result<bool> {
        Ok(self.step()? == Some(Step::Scan))
    }

    /// Makes a step the next one.
    pub(crate) fn begin(&self, step: Step) -> Result<()> {
        self.fs.create_dir_all(&self.index)?;
        let (_, name) = STEPS.iter().find(|(known, _)| *known == step).context("a step")?;
        Ok(write_atomic(self.fs.as_ref(), &self.index.join("REBUILD"), name.as_bytes())?)
    }

    /// Makes it the next step to take block files over.
    ///
    /// # Errors
    ///
    /// Returns an error if there are others, whose place they would take.
    pub(crate) fn begin_to_take_files(&self) -> Result<()> {
        if self.step()? != Some(Step::TakeFiles) && self.has_block_files()? {
            bail!(
                "{} has block files and no chain state. Start with -reindex to build the chain from them, or move them away: those that are taken over would take their place",
                self.blocks.display()
            );
        }
        self.begin(Step::TakeFiles)
    }

    /// Takes [`Rebuild::begin_to_take_files`] back, unless a file has been taken.
    pub(crate) fn give_up_taking_files(&self) -> Result<()> {
        if self.has_block_files()? { Ok(()) } else { self.finish() }
    }

    /// Says that nothing is left to be built.
    pub(crate) fn finish(&self) -> Result<()> {
        // The step goes first, durably: it must not be there without its rows.
        for name in ["REBUILD", "ROWS"] {
            let path = self.index.join(name);
            if self.fs.exists(&path)? {
                self.fs.remove(&path)?;
                self.fs.sync_dir(&self.index)?;
            }
        }
        Ok(())
    }

    /// Returns whether a chain state was ever made here.
    pub(crate) fn has_chainstate(&self) -> Result<bool> {
        Ok(written_backend(&self.chain_dir.join("chainstate"))?.is_some())
    }

    fn step(&self) -> Result<Option<Step>> {
        let path = self.index.join("REBUILD");
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        };
        let step = STEPS.iter().find(|(_, name)| *name == text.trim()).map(|(step, _)| *step);
        if step.is_none() {
            bail!("{}: unknown step \"{}\"", path.display(), text.trim());
        }
        Ok(step)
    }

    /// Refuses a chain of which half is missing: it would begin at the genesis block again, beside
    /// block files that nobody reads.
    fn check_marks(&self) -> Result<()> {
        let marked = self.chain_dir.join("chainstate/MARKED").exists();
        match (self.has_chainstate()?, self.index.join(INDEX_FILE).exists()) {
            (true, false) if marked => {
                Err(NeedsRebuild("Error initializing block database".into()).into())
            }
            (false, is_ours) if self.has_block_files()? => {
                if !is_ours {
                    // Core has no index in a directory of -blocksdir that would tell them.
                    tracing::warn!(
                        "{} has block files of unknown origin. If Bitcoin Core uses them, choose another directory: import --from-core takes them over into it, -reindex would spoil them for Core",
                        self.blocks.display()
                    );
                }
                Err(NeedsRebuild("Error opening coins database".into()).into())
            }
            _ => Ok(()),
        }
    }

    fn mark(&self) -> Result<()> {
        let path = self.index.join(INDEX_FILE);
        if !path.exists() {
            self.fs.create_dir_all(&self.index)?;
            write_atomic(self.fs.as_ref(), &path, WHERE_TEXT.as_bytes())?;
        }
        let path = self.chain_dir.join("chainstate/MARKED");
        if !path.exists() {
            write_atomic(self.fs.as_ref(), &path, b"")?;
        }
        Ok(())
    }

    fn wipe_chainstate(&self, config: &Config) -> Result<()> {
        let dir = self.chain_dir.join("chainstate");
        tracing::info!("Wiping the chain state in {}", dir.display());
        // The new one has the same engine, unless another one is asked for.
        self.remove_below(&dir, |name| name != BACKEND_FILE || config.backend.is_some())
    }

    /// Removes what can be made again from the blocks: undo data and indexes; and, of a pruned
    /// chain, blocks behind a gap, which have to be downloaded again (`CleanupBlockRevFiles`).
    fn wipe_derived_files(&self) -> Result<()> {
        let blocks = &self.blocks;
        let first_missing = (0_u32..).find(|number| !blocks.join(block_file(*number)).exists());
        let is_behind_gap = |name: &str| {
            let number = block_file_number(name);
            self.prune && number.is_some_and(|number| Some(number) >= first_missing)
        };
        self.remove_below(blocks, |name| {
            name.starts_with("rev") && name.ends_with(".dat") || is_behind_gap(name)
        })?;
        let indexes = self.chain_dir.join("indexes");
        if indexes.exists() { self.remove_below(&indexes, |_| true) } else { Ok(()) }
    }

    fn remove_below(&self, dir: &Path, is_removed: impl Fn(&str) -> bool) -> Result<()> {
        let what = || format!("removing files in {}", dir.display());
        for name in self.fs.list(dir).with_context(what)? {
            let path = dir.join(&name);
            if !is_removed(&name) {
                continue;
            }
            let removed = if path.is_dir() {
                std::fs::remove_dir_all(&path)
            } else {
                std::fs::remove_file(&path)
            };
            removed.with_context(what)?;
        }
        Ok(self.fs.sync_dir(dir)?)
    }

    fn has_block_files(&self) -> Result<bool> {
        let names = self.fs.list(&self.blocks)?;
        Ok(names.iter().any(|name| block_file_number(name).is_some()))
    }
}

/// The name of a block file.
pub(crate) fn block_file(number: u32) -> String {
    format!("blk{number:05}.dat")
}

/// The number in the name of a block file.
pub(crate) fn block_file_number(name: &str) -> Option<u32> {
    let number = name.strip_prefix("blk")?.strip_suffix(".dat")?.parse().ok()?;
    (block_file(number) == name).then_some(number)
}
