//! `BlockUndo`: the coins that a block spent, in the bytes of Bitcoin Core's `rev*.dat`
//! (`undo.h`).
//!
//! ```text
//! block       CompactSize(transactions - 1) | transaction...
//! transaction CompactSize(inputs) | coin...
//! coin        VARINT(height * 2 + coinbase) | 00 if height > 0 | output as in a coin's value
//! ```

use bitcoin::consensus::{Decodable as _, Encodable as _};
use bitcoin::hashes::{Hash as _, HashEngine as _, sha256d};
use bitcoin::{BlockHash, VarInt};

use crate::coin::{Coin, CoinRef};
use crate::compress::{read_output, read_varint_u32, write_output, write_varint};
use crate::error::{Error, Result};

/// Fewest bytes of a coin: the code, an amount, a script's length.
pub(crate) const COIN_LEN_MIN: usize = 3;

/// The coins that a transaction spent, in the order of its inputs.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TxUndo(pub Vec<Coin>);

/// What undoes a block: one entry for each transaction but the coinbase, in order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct BlockUndo(pub Vec<TxUndo>);

impl BlockUndo {
    /// Returns Core's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let coins: usize = self.0.iter().map(|tx| tx.0.len()).sum();
        let mut out = Vec::with_capacity(coins * 34 + self.0.len() + 9);
        write_size(self.0.len(), &mut out);
        for tx in &self.0 {
            write_size(tx.0.len(), &mut out);
            for coin in &tx.0 {
                write_coin(coin, &mut out);
            }
        }
        out
    }

    /// Reads undo data that take up all of `bytes`.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Corrupt`] if the bytes are not exactly undo data.
    pub fn decode(mut bytes: &[u8]) -> Result<Self> {
        let count = read_size(&mut bytes, 1)?;
        let mut txs = Vec::with_capacity(count);
        for _ in 0..count {
            let inputs = read_size(&mut bytes, COIN_LEN_MIN)?;
            let coins: Result<_> = (0..inputs).map(|_| read_coin(&mut bytes)).collect();
            txs.push(TxUndo(coins?));
        }
        if !bytes.is_empty() {
            return Err(Error::Corrupt { what: "bytes after undo data".to_owned() });
        }
        Ok(Self(txs))
    }
}

/// Returns what Core writes after a block's undo data: the double hash of the parent's hash and
/// the undo data.
#[must_use]
pub fn undo_checksum(prev: &BlockHash, undo: &[u8]) -> [u8; 32] {
    let mut engine = sha256d::Hash::engine();
    engine.input(prev.as_byte_array());
    engine.input(undo);
    sha256d::Hash::from_engine(engine).to_byte_array()
}

fn write_coin(coin: &Coin, out: &mut Vec<u8>) {
    write_varint(u64::from(coin.height) * 2 + u64::from(coin.coinbase), out);
    if coin.height > 0 {
        // Where versions before Core 0.15 had the version of the spent transaction.
        out.push(0);
    }
    write_output(&coin.output, out);
}

fn read_coin(bytes: &mut &[u8]) -> Result<Coin> {
    let (height, coinbase) = read_code(bytes)?;
    Ok(Coin { height, coinbase, output: read_output(bytes)? })
}

/// Reads a coin where it lies.
pub(crate) fn read_undo_coin<'a>(bytes: &mut &'a [u8]) -> Result<CoinRef<'a>> {
    let (height, coinbase) = read_code(bytes)?;
    CoinRef::read(height, coinbase, bytes)
}

fn read_code(bytes: &mut &[u8]) -> Result<(u32, bool)> {
    let code = read_varint_u32(bytes)?;
    let height = code >> 1;
    if height > 0 {
        read_varint_u32(bytes)?;
    }
    Ok((height, code & 1 == 1))
}

pub(crate) fn write_size(size: usize, out: &mut Vec<u8>) {
    VarInt::from(size).consensus_encode(out).expect("a vector takes all bytes");
}

