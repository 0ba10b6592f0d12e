//! Commands of the user, run by the shell when something happens (`-blocknotify` and its like).
//!
//! They run beside the node, a few at a time: a command that hangs holds up no block.

use std::collections::VecDeque;
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use cofferdam_ibd::headers::HeaderStatus;
use cofferdam_ibd::pow::block_work;
use cofferdam_ibd::{Chainstate, HeaderRef};

use crate::chain::{ChainEvent, ChainHandle};
use crate::config::NotifyConfig;

/// Commands that may wait to be run; what is more is left out, and said in the log.
const WAITING_MAX: usize = 1024;
/// Commands that run at a time.
const RUNNING_MAX: usize = 16;
/// How often the ends of running commands are looked for.
const REAP_INTERVAL: Duration = Duration::from_millis(100);
/// How long the stop of the node waits for `-shutdownnotify`.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(30);

/// Blocks by which a chain that is not valid has to be longer before it is alarming.
const ALARMING_BLOCKS: u32 = 6;
const INVALID_CHAIN_WARNING: &str = "Warning: Found invalid chain more than 6 blocks longer than our best chain. This could be due to database corruption or consensus incompatibility with peers.";
/// What is said of a clock that is off (`TimeOffsets::WarnIfOutOfSync`).
pub(crate) const CLOCK_WARNING: &str = "Your computer's date and time appear to be more than 10 minutes out of sync with the network, this may lead to consensus failure. After you've confirmed your computer's clock, this message should no longer appear when you restart your node. Without a restart, it should stop showing automatically after you've connected to a sufficient number of new outbound peers, which may take some time. You can inspect the `timeoffset` field of the `getpeerinfo` and `getnetworkinfo` RPC methods to get more info.";

/// What is wrong with the chain or the clock, for RPC; clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Warnings(Arc<Mutex<Found>>);

#[derive(Debug, Default)]
struct Found {
    /// Rules that are unknown here hold: never taken back, as in Core.
    new_rules: Option<String>,
    invalid_chain: bool,
    clock_is_off: bool,
    /// The best block that is known to break a rule (Core's `m_best_invalid`).
    best_invalid: Option<HeaderRef>,
}

impl Warnings {
    /// Returns the texts.
    pub(crate) fn texts(&self) -> Vec<String> {
        let found = self.found();
        let invalid_chain = found.invalid_chain.then(|| INVALID_CHAIN_WARNING.to_owned());
        let clock = found.clock_is_off.then(|| CLOCK_WARNING.to_owned());
        found.new_rules.iter().cloned().chain(invalid_chain).chain(clock).collect()
    }

    /// Sets the warning of an invalid chain or takes it back; returns whether it is set and new.
    fn set_invalid_chain(&self, is_there: bool) -> bool {
        let was_there = std::mem::replace(&mut self.found().invalid_chain, is_there);
        is_there && !was_there
    }

    /// Sets the warning of a clock that is off or takes it back. No command of the user's is run for
    /// it, as in Core.
    pub(crate) fn set_clock_is_off(&self, is_off: bool) {
        self.found().clock_is_off = is_off;
    }

    /// Sets the warning of new rules, if there is none; returns whether it is new.
    fn set_new_rules(&self, warning: &str) -> bool {
        let mut found = self.found();
        let is_new = found.new_rules.is_none();
        found.new_rules.get_or_insert_with(|| warning.to_owned());
        is_new
    }

    fn found(&self) -> MutexGuard<'_, Found> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says that a rule holds, or is about to, that is unknown here.
pub(crate) fn new_rules_warning(bit: u8) -> String {
    format!("Unknown new rules activated (versionbit {bit})")
}

/// Runs the commands; clones share the thread, which ends with the last of them.
#[derive(Clone, Debug)]
pub(crate) struct Notifier {
    config: NotifyConfig,
    queue: SyncSender<String>,
    warnings: Warnings,
}

impl Notifier {
    /// Starts the thread, and lets it hear of the chain.
    ///
    /// # Errors
    ///
    /// Returns an error if the system gives no thread, or the chain has stopped.
    pub(crate) fn start(config: NotifyConfig, chain: &ChainHandle) -> Result<Self> {
        let (queue, commands) = sync_channel(WAITING_MAX);
        std::thread::Builder::new()
            .name("notify".into())
            .spawn(move || run_all(&commands))
            .context("starting the thread of notifications")?;
        let notifier = Self { config, queue, warnings: Warnings::default() };
        let listener = notifier.clone();
        chain.subscribe(Box::new(move |event| listener.on_event(event)))?;
        // What was found before the start is told of with the next tip.
        let warnings = notifier.warnings();
        chain.query(move |chainstate| {
            warnings.found().best_invalid = best_invalid(chainstate);
        })?;
        Ok(notifier)
    }

