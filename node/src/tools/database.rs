//! `db stats`.

use std::io::ErrorKind;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use cofferdam_ibd::TREES;
use cofferdam_storage::Count;

use super::log::{look, tip_text, verdict};
use super::place::{Place, Spared, open_engine, read_state};
use super::table::{align, line};
use crate::terminal;

/// Prints engine, position, entries and sizes.
pub(crate) fn stats(place: &Place) -> Result<ExitCode> {
    let (Some(chainstate), Some((kind, engine_dir))) = (&place.chainstate, place.engine()?) else {
        bail!("{} belongs to no chain state with an engine", place.log.display());
    };
    // Asked first: a node that starts at this moment is still found out by the engine's lock.
    if place.log.is_dir() && look(place, None)?.in_use {
        bail!(Spared::InUse);
    }
    // Sizes before the engine is opened, which may tidy up.
    let blocks = chainstate.parent().map(|dir| dir.join("blocks"));
    let sizes = [
        ("engine", bytes_below(&engine_dir)?),
        ("log", bytes_below(&place.log)?),
        ("blocks", blocks.map_or(Ok(0), |dir| bytes_below(&dir))?),
    ];
    let database = open_engine(kind, &engine_dir)?;
    let state = read_state(&*database)?;
    let report = look(place, Some(&state))?;

    terminal::print(&line("chain state", chainstate.display()));
    terminal::print(&line("engine", kind));
    terminal::print(&line("applied", state.applied_lsn));
    terminal::print(&line("writing", state.writing_lsn));
    terminal::print(&line("tip", state.tip.as_ref().map_or_else(|| "none".to_owned(), tip_text)));
    let records: u64 = report.segments.iter().map(|segment| segment.records).sum();
    let segments = report.segments.len();
    terminal::print(&line("log", format!("{segments} segments with {records} records")));
    terminal::print(&line("", verdict(&report).trim_end()));
    let mut rows = vec![["entries".to_owned(), "in tree of the engine".to_owned()]];
    for tree in TREES {
        let (count, how) = match database.len(*tree)? {
            Count::Exact(count) => (count, "counted"),
            Count::Estimate(count) => (count, "the engine's estimate"),
        };
        rows.push([count.to_string(), format!("{} ({how})", tree.name)]);
    }
    rows.push(["bytes".to_owned(), "on disk".to_owned()]);
    rows.extend(sizes.map(|(name, bytes)| [bytes.to_string(), name.to_owned()]));
    terminal::print(&align(&rows));
    Ok(ExitCode::SUCCESS)
}

/// The sizes of all files below a directory; 0 if it is not there.
fn bytes_below(dir: &Path) -> Result<u64> {
    let what = || format!("reading {}", dir.display());
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
        entries => entries.with_context(what)?,
    };
    let mut bytes = 0;
    for entry in entries {
        let entry = entry.with_context(what)?;
        let data = entry.metadata().with_context(what)?;
        bytes += if data.is_dir() { bytes_below(&entry.path())? } else { data.len() };
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_all_files_below() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("a/b")).unwrap();
        std::fs::write(dir.path().join("one"), [0; 10]).unwrap();
        std::fs::write(dir.path().join("a/b/two"), [0; 32]).unwrap();
        assert_eq!(bytes_below(dir.path()).unwrap(), 42);
        assert_eq!(bytes_below(&dir.path().join("none")).unwrap(), 0);
    }
}
