//! `debug.log`: one line an event, written before the call that logs returns.
//!
//! Tests of other projects look for a line as soon as they have the reply that follows it, so
//! nothing is buffered here.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::LogConfig;

/// Sends log lines to `debug.log` of the chain directory, and to the standard output if wanted.
///
/// One process has one log: the first call decides, later ones change nothing.
pub(crate) fn start(config: LogConfig, chain_dir: &Path) -> Result<()> {
    let path = chain_dir.join("debug.log");
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o600);
    let file = options
        .open(&path)
        .with_context(|| format!("Could not open debug log file {}", path.display()))?;
    let level = config.level.as_str().to_lowercase();
    let filter =
        format!("info,cofferdam_node={level},cofferdam_ibd={level},cofferdam_storage={level}");
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(filter))
        .with_ansi(false)
        .with_target(false)
        .with_writer(Sink { file, console: config.console })
        .finish();
    let _ = tracing::subscriber::set_global_default(subscriber);
    Ok(())
}

/// The file, and the standard output.
struct Sink {
    file: File,
    console: bool,
}

impl<'a> MakeWriter<'a> for Sink {
    type Writer = SinkWriter<'a>;

    fn make_writer(&'a self) -> SinkWriter<'a> {
        SinkWriter(self)
    }
}

/// Writes whole lines: a file in append mode takes each as one piece, whatever thread it is from.
struct SinkWriter<'a>(&'a Sink);

impl Write for SinkWriter<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // A log that cannot be written must not stop a node, nor fill its standard error.
        let _ = (&self.0.file).write_all(line);
        if self.0.console {
            let _ = io::stdout().write_all(line);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
