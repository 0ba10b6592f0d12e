//! Do `cofferdam wal` and `cofferdam db` tell what a killed node has left, and leave it usable?
#![expect(clippy::indexing_slicing, reason = "a test fails by a panic")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use cofferdam_tests::process::{Node, said};

const BINARY: &str = env!("CARGO_BIN_EXE_cofferdam-under-test");
const ADDRESS: &str = "mjTkW3DjgyZck4KbiRusZsqTgaYTxdSz6z";
/// Blocks mined before the node is killed; the genesis block's record comes before theirs.
const BLOCKS: u64 = 20;

fn tool(words: &[&str], dir: &Path) -> Output {
    Command::new(BINARY).args(words).arg(dir).output().expect("the binary starts")
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

/// What a tool prints that has to end with this exit code.
fn printed(words: &[&str], dir: &Path, code: i32) -> String {
    let output = tool(words, dir);
    assert_eq!(output.status.code(), Some(code), "{words:?}: {}", said(&output));
    text(&output)
}

/// Every file below a directory with its bytes.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            files.extend(contents(&path));
        } else {
            let bytes = fs::read(&path).expect("readable");
            files.insert(path, bytes);
        }
    }
    files
}

/// The cells of the line of `wal dump` for a record.
fn dumped(dump: &str, lsn: u64) -> Vec<String> {
    let lines = dump.lines().map(|line| line.split_whitespace().map(str::to_owned).collect());
    let mut lines = lines.filter(|cells: &Vec<String>| cells.first() == Some(&lsn.to_string()));
    lines.next().unwrap_or_else(|| panic!("no record {lsn} in {dump}"))
}

fn log_of(dir: &Path) -> PathBuf {
    dir.join("regtest/chainstate/log")
}

fn last_segment(dir: &Path) -> PathBuf {
    let log = contents(&log_of(dir));
    let is_segment = |path: &&PathBuf| path.extension().is_some_and(|ending| ending == "log");
    log.keys().rfind(is_segment).expect("a segment").clone()
}

/// A node that mined some blocks; what the tools say while it runs and after it was killed.
fn killed_node(backend: &str, dir: &Path) {
    let args = [format!("-backend={backend}"), "-durability=strict".to_owned()];
    let node = Node::start(BINARY, dir, &args.each_ref().map(String::as_str));
    let mined = node.rpc("generatetoaddress", &[&BLOCKS.to_string(), ADDRESS]);
    assert_eq!(mined.as_array().map(Vec::len), Some(20));

    let running = printed(&["wal", "verify"], dir, 0);
    assert!(running.contains("in use by another process; stop the node first"), "{running}");
    assert!(printed(&["wal", "inspect"], dir, 0).contains("in use        yes"));
    let stats = tool(&["db", "stats"], dir);
    assert!(!stats.status.success());
    assert!(said(&stats).contains("is in use by another process; stop the node first"));
    assert_eq!(node.height(), BLOCKS, "the node goes on");
    // Dropped, which is `kill -9`.
    drop(node);
}

fn check(backend: &str) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    killed_node(backend, dir.path());
    let before = contents(dir.path());
    let inspected = printed(&["wal", "inspect"], dir.path(), 0);
    assert!(inspected.contains("in use        no"), "{inspected}");
    assert!(inspected.contains("valid: ends with record "), "{inspected}");
    let dump = printed(&["wal", "dump"], dir.path(), 0);
    assert_eq!(contents(dir.path()), before, "looking at a log changes no file");

    // Each directory on the way names the same log.
    for below in ["", "regtest", "regtest/chainstate", "regtest/chainstate/log"] {
        let dir = dir.path().join(below);
        assert_eq!(printed(&["wal", "inspect"], &dir, 0), inspected, "{below}");
    }
    let records = dump.lines().filter(|line| line.contains("height ")).count();
    let last = dumped(&dump, records as u64);
    assert!(last.join(" ").contains(&format!("height {BLOCKS} ")), "{dump}");
    let words = ["wal", "dump"];
    let one = Command::new(BINARY).args(words).arg(dir.path()).arg(&last[0]).output();
    let one = text(&one.expect("the binary starts"));
    assert!(one.contains("put_new coins ") && one.contains("put     headers "), "{one}");

    check_other_owner(backend, dir.path());
    let stats = printed(&["db", "stats"], dir.path(), 0);
    for part in [&format!("engine        {backend}"), "headers (", "coins (", "blocks", "applied"] {
        assert!(stats.contains(part), "{part} is not in {stats}");
    }
    let verified = printed(&["wal", "verify"], dir.path(), 0);
    assert!(verified.contains("database      holds all batches up to 0"), "{verified}");
    check_bad_engine(backend, dir.path());
    check_damage(dir.path(), &dump);
    // The tools have left it as it was: the node goes on at the same block.
    let args = [format!("-backend={backend}")];
    let node = Node::start(BINARY, dir.path(), &args.each_ref().map(String::as_str));
    assert_eq!(node.height(), BLOCKS);
    node.stop();
    let closed = printed(&["wal", "verify"], dir.path(), 0);
    assert!(closed.contains(&format!("; height {BLOCKS} ")), "{closed}");
    assert!(printed(&["wal", "inspect"], dir.path(), 0).contains("clean shutdown"));
}

