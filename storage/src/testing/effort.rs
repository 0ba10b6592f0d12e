//! `Effort`: how much of an enumeration a test walks through.

use std::env;

/// The environment variable that chooses: `quick` (the default), `full` or `long`.
const VARIABLE: &str = "COFFERDAM_EFFORT";

/// How much time the heavy tests may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effort {
    /// Seconds, while the code is being written.
    Quick,
    /// Minutes, before a change lands: all that is promised to be tested.
    Full,
    /// Hours, before a release.
    Long,
}

impl Effort {
    /// Chooses by effort.
    pub fn pick<T>(self, quick: T, full: T, long: T) -> T {
        match self {
            Self::Quick => quick,
            Self::Full => full,
            Self::Long => long,
        }
    }
}

/// The effort that the environment asks for.
///
/// # Panics
///
/// If the variable has another value: a typing error must not pass for a full run.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "who runs the tests says how many, not the code")]
pub fn effort() -> Effort {
    match env::var(VARIABLE).as_deref() {
        Err(_) | Ok("" | "quick") => Effort::Quick,
        Ok("full") => Effort::Full,
        Ok("long") => Effort::Long,
        Ok(other) => panic!("{VARIABLE}={other}: it is quick, full or long"),
    }
}
