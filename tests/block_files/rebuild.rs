//! `-reindex`, `-reindex-chainstate`, `-loadblock` and imports of files.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use cofferdam_tests::process::{Node, command, said, wait_for};
use serde_json::json;

use super::{ADDRESS, BINARY, blocks_dir, log, mine, numbers, start};

/// A directory with a chain of `blocks`, on small files; and its state.
pub(crate) fn chain(blocks: u32) -> (tempfile::TempDir, [String; 4]) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let node = start(dir.path(), &["-fastprune"]);
    mine(&node, blocks);
    let state = node.state();
    node.stop();
    (dir, state)
}

/// Starts with an option that has to end the start, and returns what it said.
pub(crate) fn refused(dir: &std::path::Path, args: &[&str]) -> String {
    let alone = ["-regtest", "-connect=0", "-server=0"];
    let output = command(BINARY, dir).args(alone).args(args).output();
    let output = output.expect("the binary starts");
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    String::from_utf8(output.stderr).expect("UTF-8").trim().to_owned()
}

#[test]
fn both_ways_of_building_anew_end_at_the_same_state_and_write_no_block_again() {
    let (dir, state) = chain(700);
    let files = numbers(dir.path(), "blk");
    assert!(files.len() > 2, "{files:?}");
    let sizes = || -> Vec<u64> {
        let size = |number: &u32| {
            let path = blocks_dir(dir.path()).join(format!("blk{number:05}.dat"));
            fs::metadata(path).expect("there").len()
        };
        numbers(dir.path(), "blk").iter().map(size).collect()
    };
    let before = sizes();
    for option in ["-reindex", "-reindex-chainstate", "-reindex"] {
        let node = start(dir.path(), &["-fastprune", option]);
        assert_eq!(node.state(), state, "{option}");
        // Undo data are there again: the chain can be taken down.
        let block = node.rpc("getblockhash", &["690"]);
        let _ = node.rpc("invalidateblock", &[block.as_str().expect("a hash")]);
        assert_eq!(node.height(), 689);
        let _ = node.rpc("reconsiderblock", &[block.as_str().expect("a hash")]);
        assert_eq!(node.state(), state, "{option}");
        node.stop();
        assert_eq!(sizes(), before, "{option}");
    }
    assert!(log(dir.path()).contains("Reindexing finished"));
}

#[test]
fn a_node_stops_at_the_height_it_was_told_amid_many_blocks() {
    let (dir, state) = chain(700);
    for (option, height) in [(Some("-reindex-chainstate"), 100), (None, 101), (None, 650)] {
        let stop = format!("-stopatheight={height}");
        let output = command(BINARY, dir.path())
            .args(["-regtest", "-connect=0", "-listen=0", "-server=0", "-fastprune", &stop])
            .args(option)
            .output();
        let output = output.expect("the binary starts");
        assert!(output.status.success() && output.stderr.is_empty(), "{}", said(&output));
        let log = log(dir.path());
        assert!(log.contains(&format!("Stopping at height {height}\n")), "{log}");
    }
    let node = start(dir.path(), &["-fastprune"]);
    assert_eq!(node.state(), state);
    node.stop();
    let log = log(dir.path());
    for height in [100, 101, 650] {
        assert!(log.contains(&format!("chain state: height {height},")), "{log}");
    }
}

#[test]
fn a_reindex_that_was_killed_goes_on_without_the_option() {
    let (dir, state) = chain(1500);
    // Killed as soon as it answers, which is while it reads the files, or before or after.
    let args = ["-connect=0", "-blockfilterindex", "-reindex"];
    drop(Node::start(BINARY, dir.path(), &args));
    let begun = log(dir.path()).len();
    let node = start(dir.path(), &["-blockfilterindex"]);
    assert_eq!(node.state(), state);
    node.stop();
    // The index goes on from where it was.
    let index = dir.path().join("regtest/indexes/blockfilter/basic/db");
    let (log_text, index) = (log(dir.path()), index.display().to_string());
    assert!(log_text[begun..].contains(&format!("Opening LevelDB in {index}")), "{log_text}");
    assert!(!log_text[begun..].contains(&format!("Wiping LevelDB in {index}")), "{log_text}");
    drop(Node::start(BINARY, dir.path(), &["-connect=0", "-reindex-chainstate"]));
    let node = start(dir.path(), &[]);
    assert_eq!(node.state(), state);
    node.stop();
    // A step that was not finished is done again.
    fs::write(blocks_dir(dir.path()).join("index/REBUILD"), "wipe").expect("writable");
    let node = start(dir.path(), &[]);
    assert_eq!(node.state(), state);
    node.stop();
    assert_eq!(log(dir.path()).matches("Reindexing finished").count(), 2);
}

