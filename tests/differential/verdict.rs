//! What delivering a block did, in words that fit both sides.

use bitcoin::BlockHash;
use cofferdam_ibd::{Rejection, RejectionScope};

pub(crate) const SCRIPT: &str = "block-script-verify-flag-failed";
pub(crate) const DECODE: &str = "block-decode-failed";

/// A broken rule, what is said of it, and what it condemns.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Fault {
    pub(crate) reason: String,
    pub(crate) detail: Option<String>,
    pub(crate) scope: RejectionScope,
}

impl Fault {
    /// Reads a verdict as Core prints it: `reason, detail`.
    ///
    /// What is wrong with bytes that are no block each side says in its own words. Of a failed script
    /// Core also says what failed, in parentheses; the library's interface for scripts does not, and of
    /// several that fail any may be told: that part cannot be compared.
    pub(crate) fn told(text: &str, scope: RejectionScope) -> Self {
        let (reason, detail) = text.split_once(", ").unwrap_or((text, ""));
        let reason = reason.split_once(" (").map_or(reason, |(reason, _)| reason).to_owned();
        let is_own = [DECODE, SCRIPT].contains(&reason.as_str());
        let detail = Some(detail.trim_end()).filter(|detail| !detail.is_empty() && !is_own);
        Self { reason, detail: detail.map(str::to_owned), scope }
    }
}

impl From<&Rejection> for Fault {
    fn from(rejection: &Rejection) -> Self {
        Self::told(&rejection.to_string(), rejection.scope)
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
