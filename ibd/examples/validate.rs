//! Validates blocks from an iterator, over any engine: what an embedder writes.
//!
//! `cargo run -p cofferdam-ibd --example validate -- BLOCKS DIR [memory|sled|rocksdb]` takes a file of
//! main chain blocks framed as in `blk*.dat` (`tests/data/mainnet/chain-0-4521.blkdat`).

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use cofferdam_ibd::{
    BlockAccepted, ChainParams, Chainstate, ChainstateOptions, Network, TREES, UtxoHash, UtxoStats,
};
use cofferdam_storage::{BackendKind, BackendOptions, StdFileSystem};

/// Validates `blocks` in the order in which they come, into a chain below `dir`.
pub(crate) fn validate(
    blocks: impl Iterator<Item = Vec<u8>>,
    dir: &Path,
    engine: BackendKind,
) -> Result<UtxoStats, Box<dyn Error>> {
    let options = ChainstateOptions::new(ChainParams::new(Network::Mainnet), dir);
    let backend = engine.open(&dir.join("database"), TREES, &BackendOptions::default())?;
    let (mut chainstate, _) = Chainstate::open(options, Arc::new(StdFileSystem), backend)?;
    for block in blocks {
        let now = u32::try_from(SystemTime::UNIX_EPOCH.elapsed()?.as_secs())?;
        if let BlockAccepted::Rejected(rejection) = chainstate.accept_block(block, now)? {
            return Err(format!("a block is invalid: {rejection}").into());
        }
    }
    loop {
        // A second at a time: then there may be a signal to stop, or progress to show.
        let advance = chainstate.advance(Instant::now() + Duration::from_secs(1))?;
        if let Some((hash, rejection)) = advance.invalid.first() {
            return Err(format!("block {hash} is invalid: {rejection}").into());
        }
        if advance.done {
            break;
        }
    }
    let stats = chainstate.utxo_stats(UtxoHash::Both)?;
    chainstate.shutdown()?;
    Ok(stats)
}

/// The blocks of a file; any iterator of bytes does.
pub(crate) fn blocks(mut file: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    std::iter::from_fn(move || {
        // The network's magic bytes, and the length.
        let (&[_, _, _, _, length @ ..], rest) = file.split_first_chunk::<8>()?;
        let (block, rest) = rest.split_at_checked(u32::from_le_bytes(length) as usize)?;
        file = rest;
        Some(block.to_vec())
    })
}

#[expect(clippy::print_stdout, reason = "an example shows what it does")]
fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (file, dir, engine) = match args.as_slice() {
        [file, dir] => (file, dir, "memory"),
        [file, dir, engine] => (file, dir, engine.as_str()),
        _ => return Err("usage: validate BLOCKS DIR [memory|sled|rocksdb]".into()),
    };
    std::fs::create_dir_all(Path::new(dir).join("database"))?;
    let stats = validate(blocks(&std::fs::read(file)?), Path::new(dir), engine.parse()?)?;
    println!("{stats:#?}");
    Ok(())
}
