//! `cofferdam import`: the program that imports and ends.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, anyhow};
use cofferdam_ibd::UtxoHash;

use super::{Import, Imported, SourceFile, from_core, startup};
use crate::chain::{ChainHandle, ChainOptions};
use crate::clock::Clock;
use crate::config::Config;
use crate::data_dir::DataDir;
use crate::node::open_chainstate;
use crate::rebuild::Rebuild;
use crate::shutdown::Shutdown;
use crate::terminal;

/// Runs it in a data directory that is locked.
///
/// # Errors
///
/// Returns an error, with a text for the user, if anything was not imported; what was is kept.
pub(crate) fn run_import(
    config: &Config,
    data_dir: &DataDir,
    shutdown: &Shutdown,
    files: &[PathBuf],
) -> Result<ExitCode> {
    let rebuild = Rebuild::new(config, data_dir);
    let files = sources(config, &rebuild, data_dir, files)?;
    rebuild.prepare(config, || open_chainstate(config, data_dir, shutdown))?;
    let mut chainstate = open_chainstate(config, data_dir, shutdown)?;
    rebuild.take_rows(&mut chainstate)?;
    let clock = Clock::default();
    let options = ChainOptions::new(config, !rebuild.is_scan()?);
    let (chain, thread) = ChainHandle::start(chainstate, clock, shutdown.clone(), options)?;
    let import = Import { chain: chain.clone(), shutdown: shutdown.clone(), for_person: true };
    let imported = import_all(&import, &rebuild, data_dir, &files);
    let summary = match &imported {
        Ok(imported) if !imported.interrupted => print_summary(&chain),
        _ => Ok(()),
    };
    // What was imported is kept, if the machine allows.
    chain.stop();
    let joined = thread.join();
    if let Some(text) = shutdown.fatal() {
        return Err(anyhow!(text));
    }
    joined.map_err(|_| anyhow!("the chain thread panicked"))?;
    if shutdown.is_requested() {
        return Err(anyhow!(
            "interrupted at height {}; the same command goes on from there",
            chain.view().tip.height
        ));
    }
    let imported = imported?;
    summary?;
    if imported.rejected > 0 {
        return Err(anyhow!("blocks that are not valid: {}", imported.rejected));
    }
    Ok(ExitCode::SUCCESS)
}

/// The files to import besides the chain's own; those of Bitcoin Core become the chain's own if it
/// has none.
fn sources(
    config: &Config,
    rebuild: &Rebuild,
    data_dir: &DataDir,
    files: &[PathBuf],
) -> Result<Vec<SourceFile>> {
    let foreign = |path: PathBuf| SourceFile { path, number: None };
    let Some(dir) = &config.blocks.from_core else {
        return Ok(files.iter().cloned().map(foreign).collect());
    };
    // `--from-core DIR` and `--from-core=DIR` are the same.
    let dir = match (dir.as_str(), files) {
        ("" | "1", [dir]) => dir.clone(),
        ("" | "1", _) => return Err(anyhow!("--from-core takes one directory")),
        (dir, []) => PathBuf::from(dir),
        _ => return Err(anyhow!("--from-core takes a directory and no files")),
    };
    let core = from_core::blocks_dir(&dir, config.network)?;
    from_core::check_is_another(&core, data_dir.blocks_dir())?;
    if rebuild.is_scan()? {
        return Ok(Vec::new());
    }
    if rebuild.has_chainstate()? {
        tracing::info!("This data directory has a chain: blocks it lacks are copied into it");
        let files = startup::block_files(&core)?;
        return Ok(files.into_iter().map(|file| foreign(file.path)).collect());
    }
    from_core::check_network(&core, &config.params)?;
    rebuild.begin_to_take_files()?;
    if let Err(error) = from_core::take_over(&core, data_dir.blocks_dir(), config.blocks.copy) {
        // A chain that is pruned, say: the next start is as if nobody had tried.
        rebuild.give_up_taking_files()?;
        return Err(error);
    }
    rebuild.begin(crate::rebuild::Step::Scan)?;
    Ok(Vec::new())
}

fn import_all(
    import: &Import,
    rebuild: &Rebuild,
    data_dir: &DataDir,
    files: &[SourceFile],
) -> Result<Imported> {
    let mut imported = Imported::default();
    if rebuild.is_scan()? {
        imported = import.run(&startup::block_files(data_dir.blocks_dir())?)?;
        if !imported.interrupted {
            rebuild.finish()?;
            import.chain.block_files_indexed()?;
        }
    }
    if !files.is_empty() && !imported.interrupted {
        let more = import.run(files)?;
        imported.interrupted = more.interrupted;
        imported.rejected += more.rejected;
        imported.warnings.extend(more.warnings);
    }
    for warning in &imported.warnings {
        tracing::warn!("{warning}");
        terminal::print_warning(warning);
    }
    Ok(imported)
}

/// Prints what the chain is now.
fn print_summary(chain: &ChainHandle) -> Result<()> {
    let (tip, stats) = chain.query(|chain| (chain.tip(), chain.utxo_stats(UtxoHash::Both)))?;
    let stats = stats.context("reading the UTXO set")?;
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
