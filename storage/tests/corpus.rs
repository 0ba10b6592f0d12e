//! What the fuzzers have found worth keeping (`fuzz/corpus`) still breaks no promise.

use std::fs;
use std::path::Path;

use cofferdam_storage::testing::fuzz::TARGETS;

/// Fewer files than that are not what the fuzzer left.
const FILES_MIN: usize = 3;

#[test]
fn every_kept_input_breaks_no_promise() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (name, target) in TARGETS {
        let dir = root.join(name);
        let entries = fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
        let (mut accepted, mut refused) = (0_usize, 0_usize);
        for entry in entries {
            let path = entry.unwrap().path();
            println!("{}", path.display());
            let counter =
                if target(&fs::read(&path).unwrap()) { &mut accepted } else { &mut refused };
            *counter += 1;
        }
        println!("{name}: {accepted} accepted, {refused} refused");
        assert!(accepted + refused >= FILES_MIN, "{name}: the corpus is gone");
        assert!(accepted > 0 && refused > 0, "{name}: {accepted} accepted, {refused} refused");
    }
}

#[test]
fn every_corpus_has_its_target() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for entry in fs::read_dir(root).unwrap() {
        let name = entry.unwrap().file_name();
        assert!(TARGETS.iter().any(|(target, _)| name == **target), "{}", name.display());
    }
}
