//! Each reads what the other has written to its disk.

use std::fs;
use std::path::{Path, PathBuf};

use cofferdam_tests::process;
use serde_json::json;

use crate::pair::{Pair, Who};
use crate::{COFFERDAM, chain_file};

const BLOCKS: usize = 600;
const TXS: usize = 10;

/// The files of blocks below a data directory, in order.
fn block_files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir.join("regtest/blocks")).expect("a directory");
    let paths = entries.map(|entry| entry.expect("readable").path());
    let is_blocks = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with("blk") && Path::new(name).extension().is_some_and(|end| end == "dat")
    };
    let mut files: Vec<_> = paths.filter(is_blocks).collect();
    files.sort();
    files
}

/// Ours with a chain of payments, its blocks in files, and a branch that it has left.
fn ours_with_a_chain(pair: &Pair) -> [String; 4] {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (file, tip) = chain_file::write(dir.path(), 4, BLOCKS, TXS);
    pair.import(Who::Ours, &file);
    let ours = pair.start(Who::Ours, &["-connect=0"]);
    assert_eq!(ours.best(), tip.to_string());
    // A branch of two blocks that is left for one of three.
    let mined = ours.rpc("generatetodescriptor", json!([2, "raw(51)"]));
    let _ = ours.rpc("invalidateblock", json!([mined[0]]));
    let _ = ours.rpc("generatetodescriptor", json!([3, "raw(52)"]));
    let _ = ours.rpc("reconsiderblock", json!([mined[0]]));
    let state = ours.state();
    ours.stop();
    state
}

#[test]
fn core_reindexes_from_our_block_files() {
    let Some(pair) = Pair::new() else { return };
    let state = ours_with_a_chain(&pair);
    let blocks = pair.dir(Who::Core).join("regtest/blocks");
    fs::create_dir_all(&blocks).expect("room");
    let from = pair.dir(Who::Ours).join("regtest/blocks");
    for file in block_files(pair.dir(Who::Ours)).into_iter().chain([from.join("xor.dat")]) {
        fs::copy(&file, blocks.join(file.file_name().expect("a file"))).expect("room");
    }
    let core = pair.start(Who::Core, &["-reindex", "-connect=0"]);
    assert_eq!(core.state(), state);
    assert_eq!(core.rpc("verifychain", json!([4, 0])), true);
    let tips = core.rpc("getchaintips", json!([]));
    assert_eq!(tips.as_array().map(Vec::len), Some(2), "the branch that was left is there: {tips}");
}

/// Core keeps its files obfuscated with a key of its own; ours reads them where they are.
fn core_with_a_chain(pair: &Pair) -> [String; 4] {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (file, tip) = chain_file::write(dir.path(), 5, BLOCKS, TXS);
    pair.import(Who::Core, &file);
    let core = pair.start(Who::Core, &["-connect=0"]);
    assert_eq!(core.best(), tip.to_string());
    let _ = core.mine(3);
    let state = core.state();
    core.stop();
    let key = fs::read(pair.dir(Who::Core).join("regtest/blocks/xor.dat")).expect("a key");
    assert_ne!(key, [0; 8], "Core obfuscates its files");
    state
}

#[test]
fn we_import_the_block_files_of_core() {
    let Some(pair) = Pair::new() else { return };
    let state = core_with_a_chain(&pair);
    let files = block_files(pair.dir(Who::Core));
    let mut args = vec!["-regtest", "import"];
    args.extend(files.iter().map(|file| file.to_str().expect("UTF-8")));
    let imported = process::run(COFFERDAM, pair.dir(Who::Ours), &args);
    assert!(imported.status.success(), "{}", process::said(&imported));
    let ours = pair.start(Who::Ours, &["-connect=0"]);
    assert_eq!(ours.state(), state);
    // And it goes on with what it has read.
    let core = pair.start(Who::Core, &["-connect=0"]);
    ours.connect(&core);
    let _ = core.mine(2);
    ours.follow(&core);
    let _ = ours.mine(2);
    core.follow(&ours);
    assert_eq!(ours.state(), core.state());
}

/// The directory as it is: no list of files, and nothing in it changes.
#[test]
fn we_take_over_the_data_directory_of_core() {
    let Some(pair) = Pair::new() else { return };
    let state = core_with_a_chain(&pair);
    let from = pair.dir(Who::Core).to_str().expect("UTF-8");
    let contents = || {
        let files = block_files(pair.dir(Who::Core)).into_iter();
        files.map(|file| fs::read(file).expect("readable")).collect::<Vec<_>>()
    };
    let before = contents();
    let args = ["-regtest", "import", "--from-core", from];
    let imported = process::run(COFFERDAM, pair.dir(Who::Ours), &args);
    assert!(imported.status.success(), "{}", process::said(&imported));
    let ours = pair.start(Who::Ours, &["-connect=0"]);
    assert_eq!(ours.state(), state);
    let _ = ours.mine(3);
    ours.stop();
    assert!(contents() == before, "Core's files are as they were");
    let core = pair.start(Who::Core, &["-connect=0"]);
    assert_eq!(core.state(), state);
}

/// Neither beside Core nor after it: the directory stays Core's.
#[test]
fn the_data_directory_of_core_is_not_ours() {
    let Some(pair) = Pair::new() else { return };
    let state = core_with_a_chain(&pair);
    let dir = pair.dir(Who::Core);
    let refused = |args: &[&str], why: &str| {
        let output = process::run(COFFERDAM, dir, &[&["-regtest"], args].concat());
        assert!(!output.status.success(), "{}", process::said(&output));
        assert!(process::said(&output).contains(why), "{}", process::said(&output));
    };
    let from = dir.to_str().expect("UTF-8");
    let core = pair.start(Who::Core, &["-connect=0"]);
    refused(&["-connect=0", "-listen=0"], "Cannot obtain a lock on directory");
    refused(&["import", "--from-core", from], "Cannot obtain a lock on directory");
    assert_eq!(core.state(), state);
    // Its files can be taken over while it runs.
    let imported =
        process::run(COFFERDAM, pair.dir(Who::Ours), &["-regtest", "import", "--from-core", from]);
    assert!(imported.status.success(), "{}", process::said(&imported));
    core.stop();
    refused(&["-connect=0", "-listen=0"], "import --from-core");
    refused(&["import", "--from-core", from], "import --from-core");
    let core = pair.start(Who::Core, &["-connect=0"]);
    assert_eq!(core.state(), state);
}
