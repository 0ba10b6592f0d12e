//! What is said of a failure of the machine.

use crate::shutdown::Shutdown;

/// Returns what the standard error says of a failure: as `bitcoind` where it knows it, the log
/// having the causes.
pub(crate) fn headline(error: &cofferdam_ibd::Error) -> String {
    match error {
        cofferdam_ibd::Error::Disconnect { .. } => "Failed to disconnect block.".to_owned(),
        error => describe(error),
    }
}

/// Returns an error with all its causes.
pub(crate) fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// Stops the node if the chain's thread panics: nobody else could serve it.
pub(crate) struct PanicGuard(pub(crate) Shutdown);

impl Drop for PanicGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail("the chain thread panicked");
        }
    }
}
