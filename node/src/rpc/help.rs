//! Help: the list of methods by category, and a text for each in Core's form (usage, description,
//! arguments, examples), made from the tables.

use super::call::{Kind, Param};
use super::param_docs::{JsonType, ParamDoc, option_names};
use super::{CATEGORIES, Method};

/// Methods that the list leaves out, as Bitcoin Core does: they are for tests.
const HIDDEN: &[&str] = &[
    "addconnection",
    "addpeeraddress",
    "echo",
    "echoipc",
    "echojson",
    "estimaterawfee",
    "generate",
    "generateblock",
    "generatetoaddress",
    "generatetodescriptor",
    "getmempoolfeeratediagram",
    "getorphantxs",
    "getrawaddrman",
    "invalidateblock",
    "mockscheduler",
    "reconsiderblock",
    "sendmsgtopeer",
    "setmocktime",
    "syncwithvalidationinterfacequeue",
];

/// Methods that stand in another category than those of their table.
const MOVED: &[(&str, &str)] = &[("getindexinfo", "Util")];

/// Column at which a parameter's description starts at the earliest.
const PADDING: usize = 4;

/// Returns the list: the first line of every method's help, by category and name.
pub(super) fn list() -> String {
    let mut rows: Vec<(&str, &Method)> = CATEGORIES
        .iter()
        .flat_map(|(category, methods)| {
            methods.iter().map(move |method| {
                let moved = MOVED.iter().find(|(name, _)| *name == method.name);
                (moved.map_or(*category, |(_, category)| *category), method)
            })
        })
        .filter(|(_, method)| !HIDDEN.contains(&method.name))
        .collect();
    rows.sort_by_key(|(category, method)| (*category, method.name));
    let (mut text, mut last) = (String::new(), "");
    for (category, method) in rows {
        if category != last {
            if !last.is_empty() {
                text.push('\n');
            }
            text.push_str(&format!("== {category} ==\n"));
            last = category;
        }
        text.push_str(&usage(method));
        text.push('\n');
    }
    text.trim_end().to_owned()
}

/// Returns a method's help: usage on the first line.
pub(super) fn help(method: &Method) -> String {
    let mut text = format!("{}\n\n{}\n", usage(method), method.help.trim());
    let shown: Vec<&Param> = shown(method).collect();
    if !shown.is_empty() {
        text.push_str("\nArguments:\n");
        let rows: Vec<(String, String)> = shown
            .iter()
            .enumerate()
            .map(|(index, param)| {
                (format!("{}. {}", index + 1, param.first_name()), description(param))
            })
            .collect();
        let width = rows.iter().map(|(left, _)| left.len()).max().unwrap_or_default() + PADDING;
        for (left, right) in rows {
            text.push_str(&format!("{left:width$}{right}\n"));
        }
    }
    if let Some(result) = super::result_docs::result(method.name) {
        text.push_str(&format!("\nResult:\n{result}\n"));
    }
    text.push_str("\nExamples:\n");
    let required: Vec<&&Param> = shown.iter().filter(|param| param.required).collect();
    let words: Vec<String> = required.iter().map(|param| placeholder(method, param)).collect();
    text.push_str(&format!("> cofferdam rpc {} {}\n", method.name, words.join(" ")));
    text.push_str(&format!(
        "> curl --user myusername --data-binary '{{\"jsonrpc\": \"2.0\", \"id\": \"curltest\", \"method\": \"{}\", \"params\": [{}]}}' -H 'content-type: application/json' http://127.0.0.1:8332/\n",
        method.name,
        words.join(", ")
    ));
    text
}

