//! Does the example of an embedder validate the main chain's first blocks on every engine?

use cofferdam_storage::BackendKind;
use cofferdam_tests::data;

#[path = "../ibd/examples/validate.rs"]
#[expect(dead_code, reason = "its `main` is for `cargo run`")]
mod validate;

#[test]
fn the_example_validates_on_every_engine() {
    let name = "mainnet/chain-0-4521.blkdat";
    let file = std::fs::read(data::path(name)).expect("in the repository");
    let expected = data::states(name).pop().expect("a tip");
    for engine in BackendKind::available() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        std::fs::create_dir(dir.path().join("database")).expect("room");
        let stats = validate::validate(validate::blocks(&file), dir.path(), engine);
        let stats = stats.unwrap_or_else(|error| panic!("{engine}: {error}"));
        let hash = stats.hash_serialized_3.expect("asked for").to_string();
        assert_eq!((stats.txouts, hash), (expected.utxo_count, expected.hash_serialized_3.clone()));
    }
}
