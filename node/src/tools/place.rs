//! `Place`: which log, engine and blocks a directory named by the user means.

use std::fmt;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use cofferdam_ibd::TREES;
use cofferdam_storage::{BackendKind, BackendOptions, Database, DatabaseState, Error};

use crate::data_dir::written_backend;

/// The directories of the chains in a data directory; the main network's is the directory itself.
const CHAINS: [&str; 5] = ["", "testnet3", "testnet4", "signet", "regtest"];

/// Where a log is, and what belongs to it.
#[derive(Debug)]
pub(crate) struct Place {
    /// The log's directory.
    pub(crate) log: PathBuf,
    /// The directory `chainstate` around it, if it is in one.
    pub(crate) chainstate: Option<PathBuf>,
}

impl Place {
    /// Accepts a data directory with one chain in it, a chain's directory, its `chainstate`, or a
    /// log's directory.
    pub(crate) fn find(dir: &Path) -> Result<Self> {
        if !dir.is_dir() {
            bail!("{} is not a directory", dir.display());
        }
        if is_chainstate(dir) {
            return Ok(Self::of_chainstate(dir.to_path_buf()));
        }
        let chains = CHAINS.map(|chain| dir.join(chain).join("chainstate"));
        let found: Vec<PathBuf> = chains.into_iter().filter(|dir| is_chainstate(dir)).collect();
        match found.as_slice() {
            [] => {}
            [one] => return Ok(Self::of_chainstate(one.clone())),
            several => {
                let names: Vec<_> = several.iter().map(|dir| dir.display().to_string()).collect();
                bail!("{} has several chains, name one: {}", dir.display(), names.join(", "));
            }
        }
        let around = dir.parent().filter(|above| is_chainstate(above) && dir.ends_with("log"));
        Ok(Self { log: dir.to_path_buf(), chainstate: around.map(Path::to_path_buf) })
    }

    fn of_chainstate(dir: PathBuf) -> Self {
        Self { log: dir.join("log"), chainstate: Some(dir) }
    }

    /// The engine that wrote the chain state, if it is known, and its directory.
    pub(crate) fn engine(&self) -> Result<Option<(BackendKind, PathBuf)>> {
        let Some(chainstate) = &self.chainstate else {
            return Ok(None);
        };
        let kind = written_backend(chainstate)?;
        Ok(kind.map(|kind| (kind, chainstate.join(kind.name()))))
    }
}

fn is_chainstate(dir: &Path) -> bool {
    dir.join("BACKEND").is_file() || dir.join("log").is_dir()
}

/// Opens an engine that is there; makes none. As at a start it may replace and remove files, so that
/// it is opened for its owner alone: what another made, root above all, a node could not read.
pub(crate) fn open_engine(kind: BackendKind, dir: &Path) -> Result<Box<dyn Database>> {
    if !dir.is_dir() {
        bail!("{} is missing", dir.display());
    }
    check_owner(dir, rustix::process::geteuid().as_raw())?;
    match kind.open(dir, TREES, &BackendOptions::default()) {
        Ok(database) => Ok(database),
        Err(Error::Locked { .. }) => Err(Spared::InUse.into()),
        Err(other) => Err(other).with_context(|| format!("opening {}", dir.display())),
    }
}

/// Refuses a directory of somebody else's.
fn check_owner(dir: &Path, user: u32) -> Result<()> {
    let data = std::fs::metadata(dir).with_context(|| format!("reading {}", dir.display()))?;
    let owner = data.uid();
    if owner != user {
        return Err(Spared::OfAnother { dir: dir.to_path_buf(), owner }.into());
    }
    Ok(())
}

/// Why an engine is left alone that may be sound.
#[derive(Debug)]
pub(crate) enum Spared {
    /// A node has it open.
    InUse,
    /// It is somebody else's.
    OfAnother {
        /// The engine's directory.
        dir: PathBuf,
        /// Whose it is.
        owner: u32,
    },
}

impl fmt::Display for Spared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse => {
                f.write_str("the database is in use by another process; stop the node first")
            }
            Self::OfAnother { dir, owner } => write!(
                f,
                "{} belongs to user {owner}, and opening it writes files: run this as the node's user",
                dir.display()
            ),
        }
    }
}

impl std::error::Error for Spared {}

/// Asks an engine how far it is.
pub(crate) fn read_state(database: &dyn Database) -> Result<DatabaseState> {
    DatabaseState::read(database).context("reading the engine's position")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_is_opened_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let owner = std::fs::metadata(dir.path()).unwrap().uid();
        check_owner(dir.path(), owner).unwrap();
        let text = check_owner(dir.path(), owner + 1).unwrap_err().to_string();
        let wanted = format!("belongs to user {owner}, and opening it writes files");
        assert!(text.contains(&wanted), "{text}");
    }

    #[test]
    fn each_level_of_a_data_directory_names_the_same_log() {
        let dir = tempfile::tempdir().unwrap();
        let chainstate = dir.path().join("regtest/chainstate");
        let log = chainstate.join("log");
        std::fs::create_dir_all(&log).unwrap();
        std::fs::write(chainstate.join("BACKEND"), "sled\n").unwrap();
        for name in ["", "regtest", "regtest/chainstate", "regtest/chainstate/log"] {
            let place = Place::find(&dir.path().join(name)).unwrap();
            assert_eq!(place.log, log, "{name}");
            let engine = place.engine().unwrap().unwrap();
            assert_eq!(engine, (BackendKind::Sled, chainstate.join("sled")), "{name}");
        }
        assert!(Place::find(&dir.path().join("nothing")).is_err());
        std::fs::create_dir_all(dir.path().join("signet/chainstate/log")).unwrap();
        let text = Place::find(dir.path()).unwrap_err().to_string();
        assert!(text.contains("several chains") && text.contains("signet/chainstate"), "{text}");
    }
}
