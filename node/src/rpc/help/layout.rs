//! Help texts as they lie in the files, laid out as Bitcoin Core does (`Sections` in its
//! `rpc/util.cpp`): what is said of an argument or a field begins in one column.
//!
//! In `Arguments:`, `Named Arguments:` and `Result:` two spaces part the two columns, and a line
//! that begins with `|` goes on in the right one. In `Examples:` a line `$ METHOD ARGUMENTS` stands
//! for the command, a line `@ METHOD ARGUMENTS` for the request.

/// Spaces between the columns.
const GAP: usize = 4;

/// What parts the columns in a file, and what goes on in the right one.
const BETWEEN: &str = "  ";
const MORE: &str = "|";

/// Returns a text with its columns in line and its examples in full.
pub(super) fn lay_out(source: &str) -> String {
    let mut text = String::with_capacity(source.len() * 2);
    for paragraph in source.trim_end().split("\n\n") {
        if !text.is_empty() {
            text.push('\n');
        }
        let (title, rows) = paragraph.split_once('\n').unwrap_or((paragraph, ""));
        if has_columns(title) {
            text.push_str(&format!("{title}\n{}", columns(rows)));
        } else {
            for line in paragraph.lines() {
                text.push_str(&example(line).unwrap_or_else(|| line.to_owned()));
                text.push('\n');
            }
        }
    }
    text
}

fn has_columns(title: &str) -> bool {
    matches!(title, "Arguments:" | "Named Arguments:")
        || (title.starts_with("Result") && title.ends_with(':'))
}

fn columns(rows: &str) -> String {
    let rows: Vec<(&str, &str)> = rows.lines().map(split).collect();
    let lines: Vec<_> = rows.iter().filter(|(left, _)| !left.is_empty()).collect();
    let next = lines.iter().skip(1).map(|(left, _)| *left).chain([""]);
    let widths = lines.iter().zip(next).map(|((left, right), next)| {
        // Core takes the comma of the last element away after it measured the line.
        let is_last = next.trim_start().starts_with([']', '}']);
        let is_more = left.trim_start() == "..." && right.is_empty();
        left.len() + usize::from(is_last && !left.ends_with(',') && !is_more)
    });
    let width = widths.max().unwrap_or_default() + GAP;
    let rows = rows.iter().map(|(left, right)| match (*left, *right) {
        (left, "") if !left.is_empty() => format!("{left}\n"),
        (left, right) => format!("{left:width$}{right}\n"),
    });
    rows.collect()
}

/// Splits a line into its columns.
fn split(line: &str) -> (&str, &str) {
    let begin = line.len() - line.trim_start().len();
    let (indent, rest) = line.split_at_checked(begin).unwrap_or(("", line));
    if let Some(more) = rest.strip_prefix(MORE) {
        return ("", more.trim_start());
    }
    rest.split_once(BETWEEN).map_or((line, ""), |(left, right)| {
        let end = indent.len() + left.len();
        (line.get(..end).unwrap_or(line), right.trim_start())
    })
}

/// Returns what a line of the examples stands for, if it is one.
fn example(line: &str) -> Option<String> {
    let parts = |call: &'static str| {
        line.strip_prefix(call).map(|rest| rest.split_once(' ').unwrap_or((rest, "")))
    };
    if let Some((method, args)) = parts("$ ") {
        return Some(format!("> cofferdam rpc {method} {args}"));
    }
    let (method, args) = parts("@ ")?;
    Some(format!(
        "> curl --user myusername --data-binary '{{\"jsonrpc\": \"2.0\", \"id\": \"curltest\", \"method\": \"{method}\", \"params\": [{args}]}}' -H 'content-type: application/json' http://127.0.0.1:8332/"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_begin_in_line_and_a_lost_comma_counts() {
        let source = "method \"a\"\n\nWhat  it does.\n\nArguments:\n1. a  (string, required) A thing\n| or  two\n\nResult:\n{  (json object)\n  \"x\" : n  (numeric) X\n}\n";
        let shown = "method \"a\"\n\nWhat  it does.\n\nArguments:\n1. a    (string, required) A thing\n        or  two\n\nResult:\n{             (json object)\n  \"x\" : n     (numeric) X\n}\n";
        assert_eq!(lay_out(source), shown);
    }

    #[test]
    fn a_request_of_an_example_is_written_out() {
        let text = lay_out("Examples:\n@ getblockhash 1000");
        assert!(text.contains("\"method\": \"getblockhash\", \"params\": [1000]}'"), "{text}");
        assert!(lay_out("Examples:\n$ getblockcount").contains("rpc getblockcount \n"), "as Core");
    }
}
