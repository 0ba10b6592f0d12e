//! The decoders: rows of the block index, coins, undo data.

use bitcoin::block::Header;
use bitcoin::consensus::deserialize;

use crate::coin::{Coin, outpoint_key, parse_outpoint_key};
use crate::error::Error;
use crate::headers::HeaderRow;
use crate::undo::BlockUndo;

/// Decodes a row of the block index: a height, and a value. Its key is made to fit.
///
/// # Panics
///
/// If a row that was accepted is not encoded to the same bytes, or one that is refused is not said
/// to be corrupt.
pub fn header_row(data: &[u8]) -> bool {
    let Some((height, value)) = data.split_first_chunk::<4>() else { return false };
    let header = value.get(..80).and_then(|bytes| deserialize::<Header>(bytes).ok());
    let hash = header.map(|header| header.block_hash());
    let key = match hash {
        Some(hash) => HeaderRow::key(u32::from_be_bytes(*height), &hash),
        None => height.to_vec(),
    };
    // As it is, the key of another block; cut short, no key.
    assert!(HeaderRow::decode(value, value).is_err());
    assert!(HeaderRow::decode(key.get(1..).unwrap_or_default(), value).is_err());
    let Some(row) = accepted(HeaderRow::decode(&key, value)) else { return false };
    assert_eq!(row.encode(), value);
    assert_eq!(Some(HeaderRow::key(row.height, &row.header.block_hash())), Some(key));
    true
}

/// Decodes a coin; and the first bytes as its key.
///
/// # Panics
///
/// If what was accepted is not encoded to the same bytes.
pub fn coin(data: &[u8]) -> bool {
    let outpoint = data.get(..36).and_then(|key| accepted(parse_outpoint_key(key)));
    if let Some(outpoint) = outpoint {
        assert_eq!(Some(&outpoint_key(&outpoint)[..]), data.get(..36));
    }
    let Some(coin) = accepted(Coin::decode(data)) else { return false };
    assert_eq!(coin.encode(), data);
    true
}

/// Decodes a block's undo data.
///
/// # Panics
///
/// If what was accepted and encoded is not accepted as the same, or if more came out of the bytes
/// than can be in them.
pub fn undo(data: &[u8]) -> bool {
    let Some(undo) = accepted(BlockUndo::decode(data)) else { return false };
    let coins: usize = undo.0.iter().map(|tx| tx.0.len()).sum();
    assert!(coins * 3 + undo.0.len() <= data.len(), "{coins} coins in {} bytes", data.len());
    // Not the same bytes: there is a number in them that old versions wrote and nobody reads.
    let again = BlockUndo::decode(&undo.encode()).expect("what was encoded");
    assert_eq!(again, undo);
    true
}

/// What was decoded; if nothing, for the reason that there has to be.
fn accepted<T>(decoded: crate::Result<T>) -> Option<T> {
    match decoded {
        Ok(decoded) => Some(decoded),
        Err(error) => {
            assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
            None
        }
    }
}
