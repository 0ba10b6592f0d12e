//! `-daemon`: the same command line once more, in a process of its own that has no terminal.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::terminal;

/// What ends the command line of the process in the background, and tells it that it is the one.
const BACKGROUND: [&str; 3] = ["-nodaemon", "-nodaemonwait", "-printtoconsole=0"];

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
        .args(BACKGROUND)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
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

/// Lets go of the terminal, in the process in the background: what is typed there is not for the
/// node, nor is its end (`setsid`, as Bitcoin Core's `fork_daemon`).
pub(crate) fn let_go_of_terminal(words: &[OsString]) {
    if words.ends_with(&BACKGROUND.map(OsString::from)) {
        // It fails only for one that leads a group of processes, and has let go then.
        let _ = rustix::process::setsid();
    }
}
