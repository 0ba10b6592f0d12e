//! The bytes of one row of the `headers` table.
//!
//! ```text
//! key   height u32 BE | block hash 32
//! value header 80 | status u8 | transactions u32 LE
//!       | block extent 16, if status has DATA | undo extent 16, if status has UNDO
//! extent file u32 LE | offset u32 LE | length u32 LE | crc32 u32 LE
//! ```

use std::num::NonZeroU32;

use bitcoin::BlockHash;
use bitcoin::block::Header;
use bitcoin::consensus::encode;
use bitcoin::hashes::Hash as _;
use cofferdam_storage::FilePosition;

use crate::error::{Error, Result};

/// What is known of a block, as bits of one byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct HeaderStatus(u8);

impl HeaderStatus {
    /// Nothing but the header is known.
    pub const NONE: Self = Self(0);
    /// The block's bytes are in a `blk` file.
    pub const DATA: Self = Self(1);
    /// The block's undo bytes are in a `rev` file.
    pub const UNDO: Self = Self(2);
    /// The block was connected once: every rule was checked.
    pub const VALID: Self = Self(4);
    /// The block, or one of its ancestors, breaks a rule.
    pub const FAILED: Self = Self(8);
    /// The block was stored under rules that had no witnesses at its height: if they have now, it
    /// has to be stored anew (the opposite of Bitcoin Core's `BLOCK_OPT_WITNESS`).
    pub const NO_WITNESS: Self = Self(16);
    const ALL: u8 = 31;

    /// Returns whether every bit of `other` is set.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Sets the bits of `other`.
    pub const fn set(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// Clears the bits of `other`.
    pub const fn clear(&mut self, other: Self) {
        self.0 &= !other.0;
    }
}

/// A run of bytes in a flat file, with its checksum.
///
/// Four bytes of offset suffice: a block file is at most 128 MiB.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extent {
    /// Where the payload starts (after Core's magic and length).
    pub position: FilePosition,
    /// Length of the payload in bytes; not zero, so that no memory goes to whether there is one.
    pub length: NonZeroU32,
    /// CRC-32 of the payload, so that recovery can tell whether the bytes arrived on disk.
    pub crc32: u32,
}

impl Extent {
    const LEN: usize = 16;

    /// Returns the extent of a payload that stands at `position`; `None` if it has no bytes, or
    /// more than a file.
    #[must_use]
    pub fn of(position: FilePosition, payload: &[u8]) -> Option<Self> {
        let length = u32::try_from(payload.len()).ok().and_then(NonZeroU32::new)?;
        Some(Self { position, length, crc32: crc32fast::hash(payload) })
    }

    fn encode_into(self, out: &mut Vec<u8>) {
        for word in [self.position.file, self.position.offset, self.length.get(), self.crc32] {
            out.extend_from_slice(&word.to_le_bytes());
        }
    }

    fn decode(bytes: [u8; Self::LEN]) -> Option<Self> {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = bytes;
        Some(Self {
            position: FilePosition {
                file: u32::from_le_bytes([a, b, c, d]),
                offset: u32::from_le_bytes([e, f, g, h]),
            },
            length: NonZeroU32::new(u32::from_le_bytes([i, j, k, l]))?,
            crc32: u32::from_le_bytes([m, n, o, p]),
        })
    }
}

/// One row of the block index.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HeaderRow {
    /// Height of the block.
    pub height: u32,
    /// The 80 bytes of the header.
    pub header: Header,
    /// What is known of the block.
    pub status: HeaderStatus,
    /// Number of transactions; 0 while the block is not stored.
    pub tx_count: u32,
    /// The block's bytes, if stored.
    pub block: Option<Extent>,
    /// The block's undo bytes, if stored.
    pub undo: Option<Extent>,
}

impl HeaderRow {
    /// Returns the key of the block with this height and hash.
    #[must_use]
    pub fn key(height: u32, hash: &BlockHash) -> Vec<u8> {
        let mut key = Vec::with_capacity(36);
        key.extend_from_slice(&height.to_be_bytes());
        key.extend_from_slice(hash.as_byte_array());
        key
    }

