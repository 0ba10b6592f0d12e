//! Does the example work on every engine, just as it is printed?

use cofferdam_storage::BackendKind;

#[path = "../examples/embed.rs"]
#[expect(dead_code, reason = "its `main` is for `cargo run`")]
mod embed;

#[test]
fn the_example_runs_on_every_engine() {
    for kind in BackendKind::available() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        embed::run(kind.name(), dir.path()).unwrap_or_else(|error| panic!("{kind}: {error}"));
    }
}
