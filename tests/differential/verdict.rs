//! What delivering a block did, in words that fit both sides.

use bitcoin::BlockHash;
use cofferdam_ibd::{Rejection, RejectionScope};

/// A broken rule and what it condemns.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Fault {
    pub(crate) reason: String,
    pub(crate) scope: RejectionScope,
}

impl Fault {
    pub(crate) fn new(reason: impl Into<String>, scope: RejectionScope) -> Self {
        Self { reason: reason.into(), scope }
    }
}

impl From<&Rejection> for Fault {
    fn from(rejection: &Rejection) -> Self {
        Self::new(rejection.code.as_ref(), rejection.scope)
    }
}

/// What taking in the block itself did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) enum Accepted {
    #[default]
    Stored,
    Duplicate,
    Rejected(Fault),
}

/// What delivering a block did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) accepted: Accepted,
    /// Blocks that were connected on the way, those of a branch that failed later included.
    pub(crate) connected: u32,
    /// Blocks that were found to break a rule when they were connected, in that order.
    pub(crate) invalid: Vec<(BlockHash, Fault)>,
}

impl Outcome {
    /// The first fault that showed.
    pub(crate) fn fault(&self) -> Option<&Fault> {
        match &self.accepted {
            Accepted::Rejected(fault) => Some(fault),
            _ => self.invalid.first().map(|(_, fault)| fault),
        }
    }
}