/// What root asks of a node that has a user of its own: the log alone, and no file is written.
fn check_other_owner(backend: &str, dir: &Path) {
    /// Not the one who runs the tests.
    const OTHER: u32 = 12_345;
    let engine = dir.join("regtest/chainstate").join(backend);
    let owner = fs::metadata(&engine).expect("the engine").uid();
    if chown(&engine, Some(OTHER), None).is_err() {
        // Only root can give a directory away.
        return;
    }
    let before = contents(dir);
    let verified = printed(&["wal", "verify"], dir, 0);
    assert!(verified.contains("not asked ("), "{verified}");
    assert!(verified.contains("belongs to user 12345"), "{verified}");
    assert!(verified.contains("valid: ends with record "), "{verified}");
    let stats = tool(&["db", "stats"], dir);
    assert!(!stats.status.success());
    assert!(said(&stats).contains("run this as the node's user"), "{}", said(&stats));
    assert_eq!(contents(dir), before, "nothing of another's is changed");
    chown(&engine, Some(owner), None).expect("root");
}

/// An engine that no node could open, beside a sound log; undone afterwards.
fn check_bad_engine(backend: &str, dir: &Path) {
    let engine = dir.join("regtest/chainstate").join(backend);
    let elsewhere = dir.join("elsewhere");
    fs::rename(&engine, &elsewhere).expect("one disk");
    let gone = printed(&["wal", "verify"], dir, 1);
    assert!(gone.contains(&format!("cannot be opened: {} is missing", engine.display())), "{gone}");
    assert!(gone.contains("valid: ends with record "), "{gone}");
    fs::rename(&elsewhere, &engine).expect("one disk");
    if backend == "lsm" {
        let list = engine.join("MANIFEST");
        let bytes = fs::read(&list).expect("readable");
        fs::write(&list, &bytes[1..]).expect("room");
        let damaged = printed(&["wal", "verify"], dir, 1);
        assert!(damaged.contains("cannot be opened: opening "), "{damaged}");
        assert!(damaged.contains("corrupt storage: "), "{damaged}");
        fs::write(&list, bytes).expect("room");
    }
    printed(&["wal", "verify"], dir, 0);
}

/// A torn tail, then rot in a record in the middle: said with the place; undone afterwards.
fn check_damage(dir: &Path, dump: &str) {
    let segment = last_segment(dir);
    let bytes = fs::read(&segment).expect("readable");
    fs::write(&segment, [&bytes[..], b"torn"].concat()).expect("room");
    let torn = printed(&["wal", "verify"], dir, 0);
    let cut = format!("cuts off 4 bytes at offset {}", bytes.len());
    assert!(torn.contains(&cut), "{torn}");

    let record = dumped(dump, 5);
    let offset: usize = record[3].parse().expect("a number");
    let mut flipped = bytes.clone();
    flipped[offset + 60] ^= 1;
    fs::write(&segment, flipped).expect("room");
    let corrupt = printed(&["wal", "verify"], dir, 1);
    let place = format!("{}: bad from offset {offset} on, record 5 expected", segment.display());
    assert!(corrupt.contains(&place), "{corrupt}");
    assert!(printed(&["wal", "inspect"], dir, 0).contains("CORRUPT at "));
    fs::write(&segment, bytes).expect("room");
}

#[test]
fn tools_describe_what_a_killed_node_left_on_sled() {
    check("sled");
}

#[test]
fn tools_describe_what_a_killed_node_left_on_lsm() {
    check("lsm");
}

#[test]
fn tools_describe_what_a_killed_node_left_on_rocksdb() {
    check("rocksdb");
}

#[test]
fn what_is_no_log_is_refused_by_name() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    fs::write(dir.path().join("file"), b"something").expect("room");
    let refused = tool(&["wal", "verify"], dir.path());
    assert!(!refused.status.success());
    assert!(said(&refused).contains("is not the directory of a log"), "{}", said(&refused));
    let refused = tool(&["db", "stats"], dir.path());
    assert!(said(&refused).contains("belongs to no chain state"), "{}", said(&refused));
    let missing = tool(&["wal", "inspect"], &dir.path().join("missing"));
    assert!(said(&missing).contains("is not a directory"), "{}", said(&missing));
    let options = tool(&["-regtest", "wal", "inspect"], dir.path());
    assert!(said(&options).contains("take a directory and no options"), "{}", said(&options));
}
