//! `Rejection`: a rule that a header or a block breaks, by Bitcoin Core's name for it.

use std::borrow::Cow;
use std::fmt;

/// What a rejection condemns.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RejectionScope {
    /// The header, for ever, and all its descendants (Core's `BLOCK_CONSENSUS` and
    /// `BLOCK_INVALID_HEADER`).
    Header,
    /// Only these bytes: the block of that header may come in another, valid form
    /// (`BLOCK_MUTATED`).
    Bytes,
    /// Nothing for ever: the header is too far in the future (`BLOCK_TIME_FUTURE`).
    Time,
    /// Nothing: the parent is not known (`BLOCK_MISSING_PREV`).
    MissingPrev,
    /// The header, because of an ancestor (`BLOCK_INVALID_PREV`).
    InvalidPrev,
    /// The header, found bad before (`BLOCK_CACHED_INVALID`).
    Cached,
    /// Nothing: the chain is not worth storing yet (`BLOCK_HEADER_LOW_WORK`).
    LowWork,
}

/// A fault of a header, a block or one of its transactions. A value, not an error: the machine is
/// well.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rejection {
    /// Bitcoin Core's reject string. Borrowed but for the version of `bad-version(0x%08x)`.
    pub code: Cow<'static, str>,
    /// What is condemned.
    pub scope: RejectionScope,
    /// Why a script failed, which Core puts in parentheses after the reject string.
    pub reason: Option<String>,
    /// What exactly is wrong, for people.
    pub detail: Option<String>,
}

impl Rejection {
    /// Returns a rejection without detail.
    #[must_use]
    pub const fn new(code: &'static str, scope: RejectionScope) -> Self {
        Self { code: Cow::Borrowed(code), scope, reason: None, detail: None }
    }

    /// Returns a rejection that condemns the header.
    #[must_use]
    pub const fn consensus(code: &'static str) -> Self {
        Self::new(code, RejectionScope::Header)
    }

    /// Returns a rejection that condemns only these bytes.
    #[must_use]
    pub const fn mutated(code: &'static str) -> Self {
        Self::new(code, RejectionScope::Bytes)
    }

    /// Adds why a script failed.
    #[must_use]
    pub fn with_reason(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    /// Returns the reject string with the reason: what `submitblock` answers.
    #[must_use]
    pub fn full_code(&self) -> String {
        match &self.reason {
            Some(reason) => format!("{} ({reason})", self.code),
            None => self.code.clone().into_owned(),
        }
    }

    /// Adds a detail.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.full_code())?;
        match &self.detail {
            Some(detail) => write!(f, ", {detail}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_as_in_core() {
        let rejection = Rejection::consensus("bad-txns-vin-empty");
        assert_eq!(rejection.to_string(), "bad-txns-vin-empty");
        let rejection = rejection.with_detail("transaction 3");
        assert_eq!(rejection.to_string(), "bad-txns-vin-empty, transaction 3");
        let rejection = rejection.with_reason("why");
        assert_eq!(rejection.to_string(), "bad-txns-vin-empty (why), transaction 3");
        assert_eq!(rejection.full_code(), "bad-txns-vin-empty (why)");
    }
}
