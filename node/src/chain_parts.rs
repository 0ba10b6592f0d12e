//! What the chain's thread is given and gives back: options, views, fates of blocks.

use std::sync::mpsc::SyncSender;
use std::time::Instant;

use bitcoin::BlockHash;
use cofferdam_ibd::{BlockAccepted, BlockRef, Chainstate, HeaderRef, Rejection};

use crate::config::Config;
use crate::index;
use crate::notify::new_rules_warning;
use crate::prune::Pruner;

/// The chain's thread has stopped, or is about to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Stopped;

impl std::fmt::Display for Stopped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the node is shutting down")
    }
}

impl std::error::Error for Stopped {}

/// What is known of the chain without asking its thread.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ChainView {
    /// The connected tip.
    pub(crate) tip: BlockRef,
    /// The header with the most work.
    pub(crate) best_header: BlockRef,
    /// Time of that header.
    pub(crate) best_header_time: u32,
    /// Whether the chain is still being downloaded.
    pub(crate) initial_download: bool,
}

/// What subscribers are told, on the chain's thread.
pub(crate) enum ChainEvent<'a> {
    /// The tip moved from `from` to the chainstate's tip.
    Tip {
        /// The chain, tip moved.
        chainstate: &'a Chainstate,
        /// The tip before.
        from: HeaderRef,
        /// Whether the chain is still being downloaded.
        initial_download: bool,
    },
    /// A stored block turned out to break a rule.
    Invalid {
        /// The chain, the block and its descendants marked.
        chainstate: &'a Chainstate,
        /// Whether the chain is still being downloaded.
        initial_download: bool,
        /// The block.
        hash: BlockHash,
        /// The rule.
        rejection: &'a Rejection,
    },
    /// A user rejected a block, and with it its descendants.
    Invalidated {
        /// The chain, the blocks marked and disconnected.
        chainstate: &'a Chainstate,
        /// Whether the chain is still being downloaded.
        initial_download: bool,
        /// The block.
        at: HeaderRef,
    },
}

impl ChainEvent<'_> {
    /// Says in the log that the tip moved.
    pub(crate) fn log(&self) {
        let Self::Tip { chainstate, initial_download, .. } = self else { return };
        let tip = chainstate.headers().entry(chainstate.tip_ref());
        let line = format!("UpdateTip: new best={} height={}", tip.hash, tip.height);
        if *initial_download {
            tracing::debug!(target: "validation", "{line}");
            return;
        }
        let coming = chainstate.unknown_rules().locked_in().map(new_rules_warning);
        let coming: Vec<String> = coming.collect();
        let warning = format!(" warning='{}'", coming.join(", "));
        let warning = if coming.is_empty() { "" } else { &warning };
        tracing::info!(target: "validation", "{line}{warning}");
    }
}

/// Who waits for stored blocks to be connected.
#[derive(Debug)]
pub(crate) struct Waiting {
    /// Where the end of the wait is told.
    pub(crate) reply: SyncSender<()>,
    /// When it ends at the latest.
    pub(crate) end: Instant,
}

/// A user's block that is stored, while others are connected.
#[derive(Debug)]
pub(crate) struct Awaited {
    /// The block.
    pub(crate) hash: BlockHash,
    /// The rule that it turned out to break.
    pub(crate) invalid: Option<Rejection>,
}

/// What became of a block.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Submitted {
    /// What taking it in did; `None` if it was not wanted.
    pub(crate) accepted: Option<BlockAccepted>,
    /// The rule it broke when it was connected.
    pub(crate) invalid: Option<Rejection>,
    /// Whether it is part of the connected chain.
    pub(crate) connected: bool,
    /// A user's block of which the rest is not known yet; see `ChainHandle::finish`.
    pub(crate) pending: Option<BlockHash>,
}

impl Submitted {
    /// What became of a block that is connected at another time, if ever.
    pub(crate) const fn of(accepted: Option<BlockAccepted>) -> Self {
        Self { accepted, invalid: None, connected: false, pending: None }
    }

    /// What comes of a block that is refused unseen by the chain.
    pub(crate) const fn rejected(rejection: Rejection) -> Self {
        Self::of(Some(BlockAccepted::Rejected(rejection)))
    }
}

/// What the chain's thread is told besides its chain.
#[derive(Clone, Debug)]
pub(crate) struct ChainOptions {
    /// Which block files go.
    pub(crate) pruner: Pruner,
    /// Height to stop at.
    pub(crate) stop_at_height: Option<u32>,
    /// Whether all of the chain's own block files have been read.
    pub(crate) files_indexed: bool,
    /// Whether block files of others are imported (`-loadblock`).
    pub(crate) loads_files: bool,
}

impl ChainOptions {
    /// What a configuration says, for a chain whose block files have all been read or not.
    pub(crate) fn new(config: &Config, files_indexed: bool) -> Self {
        let pruner = Pruner::new(&config.blocks, config.network, files_indexed);
        let pruner = pruner.keep_for(index::names(config.indexes));
        let loads_files = !config.blocks.load.is_empty();
        Self { pruner, stop_at_height: config.stop_at_height, files_indexed, loads_files }
    }
}

/// Where a block came from, which decides how soon it is connected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum BlockSource {
    /// A user: connected when the call returns, if ever.
    User,
    /// A peer, and one was asked for it.
    Requested,
    /// A peer, and none was.
    Unrequested,
}
