//! `dumptxoutset`: both write the same file of the same chain, to the byte.

use std::fs;

use serde_json::{Value, json};

use crate::chain_file;
use crate::pair::{Pair, Who};

const BLOCKS: usize = 600;
const TXS: usize = 12;
/// What the set is taken back to.
const BACK: usize = 250;

#[test]
fn both_write_the_same_set_as_it_is_and_as_it_was() {
    let Some(pair) = Pair::new() else { return };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (file, tip) = chain_file::write(dir.path(), 7, BLOCKS, TXS);
    let nodes = [Who::Ours, Who::Core].map(|who| {
        pair.import(who, &file);
        (who, pair.start(who, &["-connect=0"]))
    });
    for (name, height, args) in [
        ("tip.dat", BLOCKS, json!(["tip.dat", "latest"])),
        ("back.dat", BACK, json!({"path": "back.dat", "type": "rollback", "rollback": BACK})),
    ] {
        let dumps = nodes.each_ref().map(|(who, node)| {
            let mut answer = node.rpc("dumptxoutset", args.clone());
            let path = pair.dir(*who).join("regtest").join(name);
            let fields = answer.as_object_mut().expect("an object");
            assert_eq!(fields.remove("path"), Some(json!(path)), "{who:?}");
            (answer, fs::read(path).expect("written"))
        });
        let [(ours, our_bytes), (core, core_bytes)] = dumps;
        assert_eq!(ours, core);
        assert_eq!(ours["base_height"], height);
        assert!(ours["coins_written"].as_u64() > Some(300), "{ours}");
        assert!(our_bytes == core_bytes, "{name}: {} and {}", our_bytes.len(), core_bytes.len());
    }
    // Both are where they were.
    for (_, node) in nodes {
        assert_eq!(node.best(), Value::from(tip.to_string()));
        node.stop();
    }
}