#[test]
fn the_transaction_queue_outlives_the_building_anew() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let node = start(dir.path(), &[]);
    // Anyone may spend it.
    let _ = node.rpc("generatetodescriptor", &["101", "raw(51)"]);
    let block = node.rpc("getblockhash", &["1"]);
    let block = node.rpc("getblock", &[block.as_str().expect("a hash")]);
    let inputs = json!([{"txid": block["tx"][0], "vout": 0}]).to_string();
    let outputs = json!([{ADDRESS: 49.9999}]).to_string();
    let raw = node.rpc("createrawtransaction", &[&inputs, &outputs]);
    let waiting = json!([node.rpc("sendrawtransaction", &[raw.as_str().expect("hex")])]);
    node.stop();
    for option in ["-reindex", "-reindex-chainstate"] {
        // One that ends before the queue is read leaves its file as it is.
        let args = ["-connect=0", "-listen=0", "-server=0", "-stopafterblockimport", option];
        let output = command(BINARY, dir.path()).arg("-regtest").args(args).output();
        let output = output.expect("the binary starts");
        assert!(output.status.success() && output.stderr.is_empty(), "{}", said(&output));
        let node = start(dir.path(), &[option]);
        assert_eq!(node.rpc("getrawmempool", &[]), waiting, "{option}");
        node.stop();
    }
}

#[test]
fn a_missing_index_or_chain_state_is_told_and_rebuilt_only_when_asked_for() {
    let (dir, state) = chain(110);
    let advice = ".\nPlease restart with -reindex or -reindex-chainstate to recover.";
    fs::remove_dir_all(blocks_dir(dir.path()).join("index")).expect("there");
    let text = format!("Error initializing block database{advice}");
    assert_eq!(refused(dir.path(), &[]), text);
    let yes = "-test=reindex_after_failure_noninteractive_yes";
    let node = start(dir.path(), &[yes]);
    assert_eq!(node.state(), state);
    node.stop();
    fs::remove_dir_all(dir.path().join("regtest/chainstate")).expect("there");
    assert_eq!(refused(dir.path(), &[]), format!("Error opening coins database{advice}"));
    let node = start(dir.path(), &["-reindex"]);
    assert_eq!(node.state(), state);
    node.stop();
    // Both are gone: the block files are no less there.
    fs::remove_dir_all(dir.path().join("regtest/chainstate")).expect("there");
    fs::remove_dir_all(blocks_dir(dir.path()).join("index")).expect("there");
    assert_eq!(refused(dir.path(), &[]), format!("Error opening coins database{advice}"));
    // The other half of the advice.
    let node = start(dir.path(), &["-reindex-chainstate"]);
    assert_eq!(node.state(), state);
    node.stop();
    assert!(log(dir.path()).contains("-reindex-chainstate does what -reindex does"));
}

#[test]
fn a_chain_state_that_cannot_be_made_anew_is_kept() {
    let (dir, state) = chain(700);
    let (file, away) = (blocks_dir(dir.path()).join("blk00001.dat"), dir.path().join("away"));
    fs::rename(&file, &away).expect("there");
    let text = refused(dir.path(), &["-fastprune", "-reindex-chainstate"]);
    assert!(text.starts_with("Error loading block database.\nPlease restart"), "{text}");
    fs::rename(&away, &file).expect("there");
    let node = start(dir.path(), &["-fastprune", "-prune=1"]);
    assert_eq!(node.state(), state);
    assert_ne!(node.rpc("pruneblockchain", &["400"]), -1);
    node.stop();
    // The option that the first refusal tells of does not lead out of it, and costs nothing.
    for option in [&[][..], &["-reindex-chainstate"]] {
        let text = refused(dir.path(), &[&["-fastprune"][..], option].concat());
        assert!(text.starts_with("You need to rebuild the database using -reindex"), "{text}");
    }
    let node = start(dir.path(), &["-fastprune", "-prune=1"]);
    assert_eq!(node.state(), state);
    node.stop();
}

