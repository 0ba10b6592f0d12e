//! Figures: medians, alternating runs, Markdown tables; and what the environment asks for.

use std::env;
use std::fmt;
use std::fs;
use std::time::{Duration, Instant};

/// Several measurements of the same thing.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    sorted: Vec<f64>,
}

impl Sample {
    /// Takes measurements in any order.
    #[must_use]
    pub fn new(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        Self { sorted: values }
    }

    /// The value that a part `q` of the others does not exceed.
    #[must_use]
    pub fn quantile(&self, q: f64) -> f64 {
        let last = self.sorted.len().saturating_sub(1);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "an index into a vector, between 0 and its last"
        )]
        let index = (last as f64 * q).round() as usize;
        self.sorted.get(index).copied().unwrap_or(f64::NAN)
    }

    /// The one in the middle.
    #[must_use]
    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// The smallest.
    #[must_use]
    pub fn min(&self) -> f64 {
        self.quantile(0.0)
    }

    /// The largest.
    #[must_use]
    pub fn max(&self) -> f64 {
        self.quantile(1.0)
    }

    /// Smallest and largest as text, after a multiplication.
    #[must_use]
    pub fn spread(&self, scale: f64, digits: usize) -> String {
        format!("{:.digits$} to {:.digits$}", self.min() * scale, self.max() * scale)
    }
}

/// Measures several things in turn, `rounds` times: what else the machine does then falls on all
/// of them. Returns the results by thing, in the order of the rounds.
pub fn alternate<T, R>(
    rounds: usize,
    things: &[T],
    mut measure: impl FnMut(&T) -> R,
) -> Vec<Vec<R>> {
    let mut samples: Vec<Vec<R>> = things.iter().map(|_| Vec::new()).collect();
    for _ in 0..rounds {
        for (thing, sample) in things.iter().zip(&mut samples) {
            sample.push(measure(thing));
        }
    }
    samples
}

/// The quotients of measurements of the same round.
#[must_use]
pub fn ratios(numerators: &[f64], denominators: &[f64]) -> Sample {
    Sample::new(numerators.iter().zip(denominators).map(|(n, d)| n / d).collect())
}

/// What something took.
#[derive(Debug, Clone, Copy)]
pub struct Spent {
    /// Seconds by the clock.
    pub wall: f64,
    /// Processor seconds of the calling thread alone.
    pub processor: f64,
}

impl Spent {
    /// Runs something and takes its time.
    pub fn on<T>(something: impl FnOnce() -> T) -> (T, Self) {
        let (started, processor) = (Instant::now(), thread_time());
        let done = something();
        let wall = started.elapsed().as_secs_f64();
        (done, Self { wall, processor: (thread_time() - processor).as_secs_f64() })
    }
}

/// The processor time that the calling thread has used: on a busy machine it says more than the
/// time of day. The system counts it in steps of some milliseconds.
fn thread_time() -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    let nanoseconds = text.split(' ').next().expect("a field").parse().expect("a number");
    Duration::from_nanos(nanoseconds)
}

/// The processor time of all threads that are alive.
///
/// # Panics
///
/// Panics if the system does not tell.
#[must_use]
pub fn process_time() -> Duration {
    let tasks = fs::read_dir("/proc/self/task").expect("Linux");
    let time = |path: std::path::PathBuf| {
        // A thread may end in between.
        let text = fs::read_to_string(path.join("schedstat")).unwrap_or_default();
        text.split(' ').next().and_then(|field| field.parse().ok()).unwrap_or(0)
    };
    Duration::from_nanos(tasks.map(|task| time(task.expect("Linux").path())).sum())
}

/// How many a second.
#[must_use]
pub fn per_second(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

/// A number from the environment.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "a benchmark has no configuration but this")]
pub fn from_env(name: &str, default: usize) -> usize {
    env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// The words of the command line, without what cargo adds.
#[must_use]
pub fn words() -> Vec<String> {
    env::args().skip(1).filter(|word| !word.starts_with("--")).collect()
}

/// A Markdown table. The first column is text, the others are figures.
#[derive(Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Begins a table.
    #[must_use]
    pub fn new(columns: &[&str]) -> Self {
        Self { rows: vec![columns.iter().map(ToString::to_string).collect()] }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, row) in self.rows.iter().enumerate() {
            writeln!(f, "| {} |", row.join(" | "))?;
            if number == 0 {
                writeln!(f, "|---{}|", "|--:".repeat(row.len() - 1))?;
            }
        }
        Ok(())
    }
}
