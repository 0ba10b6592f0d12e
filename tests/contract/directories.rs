//! What is where, who may use it, and what a copy needs.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use crate::{mine, refusal, start, temporary, text};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("there").permissions().mode() & 0o777
}

#[test]
fn the_files_of_a_run_are_there_and_gone_with_it() {
    let dir = temporary();
    let chain = dir.path().join("regtest");
    let node = start(dir.path(), &[]);
    let cookie = text(&chain.join(".cookie"));
    assert!(cookie.starts_with("__cookie__:") && !cookie.ends_with('\n'), "{cookie}");
    assert_eq!(mode(&chain.join(".cookie")), 0o600);
    assert_eq!(text(&chain.join("bitcoind.pid")), format!("{}\n", node.pid()));
    assert_eq!(fs::read_dir(chain.join("wallets")).expect("made").count(), 0);
    assert_eq!(fs::read(chain.join("blocks/xor.dat")).expect("made").len(), 8);
    assert_eq!(mode(&chain), 0o700);
    node.stop();
    for name in [".cookie", "bitcoind.pid"] {
        assert!(!chain.join(name).exists(), "{name}");
    }
    let elsewhere = dir.path().join("my.pid");
    let node = start(dir.path(), &[&format!("-pid={}", elsewhere.display())]);
    assert!(elsewhere.exists() && !chain.join("bitcoind.pid").exists());
    node.stop();
    assert!(!elsewhere.exists());
    let node = start(dir.path(), &["-pid="]);
    assert!(chain.join("bitcoind.pid").exists(), "no name is that of the default");
    node.stop();
    let node = start(dir.path(), &["-nopid"]);
    assert!(!chain.join("bitcoind.pid").exists() && !chain.join("0").exists());
    node.stop();
}

#[test]
fn all_that_is_written_is_the_users_alone() {
    let dir = temporary();
    let node = start(dir.path(), &["-txindex"]);
    mine(&node, 1);
    let (mut dirs, mut seen) = (vec![dir.path().join("regtest")], 0);
    while let Some(next) = dirs.pop() {
        assert_eq!(mode(&next), 0o700, "{}", next.display());
        for entry in fs::read_dir(next).expect("readable") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                assert_eq!(mode(&path), 0o600, "{}", path.display());
                seen += 1;
            }
        }
    }
    assert!(seen > 10, "{seen}");
    node.stop();
}

#[test]
fn a_second_node_gets_neither_chain_nor_blocks_and_takes_nothing_away() {
    let (dir, other) = (temporary(), temporary());
    let chain = dir.path().join("regtest");
    let node = start(dir.path(), &[]);
    let refused = |args: &[&str], locked: &Path| {
        let text = refusal(other.path(), args);
        assert_eq!(
            text,
            format!(
                "Error: Cannot obtain a lock on directory {}. Bitcoin Core is probably already running.",
                locked.display()
            )
        );
    };
    refused(&[&format!("-datadir={}", dir.path().display()), "-noserver"], &chain);
    refused(&[&format!("-blocksdir={}", dir.path().display()), "-noserver"], &chain.join("blocks"));
    assert!(chain.join(".cookie").exists() && chain.join("bitcoind.pid").exists());
    node.stop();
}

#[test]
fn blocks_may_be_elsewhere() {
    let (dir, blocks) = (temporary(), temporary());
    let option = format!("-blocksdir={}", blocks.path().display());
    let node = start(dir.path(), &[&option]);
    let _ = mine(&node, 10);
    let state = node.state();
    node.stop();
    assert!(blocks.path().join("regtest/blocks/blk00000.dat").is_file());
    assert!(!dir.path().join("regtest/blocks/blk00000.dat").exists());
    // Where Bitcoin Core has its block index, and its tests look.
    assert!(dir.path().join("regtest/blocks/index").is_dir());
    let node = start(dir.path(), &[&option]);
    assert_eq!(node.state(), state);
    node.stop();
}

#[test]
fn directories_may_be_links() {
    let (dir, other) = (temporary(), temporary());
    let node = start(dir.path(), &[]);
    let _ = mine(&node, 3);
    node.stop();
    for name in ["blocks", "chainstate"] {
        let (from, to) = (dir.path().join("regtest").join(name), other.path().join(name));
        assert!(
            std::process::Command::new("mv").args([&from, &to]).status().expect("mv").success()
        );
        symlink(to, from).expect("room");
    }
    let node = start(dir.path(), &[]);
    assert_eq!(node.height(), 3);
    node.stop();
}

