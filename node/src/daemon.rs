//! `-daemon`: the same command line once more, in a process of its own that has no terminal.

use std::ffi::OsString;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result};

use crate::terminal;

/// What ends the command line of the process in the background, and tells it that it is the one.
const BACKGROUND: [&str; 3] = ["-nodaemon", "-nodaemonwait", "-printtoconsole=0"];

/// What the process in the background says when it is ready.
const READY: [u8; 1] = [1];

/// Starts the program again in the background; with `wait` returns when the node is ready.
///
/// # Errors
///
/// Returns an error if the process cannot be started.
pub(crate) fn start(words: &[OsString], wait: bool) -> Result<ExitCode> {
    terminal::print_line("Cofferdam starting");
    let program = std::env::current_exe().context("finding the program")?;
    // It says so at its standard input: the other two are those of the user's commands as well, which
    // may write there when nobody listens any more.
    let (mut ours, theirs) = UnixStream::pair().context("making a socket")?;
    let stdin = if wait { Stdio::from(OwnedFd::from(theirs)) } else { Stdio::null() };
    let child = Command::new(program)
        .args(words)
        .args(BACKGROUND)
        .stdin(stdin)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("starting the node in the background")?;
    // The node goes on without this process.
    drop(child);
    // Its end is that of the socket.
    if wait && ours.read_exact(&mut [0; READY.len()]).is_err() {
        terminal::print_complaint("Error during initialization - check debug.log for details");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// Tells who started the process in the background, and waits for it, that the node is ready.
pub(crate) fn tell_ready(words: &[OsString]) {
    if is_background(words)
        && let Ok(socket) = std::io::stdin().as_fd().try_clone_to_owned()
    {
        // Of one that nobody waits for it is no socket, which is as good.
        let _ = UnixStream::from(socket).write_all(&READY);
    }
}

fn is_background(words: &[OsString]) -> bool {
    words.ends_with(&BACKGROUND.map(OsString::from))
}

/// Lets go of the terminal, in the process in the background: what is typed there is not for the
/// node, nor is its end (`setsid`, as Bitcoin Core's `fork_daemon`).
pub(crate) fn let_go_of_terminal(words: &[OsString]) {
    if is_background(words) {
        // It fails only for one that leads a group of processes, and has let go then.
        let _ = rustix::process::setsid();
    }
}