/// Reads a number of things that take at least `len_min` bytes each: no number is believed that
/// the rest of the bytes cannot hold.
pub(crate) fn read_size(bytes: &mut &[u8], len_min: usize) -> Result<usize> {
    let size = VarInt::consensus_decode(bytes).ok().and_then(|size| usize::try_from(size.0).ok());
    size.filter(|&size| size <= bytes.len() / len_min)
        .ok_or_else(|| Error::Corrupt { what: "undo data cut short".to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::hex::{DisplayHex as _, FromHex as _};
    use bitcoin::{Amount, ScriptBuf, TxOut};

    /// The undo data of mainnet's block 170, the first that spends anything: the coinbase of
    /// block 9, pay-to-pubkey with a full key. FORMAT.md takes it apart.
    const BLOCK_170: &str =
        "01011300320511db93e1dcdb8a016b49840f8c53bc1eb68a382e97b1482ecad7b148a6909a5c";

    fn coin_of_block_9() -> Coin {
        let key = "0411db93e1dcdb8a016b49840f8c53bc1eb68a382e97b1482ecad7b148a6909a5c\
                   b2e0eaddfb84ccf9744464f82e160bfa9b8b64f9d4c03f999b8643f656b412a3";
        let output = TxOut {
            value: Amount::from_sat(50 * 100_000_000),
            script_pubkey: ScriptBuf::from_hex(&format!("41{key}ac")).unwrap(),
        };
        Coin { height: 9, coinbase: true, output }
    }

    #[test]
    fn the_undo_data_of_block_170() {
        let undo = BlockUndo(vec![TxUndo(vec![coin_of_block_9()])]);
        assert_eq!(undo.encode().to_lower_hex_string(), BLOCK_170);
        assert_eq!(BlockUndo::decode(&Vec::from_hex(BLOCK_170).unwrap()).unwrap(), undo);
    }

    #[test]
    fn a_coin_of_height_0_has_no_dummy() {
        let coin = Coin { height: 0, coinbase: false, ..coin_of_block_9() };
        let undo = BlockUndo(vec![TxUndo(vec![coin])]);
        assert!(undo.encode().starts_with(&[1, 1, 0, 0x32, 5]));
        assert_eq!(BlockUndo::decode(&undo.encode()).unwrap(), undo);
    }

    #[test]
    fn sizes_above_252_are_read_back() {
        let empty = BlockUndo::default();
        assert_eq!(empty.encode(), [0]);
        assert_eq!(BlockUndo::decode(&[0]).unwrap(), empty);
        let undo = BlockUndo(vec![TxUndo(vec![coin_of_block_9(); 300]); 260]);
        assert_eq!(BlockUndo::decode(&undo.encode()).unwrap(), undo);
    }

    #[test]
    fn torn_and_overlong_undo_data_are_errors() {
        let bytes = Vec::from_hex(BLOCK_170).unwrap();
        for len in 0..bytes.len() {
            assert!(BlockUndo::decode(&bytes[..len]).is_err(), "{len}");
        }
        assert!(BlockUndo::decode(&[bytes.as_slice(), &[0]].concat()).is_err());
        // Numbers that the bytes cannot hold reserve no memory.
        assert!(BlockUndo::decode(&[0xff; 9]).is_err());
        assert!(BlockUndo::decode(&[0xfe, 0xff, 0xff, 0xff, 0x7f, 1]).is_err());
        assert!(BlockUndo::decode(&[1, 0xfe, 0xff, 0xff, 0xff, 0x7f, 1]).is_err());
    }

    #[test]
    fn the_checksum_covers_parent_and_data() {
        let (zero, one) = (BlockHash::all_zeros(), BlockHash::from_byte_array([1; 32]));
        let expected = sha256d::Hash::hash(&[&[1; 32][..], b"undo"].concat());
        assert_eq!(undo_checksum(&one, b"undo"), expected.to_byte_array());
        assert_ne!(undo_checksum(&zero, b"undo"), undo_checksum(&one, b"undo"));
    }
}
