//! What the program itself prints: results on the standard output, errors on the other.

use std::io::{IsTerminal as _, Write as _};

/// Prints a line of a result.
pub(crate) fn print_line(line: &str) {
    // A closed pipe is the reader's wish.
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Prints a text as it is.
pub(crate) fn print(text: &str) {
    let _ = write!(std::io::stdout(), "{text}");
}

/// Prints an error, as `bitcoind` words it.
pub(crate) fn print_error(text: &str) {
    let _ = writeln!(std::io::stderr(), "Error: {text}");
}

/// Prints a question that nobody is asked, with what to do instead: `bitcoind` gives it no heading.
pub(crate) fn print_question(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Prints an error of a call, as `bitcoin-cli` words it.
pub(crate) fn print_call_error(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Returns whether results go to a screen.
pub(crate) fn is_screen() -> bool {
    std::io::stdout().is_terminal()
}

/// Returns whether a person watches.
pub(crate) fn is_terminal() -> bool {
    std::io::stderr().is_terminal()
}

/// Prints a warning.
pub(crate) fn print_warning(text: &str) {
    let _ = writeln!(std::io::stderr(), "Warning: {text}");
}

/// Prints a line that is complete.
pub(crate) fn print_complaint(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
