//! Where our answers are not Bitcoin Core's, and why: all of it.
//!
//! The test fails over a difference that is not listed, and over a row that nothing needs any more.

/// A difference that is meant.
#[derive(Debug)]
pub(super) struct Exception {
    /// The method; `*` for all of them.
    pub(super) method: &'static str,
    /// The place, as `Difference` has it; a `*` at the end stands for anything.
    pub(super) path: &'static str,
    /// Why.
    pub(super) reason: &'static str,
}

const fn row(method: &'static str, path: &'static str, reason: &'static str) -> Exception {
    Exception { method, path, reason }
}

/// Every difference that is meant.
pub(super) const EXCEPTIONS: &[Exception] = &[row("getnetworkinfo", "version", "our own version")];

/// Methods of Core's that we do not have.
pub(super) const MISSING: &[(&str, &str)] = &[];
