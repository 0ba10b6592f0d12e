//! No stored length makes a decoder allocate more than what is stored (alone in its process: the
//! allocator counts for all threads, and going beyond the limit ends the process).

use std::alloc::System;
use std::path::Path;
use std::{fs, io};

use cap::Cap;
use cofferdam_storage::{Batch, testing::fuzz};

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// For error messages and the test itself.
const SLACK_BYTES: usize = 4096;

/// A store that is opened four times over files that are held in memory; most of it are the
/// windows of 64 KiB in which damaged tails are searched.
const STORE_BYTES: usize = 1 << 20;

fn within<T>(bytes: usize, run: impl FnOnce() -> T) -> T {
    ALLOCATOR.set_limit(ALLOCATOR.allocated() + bytes).expect("above what is allocated");
    let result = run();
    ALLOCATOR.set_limit(usize::MAX).expect("no limit");
    result
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let read = |entry: io::Result<fs::DirEntry>| fs::read(entry?.path());
    let files: io::Result<_> = fs::read_dir(dir).and_then(|dir| dir.map(read).collect());
    files.expect("a corpus")
}

#[test]
fn what_is_decoded_costs_no_more_memory_than_it_has() {
    // A put whose key and value are said to be as long as the fields allow.
    let mut inputs = vec![[&[1, 1][..], &[0xff; 100]].concat(), vec![3, 1, 0xff, 0xff]];
    inputs.extend(corpus("batch"));
    for input in &inputs {
        drop(within(2 * input.len() + SLACK_BYTES, || Batch::decode(input)));
    }
    let logs = corpus("log");
    let opened = logs.iter().filter(|log| within(STORE_BYTES, || fuzz::log(log))).count();
    println!("{} batches, {} logs of which {opened} were opened", inputs.len(), logs.len());
    assert!(opened > 0 && opened < logs.len());
}
