//! The house style, as a test.

use std::path::{Path, PathBuf};

/// Largest file, unit tests at its bottom apart.
const LINES_MAX: usize = 500;
/// Longest line; the formatter keeps code to 100, but breaks no string, table or address.
const COLUMNS_MAX: usize = 120;
const CRATES: [&str; 5] = ["storage", "ibd", "node", "tests", "benches"];

/// What a source file may not contain: the text, where it may stand all the same, and why not.
///
/// The texts are split so that this file does not contain them.
const BANNED: [(&str, &[&str], &str); 7] = [
    (concat!("include", "!("), &[], "a file cut in pieces is still one file"),
    (concat!("TO", "DO"), &[], "an open issue is not a comment"),
    (concat!("FIX", "ME"), &[], "an open issue is not a comment"),
    (
        concat!("rocks", "db::"),
        &["storage/src/backend/"],
        "engines are known to their backend only",
    ),
    (
        concat!("sl", "ed::"),
        // And to the test that shows what it loses without its backend's fsync.
        &["storage/src/backend/", "storage/tests/power_cut/"],
        "engines are known to their backend only",
    ),
    (concat!("static", " mut"), &[], "state has an owner"),
    (concat!("mpsc::", "channel("), &[], "every queue has a bound"),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every Rust source file of the workspace, with its path from the root.
fn sources() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut todo: Vec<PathBuf> = CRATES.iter().map(|name| root().join(name)).collect();
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(&dir).expect("a folder of the workspace") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                todo.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let text = std::fs::read_to_string(&path).expect("UTF-8");
                let name = path.strip_prefix(root()).expect("below the root");
                found.push((name.to_string_lossy().into_owned(), text));
            }
        }
    }
    assert!(found.len() > 60, "the walk found only {} files", found.len());
    found
}

/// Collects complaints over all sources, and fails with all of them.
fn check(complain: impl Fn(&str, &str) -> Vec<String>) {
    let complaints: Vec<String> =
        sources().iter().flat_map(|(name, text)| complain(name, text)).collect();
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn every_file_says_what_it_is_for() {
    check(|name, text| {
        let says = text.starts_with("//! ") || text.starts_with("#![doc");
        (!says).then(|| format!("{name}: no //! on the first line")).into_iter().collect()
    });
}

#[test]
fn files_are_short() {
    check(|name, text| {
        let end = text.find("#[cfg(test)]\nmod ").unwrap_or(text.len());
        let lines = text[..end].lines().count();
        (lines > LINES_MAX)
            .then(|| format!("{name}: {lines} lines, {LINES_MAX} at most"))
            .into_iter()
            .collect()
    });
}

#[test]
fn lines_are_short() {
    check(|name, text| {
        let long = |line: &str| line.chars().count() > COLUMNS_MAX;
        let numbered = text.lines().enumerate();
        numbered
            .filter(|(_, line)| {
                long(line) && ![" | ", "http", "\""].iter().any(|may| line.contains(may))
            })
            .map(|(index, _)| format!("{name}:{}: over {COLUMNS_MAX} columns", index + 1))
            .collect()
    });
}

#[test]
fn banned_texts_are_absent() {
    check(|name, text| {
        let mut complaints = Vec::new();
        for (banned, allowed, why) in BANNED {
            if text.contains(banned) && !allowed.iter().any(|prefix| name.starts_with(prefix)) {
                complaints.push(format!("{name}: has {banned:?}: {why}"));
            }
        }
        complaints
    });
}

/// storage knows no Bitcoin, ibd no socket, engine or clock; node no consensus rule of its own.
#[test]
fn dependencies_point_one_way() {
    let manifest = |name: &str| {
        let text = std::fs::read_to_string(root().join(name).join("Cargo.toml")).expect("a crate");
        let start = text.find("[dependencies]").expect("has dependencies");
        let end = text[start..].find("\n[").map_or(text.len(), |end| start + end);
        text[start..end].to_owned()
    };
    let storage = manifest("storage");
    assert!(!storage.contains("bitcoin") && !storage.contains("cofferdam"), "{storage}");
    let ibd = manifest("ibd");
    for foreign in ["tokio", "rocksdb", "sled", "cofferdam-node"] {
        assert!(!ibd.contains(foreign), "ibd depends on {foreign}");
    }
    check(|name, text| {
        let mut complaints = Vec::new();
        for foreign in ["std::net", "SystemTime"] {
            let knows_none = name.starts_with("ibd/src") || name.starts_with("storage/src");
            if knows_none && text.contains(foreign) {
                complaints.push(format!("{name}: knows {foreign}"));
            }
        }
        complaints
    });
}

/// The README's code map names every source folder and every file at the top of a crate.
#[test]
fn the_code_map_is_complete() {
    let readme = std::fs::read_to_string(root().join("README.md")).expect("a README");
    let mut missing = Vec::new();
    for (name, _) in sources() {
        let parts: Vec<&str> = name.split('/').collect();
        if let [krate, "src", item, ..] = parts.as_slice() {
            let item = item.trim_end_matches(".rs");
            let listed = readme.contains(&format!("`{item}`"))
                || readme.contains(&format!("`{item}.rs`"))
                || readme.contains(&format!("`{item}/`"));
            if ["storage", "ibd", "node"].contains(krate) && item != "lib" && !listed {
                missing.push(format!("{krate}: {item}"));
            }
        }
    }
    missing.dedup();
    assert!(missing.is_empty(), "not in the README's code map: {missing:?}");
}
