//! `Error`: the machine failed. A fault of a block is a [`Rejection`](crate::Rejection).

/// The result of what only a failure of the machine can stop.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong. Messages do not repeat their source: print the chain.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The store or a file failed.
    #[error("the store failed")]
    Storage(#[from] cofferdam_storage::Error),
    /// Stored bytes are not what this crate wrote.
    #[error("corrupt chain data: {what}")]
    Corrupt {
        /// What was found, where, and what had been expected.
        what: String,
    },
    /// The tip cannot be taken back, since it or its undo data cannot be read.
    #[error("failed to disconnect a block")]
    Disconnect {
        /// Why not.
        source: Box<Self>,
    },
    /// The script library could not be asked.
    #[error("cannot verify scripts: {what}")]
    Script {
        /// What it was asked for, and its answer.
        what: String,
    },
    /// The pool of validation threads could not be started.
    #[error("cannot start the validation threads")]
    Threads {
        /// The system's answer.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
