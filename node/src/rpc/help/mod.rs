//! Help: the list of methods by category, and a text for each in Core's form (usage, description,
//! arguments, result, examples).
//!
//! The texts lie beside this file, one file a category. They are those of Bitcoin Core (copyright
//! The Bitcoin Core developers, MIT licence) wherever the method does the same, and say what ours
//! does where it does not: `tests/interop/rpc/help.rs` compares them with Core's own, and
//! `tests/rpc/help.rs` what they say of results with answers.

mod layout;

use super::call::Kind;
use super::param_types::{JsonType, option_names};
use super::{Method, TABLES};

/// What parts the methods in a file.
const BETWEEN: &str = "\n====\n";

/// Category of methods that the list leaves out, as Bitcoin Core does: they are for tests.
const HIDDEN: &str = "Hidden";

/// Categories in the order of the list, and the texts of their methods.
const TEXTS: &[(&str, &str)] = &[
    ("Blockchain", include_str!("blocks.txt")),
    ("Blockchain", include_str!("chain.txt")),
    ("Blockchain", include_str!("coins.txt")),
    ("Blockchain", include_str!("mempool.txt")),
    ("Control", include_str!("control.txt")),
    (HIDDEN, include_str!("hidden.txt")),
    ("Mining", include_str!("mining.txt")),
    ("Network", include_str!("network.txt")),
    ("Rawtransactions", include_str!("rawtransactions.txt")),
    ("Util", include_str!("util.txt")),
];

/// Returns the category and the text, as it lies in the file, of every method.
fn texts() -> impl Iterator<Item = (&'static str, &'static str)> {
    TEXTS.iter().flat_map(|(category, texts)| {
        texts.split(BETWEEN).map(move |text| (*category, text.trim()))
    })
}

/// Returns the first line of a text, and the method's name.
fn usage(text: &str) -> (&str, &str) {
    let line = text.lines().next().unwrap_or_default();
    (line, line.split(' ').next().unwrap_or_default())
}

/// Returns the list: the first line of every method's help, by category and name.
pub(super) fn list() -> String {
    let mut rows: Vec<(&str, &str, &str)> = texts()
        .filter(|(category, _)| *category != HIDDEN)
        .map(|(category, text)| {
            let (line, name) = usage(text);
            (category, name, line)
        })
        .collect();
    rows.sort_unstable();
    let (mut list, mut last) = (String::new(), "");
    for (category, _, line) in rows {
        if category != last {
            if !last.is_empty() {
                list.push('\n');
            }
            list.push_str(&format!("== {category} ==\n"));
            last = category;
        }
        list.push_str(line);
        list.push('\n');
    }
    list.trim_end().to_owned()
}

/// Returns a method's help: usage on the first line.
pub(super) fn help(method: &Method) -> String {
    let found = texts().find(|(_, text)| usage(text).1 == method.name);
    layout::lay_out(found.map_or(method.name, |(_, text)| text))
}

/// Lists every parameter as Core's `help dump_all_command_conversions`: method, place, name, and
/// whether it is a text.
pub(super) fn conversions() -> serde_json::Value {
    let methods = TABLES.iter().copied().flatten();
    let rows = methods.flat_map(|method| {
        method.params.iter().enumerate().flat_map(move |(index, param)| {
            let is_text = param.json_type() == JsonType::Text || param.kind == Kind::Any;
            let names = param.name.split('|');
            // Options may be given by their own names too.
            let options: &[&str] =
                if param.name == "options" { option_names(method.name) } else { &[] };
            let options = options.iter().copied();
            names
                .chain(options)
                .map(move |name| serde_json::json!([method.name, index, name, is_text]))
        })
    });
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::call::Param;
    use crate::rpc::method;

    /// The rows of `Arguments:` of a text: name, and what its description begins with.
    fn arguments(text: &str) -> Vec<(&str, &str)> {
        let Some((_, rest)) = text.split_once("\nArguments:\n") else { return Vec::new() };
        let rows = rest.split("\n\n").next().unwrap_or_default().lines();
        let rows = rows.filter(|row| row.starts_with(|first: char| first.is_ascii_digit()));
        rows.map(|row| row.split_once(". ").unwrap().1.split_once("  ").unwrap()).collect()
    }

    fn fits(param: &Param, (name, about): (&str, &str)) -> bool {
        let need = if param.required { ", required)" } else { ", optional" };
        let kind = match param.json_type() {
            JsonType::Text => "(string,",
            JsonType::Number => "(numeric,",
            JsonType::Flag => "(boolean,",
            JsonType::Array => "(json array,",
            JsonType::Object => "(json object,",
            JsonType::Unchecked => "(",
        };
        name == param.first_name() && about.starts_with(kind) && about.contains(need)
    }

    #[test]
    fn a_help_has_its_parts() {
        let text = help(method("getblockheader").unwrap());
        assert!(text.starts_with("getblockheader \"blockhash\" ( verbose )\n\n"), "{text}");
        for part in [
            "\nArguments:\n1. blockhash    (string, required) The block hash\n",
            "2. verbose      (boolean, optional, default=true) true for a json object",
            "\nResult (for verbose = true):\n{                                 (json object)\n",
            "\nResult (for verbose=false):\n\"hex\"    (string) A string that is",
            "\nExamples:\n> cofferdam rpc getblockheader \"0000",
        ] {
            assert!(text.contains(part), "{part:?} in {text}");
        }
    }

    #[test]
    fn every_method_has_one_text_with_its_parameters_a_result_and_examples() {
        let mut named: Vec<&str> = texts().map(|(_, text)| usage(text).1).collect();
        named.sort_unstable();
        let methods = || TABLES.iter().copied().flatten();
        let mut names: Vec<&str> = methods().map(|method| method.name).collect();
        names.sort_unstable();
        assert_eq!(named, names);
        for method in methods() {
            let text = texts().find(|(_, text)| usage(text).1 == method.name).unwrap().1;
            let shown: Vec<&Param> =
                method.params.iter().take_while(|param| param.kind != Kind::Hidden).collect();
            let rows = arguments(text);
            assert_eq!(rows.len(), shown.len(), "{text}");
            for (param, row) in shown.into_iter().zip(rows) {
                assert!(fits(param, row), "{}: {param:?} {row:?}", method.name);
            }
            assert_eq!(text.contains("\nResult"), method.name != "generate", "{text}");
        }
    }

    #[test]
    fn examples_call_methods_that_there_are() {
        let lines = texts().flat_map(|(_, text)| text.lines());
        let calls = lines.filter_map(|line| line.strip_prefix(['$', '@'])?.strip_prefix(' '));
        let mut count = 0;
        for call in calls {
            assert!(method(call.split(' ').next().unwrap()).is_some(), "{call}");
            count += 1;
        }
        assert!(count > 100, "only {count} examples");
    }

    #[test]
    fn the_list_has_cores_categories_in_order_and_leaves_out_what_is_for_tests() {
        let list = list();
        let titles: Vec<&str> = list.lines().filter(|line| line.starts_with("==")).collect();
        let known = ["Blockchain", "Control", "Mining", "Network", "Rawtransactions", "Util"];
        assert_eq!(titles, known.map(|title| format!("== {title} ==")));
        assert!(!list.contains("setmocktime") && list.contains("\ngetblockcount\n"));
        assert!(list.contains("\ngetblock \"blockhash\" ( verbosity )\n"), "{list}");
    }
}
