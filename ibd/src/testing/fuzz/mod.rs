//! What a fuzzer calls: bytes in, a panic if a promise does not hold (targets in `ibd/fuzz`).
//!
//! | function | what it breaks |
//! |---|---|
//! | [`header_row`], [`coin`], [`undo`] | a decoder: nothing may panic, and what is accepted is encoded to the same bytes |
//! | [`parse`] | reading blocks and transactions: the same as the `bitcoin` crate, where that is Bitcoin Core's |
//! | [`block`], [`transaction`] | taking in a block: what is no block is refused as such, what is stored is read back |
//! | [`chain`] | connecting, disconnecting and reorganising, with faults, restarts and power cuts, against a map |
//!
//! Each returns whether the bytes were *accepted*, so that a corpus can be asked for both answers.

mod blocks;
mod chain;
mod decoders;
mod parse;

pub use self::blocks::{block, transaction};
pub use self::chain::chain;
pub use self::decoders::{coin, header_row, undo};
pub use self::parse::parse;

/// A fuzz target.
pub type Target = fn(&[u8]) -> bool;

/// Every target, by the name of its corpus.
pub const TARGETS: &[(&str, Target)] = &[
    ("header_row", header_row),
    ("coin", coin),
    ("undo", undo),
    ("parse", parse),
    ("block", block),
    ("transaction", transaction),
    ("chain", chain),
];

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use cofferdam_storage::testing::{Random, effort};

    use super::*;

    /// Fewer files than that are not what the fuzzer left.
    const FILES_MIN: usize = 3;

    /// Random bytes get less far than a fuzzer's, but they run in every build.
    #[test]
    fn random_bytes_break_no_promise() {
        let rounds = effort().pick(50, 1000, 50_000);
        for (index, (name, target)) in TARGETS.iter().enumerate() {
            let mut accepted = 0;
            for seed in 0..rounds {
                let mut random = Random::new(seed << 8 | u64::try_from(index).unwrap());
                let len = random.below(300);
                let bytes = random.bytes(len);
                accepted += u32::from(target(&bytes));
            }
            println!("{name}: {accepted} of {rounds} accepted");
        }
    }

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
        for entry in fs::read_dir(root).unwrap() {
            let name = entry.unwrap().file_name();
            assert!(TARGETS.iter().any(|(target, _)| name == **target), "{}", name.display());
        }
    }
}
