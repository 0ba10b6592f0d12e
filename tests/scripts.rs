//! Do the scripts keep what they promise? The questions are in `scripts.py` beside this file.

use std::path::Path;
use std::process::Command;

#[test]
fn scripts_keep_what_they_promise() {
    let questions = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts.py");
    // -B: no compiled files beside the sources.
    let output = Command::new("python3").arg("-B").arg(questions).output().expect("python3 starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
