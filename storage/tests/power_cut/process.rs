//! The worker as its parent sees it: a process that says how far it has got.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::job::Job;
use crate::worker::MARK;

/// Far more than any opening takes here.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a worker has said.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Progress {
    /// It has opened the store.
    pub(crate) opened: bool,
    /// The newest batch whose commit has returned.
    pub(crate) newest: u64,
    /// The newest batch that must survive.
    pub(crate) promised: u64,
    /// What a check has found: all batches up to the first number, none after the second.
    pub(crate) found: Option<(u64, u64)>,
}

/// A running worker; killed when dropped.
#[derive(Debug)]
pub(crate) struct Worker {
    child: Child,
    progress: Arc<Mutex<Progress>>,
    reader: Option<JoinHandle<()>>,
    errors: PathBuf,
}

impl Worker {
    /// Starts this very program again as a worker. `errors` gets what it complains about.
    pub(crate) fn start(job: &Job, errors: &Path) -> Self {
        let program = std::env::current_exe().expect("a program");
        let mut child = Command::new(program)
            .args(["--ignored", "--exact", "worker", "--nocapture"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(errors).expect("a file for complaints"))
            .spawn()
            .expect("the program starts again");
        writeln!(child.stdin.take().expect("piped"), "{job}").expect("it listens");
        let said = BufReader::new(child.stdout.take().expect("piped"));
        let progress = Arc::new(Mutex::new(Progress::default()));
        let shared = Arc::clone(&progress);
        let listen = move || {
            for line in said.lines().map_while(Result::ok) {
                if let Some(words) = line.strip_prefix(MARK) {
                    shared.lock().expect("no panic").update(words);
                }
            }
        };
        let reader = thread::Builder::new().name("listen".to_owned()).spawn(listen);
        let reader = Some(reader.expect("a thread"));
        Self { child, progress, reader, errors: errors.to_path_buf() }
    }

    /// What it has said so far.
    pub(crate) fn progress(&self) -> Progress {
        *self.progress.lock().expect("no panic")
    }

    /// Waits until it has opened the store.
    ///
    /// # Errors
    ///
    /// If it ends before, with what it complained about.
    pub(crate) fn wait_opened(&mut self) -> Result<(), String> {
        let started = Instant::now();
        while !self.progress().opened {
            self.assert_runs()?;
            if started.elapsed() > PATIENCE {
                return Err(format!("it opens for {PATIENCE:?}: {}", self.complaints()));
            }
            thread::sleep(Duration::from_micros(200));
        }
        Ok(())
    }

    /// Fails if it has ended by itself, with what it complained about.
    pub(crate) fn assert_runs(&mut self) -> Result<(), String> {
        match self.child.try_wait().expect("a child") {
            None => Ok(()),
            Some(status) => Err(format!("it ended with {status}: {}", self.complaints())),
        }
    }

    /// Kills it; returns all that it has said.
    pub(crate) fn kill(mut self) -> Progress {
        self.end();
        self.progress()
    }

    /// Waits for its end; returns all that it has said.
    ///
    /// # Errors
    ///
    /// If it fails or does not end, with what it complained about.
    pub(crate) fn wait(mut self) -> Result<Progress, String> {
        let started = Instant::now();
        let status = loop {
            match self.child.try_wait().expect("a child") {
                Some(status) => break status,
                None if started.elapsed() > PATIENCE => {
                    return Err(format!("it runs for {PATIENCE:?}: {}", self.complaints()));
                }
                None => thread::sleep(Duration::from_micros(500)),
            }
        };
        self.end();
        if status.success() { Ok(self.progress()) } else { Err(self.complaints()) }
    }

    fn end(&mut self) {
        // It may have ended already.
        let _killed = self.child.kill();
        let _waited = self.child.wait();
        if let Some(reader) = self.reader.take() {
            reader.join().expect("it reads to the end");
        }
    }

    fn complaints(&self) -> String {
        fs::read_to_string(&self.errors).unwrap_or_default()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.end();
    }
}

impl Progress {
    fn update(&mut self, words: &str) {
        let mut words = words.split(' ');
        let what = words.next().unwrap_or_default();
        let mut number = || words.next().and_then(|word| word.parse::<u64>().ok());
        // A kill may have cut the last line short.
        let (Some(first), Some(second)) = (number(), number()) else { return };
        match what {
            "state" => self.found = Some((first, second)),
            _ => {
                self.opened = true;
                self.newest = self.newest.max(first);
                self.promised = self.promised.max(second);
            }
        }
    }
}