#[test]
fn blocks_from_before_segwit_are_checked_again() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let node = start(dir.path(), &["-testactivationheight=segwit@10"]);
    mine(&node, 8);
    node.stop();
    let text = refused(dir.path(), &["-testactivationheight=segwit@5"]);
    assert_eq!(
        text,
        "Witness data for blocks after height 5 requires validation. Please restart with -reindex..\n\
         Please restart with -reindex or -reindex-chainstate to recover."
    );
    let node = start(dir.path(), &["-testactivationheight=segwit@5", "-reindex"]);
    assert_eq!(node.height(), 4);
    node.stop();
}

/// Blocks as files have them.
fn frames(node: &Node, heights: impl Iterator<Item = u32>) -> Vec<u8> {
    let mut frames = Vec::new();
    for height in heights {
        let hash = node.rpc("getblockhash", &[&height.to_string()]);
        let hex = node.rpc("getblock", &[hash.as_str().expect("a hash"), "0"]);
        let raw: Vec<u8> =
            bitcoin::hex::FromHex::from_hex(hex.as_str().expect("hex")).expect("hex");
        frames.extend([0xfa, 0xbf, 0xb5, 0xda]);
        frames.extend(u32::try_from(raw.len()).expect("small").to_le_bytes());
        frames.extend(raw);
    }
    frames
}

#[test]
fn blocks_that_are_imported_are_not_told_as_new() {
    let ((dir, _), other) = (chain(30), tempfile::tempdir().expect("a temporary directory"));
    let node = start(dir.path(), &[]);
    let file = other.path().join("bootstrap.dat");
    fs::write(&file, frames(&node, 1..=30)).expect("room");
    node.stop();
    let (load, told) = (format!("-loadblock={}", file.display()), other.path().join("told"));
    let notify = format!("-blocknotify=echo %s >> {}", told.display());
    let told = || fs::read_to_string(&told).unwrap_or_default();
    let mut expected = String::new();
    let starts =
        [(dir.path(), "-reindex"), (dir.path(), "-reindex-chainstate"), (other.path(), &load)];
    for (dir, option) in starts {
        let node = start(dir, &["-fastprune", &notify, option]);
        assert_eq!(node.rpc("getblockchaininfo", &[])["initialblockdownload"], false, "{option}");
        mine(&node, 1);
        let best = node.rpc("getbestblockhash", &[]);
        expected.push_str(best.as_str().expect("a hash"));
        expected.push('\n');
        wait_for("the command", || (told().len() >= expected.len()).then_some(()));
        assert_eq!(told(), expected, "{option}");
        node.stop();
    }
}

/// Otherwise a block that is assumed to be valid would be unknown while those below are connected.
#[test]
fn headers_of_all_files_are_known_before_the_first_block_is_connected() {
    let (dir, state) = chain(30);
    let node = start(dir.path(), &[]);
    let parts = [frames(&node, 1..=15), frames(&node, 16..=30)];
    let tip = node.rpc("getbestblockhash", &[]);
    node.stop();
    assert!(log(dir.path()).contains("assumevalid=0 (always verify)"));
    let other = tempfile::tempdir().expect("a temporary directory");
    let mut options = vec![format!("-assumevalid={}", tip.as_str().expect("a hash"))];
    for (number, part) in parts.iter().enumerate() {
        let file = other.path().join(format!("part{number}.dat"));
        fs::write(&file, part).expect("room");
        options.push(format!("-loadblock={}", file.display()));
    }
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let node = start(other.path(), &options);
    assert_eq!(node.state(), state);
    node.stop();
    let log = log(other.path());
    assert!(log.contains("Enabling script verification at block #1 ("), "{log}");
    assert!(
        log.contains("): block too recent relative to best header.")
            && !log.contains("not in headers")
    );
}

