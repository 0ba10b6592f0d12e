//! Our help texts beside Bitcoin Core's.

use serde_json::json;

use super::exceptions::HELP;
use super::methods;
use crate::pair::{Pair, Who};

/// Core's text as ours would be: examples are for our own client, but those that need options of
/// Core's. What ends a line in spaces does not count.
fn as_ours(text: &str) -> String {
    let line = |line: &str| match line.strip_prefix("> bitcoin-cli ") {
        Some(call) if !call.starts_with('-') => format!("> cofferdam rpc {}\n", call.trim_end()),
        _ => format!("{}\n", line.trim_end()),
    };
    text.lines().map(line).collect()
}

/// The first line that differs, of both.
fn first_difference(ours: &str, core: &str) -> String {
    let pairs = ours.lines().map(Some).chain([None]).zip(core.lines().map(Some).chain([None]));
    let found = pairs.into_iter().find(|(ours, core)| ours != core);
    found.map_or_else(String::new, |(ours, core)| format!("    ours {ours:?}\n    core {core:?}"))
}

#[test]
fn help_texts_are_core_s_but_where_our_methods_differ() {
    let Some(pair) = Pair::new() else { return };
    let [ours, core] = [Who::Ours, Who::Core].map(|who| pair.start(who, &["-connect=0"]));
    let (have, known) = (methods(&ours), methods(&core));
    let mut complaints = Vec::new();
    for method in have.intersection(&known) {
        let [ours, core] = [&ours, &core].map(|node| {
            let help = node.rpc("help", json!([method]));
            help.as_str().expect("a text").to_owned()
        });
        let [ours, core] = [ours, core].map(|text| as_ours(&text));
        let is_listed = HELP.iter().any(|(name, _)| name == method);
        if is_listed && ours == core {
            complaints.push(format!("nothing needs the exception {method}"));
        } else if !is_listed && ours != core {
            complaints.push(format!("{method}\n{}", first_difference(&ours, &core)));
        }
    }
    for (method, _) in HELP.iter().filter(|(method, _)| !have.contains(*method)) {
        complaints.push(format!("no method {method}, which is an exception"));
    }
    assert!(complaints.is_empty(), "{} differences:\n{}", complaints.len(), complaints.join("\n"));
}
