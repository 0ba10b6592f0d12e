//! `cofferdam wal` and `cofferdam db`: looking at what a node has left on a disk; and `cofferdam
//! bench`, with the feature `bench`.
//!
//! A log is only read, also while a node writes it. Where the engine is asked it is opened as a
//! node would open it, which writes files of its own and needs its lock: its owner alone may do that.

#[cfg(feature = "bench")]
mod bench;
mod database;
mod log;
mod place;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

#[cfg(feature = "bench")]
pub(crate) use self::bench::Generate;
use self::place::Place;

/// What to look at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Tool {
    /// List the segments of a log.
    WalInspect {
        /// A data directory, its `chainstate`, or the log's own directory.
        dir: PathBuf,
    },
    /// Check every record of a log, with the engine's position if the engine is there.
    WalVerify {
        /// As above.
        dir: PathBuf,
    },
    /// List the records of a log.
    WalDump {
        /// As above.
        dir: PathBuf,
        /// Show this one with its keys and values.
        lsn: Option<u64>,
    },
    /// Engine, position, entries and sizes of a chain state.
    DbStats {
        /// A data directory or its `chainstate`.
        dir: PathBuf,
    },
    /// Make a chain to measure with.
    #[cfg(feature = "bench")]
    BenchGenerate(Generate),
}

/// Runs a tool.
pub(crate) fn run(tool: &Tool) -> Result<ExitCode> {
    match tool {
        Tool::WalInspect { dir } => log::inspect(&Place::find(dir)?),
        Tool::WalVerify { dir } => log::verify(&Place::find(dir)?),
        Tool::WalDump { dir, lsn: None } => log::dump(&Place::find(dir)?),
        Tool::WalDump { dir, lsn: Some(lsn) } => log::dump_one(&Place::find(dir)?, *lsn),
        Tool::DbStats { dir } => database::stats(&Place::find(dir)?),
        #[cfg(feature = "bench")]
        Tool::BenchGenerate(wanted) => bench::generate_chain(wanted),
    }
}