#[test]
fn files_given_at_the_start_are_imported_before_the_node_says_it_is_ready() {
    let (dir, state) = chain(30);
    let node = start(dir.path(), &[]);
    // The other way round: parents come last.
    let bootstrap = frames(&node, (1..=30).rev());
    node.stop();
    let other = tempfile::tempdir().expect("a temporary directory");
    let file = other.path().join("bootstrap.dat");
    fs::write(&file, bootstrap).expect("room");
    let option = format!("-loadblock={}", file.display());
    let node = start(other.path(), &[&option, "-loadblock=/missing.dat", "-debug"]);
    assert_eq!(node.state(), state);
    node.stop();
    let log = log(other.path());
    // A node for the import alone.
    fs::remove_dir_all(other.path().join("regtest")).expect("there");
    let args = ["-stopafterblockimport", "-server=0", &option];
    let output = command(BINARY, other.path()).args(["-regtest", "-connect=0"]).args(args).output();
    let output = output.expect("the binary starts");
    assert!(output.status.success() && output.stderr.is_empty(), "{}", said(&output));
    assert!(self::log(other.path()).contains("Stopping after block import"));
    let node = start(other.path(), &[]);
    assert_eq!(node.state(), state);
    node.stop();
    for line in [
        "initload thread start",
        "LoadExternalBlockFile: Out of order block",
        "LoadExternalBlockFile: Processing out of order child",
        "Could not open blocks file /missing.dat",
    ] {
        assert!(log.contains(line), "{line}");
    }
}

/// Runs an import into a directory of its own, and then into another one where it is killed a few
/// times, a little later each time; returns the other directory.
fn killed_imports(import: impl Fn(&Path) -> Command) -> tempfile::TempDir {
    let dirs = [tempfile::tempdir(), tempfile::tempdir()].map(|dir| dir.expect("temporary"));
    let finish = |dir: &Path| {
        let output = import(dir).output().expect("the binary starts");
        assert!(output.status.success(), "{}", said(&output));
    };
    let start = Instant::now();
    finish(dirs[0].path());
    let whole = start.elapsed();
    let killed = |part: u32| {
        let mut import = import(dirs[1].path());
        let mut child =
            import.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the binary starts");
        std::thread::sleep(whole * part / 6);
        let amid = child.try_wait().expect("a child").is_none();
        child.kill().expect("a child");
        child.wait().expect("a child");
        amid
    };
    assert!((1..=5).filter(|part| killed(*part)).count() > 0, "never killed");
    finish(dirs[1].path());
    let [_, dir] = dirs;
    dir
}

#[test]
fn imports_that_are_killed_over_and_over_end_as_those_that_are_not() {
    let core = tempfile::tempdir().expect("a temporary directory");
    let node = start(core.path(), &["-fastprune", "-blocksxor=0"]);
    mine(&node, 700);
    let state = node.state();
    node.stop();
    let files = numbers(core.path(), "blk").into_iter();
    let files = files.map(|number| blocks_dir(core.path()).join(format!("blk{number:05}.dat")));
    let load: Vec<String> = files.map(|file| format!("-loadblock={}", file.display())).collect();
    let taken_over = killed_imports(|dir| {
        let mut import = command(BINARY, dir);
        import.args(["-regtest", "import", "--from-core"]).arg(core.path());
        import
    });
    let loaded = killed_imports(|dir| {
        let mut import = command(BINARY, dir);
        import.args(["-regtest", "-connect=0", "-listen=0", "-server=0", "-stopafterblockimport"]);
        import.args(&load);
        import
    });
    for dir in [taken_over, loaded] {
        let node = start(dir.path(), &[]);
        assert_eq!(node.state(), state);
        node.stop();
    }
}

/// What a node is left with that found a block rotten and fetched it again.
#[test]
fn a_reindex_takes_the_other_copy_of_a_damaged_block() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let node = start(dir.path(), &["-blocksxor=0"]);
    mine(&node, 30);
    let (state, copy) = (node.state(), frames(&node, 20..=20));
    node.stop();
    let path = blocks_dir(dir.path()).join("blk00000.dat");
    let mut bytes = fs::read(&path).expect("there");
    let at = bytes.windows(copy.len()).position(|frame| frame == copy).expect("stored");
    // A byte of the coinbase.
    bytes[at + 8 + 130] ^= 1;
    fs::write(&path, bytes).expect("room");
    fs::write(blocks_dir(dir.path()).join("blk00001.dat"), copy).expect("room");
    for _ in 0..2 {
        let node = start(dir.path(), &["-reindex"]);
        assert_eq!(node.state(), state);
        node.stop();
    }
    assert_eq!(numbers(dir.path(), "blk"), [0, 1], "nothing is stored again");
}

#[test]
fn a_tip_from_the_future_is_told_before_anything_is_done() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let node = start(dir.path(), &["-mocktime=1800000000"]);
    mine(&node, 1);
    node.stop();
    let text = refused(dir.path(), &["-mocktime=1799990000"]);
    assert!(text.contains("contains a block which appears to be from the future"), "{text}");
    start(dir.path(), &["-mocktime=1799993000"]).stop();
}