    /// Encodes the value.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = encode::serialize(&self.header);
        let mut status = self.status.0 & !(HeaderStatus::DATA.0 | HeaderStatus::UNDO.0);
        status |= if self.block.is_some() { HeaderStatus::DATA.0 } else { 0 };
        status |= if self.undo.is_some() { HeaderStatus::UNDO.0 } else { 0 };
        out.push(status);
        out.extend_from_slice(&self.tx_count.to_le_bytes());
        for extent in [self.block, self.undo].into_iter().flatten() {
            extent.encode_into(&mut out);
        }
        out
    }

    /// Decodes a row.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Corrupt`] if the bytes are no row that [`HeaderRow::encode`] wrote.
    pub fn decode(key: &[u8], value: &[u8]) -> Result<Self> {
        Self::decode_hashed(key, value).map(|(row, _)| row)
    }

    /// Decodes a row as [`HeaderRow::decode`] does; returns the header's hash too.
    pub(crate) fn decode_hashed(key: &[u8], value: &[u8]) -> Result<(Self, BlockHash)> {
        Self::try_decode(key, value).ok_or_else(|| Error::Corrupt {
            what: format!("block index row of {} bytes", value.len()),
        })
    }

    fn try_decode(key: &[u8], value: &[u8]) -> Option<(Self, BlockHash)> {
        let (height, key_hash) = key.split_first_chunk::<4>()?;
        let (header, rest) = value.split_first_chunk::<80>()?;
        let header: Header = encode::deserialize(header).ok()?;
        let hash = header.block_hash();
        if key_hash != hash.as_byte_array() {
            return None;
        }
        let (&status, rest) = rest.split_first()?;
        let status = HeaderStatus(status);
        let (tx_count, mut rest) = rest.split_first_chunk::<4>()?;
        let mut take = |bit| -> Option<Option<Extent>> {
            if !status.has(bit) {
                return Some(None);
            }
            let (extent, tail) = rest.split_first_chunk::<{ Extent::LEN }>()?;
            rest = tail;
            Extent::decode(*extent).map(Some)
        };
        let block = take(HeaderStatus::DATA)?;
        let undo = take(HeaderStatus::UNDO)?;
        let row = Self {
            height: u32::from_be_bytes(*height),
            header,
            status,
            tx_count: u32::from_le_bytes(*tx_count),
            block,
            undo,
        };
        (rest.is_empty() && status.0 & !HeaderStatus::ALL == 0).then_some((row, hash))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::{ChainParams, Network};

    fn genesis_row() -> HeaderRow {
        let mut status = HeaderStatus::VALID;
        status.set(HeaderStatus::DATA);
        HeaderRow {
            height: 0,
            header: ChainParams::new(Network::Mainnet).genesis.header,
            status,
            tx_count: 1,
            block: Some(Extent {
                position: FilePosition { file: 0, offset: 8 },
                length: NonZeroU32::new(285).expect("not zero"),
                crc32: 0x1234_5678,
            }),
            undo: None,
        }
    }

    /// The example of `FORMAT.md`.
    const GENESIS_VALUE: &str = "0100000000000000000000000000000000000000000000000000000000000000\
        000000003ba3edfd7a7b12b27ac72c3e67768f617fc81bc3888a51323a9fb8aa4b1e5e4a29ab5f49ffff001d1dac2b7c\
        050100000000000000080000001d01000078563412";

    #[test]
    fn genesis_row_is_the_documented_bytes() {
        let row = genesis_row();
        let value: Vec<u8> = bitcoin::hex::FromHex::from_hex(GENESIS_VALUE).expect("hex");
        assert_eq!(row.encode(), value);
        let key = HeaderRow::key(0, &row.header.block_hash());
        assert_eq!(HeaderRow::decode(&key, &value).expect("decodes"), row);
    }

    #[test]
    fn no_truncation_and_no_foreign_byte_decodes() {
        let row = genesis_row();
        let key = HeaderRow::key(0, &row.header.block_hash());
        let value = row.encode();
        for cut in 0..value.len() {
            assert!(HeaderRow::decode(&key, &value[..cut]).is_err(), "cut at {cut}");
        }
        let mut longer = value.clone();
        longer.push(0);
        assert!(HeaderRow::decode(&key, &longer).is_err());
        for byte in 0..80 {
            let mut flipped = value.clone();
            flipped[byte] ^= 1;
            assert!(HeaderRow::decode(&key, &flipped).is_err(), "flip at {byte}");
        }
        let mut empty = value;
        empty[93..97].fill(0);
        assert!(HeaderRow::decode(&key, &empty).is_err(), "an extent of no bytes");
    }
}
