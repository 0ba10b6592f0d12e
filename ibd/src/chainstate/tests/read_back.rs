//! Blocks that are read back from their files to be connected, and are not what was accepted.

use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use bitcoin::consensus::serialize;
use bitcoin::{Block, OutPoint, TxOut};

use super::*;
use crate::headers::{Extent, HeaderRef, HeaderStatus};
use crate::testing::{ModelChain, transfer};

/// A chain whose best block spends a witness program, is stored and not connected, and is in no
/// memory.
struct Stored {
    chainstate: Chainstate,
    at: HeaderRef,
    block: Block,
    file: PathBuf,
}

impl Stored {
    fn new(dir: &Path) -> Self {
        let mut chainstate = open(ChainParams::new(Network::Regtest), dir);
        let (model, below) = ModelChain::funded(8);
        let is_program = |(_, output): &(OutPoint, TxOut)| output.script_pubkey.is_p2wsh();
        let from = model.spendable(true).into_iter().find(is_program).expect("one in four");
        let to = vec![from.1.clone()];
        let block = model.block(2, vec![transfer(&[from], to)]);
        for block in &below {
            let accepted = chainstate.accept_block(serialize(block), NOW).expect("works");
            assert!(matches!(accepted, BlockAccepted::Stored(_)), "{accepted:?}");
        }
        assert_eq!(advance(&mut chainstate).connected as usize, below.len());
        let accepted = chainstate.accept_block(serialize(&block), NOW).expect("works");
        assert!(matches!(accepted, BlockAccepted::Stored(_)), "{accepted:?}");
        let at = chainstate.headers.get(&block.block_hash()).expect("accepted");
        let height = chainstate.headers.entry(at).height;
        drop(chainstate.recent.take(height, at));
        Self { chainstate, at, block, file: dir.join("blocks/blk00000.dat") }
    }

    fn extent(&self) -> Extent {
        self.chainstate.headers.entry(self.at).block.expect("stored")
    }

    /// Flips a bit of the block's last witness in the file, and returns the block's bytes.
    fn flip(&self) -> Vec<u8> {
        let file = std::fs::File::options().read(true).write(true).open(&self.file).expect("opens");
        let mut bytes = serialize(&self.block);
        // The item `OP_TRUE`, before the lock time of the last transaction.
        let place = bytes.len() - 5;
        assert_eq!(bytes[place], 0x51);
        bytes[place] ^= 1;
        let offset = u64::from(self.extent().position.offset) + place as u64;
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset).expect("reads");
        file.write_all_at(&[byte[0] ^ 1], offset).expect("writes");
        bytes
    }

    /// The next step toward the block fails as the machine's fault, and says nothing of the block.
    fn is_corrupt(&mut self, said: &str) {
        let tip = self.chainstate.tip();
        let error = self.chainstate.advance(Instant::now()).expect_err("corrupt");
        assert!(matches!(&error, Error::Corrupt { what } if what.contains(said)), "{error}");
        assert!(!self.chainstate.headers.entry(self.at).status.has(HeaderStatus::FAILED));
        assert_eq!(self.chainstate.tip(), tip);
    }
}

#[test]
fn a_witness_that_rotted_on_the_disk_does_not_make_its_block_invalid() {
    let dir = tempfile::tempdir().expect("temporary");
    let mut stored = Stored::new(dir.path());
    let damaged = stored.flip();
    stored.is_corrupt("block of");

    // It rotted before the checksum was taken: the scripts are the first to see it.
    let extent = stored.extent();
    let crc32 = crc32fast::hash(&damaged);
    stored.chainstate.headers.entry_mut(stored.at).block = Some(Extent { crc32, ..extent });
    stored.is_corrupt("bad-witness-merkle-match");

    // Nothing was wrong with the block.
    stored.flip();
    stored.chainstate.headers.entry_mut(stored.at).block = Some(extent);
    assert_eq!(
        advance(&mut stored.chainstate),
        Advance { connected: 1, done: true, ..Advance::default() }
    );
}