    /// Returns what is wrong with the chain or the clock, as it is kept up to date.
    pub(crate) fn warnings(&self) -> Warnings {
        self.warnings.clone()
    }

    /// The node is ready.
    pub(crate) fn started(&self) {
        if let Some(command) = &self.config.startup {
            self.run(command.clone());
        }
    }

    /// The node is about to stop: runs the commands and waits for them a while.
    pub(crate) fn stopping(&self) {
        let end = Instant::now() + SHUTDOWN_WAIT;
        let mut running: Vec<_> =
            self.config.shutdown.iter().filter_map(|command| spawn(command)).collect();
        while !running.is_empty() && Instant::now() < end {
            running.retain_mut(|running| !running.has_ended());
            std::thread::sleep(Duration::from_millis(5));
        }
        for Running { command, .. } in running {
            tracing::warn!("the node stops without waiting for {command}");
        }
    }

    fn on_event(&self, event: &ChainEvent<'_>) {
        let (chainstate, initial_download) = match event {
            ChainEvent::Tip { chainstate, from, initial_download } => {
                if !initial_download {
                    self.tell_blocks(chainstate, *from);
                    self.check_rules(chainstate);
                }
                (chainstate, *initial_download)
            }
            ChainEvent::Invalid { chainstate, initial_download, .. } => {
                self.warnings.found().best_invalid = best_invalid(chainstate);
                (chainstate, *initial_download)
            }
            ChainEvent::Invalidated { chainstate, initial_download, at } => {
                // Not its descendants, which are found at the next start, as in Core.
                let known = self.warnings.found().best_invalid;
                self.warnings.found().best_invalid =
                    best_of(chainstate, known.into_iter().chain([*at]));
                (chainstate, *initial_download)
            }
        };
        let alarm = !initial_download && self.is_alarming(chainstate);
        if self.warnings.set_invalid_chain(alarm) {
            tracing::warn!("{INVALID_CHAIN_WARNING}");
            self.alert(INVALID_CHAIN_WARNING);
        }
    }

    /// Returns whether the best chain that is not valid is much longer than the connected one
    /// (`CheckForkWarningConditions`).
    fn is_alarming(&self, chainstate: &Chainstate) -> bool {
        let headers = chainstate.headers();
        let mut found = self.warnings.found();
        // A user may have reconsidered it.
        found.best_invalid = best_of(chainstate, found.best_invalid);
        let tip = headers.entry(chainstate.tip_ref());
        let margin = std::iter::repeat_n(block_work(tip.header.bits), to_usize(ALARMING_BLOCKS));
        let alarming = margin.fold(tip.chain_work, |sum, work| sum + work);
        found.best_invalid.is_some_and(|at| headers.entry(at).chain_work > alarming)
    }

    /// Warns of rules that are unknown here and hold from now on.
    fn check_rules(&self, chainstate: &Chainstate) {
        for bit in chainstate.unknown_rules().active() {
            let warning = new_rules_warning(bit);
            if self.warnings.set_new_rules(&warning) {
                self.alert(&warning);
            }
        }
    }

    fn alert(&self, warning: &str) {
        if let Some(command) = &self.config.alert {
            self.run(command.replace("%s", &quoted(warning)));
        }
    }

    /// Runs the command of blocks for every block that was connected, or for the tip that is left.
    fn tell_blocks(&self, chainstate: &Chainstate, from: HeaderRef) {
        let Some(command) = &self.config.block else {
            return;
        };
        let headers = chainstate.headers();
        let tip = chainstate.tip_ref();
        let fork = headers.fork_point(from, tip);
        let (mut blocks, mut at) = (VecDeque::new(), tip);
        while at != fork && blocks.len() < WAITING_MAX {
            let entry = headers.entry(at);
            blocks.push_front(entry.hash);
            let Some(parent) = entry.parent else { break };
            at = parent;
        }
        if blocks.is_empty() {
            blocks.push_front(headers.entry(tip).hash);
        }
        for hash in blocks {
            self.run(command.replace("%s", &hash.to_string()));
        }
    }

