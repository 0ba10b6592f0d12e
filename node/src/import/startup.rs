//! `InitLoad`: what a node imports after its start, on a thread of its own: block files that have to
//! be indexed anew, then those of `-loadblock` (`ImportBlocks` in Bitcoin Core's
//! `node/blockstorage.cpp`), and then the transaction queue: on a chain that is not there yet none of
//! its transactions would be valid. RPC and peers are served meanwhile.

use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use anyhow::{Context as _, Result};

use super::{Import, SourceFile};
use crate::config::BlocksConfig;
use crate::queue_file::load_at_start;
use crate::rebuild::{Rebuild, block_file_number};

/// The thread.
#[derive(Debug)]
pub(crate) struct InitLoad(JoinHandle<()>);

impl InitLoad {
    /// Starts it. The chain counts as loading until the blocks are there.
    ///
    /// # Errors
    ///
    /// Returns an error if the system refuses a thread, or the directory of block files cannot be
    /// read.
    pub(crate) fn start(
        import: Import,
        rebuild: Rebuild,
        blocks: &Path,
        options: &BlocksConfig,
        queue_file: Option<PathBuf>,
    ) -> Result<Self> {
        let (load, stop_after) = (options.load.clone(), options.stop_after_load);
        // Looked at now: files that peers' blocks begin from here on are indexed as they come.
        let own = if rebuild.is_scan()? { block_files(blocks)? } else { Vec::new() };
        let run = move || {
            tracing::info!("initload thread start");
            if let Err(error) = load_all(&import, &rebuild, &own, &load)
                && !import.shutdown.is_requested()
            {
                import.shutdown.fail(&format!("{error:#}"));
            }
            import.chain.loaded();
            if stop_after {
                tracing::info!("Stopping after block import");
                import.shutdown.request();
            } else {
                load_at_start(&import.chain, queue_file.as_deref(), &import.shutdown);
            }
            tracing::info!("initload thread exit");
        };
        let thread = std::thread::Builder::new().name("initload".into()).spawn(run);
        Ok(Self(thread.context("starting the thread that imports")?))
    }

    /// Waits for its end, which a stop brings about.
    pub(crate) fn join(self) {
        // A panic there has been reported to who waits for a stop.
        let _ = self.0.join();
    }
}

fn load_all(
    import: &Import,
    rebuild: &Rebuild,
    own: &[SourceFile],
    load: &[PathBuf],
) -> Result<()> {
    if rebuild.is_scan()? {
        let imported = import.run(own)?;
        if imported.interrupted {
            tracing::info!("Interrupt requested. Exit reindexing.");
            return Ok(());
        }
        for warning in imported.warnings {
            tracing::warn!("{warning}");
        }
        rebuild.finish()?;
        import.chain.block_files_indexed()?;
        tracing::info!("Reindexing finished");
    }
    let load = load.iter().cloned().map(|path| SourceFile { path, number: None });
    let load: Vec<SourceFile> = load.collect();
    for warning in import.run_what_can_be_read(&load)?.warnings {
        tracing::warn!("{warning}");
    }
    import.connect()
}

/// The chain's own block files, in order.
pub(super) fn block_files(blocks: &Path) -> Result<Vec<SourceFile>> {
    let what = || format!("reading the directory {}", blocks.display());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(blocks).with_context(what)? {
        let entry = entry.with_context(what)?;
        if let Some(number) = entry.file_name().to_str().and_then(block_file_number) {
            files.push(SourceFile { path: entry.path(), number: Some(number) });
        }
    }
    files.sort_by_key(|file| file.number);
    Ok(files)
}
