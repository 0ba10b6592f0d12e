//! The help text, laid out as `bitcoind` lays it out.

use super::Rule::{DebugOnly, Ignored};
use super::SECTIONS;

/// Width of the screen, and how far the explanation of an option is indented.
const SCREEN_COLUMNS: usize = 79;
const INDENT_COLUMNS: usize = 7;

/// Returns all sections; options for debugging only if `debug`.
pub(crate) fn help(debug: bool) -> String {
    let mut text = String::new();
    for section in SECTIONS.iter().filter(|section| !section.title.is_empty()) {
        let shown = |rules: [bool; 2]| !rules[0] && (debug || !rules[1]);
        let mut options: Vec<_> = section
            .options
            .iter()
            .filter(|spec| shown([spec.has(Ignored), spec.has(DebugOnly)]))
            .collect();
        if options.is_empty() {
            continue;
        }
        options.sort_by_key(|spec| spec.name);
        text.push_str(&format!("{}:\n\n", section.title));
        for spec in options {
            let value =
                if spec.value.is_empty() { String::new() } else { format!("=<{}>", spec.value) };
            text.push_str(&format!("  -{}{value}\n{}\n", spec.name, paragraph(spec.help)));
        }
    }
    text
}

/// Breaks a text into indented lines.
fn paragraph(text: &str) -> String {
    let (mut lines, mut line) = (String::new(), String::new());
    for word in text.split_whitespace() {
        let columns = line.chars().count() + 1 + word.chars().count();
        if !line.is_empty() && columns > SCREEN_COLUMNS - INDENT_COLUMNS {
            lines.push_str(&format!("{:INDENT_COLUMNS$}{line}\n", ""));
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines + &format!("{:INDENT_COLUMNS$}{line}\n", "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_stand_in_sections_and_those_for_debugging_only_when_asked_for() {
        let (plain, debug) = (help(false), help(true));
        assert!(plain.starts_with("Options:\n\n  -alertnotify=<cmd>\n       Run"), "{plain}");
        assert!(plain.contains("\n\nConnection options:\n\n  -addnode=<ip>\n"));
        assert!(!plain.contains("-maxtipage") && debug.contains("  -maxtipage=<n>\n"));
        assert!(!debug.contains("-walletdir"), "options without effect are not shown");
        assert!(debug.lines().all(|line| line.chars().count() <= SCREEN_COLUMNS), "{debug}");
    }
}
