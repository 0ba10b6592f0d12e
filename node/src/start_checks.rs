//! What is looked at before a chain is used: the key of its block files, that all of them are
//! there, and that its last blocks are sound.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Result, anyhow, bail};
use bitcoin::hex::DisplayHex as _;
use cofferdam_ibd::{ChainVerification, Chainstate};
use cofferdam_storage::{FileSystem, read_small, write_atomic};

use crate::config::{AssumeValidOption, CheckBlocks, Config, PruneMode};
use crate::rebuild::NeedsRebuild;
use crate::waits::EndedByStop;

/// Bytes of a key.
const KEY_LEN: usize = 8;

/// Says whether scripts of old blocks are verified.
pub(crate) fn log_assume_valid(config: &Config) {
    let block = match config.assume_valid {
        AssumeValidOption::Default => config.params.assume_valid,
        AssumeValidOption::CheckAll => None,
        AssumeValidOption::Block(hash) => Some(hash),
    };
    match block {
        Some(hash) => tracing::info!("Assuming ancestors of block {hash} have valid signatures."),
        None => tracing::info!("Validating signatures for all blocks."),
    }
}

/// Sees to `-blocksxor=0`: a new directory gets a key of zeros, which changes no byte.
///
/// # Errors
///
/// Returns the text for the user if the directory has another key.
pub(crate) fn settle_xor_key(fs: &dyn FileSystem, blocks_dir: &Path, plain: bool) -> Result<()> {
    if !plain {
        return Ok(());
    }
    let path = blocks_dir.join("xor.dat");
    let Some(key) = read_small(fs, &path, KEY_LEN)? else {
        return Ok(write_atomic(fs, &path, &[0; KEY_LEN])?);
    };
    if key.iter().any(|byte| *byte != 0) {
        bail!(
            "Failed to initialize ChainstateManager: The blocksdir XOR-key can not be disabled when a random key was already stored! Stored key: '{}', stored path: '{}'.",
            key.as_hex(),
            path.display()
        );
    }
    Ok(())
}

/// Refuses a chain whose block files are not all there: it would end at the first block that is
/// asked for.
///
/// # Errors
///
/// Returns [`NeedsRebuild`] if a file is gone.
pub(crate) fn check_block_files(chain: &Chainstate, blocks_dir: &Path) -> Result<()> {
    tracing::info!("Checking all blk files are present...");
    let tree = chain.headers();
    let blocks = tree.iter().filter_map(|at| tree.entry(at).block);
    let files: BTreeSet<u32> = blocks.map(|block| block.position.file).collect();
    for file in files {
        let path = blocks_dir.join(format!("blk{file:05}.dat"));
        if !path.is_file() {
            tracing::error!("{} is gone", path.display());
            return Err(NeedsRebuild("Error loading block database".into()).into());
        }
    }
    let tip = chain.tip();
    tracing::info!("Loaded best chain: hashBestChain={} height={}", tip.hash, tip.height);
    Ok(())
}

/// Refuses to go on with a pruned chain as a whole one.
///
/// # Errors
///
/// Returns [`NeedsRebuild`] if blocks were pruned and `mode` is not to prune.
pub(crate) fn check_pruned(chain: &Chainstate, mode: PruneMode) -> Result<()> {
    if mode == PruneMode::Off && chain.has_pruned() {
        let text = "You need to rebuild the database using -reindex to go back to unpruned mode. This will redownload the entire blockchain";
        return Err(NeedsRebuild(text.into()).into());
    }
    Ok(())
}

/// Verifies the last blocks again, if the options ask for it: that the tip can be taken back is
/// seen in any case.
///
/// # Errors
///
/// Returns [`NeedsRebuild`] if something is wrong with them, [`EndedByStop`] if the chain was asked to
/// stop meanwhile; an error if the machine failed.
pub(crate) fn verify_blocks(chain: &Chainstate, asked: Option<CheckBlocks>) -> Result<()> {
    tracing::info!("init message: Verifying blocks…");
    let Some(CheckBlocks { level, blocks }) = asked else {
        return Ok(());
    };
    match chain.verify_chain(level, blocks)? {
        ChainVerification::Failed => {
            Err(NeedsRebuild("Corrupted block database detected".into()).into())
        }
        ChainVerification::TooManyCoins => {
            Err(anyhow!("Insufficient dbcache for block verification"))
        }
        ChainVerification::Interrupted => {
            Err(EndedByStop::amid("verifying the last blocks").into())
        }
        // Blocks that were pruned cannot be verified.
        ChainVerification::Passed | ChainVerification::MissingBlocks => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use cofferdam_ibd::{BlockAccepted, mining};
    use cofferdam_storage::StdFileSystem;

    use super::*;
    use crate::data_dir::DataDir;
    use crate::node::open_chainstate;
    use crate::shutdown::Shutdown;

    #[test]
    fn a_stop_ends_the_verification_of_blocks() {
        let dir = tempfile::tempdir().expect("a directory");
        let config = Config::new(cofferdam_ibd::Network::Regtest, dir.path()).expect("a config");
        let (data_dir, shutdown) = (DataDir::open(&config).expect("new"), Shutdown::default());
        let mut chain = open_chainstate(&config, &data_dir, &shutdown).expect("opens");
        let now = crate::clock::Clock::default().seconds();
        let mut block = mining::assemble_block(&chain, &bitcoin::ScriptBuf::new(), now);
        assert!(mining::solve(&mut block, chain.params(), &mut 1_000_000));
        let raw = bitcoin::consensus::serialize(&block);
        assert!(matches!(chain.accept_block(raw, now), Ok(BlockAccepted::Stored(_))));
        let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
        assert!(chain.advance(end).expect("connects").done && chain.tip().height == 1);
        let asked = Some(CheckBlocks { level: 4, blocks: 0 });
        verify_blocks(&chain, asked).expect("sound");
        shutdown.request();
        let error = verify_blocks(&chain, asked).expect_err("stopped");
        assert!(error.is::<EndedByStop>(), "{error}");
    }

    #[test]
    fn a_key_that_block_files_are_under_cannot_be_switched_off() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("xor.dat");
        settle_xor_key(&StdFileSystem, dir.path(), false).expect("nothing to do");
        assert!(!path.exists());
        settle_xor_key(&StdFileSystem, dir.path(), true).expect("makes a key");
        assert_eq!(std::fs::read(&path).expect("the key"), [0; 8]);
        settle_xor_key(&StdFileSystem, dir.path(), true).expect("as it is");
        std::fs::write(&path, [1, 2, 3, 4, 5, 6, 7, 8]).expect("writes");
        settle_xor_key(&StdFileSystem, dir.path(), false).expect("its own matter");
        let error = settle_xor_key(&StdFileSystem, dir.path(), true).expect_err("refused");
        let text = error.to_string();
        assert!(text.contains("can not be disabled"), "{text}");
        assert!(text.contains("Stored key: '0102030405060708'"), "{text}");
    }
}
