//! The engines: the only place that names them. `BackendKind` turns a name into a `Database`.

pub(crate) mod lsm;
mod memory;
#[cfg(feature = "rocksdb")]
mod rocksdb;
#[cfg(feature = "rocksdb")]
mod rocksdb_ingest;
#[cfg(feature = "sled")]
mod sled;

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

pub use self::lsm::LsmDatabase;
pub use self::memory::MemoryDatabase;
#[cfg(feature = "rocksdb")]
pub use self::rocksdb::RocksDatabase;
#[cfg(feature = "sled")]
pub use self::sled::SledDatabase;

use crate::database::{Database, Tree};
use crate::error::{Error, Result};
use crate::file_system::StdFileSystem;

/// What an engine may be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackendOptions {
    /// Memory for the engine's own cache of what is on disk.
    pub cache_bytes: usize,
}

impl Default for BackendOptions {
    /// 64 MiB: enough for the upper levels of a UTXO set's index and filters.
    fn default() -> Self {
        Self { cache_bytes: 64 << 20 }
    }
}

/// The engines by name. One that is not compiled in can be named and says so when it is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BackendKind {
    /// Nothing survives; for tests.
    Memory,
    /// Pure Rust; small chains.
    Sled,
    /// RocksDB; C++.
    Rocksdb,
    /// This crate's own, made for buffered stores; any chain.
    Lsm,
}

impl BackendKind {
    /// Every engine there is, compiled in or not.
    pub const ALL: [Self; 4] = [Self::Memory, Self::Sled, Self::Rocksdb, Self::Lsm];

    /// The engine's name, which is also that of its cargo feature if it has one.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Sled => "sled",
            Self::Rocksdb => "rocksdb",
            Self::Lsm => "lsm",
        }
    }

    /// The engines of this build.
    #[must_use]
    pub fn available() -> Vec<Self> {
        let compiled_in = |kind: &Self| match kind {
            Self::Memory | Self::Lsm => true,
            Self::Sled => cfg!(feature = "sled"),
            Self::Rocksdb => cfg!(feature = "rocksdb"),
        };
        Self::ALL.into_iter().filter(compiled_in).collect()
    }

    /// Opens a database of this kind in the directory `path`.
    ///
    /// # Errors
    ///
    /// [`Error::MissingFeature`] if the engine is not compiled in; [`Error::Locked`] if another
    /// process has the directory open; or what the engine answers.
    pub fn open(
        self,
        path: &Path,
        trees: &[Tree],
        options: &BackendOptions,
    ) -> Result<Box<dyn Database>> {
        match self {
            Self::Memory => Ok(Box::new(MemoryDatabase::new(trees))),
            Self::Sled => open_sled(path, trees, options),
            Self::Rocksdb => open_rocksdb(path, trees, options),
            Self::Lsm => Ok(Box::new(LsmDatabase::open(Arc::new(StdFileSystem), path, trees)?)),
        }
    }
}

#[cfg(feature = "sled")]
fn open_sled(path: &Path, trees: &[Tree], options: &BackendOptions) -> Result<Box<dyn Database>> {
    Ok(Box::new(SledDatabase::open(path, trees, options)?))
}

#[cfg(not(feature = "sled"))]
fn open_sled(_: &Path, _: &[Tree], _: &BackendOptions) -> Result<Box<dyn Database>> {
    Err(Error::MissingFeature { engine: "sled", feature: "sled" })
}

#[cfg(feature = "rocksdb")]
fn open_rocksdb(
    path: &Path,
    trees: &[Tree],
    options: &BackendOptions,
) -> Result<Box<dyn Database>> {
    Ok(Box::new(RocksDatabase::open(path, trees, options)?))
}

#[cfg(not(feature = "rocksdb"))]
fn open_rocksdb(_: &Path, _: &[Tree], _: &BackendOptions) -> Result<Box<dyn Database>> {
    Err(Error::MissingFeature { engine: "rocksdb", feature: "rocksdb" })
}

impl fmt::Display for BackendKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for BackendKind {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.name() == name)
            .ok_or_else(|| Error::UnknownEngine { name: name.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_to_their_engine() {
        for kind in BackendKind::ALL {
            assert_eq!(kind.to_string().parse::<BackendKind>().unwrap(), kind);
        }
        assert!(matches!("leveldb".parse::<BackendKind>(), Err(Error::UnknownEngine { .. })));
    }

    #[test]
    fn an_engine_that_is_not_compiled_in_names_its_feature() {
        let dir = tempfile::tempdir().unwrap();
        for kind in BackendKind::ALL {
            let path = dir.path().join(kind.name());
            let opened = kind.open(&path, &[], &BackendOptions::default());
            let compiled_in = BackendKind::available().contains(&kind);
            match opened {
                Ok(_) => assert!(compiled_in),
                Err(Error::MissingFeature { feature, .. }) => {
                    assert!(!compiled_in);
                    assert_eq!(feature, kind.name());
                }
                Err(error) => panic!("{}", error.chain()),
            }
        }
    }
}