    fn run(&self, command: String) {
        if self.queue.try_send(command).is_err() {
            tracing::warn!("too many notifications wait to be run: one is left out");
        }
    }
}

fn to_usize(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// Returns the best block that is known to break a rule, or to descend from one that does.
fn best_invalid(chainstate: &Chainstate) -> Option<HeaderRef> {
    best_of(chainstate, chainstate.headers().iter())
}

/// Returns the block of the most work among those that are known to break a rule.
fn best_of(
    chainstate: &Chainstate,
    blocks: impl IntoIterator<Item = HeaderRef>,
) -> Option<HeaderRef> {
    let headers = chainstate.headers();
    let is_failed = |at: &HeaderRef| headers.entry(*at).status.has(HeaderStatus::FAILED);
    blocks.into_iter().filter(is_failed).max_by_key(|at| headers.entry(*at).chain_work)
}

/// Returns a text as one word of the shell, without what it might read as more (Bitcoin Core's
/// `SanitizeString`).
fn quoted(text: &str) -> String {
    let is_safe = |c: &char| c.is_ascii_alphanumeric() || " .,;-_/:?@()".contains(*c);
    format!("'{}'", text.chars().filter(is_safe).collect::<String>())
}

/// A command under way.
struct Running {
    command: String,
    child: Child,
}

impl Running {
    /// Returns whether the command has ended; says so if it failed.
    fn has_ended(&mut self) -> bool {
        match self.child.try_wait() {
            Ok(None) => false,
            Ok(Some(status)) => {
                if !status.success() {
                    tracing::warn!("runCommand error: system({}) returned {status}", self.command);
                }
                true
            }
            Err(_) => true,
        }
    }
}

fn spawn(command: &str) -> Option<Running> {
    match Command::new("sh").args(["-c", command]).spawn() {
        Ok(child) => Some(Running { command: command.to_owned(), child }),
        Err(error) => {
            tracing::warn!("runCommand error: system({command}): {error}");
            None
        }
    }
}

/// Runs commands as they come, until nobody can send any more.
fn run_all(commands: &Receiver<String>) {
    let mut running: Vec<Running> = Vec::new();
    loop {
        running.retain_mut(|running| !running.has_ended());
        if running.len() >= RUNNING_MAX {
            std::thread::sleep(REAP_INTERVAL);
            continue;
        }
        let command = if running.is_empty() {
            commands.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            commands.recv_timeout(REAP_INTERVAL)
        };
        match command {
            Ok(command) => running.extend(spawn(&command)),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_alert_says_is_one_word_of_the_shell() {
        assert_eq!(quoted("a'; rm -rf \"$x\" `y` | z\n"), "'a; rm -rf x y  z'");
    }

    #[test]
    fn a_warning_is_new_once_until_it_was_taken_back() {
        let warnings = Warnings::default();
        assert!(!warnings.set_invalid_chain(false));
        assert!(warnings.set_invalid_chain(true));
        assert!(!warnings.set_invalid_chain(true));
        assert_eq!(warnings.texts(), [INVALID_CHAIN_WARNING]);
        assert!(warnings.set_new_rules("rules") && !warnings.set_new_rules("others"));
        warnings.set_clock_is_off(true);
        assert_eq!(warnings.texts(), ["rules", INVALID_CHAIN_WARNING, CLOCK_WARNING]);
        warnings.set_clock_is_off(false);
        assert!(!warnings.set_invalid_chain(false));
        assert_eq!(warnings.texts(), ["rules"]);
        assert!(warnings.set_invalid_chain(true));
    }

    #[test]
    fn commands_that_hang_leave_room_for_others_until_too_many_do() {
        let dir = tempfile::tempdir().unwrap();
        let (queue, commands) = sync_channel(WAITING_MAX);
        let run = move || run_all(&commands);
        let thread = std::thread::Builder::new().name("notify".into()).spawn(run).unwrap();
        let gate = dir.path().join("gate");
        // Gone with the directory at the latest: no command outlives the test.
        std::fs::write(&gate, "").unwrap();
        let hang = format!("while [ -e {} ]; do sleep 0.05; done", gate.display());
        for _ in 1..RUNNING_MAX {
            queue.send(hang.clone()).unwrap();
        }
        let told = dir.path().join("told");
        queue.send(format!("echo > {}", told.display())).unwrap();
        while !told.exists() {
            std::thread::sleep(Duration::from_millis(5));
        }
        std::fs::remove_file(&gate).unwrap();
        drop(queue);
        thread.join().unwrap();
    }
}
