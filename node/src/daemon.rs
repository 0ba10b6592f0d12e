//! `-daemon`: the same command line once more, in a process of its own that has no terminal.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::terminal;

/// How often `-daemonwait` looks whether the node is ready.
const POLL: Duration = Duration::from_millis(20);

/// Starts the program again in the background; with `pid_file` returns when the node has written
/// it, which it does when it is ready.
///
/// # Errors
///
/// Returns an error if the process cannot be started.
pub(crate) fn start(words: &[OsString], pid_file: Option<&Path>) -> Result<ExitCode> {
    terminal::print_line("Cofferdam starting");
    let program = std::env::current_exe().context("finding the program")?;
    let mut child = Command::new(program)
        .args(words)
        .args(["-nodaemon", "-nodaemonwait", "-printtoconsole=0"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // What is typed at the terminal is not for the node.
        .process_group(0)
        .spawn()
        .context("starting the node in the background")?;
    let Some(pid_file) = pid_file else {
        return Ok(ExitCode::SUCCESS);
    };
    let pid = child.id().to_string();
    let is_ready = || std::fs::read_to_string(pid_file).is_ok_and(|text| text.trim() == pid);
    while !is_ready() {
        if child.try_wait().context("waiting for the node")?.is_some() {
            terminal::print_complaint("Error during initialization - check debug.log for details");
            return Ok(ExitCode::FAILURE);
        }
        std::thread::sleep(POLL);
    }
    Ok(ExitCode::SUCCESS)
}
