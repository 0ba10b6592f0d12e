//! Does bad input get a clear error, and is nothing lost by it?
#![expect(clippy::indexing_slicing, reason = "a test fails by a panic")]

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use cofferdam_tests::data;
use cofferdam_tests::process::{Node, command, run, said, wait_for};

const BINARY: &str = env!("CARGO_BIN_EXE_cofferdam-under-test");
const CHAIN: &str = "regtest/chain-a-0-150.blkdat";

/// The lines `name value` that an import prints last.
fn printed(output: &Output, name: &str) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find_map(|line| line.trim().strip_prefix(name));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).trim().to_owned()
}

fn import(dir: &Path, file: &Path) -> Output {
    let file = file.to_str().expect("UTF-8");
    run(BINARY, dir, &["-regtest", "-backend=sled", "import", file])
}

/// Imports `bytes` as a file of regtest blocks, and checks what came out of it.
fn check(bytes: &[u8], height: u32, message: &str) {
    assert!(import_bytes(bytes, height, message).status.success());
}

fn import_bytes(bytes: &[u8], height: u32, message: &str) -> Output {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("blk00000.dat");
    fs::write(&file, bytes).expect("room");
    let output = import(&dir.path().join("node"), &file);
    let all = said(&output);
    assert_eq!(printed(&output, "height"), height.to_string(), "{all}");
    assert!(all.contains(message), "{message:?} is not in: {all}");
    output
}

fn chain() -> Vec<u8> {
    fs::read(data::path(CHAIN)).expect("in the repository")
}

/// Where block `index` of a `.blkdat` file begins.
fn start_of(bytes: &[u8], index: usize) -> usize {
    (0..index).fold(0, |at, _| {
        let length = u32::from_le_bytes(bytes[at + 4..at + 8].try_into().expect("four"));
        at + 8 + length as usize
    })
}

#[test]
fn whole_file_gives_the_known_hashes() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let output = import(dir.path(), &data::path(CHAIN));
    let expected = data::states(CHAIN).pop().expect("a tip");
    assert_eq!(printed(&output, "height"), expected.height.to_string());
    assert_eq!(printed(&output, "tip"), expected.block_hash);
    assert_eq!(printed(&output, "utxos"), expected.utxo_count.to_string());
    assert_eq!(printed(&output, "hash_serialized_3"), expected.hash_serialized_3);
    assert_eq!(printed(&output, "muhash"), expected.muhash);
}

#[test]
fn truncated_file_gives_all_whole_blocks() {
    let bytes = chain();
    let cut = start_of(&bytes, 101) + 50;
    check(&bytes[..cut], 100, "is cut off by the end of the file");
}

#[test]
fn garbage_between_blocks_is_skipped_and_counted() {
    let bytes = chain();
    let at = start_of(&bytes, 77);
    let garbage = b"this is no block \xfa\xbf\xb5 ";
    // Zero bytes are no garbage: Bitcoin Core preallocates with them.
    let spoilt = [&bytes[..at], garbage, &[0; 100], &bytes[at..]].concat();
    check(&spoilt, 150, &format!("{} bytes are no block and were skipped", garbage.len()));
}

#[test]
fn blocks_in_reverse_order_are_connected() {
    let bytes = chain();
    let starts: Vec<usize> = (0..=151).map(|index| start_of(&bytes, index)).collect();
    let reversed: Vec<u8> =
        starts.windows(2).rev().flat_map(|pair| bytes[pair[0]..pair[1]].to_vec()).collect();
    check(&reversed, 150, "");
}

#[test]
fn obfuscated_file_is_read_with_its_key() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let key = [7, 1, 8, 2, 8, 1, 8, 2];
    let mut bytes = chain();
    for (byte, key) in bytes.iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
    fs::write(dir.path().join("xor.dat"), key).expect("room");
    let file = dir.path().join("blk00000.dat");
    fs::write(&file, bytes).expect("room");
    let output = import(&dir.path().join("node"), &file);
    assert_eq!(printed(&output, "height"), "150", "{}", said(&output));
}

#[test]
fn block_that_breaks_a_rule_is_named_and_what_is_before_it_kept() {
    let mut bytes = chain();
    let at = start_of(&bytes, 60) + 8;
    // A byte of the coinbase: the merkle root no longer fits.
    bytes[at + 130] ^= 1;
    let output = import_bytes(&bytes, 59, "bad-txnmrklroot");
    assert!(!output.status.success(), "{}", said(&output));
}

