//! `Error`: what can go wrong in a store, with what was being done to what.

use std::io;
use std::path::{Path, PathBuf};

/// The result of every fallible operation of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong. Messages do not repeat their source: print the chain.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused a file operation.
    #[error("cannot {action} {path}")]
    Io {
        /// What was being done, as a verb.
        action: &'static str,
        /// To which file or directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The disk (or the quota) is full. Nothing acknowledged is lost: make room and open again.
    #[error("no space left to {action} {path}")]
    Full {
        /// What was being done, as a verb.
        action: &'static str,
        /// To which file or directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Stored bytes are not what was written, or something that was durable is missing.
    #[error("corrupt storage: {what}")]
    Corrupt {
        /// What was found, where, and what had been expected.
        what: String,
    },
    /// An earlier write or fsync failed: writes are refused until the store is opened again.
    #[error("the store refuses writes since an earlier failure ({cause})")]
    Poisoned {
        /// The first failure.
        cause: String,
    },
    /// A database engine failed.
    #[error("{engine} cannot {action}")]
    Backend {
        /// The engine's name.
        engine: &'static str,
        /// What was being done, as a verb.
        action: &'static str,
        /// The engine's answer.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Another process, or another handle of this one, has the store open.
    #[error("{path} is locked by another process")]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// The engine exists but is not part of this build.
    #[error("engine `{engine}` is not in this build: compile with the cargo feature `{feature}`")]
    MissingFeature {
        /// The engine asked for.
        engine: &'static str,
        /// The cargo feature that brings it.
        feature: &'static str,
    },
    /// There is no engine of that name.
    #[error("unknown database engine `{name}`")]
    UnknownEngine {
        /// The name that was given.
        name: String,
    },
    /// The database was not opened with that tree, or the tree is reserved.
    #[error("no tree with id {id} is open to the caller")]
    UnknownTree {
        /// The tree's id.
        id: u8,
    },
    /// Something exceeds a bound of the format.
    #[error("{what} of {bytes} bytes exceeds the bound of {bytes_max}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size.
        bytes: u64,
        /// The bound.
        bytes_max: u64,
    },
    /// The disk is about to be full. Nothing was written: the same call may be tried again.
    #[error(
        "{path}: {free_bytes} bytes are free on this disk, fewer than the {wanted_bytes} that are \
         kept for what is under way"
    )]
    NoSpace {
        /// A directory on the disk.
        path: PathBuf,
        /// How much is free.
        free_bytes: u64,
        /// How much has to be.
        wanted_bytes: u64,
    },
    /// The caller's hook ended a replay.
    #[error("the replay of the log was interrupted; the next opening continues it")]
    Interrupted,
    /// A key that was asserted to be absent (`put_new`) is present.
    #[error("put_new of a key that is present: tree {tree_id}, key {key}")]
    NotFresh {
        /// The tree's id.
        tree_id: u8,
        /// The key in hex.
        key: String,
    },
    /// The caller broke the order of calls that the method's documentation demands.
    #[error("misuse: {what}")]
    Misuse {
        /// Which rule was broken.
        what: String,
    },
    /// The data was written by another version of the format.
    #[error("{what} has format version {found}, this build reads version {supported}")]
    Version {
        /// Which data.
        what: &'static str,
        /// The version found.
        found: u32,
        /// The version this build reads.
        supported: u32,
    },
    /// A read reaches beyond the end of a file.
    #[error("{path} has {file_bytes} bytes: cannot read {len} at offset {offset}")]
    OutOfBounds {
        /// The file.
        path: PathBuf,
        /// Where the read begins.
        offset: u64,
        /// How many bytes were wanted.
        len: u64,
        /// How many bytes the file has.
        file_bytes: u64,
    },
}

impl Error {
    /// Wraps an answer of the operating system; "no space" gets its own variant.
    #[must_use]
    pub fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::Full { action, path, source }
            }
            _ => Self::Io { action, path, source },
        }
    }

    /// Wraps an engine's own error.
    #[must_use]
    pub fn backend(
        engine: &'static str,
        action: &'static str,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        Self::Backend { engine, action, source: Box::new(source) }
    }

    /// Says that stored bytes are not what they must be.
    #[must_use]
    pub fn corrupt(what: impl Into<String>) -> Self {
        Self::Corrupt { what: what.into() }
    }

    /// Says that a rule of the API was broken.
    #[must_use]
    pub fn misuse(what: impl Into<String>) -> Self {
        Self::Misuse { what: what.into() }
    }

    /// The message followed by those of all its sources, on one line.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            text.push_str(": ");
            text.push_str(&error.to_string());
            source = error.source();
        }
        text
    }
}

/// Bytes in hex, for messages.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len().saturating_mul(2)), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_has_its_own_variant() {
        let error = Error::io("write", Path::new("x"), io::ErrorKind::StorageFull.into());
        assert!(matches!(error, Error::Full { .. }));
        let error = Error::io("write", Path::new("x"), io::ErrorKind::PermissionDenied.into());
        assert!(matches!(error, Error::Io { .. }));
    }

    #[test]
    fn chain_names_every_source_once() {
        let error = Error::io("write", Path::new("x"), io::Error::other("boom"));
        assert_eq!(error.chain(), "cannot write x: boom");
    }

    #[test]
    fn hex_is_two_digits_a_byte() {
        assert_eq!(hex(&[0, 0x0f, 0xff]), "000fff");
    }
}
