//! What a fuzzer calls: bytes in, a panic if a promise does not hold (targets in `storage/fuzz`).
//!
//! | function | what it breaks |
//! |---|---|
//! | [`batch`], [`marker`], [`segment_header`], [`names`] | a decoder: nothing may panic, and what is accepted is encoded to the same bytes |
//! | [`log`] | a log directory: any bytes, or records built from them and then damaged, with or without their checksums put right again |
//! | [`store_model`] | a store: commits, staging, checkpoints, failures, crashes, against a [`Model`](crate::testing::Model) |
//!
//! Each returns whether the bytes were *accepted*, so that a corpus can be asked for both answers.
//! The functions know the log's bytes from `FORMAT.md` and not from the code that writes them.

mod decoders;
mod input;
mod log;
mod segments;
mod store;

pub use self::decoders::{batch, marker, names, segment_header};
pub use self::input::Input;
pub use self::log::log;
pub use self::store::store_model;

/// A fuzz target.
pub type Target = fn(&[u8]) -> bool;

/// Every target, by the name of its corpus.
pub const TARGETS: &[(&str, Target)] = &[
    ("batch", batch),
    ("marker", marker),
    ("segment_header", segment_header),
    ("names", names),
    ("log", log),
    ("store_model", store_model),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Random, effort};

    /// Random bytes get less far than a fuzzer's, but they run in every build.
    #[test]
    fn random_bytes_break_no_promise() {
        let rounds = effort().pick(300, 5000, 200_000);
        for (index, (name, target)) in TARGETS.iter().enumerate() {
            let mut accepted = 0;
            for seed in 0..rounds {
                let mut random = Random::new(seed << 8 | u64::try_from(index).unwrap());
                let len = random.below(400);
                let bytes = random.bytes(len);
                accepted += u32::from(target(&bytes));
            }
            println!("{name}: {accepted} of {rounds} accepted");
        }
    }
}
