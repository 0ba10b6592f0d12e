//! Seeded bugs: each [`Mutation`] is caught by a test that holds for the code as it is.
//!
//! Each one is switched on in a process of its own, which runs the tests named by [`DETECTORS`]
//! and is stopped at the first that fails.

use std::env;
use std::fmt;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::mutation::{Mutation, VARIABLE};

/// What looks for bugs: parts of names of tests, and what is left out because it takes seconds and
/// finds nothing more. The crashes come last.
const DETECTORS: [&[&str]; 2] = [
    &[
        "tests::behaviour",
        "tests::damage",
        "tests::detect",
        "tests::generations",
        "tests::log_options",
        "wal::format",
        "wal::marker",
        "--skip=every_combination_replays",
        "--skip=a_large_batch",
    ],
    &["tests::crash::detect", "tests::crash::recovery", "tests::crash::segments"],
];
const PROCESSES: usize = 2;
/// A process that takes longer hangs.
const TIME_MAX: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(5);

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
enum End {
    /// All tests passed.
    Passed,
    /// A test failed: its name, and what it said.
    Failed(String, String),
    /// It was stopped after [`TIME_MAX`].
    Hung(String),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => write!(f, "SURVIVED"),
            Self::Failed(test, said) => write!(f, "{test}: {said}"),
            Self::Hung(test) => write!(f, "{test}: HANGS"),
        }
    }
}

/// Runs the detectors with that bug, until one finds it.
fn run(mutation: Option<Mutation>) -> End {
    let ends = DETECTORS.iter().map(|tests| run_some(tests, mutation));
    ends.into_iter().find(|end| *end != End::Passed).unwrap_or(End::Passed)
}

/// Runs tests in a process with that bug.
fn run_some(tests: &[&str], mutation: Option<Mutation>) -> End {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(tests).args(["--test-threads=1", "--nocapture"]);
    command.env("COFFERDAM_EFFORT", "quick").env_remove("COFFERDAM_CRASH").env_remove(VARIABLE);
    command.envs(mutation.map(|mutation| (VARIABLE, mutation.name())));
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let failed = AtomicBool::new(false);
    thread::scope(|scope| {
        let test = scope.spawn(|| running(stdout, &failed));
        let said = scope.spawn(|| last_words(stderr));
        let status = wait(&mut child, &failed);
        let (test, said) = (test.join().unwrap(), said.join().unwrap());
        match status {
            Some(true) => End::Passed,
            Some(false) => End::Failed(test, said),
            None => End::Hung(test),
        }
    })
}

/// The test that is running when one fails, or when the process ends.
fn running(stdout: ChildStdout, failed: &AtomicBool) -> String {
    let mut test = "no test".to_owned();
    for line in BufReader::new(stdout).split(b'\n') {
        let line = String::from_utf8_lossy(&line.unwrap()).into_owned();
        if let Some((name, _)) = line.strip_prefix("test ").and_then(|l| l.split_once(" ... ")) {
            name.clone_into(&mut test);
        }
        if line.ends_with("FAILED") {
            failed.store(true, Ordering::SeqCst);
            break;
        }
    }
    test
}

/// What the first panic said.
fn last_words(mut stderr: ChildStderr) -> String {
    let mut bytes = Vec::new();
    stderr.read_to_end(&mut bytes).unwrap();
    let said = String::from_utf8_lossy(&bytes);
    let mut lines = said.lines().skip_while(|line| !line.contains("panicked at"));
    let line = lines.nth(1).unwrap_or("no panic").trim();
    line.chars().take(110).collect()
}

/// Whether the process ends well; none if it does not end.
fn wait(child: &mut Child, failed: &AtomicBool) -> Option<bool> {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status.success());
        }
        let failed = failed.load(Ordering::SeqCst);
        if failed || started.elapsed() > TIME_MAX {
            child.kill().unwrap();
            child.wait().unwrap();
            return failed.then_some(false);
        }
        thread::sleep(POLL);
    }
}

#[test]
fn every_seeded_bug_is_caught() {
    let started = Instant::now();
    assert_eq!(run(None), End::Passed, "without a bug");
    println!("no bug: {:?}", started.elapsed());
    let count = Mutation::ALL.len();
    assert!(count >= 40, "{count}");
    let (todo, survivors) = (Mutex::new(Mutation::ALL.iter()), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..PROCESSES {
            scope.spawn(|| {
                loop {
                    let Some(mutation) = todo.lock().unwrap().next().copied() else { return };
                    let begun = Instant::now();
                    let end = run(Some(mutation));
                    let milliseconds = begun.elapsed().as_millis();
                    println!("{:28} {milliseconds:6} ms  {end}", mutation.name());
                    if end == End::Passed {
                        survivors.lock().unwrap().push(mutation);
                    }
                }
            });
        }
    });
    let survivors = survivors.into_inner().unwrap();
    println!("{} of {count} caught in {:?}", count - survivors.len(), started.elapsed());
    assert!(survivors.is_empty(), "not caught: {survivors:?}");
}
