//! What a worker process is told, as one line on its standard input.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use cofferdam_storage::BackendKind;

/// What is written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Store {
    /// A buffered store over the engine.
    Buffered(BackendKind),
    /// The engine alone, through its backend.
    Bare(BackendKind),
    /// Sled without its backend, so without the fsyncs that the backend adds to sled's `flush`.
    BareSledCrate,
}

/// A mode of durability, without its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Strict,
    Batched,
    Relaxed,
    Async,
}

impl Mode {
    pub(crate) const ALL: [Self; 4] = [Self::Strict, Self::Batched, Self::Relaxed, Self::Async];
}

/// What a worker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Writes until it is killed.
    Write,
    /// Opens what is there and compares it with the chain.
    Check,
}

/// One run of a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Job {
    pub(crate) role: Role,
    pub(crate) store: Store,
    pub(crate) mode: Mode,
    /// Of the chain: as long as the directory lives.
    pub(crate) chain_seed: u64,
    /// Of this run's options and pauses.
    pub(crate) run_seed: u64,
    pub(crate) dir: PathBuf,
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Buffered(kind) => write!(f, "buffered:{kind}"),
            Self::Bare(kind) => write!(f, "bare:{kind}"),
            Self::BareSledCrate => f.write_str("sled-crate"),
        }
    }
}

impl FromStr for Store {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let kind = |name: &str| name.parse::<BackendKind>().map_err(|error| error.to_string());
        match text.split_once(':') {
            Some(("buffered", name)) => kind(name).map(Self::Buffered),
            Some(("bare", name)) => kind(name).map(Self::Bare),
            None if text == "sled-crate" => Ok(Self::BareSledCrate),
            _ => Err(format!("no store: {text}")),
        }
    }
}

impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { role, store, mode, chain_seed, run_seed, dir } = self;
        write!(f, "{role:?} {store} {mode:?} {chain_seed:x} {run_seed:x} {}", dir.display())
    }
}

impl FromStr for Job {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let mut words = line.trim_end().splitn(6, ' ');
        let mut word = || words.next().ok_or_else(|| format!("too short: {line:?}"));
        let seed = |word: &str| u64::from_str_radix(word, 16).map_err(|error| error.to_string());
        let role = match word()? {
            "Write" => Role::Write,
            "Check" => Role::Check,
            other => return Err(format!("no role: {other}")),
        };
        let store = word()?.parse()?;
        let mode = word()?;
        let mode = Mode::ALL.into_iter().find(|known| format!("{known:?}") == mode);
        let mode = mode.ok_or_else(|| format!("no mode: {line:?}"))?;
        let (chain_seed, run_seed) = (seed(word()?)?, seed(word()?)?);
        Ok(Self { role, store, mode, chain_seed, run_seed, dir: word()?.into() })
    }
}

#[test]
fn jobs_survive_being_a_line() {
    for store in [
        Store::Buffered(BackendKind::Sled),
        Store::Bare(BackendKind::Rocksdb),
        Store::BareSledCrate,
    ] {
        for (role, mode) in [(Role::Write, Mode::Strict), (Role::Check, Mode::Async)] {
            let dir = PathBuf::from("/tmp/a directory");
            let job = Job { role, store, mode, chain_seed: u64::MAX, run_seed: 7, dir };
            assert_eq!(format!("{job}\n").parse(), Ok(job));
        }
    }
}
