//! Taking in a block of any bytes, and one that holds a transaction of any bytes.

use std::sync::Arc;

use bitcoin::Block;
use bitcoin::consensus::{deserialize, serialize};
use cofferdam_storage::{FileSystem, MemoryDatabase, WalOptions};

use super::chain::{NOW, open_over};
use super::parse::read_alike;
use crate::block::DECODE_FAILED;
use crate::chainstate::{BlockAccepted, Chainstate};
use crate::tables::TREES;
use crate::testing::ModelChain;
use cofferdam_storage::testing::SimFileSystem;

/// Takes in the bytes as a block: as they are, and with parent, merkle root, commitment and proof of
/// work made to fit.
///
/// # Panics
///
/// If bytes are refused as no block that are one, or taken that are none; or if what was stored is
/// not read back.
pub fn block(data: &[u8]) -> bool {
    let as_it_is = accepts(data);
    let Ok(mut block) = deserialize::<Block>(data) else {
        return as_it_is;
    };
    let chain = ModelChain::new();
    let like = chain.block(0, Vec::new());
    block.header = like.header;
    chain.seal(&mut block);
    as_it_is | accepts(&serialize(&block))
}

/// Takes in a block whose second transaction is the bytes.
///
/// # Panics
///
/// As [`block`].
pub fn transaction(data: &[u8]) -> bool {
    let like = serialize(&ModelChain::new().block(0, Vec::new()));
    // The number of transactions follows the header.
    let mut bytes = like;
    if let Some(count) = bytes.get_mut(80) {
        *count = 2;
    }
    bytes.extend_from_slice(data);
    block(&bytes)
}

/// Gives bytes to a new chainstate; returns whether they were stored.
fn accepts(raw: &[u8]) -> bool {
    let fs: Arc<dyn FileSystem> = Arc::new(SimFileSystem::new());
    let backend = Box::new(MemoryDatabase::new(TREES));
    let mut chainstate: Chainstate =
        open_over(&fs, WalOptions::default(), backend).expect("an empty disk");
    let len = read_alike(raw);
    let is_block = len.is_some();
    match chainstate.accept_block(raw.to_vec(), NOW).expect("the machine is well") {
        BlockAccepted::Stored(at) => {
            assert!(is_block, "this is no block");
            let stored = chainstate.read_block(&at.hash).expect("readable");
            assert_eq!(stored.as_deref(), len.and_then(|len| raw.get(..len)));
            let advance = chainstate.advance(std::time::Instant::now()).expect("works");
            // Nothing can be spent in the first block.
            assert_eq!(advance.connected as usize + advance.invalid.len(), 1);
            true
        }
        BlockAccepted::Duplicate(at) => {
            assert_eq!(at.height, 0);
            false
        }
        BlockAccepted::Rejected(rejection) => {
            assert_eq!(rejection.code != DECODE_FAILED, is_block, "{rejection}");
            false
        }
    }
}
