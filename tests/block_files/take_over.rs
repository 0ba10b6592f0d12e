//! `import --from-core`: the block files of another node, taken over.

use std::fs;
use std::path::Path;

use cofferdam_tests::process::{Node, run, said};

use super::rebuild::{chain, refused};
use super::{ADDRESS, BINARY, blocks_dir, mine, numbers, start};

#[test]
fn the_files_of_another_node_are_taken_over_in_place() {
    use std::os::unix::fs::MetadataExt as _;
    let (core, state) = chain(700);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let from = core.path().to_str().expect("UTF-8");
    let import = ["-regtest", "import", "--from-core", from];
    let output = run(BINARY, dir.path(), &import);
    assert!(output.status.success(), "{}", said(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains(&state[3].replace('"', "")));
    let links = |number: u32| {
        let path = blocks_dir(dir.path()).join(format!("blk{number:05}.dat"));
        fs::metadata(path).expect("there").nlink()
    };
    let last = *numbers(core.path(), "blk").last().expect("files");
    assert!((0..last).all(|number| links(number) == 2) && links(last) == 1);

    // Both go on, and neither is in the other's way.
    let node = start(dir.path(), &["-fastprune"]);
    assert_eq!(node.state(), state);
    mine(&node, 200);
    let further = node.state();
    node.stop();
    let node = start(core.path(), &["-fastprune"]);
    assert_eq!(node.state(), state);
    let _ = node.rpc("generatetoaddress", &["1", ADDRESS]);
    node.stop();
    // What the other has more than we is copied.
    let output = run(BINARY, dir.path(), &import);
    assert!(output.status.success(), "{}", said(&output));
    let node = start(dir.path(), &["-reindex", "-fastprune"]);
    assert_eq!(node.state(), further);
    node.stop();
}

/// The files of block data, whole.
fn block_data(dir: &Path) -> Vec<(std::ffi::OsString, Vec<u8>)> {
    let files = fs::read_dir(blocks_dir(dir)).expect("readable").map(|entry| entry.expect("there"));
    let files = files.filter(|file| file.path().extension().is_some_and(|end| end == "dat"));
    let mut files: Vec<_> =
        files.map(|file| (file.file_name(), fs::read(file.path()).expect("readable"))).collect();
    files.sort();
    files
}

#[test]
fn an_import_takes_no_file_away_from_the_directory_it_is_given() {
    let (dir, state) = chain(400);
    let (before, own) = (block_data(dir.path()), dir.path().to_str().expect("UTF-8"));
    let other = tempfile::tempdir().expect("a temporary directory");
    let link = other.path().join("link");
    std::os::unix::fs::symlink(dir.path(), &link).expect("room");
    let link = link.to_str().expect("UTF-8");
    let same = "is where this node keeps its own block files";
    let from_itself = || {
        for from in [own, link] {
            let text = refused(dir.path(), &["import", "--from-core", from]);
            assert!(text.contains(same), "{text}");
            let at_its_disk = format!("-blocksdir={own}");
            let text = refused(other.path(), &[&at_its_disk, "import", "--from-core", from]);
            assert!(text.contains(same), "{text}");
        }
        assert!(block_data(dir.path()) == before);
    };
    from_itself();
    // As a directory of Bitcoin Core: without a chain state that this node knows.
    fs::remove_dir_all(dir.path().join("regtest/chainstate")).expect("there");
    from_itself();
    let node = start(dir.path(), &["-reindex"]);
    assert_eq!(node.state(), state);
    node.stop();
}

#[test]
fn files_are_taken_over_only_where_no_others_are() {
    let ((dir, _), (core, state)) = (chain(110), chain(700));
    let before = block_data(dir.path());
    let import = ["import", "--from-core", core.path().to_str().expect("UTF-8")];
    fs::remove_dir_all(dir.path().join("regtest/chainstate")).expect("there");
    let text = refused(dir.path(), &import);
    assert!(text.contains("has block files and no chain state"), "{text}");
    assert!(block_data(dir.path()) == before);
    // One that was interrupted goes on, and nothing else is begun before.
    fs::write(blocks_dir(dir.path()).join("index/REBUILD"), "take files").expect("writable");
    let text = refused(dir.path(), &["-reindex-chainstate"]);
    assert!(text.contains("import --from-core was interrupted"), "{text}");
    let output = run(BINARY, dir.path(), &[&["-regtest"], &import[..]].concat());
    assert!(output.status.success(), "{}", said(&output));
    let node = start(dir.path(), &[]);
    assert_eq!(node.state(), state);
    node.stop();
}

#[test]
fn a_take_over_that_is_refused_leaves_a_directory_to_start_in() {
    let (core, _) = chain(1);
    let files = blocks_dir(core.path());
    fs::rename(files.join("blk00000.dat"), files.join("blk00003.dat")).expect("there");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let import = ["import", "--from-core", core.path().to_str().expect("UTF-8")];
    let text = refused(dir.path(), &import);
    assert!(text.contains("its chain is pruned"), "{text}");
    start(dir.path(), &[]).stop();
}

#[test]
fn files_of_another_network_are_not_taken_over() {
    let (core, _) = chain(1);
    let (dir, from) = (tempfile::tempdir().expect("temporary"), core.path().join("regtest"));
    let import = ["-signet", "import", "--from-core", from.to_str().expect("UTF-8")];
    let refused = |why: &str| {
        let output = run(BINARY, dir.path(), &import);
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(said(&output).contains(why), "{}", said(&output));
        assert!(!dir.path().join("signet/blocks/blk00000.dat").exists());
    };
    refused("blk00000.dat is of network regtest, and this data directory of network signet");
    // Under no key that is there, or with nothing in it.
    let files = blocks_dir(core.path());
    fs::remove_file(files.join("xor.dat")).expect("there");
    refused("does not begin with a block of network signet");
    fs::write(files.join("blk00000.dat"), "").expect("room");
    refused("does not begin with a block of network signet");
    Node::start_on("signet", BINARY, dir.path(), &["-connect=0"]).stop();
}

#[test]
fn a_reindex_removes_nothing_where_bitcoin_core_has_its_block_files() {
    let ((dir, state), (core, _)) = (chain(10), chain(10));
    fs::write(blocks_dir(core.path()).join("index/CURRENT"), "MANIFEST-000004\n").expect("room");
    let before = block_data(core.path());
    let there = format!("-blocksdir={}", core.path().display());
    let text = refused(dir.path(), &["-reindex", &there]);
    assert!(text.contains("is a database of Bitcoin Core"), "{text}");
    assert!(block_data(core.path()) == before);
    let node = start(dir.path(), &[]);
    assert_eq!(node.state(), state);
    node.stop();
}