/// Of whatever kind the damage is: seen when a block is parsed, checked, or put into its chain.
#[test]
fn another_copy_of_a_damaged_block_is_taken() {
    let good = chain();
    let (mut damaged, mut worse) = (good.clone(), good.clone());
    for block in [1, 60, 150] {
        let at = start_of(&good, block) + 8;
        damaged[at + 130] ^= 1;
        // The count of transactions.
        worse[at + 80] ^= 0x40;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let files = [("worse.dat", worse), ("damaged.dat", damaged), ("good.dat", good)];
    let mut args = vec!["-regtest".to_owned(), "-backend=sled".to_owned(), "import".to_owned()];
    for (name, bytes) in files {
        fs::write(dir.path().join(name), bytes).expect("room");
        args.push(dir.path().join(name).to_str().expect("UTF-8").to_owned());
    }
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let output = run(BINARY, &dir.path().join("node"), &args);
    assert_eq!(printed(&output, "height"), "150", "{}", said(&output));
    assert!(output.status.success(), "{}", said(&output));
    // And where no copy is whole, the block is named once.
    let output = run(BINARY, &dir.path().join("other"), &args[..args.len() - 1]);
    assert_eq!(printed(&output, "height"), "0", "{}", said(&output));
    assert!(said(&output).contains("blocks that are not valid: 3"), "{}", said(&output));
}

#[test]
fn another_networks_file_is_refused_by_name() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let output = import(dir.path(), &data::path("signet/chain-0-120.blkdat"));
    assert!(!output.status.success());
    let all = said(&output);
    assert!(all.contains("signet") && all.contains("regtest"), "{all}");
}

#[test]
fn missing_file_is_named() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let output = import(dir.path(), Path::new("/no/such/blk00000.dat"));
    assert!(!output.status.success());
    assert!(said(&output).contains("/no/such/blk00000.dat"), "{}", said(&output));
}

#[test]
fn second_process_is_refused_and_the_first_goes_on() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let node = Node::start(BINARY, dir.path(), &["-backend=sled"]);
    let output = import(dir.path(), &data::path(CHAIN));
    assert!(!output.status.success());
    assert!(said(&output).contains("Cannot obtain a lock on directory"), "{}", said(&output));
    assert_eq!(node.height(), 0);
    node.stop();
}

#[test]
fn other_engine_is_refused_by_name() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    assert!(import(dir.path(), &data::path(CHAIN)).status.success());
    let file = data::path(CHAIN);
    let args = ["-regtest", "-backend=rocksdb", "import", file.to_str().expect("UTF-8")];
    let output = run(BINARY, dir.path(), &args);
    assert!(!output.status.success());
    let all = said(&output);
    assert!(all.contains("sled") && all.contains("rocksdb"), "{all}");
}

/// As an ordinary user where the tests run as root: root may write anywhere.
#[test]
fn unwritable_directory_is_named() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let locked = dir.path().join("locked");
    fs::create_dir(&locked).expect("room");
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o500)).expect("owner");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("owner");
    let file = data::path(CHAIN);
    let mut import = command(BINARY, &locked);
    import.args(["-regtest", "-backend=sled", "import"]).arg(&file);
    let is_root = fs::write(locked.join("probe"), b"").is_ok();
    let output =
        if is_root { as_nobody(&import, dir.path()) } else { import.output().expect("starts") };
    assert!(!output.status.success());
    let all = said(&output);
    assert!(all.contains("locked") && all.contains("ermission denied"), "{all}");
}