/// Removes what drivers remove of a chain that they keep: all but three directories, with a call that
/// removes files only.
pub(crate) fn keep_three_directories(dir: &Path) {
    let chain = dir.join("regtest");
    fs::remove_dir(chain.join("wallets")).expect("there and empty");
    for entry in fs::read_dir(&chain).expect("there") {
        let path = entry.expect("readable").path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
        if !["chainstate", "blocks", "indexes"].contains(&name) {
            fs::remove_file(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }
}

/// Copies a directory to where nothing is.
pub(crate) fn copy_all(from: &Path, to: &Path) {
    let status = std::process::Command::new("cp").arg("-r").args([from, to]).status();
    assert!(status.expect("cp").success());
}

/// Drivers give every test a copy of the chain that they keep.
#[test]
fn three_directories_are_a_whole_node_and_the_rest_are_files() {
    let (dir, copy) = (temporary(), temporary());
    let node = start(dir.path(), &[]);
    let _ = mine(&node, 25);
    let state = node.state();
    node.stop();
    keep_three_directories(dir.path());
    let copied = copy.path().join("node7");
    copy_all(dir.path(), &copied);
    let (first, second) = (start(dir.path(), &[]), start(&copied, &[]));
    assert_eq!([first.state(), second.state()], [state.clone(), state]);
    first.stop();
    second.stop();
}

#[test]
fn settings_that_other_programs_change_are_read_and_written_back() {
    let dir = temporary();
    let file = dir.path().join("regtest/settings.json");
    start(dir.path(), &["-nosettings"]).stop();
    assert!(!file.exists());
    start(dir.path(), &[]).stop();
    let warning = "{\n  \"_warning_\": \"This file is automatically generated and updated by Bitcoin Core. Please do not edit this file while the node is running, as any changes might be ignored or overwritten.\"\n}\n";
    assert_eq!(text(&file), warning);
    fs::write(&file, r#"{"prune": 1, "odd": "x"}"#).expect("writable");
    let node = start(dir.path(), &[]);
    assert_eq!(node.rpc("getblockchaininfo", &[])["pruned"], true);
    node.stop();
    let log = text(&dir.path().join("regtest/debug.log"));
    for line in ["Setting file arg: prune = 1", "Ignoring unknown rw_settings value odd"] {
        assert!(log.contains(line), "{line}");
    }
    fs::write(&file, "invalid json").expect("writable");
    let refused = refusal(dir.path(), &[]);
    let wanted = format!(
        "Error: Settings file could not be read:\n- Settings file {} does not contain valid JSON. This may be caused by a crash",
        file.display()
    );
    assert!(refused.starts_with(&wanted), "{refused}");
    start(dir.path(), &["-nosettings", "-prune=1"]).stop();
}

#[test]
fn block_files_that_are_gone_or_damaged_end_the_start() {
    let dir = temporary();
    let node = start(dir.path(), &[]);
    mine(&node, 30);
    node.stop();
    let path = dir.path().join("regtest/blocks/blk00000.dat");
    let kept = dir.path().join("kept");
    fs::rename(&path, &kept).expect("moves");
    let text = refusal(dir.path(), &[]);
    assert_eq!(
        text,
        "Error loading block database.\nPlease restart with -reindex or -reindex-chainstate to recover."
    );
    assert!(!path.exists(), "nothing is begun in its place");
    let mut bytes = fs::read(&kept).expect("reads");
    fs::rename(&kept, &path).expect("moves back");
    let whole = bytes.clone();
    bytes.get_mut(500..700).expect("there").fill(b'1');
    fs::write(&path, &bytes).expect("writes");
    // The last blocks are sound; one before them is seen if all are looked at.
    start(dir.path(), &["-checkblocks=5"]).stop();
    let text = refusal(dir.path(), &["-checkblocks=0", "-checklevel=4"]);
    assert!(text.starts_with("Corrupted block database detected.\nPlease restart"), "{text}");
    fs::write(&path, &whole).expect("writes");
    start(dir.path(), &["-checkblocks=0", "-checklevel=4"]).stop();
}