/// Lists every parameter as Core's `help dump_all_command_conversions`: method, place, name, and
/// whether it is a text.
pub(super) fn conversions() -> serde_json::Value {
    let methods = CATEGORIES.iter().flat_map(|(_, methods)| *methods);
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

fn shown(method: &Method) -> impl Iterator<Item = &Param> {
    method.params.iter().take_while(|param| param.kind != Kind::Hidden)
}

fn usage(method: &Method) -> String {
    let mut usage = method.name.to_owned();
    let mut was_optional = false;
    for param in shown(method) {
        usage.push(' ');
        if !param.required && !was_optional {
            usage.push_str("( ");
        } else if param.required && was_optional {
            usage.push_str(") ");
        }
        was_optional = !param.required;
        usage.push_str(&placeholder(method, param));
    }
    if was_optional {
        usage.push_str(" )");
    }
    usage
}

fn placeholder(method: &Method, param: &Param) -> String {
    let name = param.first_name();
    if let Some(text) = super::param_docs::usage(method.name, name) {
        return text.to_owned();
    }
    match param.json_type() {
        JsonType::Text => format!("\"{name}\""),
        _ if param.kind == Kind::Any => format!("\"{name}\""),
        JsonType::Array => format!("[{name},...]"),
        // As Core's `oneline_description` of settings that are given by their names.
        JsonType::Object if name == "options" => name.to_owned(),
        JsonType::Object => format!("{{{name},...}}"),
        _ => name.to_owned(),
    }
}

fn description(param: &Param) -> String {
    let need = if param.required { "required" } else { "optional" };
    let about = ParamDoc::find(param.first_name()).map_or("", |doc| doc.about);
    format!("({}, {need}) {about}", param.json_type().in_help()).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::method;

    #[test]
    fn a_help_has_its_parts() {
        let text = help(method("getblockheader").unwrap());
        assert!(text.starts_with("getblockheader \"blockhash\" ( verbose )\n\n"), "{text}");
        for part in [
            "\nArguments:\n1. blockhash    (string, required) The block hash\n",
            "2. verbose      (boolean, optional) True for an object",
            "\nExamples:\n> cofferdam rpc getblockheader \"blockhash\"\n> curl ",
        ] {
            assert!(text.contains(part), "{part:?} in {text}");
        }
    }

    #[test]
    fn a_usage_line_is_cores() {
        for line in [
            "combinerawtransaction [\"hexstring\",...]",
            "createrawtransaction [{\"txid\":\"hex\",\"vout\":n,\"sequence\":n},...] [{\"address\":amount,...},{\"data\":\"hex\"},...] ( locktime replaceable version )",
            "echo ( \"arg0\" \"arg1\" \"arg2\" \"arg3\" \"arg4\" \"arg5\" \"arg6\" \"arg7\" \"arg8\" \"arg9\" )",
            "generateblock \"output\" [\"rawtx/txid\",...] ( submit )",
            "getblockfrompeer \"blockhash\" peer_id",
            "gettxspendingprevout [{\"txid\":\"hex\",\"vout\":n},...] ( {\"mempool_only\":bool,\"return_spending_tx\":bool,...} )",
            "scanblocks \"action\" ( [scanobjects,...] start_height stop_height \"filtertype\" options )",
        ] {
            let name = line.split(' ').next().unwrap();
            assert_eq!(usage(method(name).unwrap()), line);
        }
    }

    #[test]
    fn the_list_has_cores_categories_in_order_and_leaves_out_what_is_for_tests() {
        let list = list();
        let titles: Vec<&str> = list.lines().filter(|line| line.starts_with("==")).collect();
        let mut sorted = titles.clone();
        sorted.sort_unstable();
        assert_eq!(titles, sorted);
        let known = ["Blockchain", "Control", "Mining", "Network", "Rawtransactions", "Util"];
        for title in &titles {
            assert!(known.contains(&title.trim_matches(['=', ' '])), "{title}");
        }
        assert!(!list.contains("setmocktime") && list.contains("\ngetblockcount\n"));
        assert!(list.contains("\ngetblock \"blockhash\" ( verbosity )\n"), "{list}");
    }

    #[test]
    fn no_method_stands_twice() {
        let names = CATEGORIES.iter().flat_map(|(_, methods)| methods.iter().map(|m| m.name));
        let mut names: Vec<&str> = names.collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn every_method_says_what_it_does() {
        for method in CATEGORIES.iter().flat_map(|(_, methods)| *methods) {
            assert!(!method.help.trim().is_empty(), "{}", method.name);
        }
    }
}