/// Block files may be read-only, as Bitcoin Core's that are taken over; what is to be appended to one
/// of them is an error that names it. As an ordinary user where the tests run as root.
#[test]
fn block_files_that_may_only_be_read_are_read() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (core, node) = (dir.path().join("core/regtest/blocks"), dir.path().join("node"));
    fs::create_dir_all(&core).expect("room");
    fs::create_dir(&node).expect("room");
    let protect = |path: &Path| {
        fs::set_permissions(path, fs::Permissions::from_mode(0o444)).expect("owner");
    };
    let (bytes, names) = (chain(), ["blk00000.dat", "blk00001.dat"]);
    let (middle, end) = (start_of(&bytes, 60), start_of(&bytes, 101));
    for (name, bytes) in names.iter().zip([&bytes[..middle], &bytes[middle..end]]) {
        fs::write(core.join(name), bytes).expect("room");
        protect(&core.join(name));
    }
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("owner");
    let owned = [core.join(names[0]), core.join(names[1]), core.clone(), node.clone()];
    let is_root = owned.iter().all(|path| chown(path, Some(NOBODY), Some(NOBODY)).is_ok());
    let run = |args: &[&str]| {
        let mut run = command(BINARY, &node);
        run.args(["-regtest", "-backend=sled"]).args(args);
        if is_root { as_nobody(&run, dir.path()) } else { run.output().expect("starts") }
    };
    let core = dir.path().join("core");
    let imported = run(&["import", "--from-core", core.to_str().expect("UTF-8")]);
    assert_eq!(printed(&imported, "height"), "100", "{}", said(&imported));

    let own = node.join("regtest/blocks");
    ["blk00000.dat", "blk00001.dat", "rev00001.dat"]
        .iter()
        .for_each(|name| protect(&own.join(name)));
    let start = ["-server=0", "-connect=0", "-stopafterblockimport", "-checkblocks=0"];
    let started = run(&start);
    assert!(started.status.success(), "{}", said(&started));

    let more = dir.path().join("more.dat");
    fs::write(&more, &bytes[end..]).expect("room");
    let failed = run(&["import", more.to_str().expect("UTF-8")]);
    assert!(!failed.status.success());
    assert!(said(&failed).contains("blk00001.dat: permission denied"), "{}", said(&failed));
}

#[test]
fn a_node_that_may_open_few_files_has_fewer_peers() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let start = |limit: &str| {
        let run = format!("ulimit {limit} && exec \"$0\" \"$@\"");
        let mut node = Command::new("sh");
        node.args(["-c", &run, BINARY]).arg(format!("-datadir={}", dir.path().display()));
        node.args(["-regtest", "-backend=sled", "-server=0", "-connect=0", "-printtoconsole=0"]);
        node.args(["-stopafterblockimport", "-maxconnections=600"]).output().expect("sh")
    };
    let log = || fs::read_to_string(dir.path().join("regtest/debug.log")).expect("a log");

    let refused = start("-n 300");
    assert!(!refused.status.success());
    let text = "Error: Not enough file descriptors available. 300 available, ";
    assert!(said(&refused).contains(text), "{}", said(&refused));

    let limited = start("-n 800");
    assert!(limited.status.success(), "{}", said(&limited));
    let text = "Reducing -maxconnections from 600 to ";
    assert!(said(&limited).contains(&format!("Warning: {text}")), "{}", said(&limited));
    assert!(log().contains(text), "{}", log());

    // What the user may raise is raised.
    let text = "Using at most 600 automatic connections (";
    assert!(!log().contains(text), "{}", log());
    let raised = start("-S -n 256");
    assert!(raised.status.success() && raised.stderr.is_empty(), "{}", said(&raised));
    assert!(log().contains(text), "{}", log());
}

/// The user and the group of that name.
const NOBODY: u32 = 65_534;

/// Runs a command as the user `nobody`, with a copy of the binary that this user can read.
fn as_nobody(import: &Command, dir: &Path) -> Output {
    let binary = dir.join("cofferdam");
    // Not by this process: a child of another test would have it open for writing, too, for a moment.
    let copied = Command::new("cp").arg(BINARY).arg(&binary).status().expect("cp");
    assert!(copied.success(), "no room");
    fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).expect("owner");
    let mut command = Command::new("setpriv");
    let (user, group) = (format!("--reuid={NOBODY}"), format!("--regid={NOBODY}"));
    command.args([&user, &group, "--clear-groups"]).arg(&binary);
    command.args(import.get_args()).output().expect("setpriv is part of util-linux")
}

const NOT_RUN: &str = "not run: mounting a file system needs root";
const LONG_CHAIN: &str = "mainnet/chain-0-4521.blkdat";

/// A file system of some megabytes in memory.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// Mounts one, if the tests may.
    fn mount(size: &str) -> Option<Self> {
        let disk = Self(tempfile::tempdir().expect("a temporary directory"));
        let mounted = disk.call_mount(&["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]);
        mounted.then_some(disk)
    }

    fn call_mount(&self, args: &[&str]) -> bool {
        let status = Command::new("mount").args(args).arg(self.0.path()).status();
        status.is_ok_and(|status| status.success())
    }

    fn grow(&self) {
        assert!(self.call_mount(&["-o", "remount,size=400m"]));
    }

    /// The import of [`LONG_CHAIN`] into a node on this disk.
    fn import(&self, min_free_space: &str) -> Command {
        let mut import = command(BINARY, &self.0.path().join("node"));
        import.args(["-backend=rocksdb", min_free_space, "import"]).arg(data::path(LONG_CHAIN));
        import
    }

    /// Starts an import that does not fit, and waits until it says that it is paused.
    fn paused_import(&self) -> Child {
        paused(&mut self.import("-minfreespace=64"), &self.0.path().join("node"))
    }
}

/// Starts a node in `dir`, and waits until it says that it is paused.
fn paused(node: &mut Command, dir: &Path) -> Child {
    let node = node.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = node.spawn().expect("the binary starts");
    wait_for("a pause", || {
        assert!(child.try_wait().expect("a child").is_none(), "ended instead");
        let log = fs::read_to_string(dir.join("debug.log")).ok()?;
        log.contains("paused: ").then_some(())
    });
    child
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: after a failure a process may still be there.
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

fn check_imported(output: &Output) {
    assert!(output.status.success(), "{}", said(output));
    let known = data::states(LONG_CHAIN).pop().expect("a tip").hash_serialized_3;
    assert_eq!(printed(output, "hash_serialized_3"), known, "{}", said(output));
}

/// A real full disk: no reserve is kept, so that the system refuses a write.
#[test]
fn full_disk_is_named_and_nothing_is_lost() {
    let Some(disk) = SmallDisk::mount("3m") else {
        println!("{NOT_RUN}");
        return;
    };
    let failed = disk.import("-minfreespace=0").output().expect("starts");
    assert!(!failed.status.success(), "{}", said(&failed));
    assert!(said(&failed).contains("No space left on device"), "{}", said(&failed));
    // With room again the same command goes on where it was, and ends at the known hash.
    disk.grow();
    check_imported(&disk.import("-minfreespace=0").output().expect("starts"));
}

#[test]
fn import_pauses_before_the_disk_is_full_and_goes_on_with_more_room() {
    let Some(disk) = SmallDisk::mount("70m") else {
        println!("{NOT_RUN}");
        return;
    };
    let child = disk.paused_import();
    disk.grow();
    let output = child.wait_with_output().expect("a child");
    check_imported(&output);
    let all = said(&output);
    assert!(all.contains("Warning: paused: ") && all.contains("waiting for free space"), "{all}");
    assert!(all.contains("space again: going on"), "{all}");
}

/// Block files may be on another disk than the rest, and that one may be the full one.
#[test]
fn import_pauses_before_the_disk_of_blocksdir_is_full() {
    let Some(disk) = SmallDisk::mount("64m") else {
        println!("{NOT_RUN}");
        return;
    };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut import = command(BINARY, dir.path());
    import.args(["-backend=rocksdb", "-minfreespace=64"]);
    import.arg(format!("-blocksdir={}", disk.0.path().display()));
    import.arg("import").arg(data::path(LONG_CHAIN));
    let child = paused(&mut import, dir.path());
    disk.grow();
    let output = child.wait_with_output().expect("a child");
    check_imported(&output);
    let all = said(&output);
    let place = disk.0.path().join("blocks").display().to_string();
    assert!(all.contains(&format!("Warning: paused: {place}")), "{all}");
}

#[test]
fn import_that_is_paused_heeds_a_signal_and_can_be_continued() {
    let Some(disk) = SmallDisk::mount("70m") else {
        println!("{NOT_RUN}");
        return;
    };
    let child = disk.paused_import();
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(killed.expect("kill").success());
    let output = child.wait_with_output().expect("a child");
    let all = said(&output);
    assert_eq!(output.status.code(), Some(1), "{all}");
    assert!(all.contains("Error: interrupted at height "), "{all}");
    assert!(all.contains("; the same command goes on"), "{all}");
    disk.grow();
    check_imported(&disk.import("-minfreespace=64").output().expect("starts"));
}

/// A node that finds too little room at its start: SIGINT ends it as it does elsewhere.
#[test]
fn node_that_is_paused_heeds_a_signal() {
    let Some(disk) = SmallDisk::mount("60m") else {
        println!("{NOT_RUN}");
        return;
    };
    let dir = disk.0.path().join("node");
    let mut node = command(BINARY, &dir);
    let node = node.args(["-regtest", "-listen=0", "-server=0"]);
    let mut child = node.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts");
    let log = || fs::read_to_string(dir.join("regtest/debug.log")).unwrap_or_default();
    wait_for("a pause", || log().contains("paused: ").then_some(()));
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(killed.expect("kill").success());
    assert!(child.wait().expect("a child").success(), "{}", log());
    assert!(log().contains("stopped while waiting for free space"), "{}", log());
}
