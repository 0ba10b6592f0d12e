//! The bytes of the clean-shutdown marker; `FORMAT.md` describes them.

use super::format::field;
use crate::error::{Error, Result};
use crate::wal_buffered::Lsn;

const MARKER_MAGIC: [u8; 8] = *b"CFDAMEND";
const MARKER_VERSION: u32 = 1;
/// Magic, version, LSN, CRC.
const MARKER_BYTES: usize = 8 + 4 + 8 + 4;

/// The bytes of the clean marker: all up to `lsn` is in the database, the log is empty.
pub(crate) fn encode_marker(lsn: Lsn) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(MARKER_BYTES);
    bytes.extend_from_slice(&MARKER_MAGIC);
    bytes.extend_from_slice(&MARKER_VERSION.to_le_bytes());
    bytes.extend_from_slice(&lsn.to_le_bytes());
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

/// Reads the clean marker.
pub(crate) fn decode_marker(bytes: &[u8]) -> Result<Lsn> {
    let bad = || Error::corrupt("the clean-shutdown marker is damaged");
    let (body, crc) = bytes.split_last_chunk::<4>().ok_or_else(bad)?;
    if bytes.len() != MARKER_BYTES || crc32fast::hash(body) != u32::from_le_bytes(*crc) {
        return Err(bad());
    }
    let magic: [u8; 8] = field(body, 0).ok_or_else(bad)?;
    let found = u32::from_le_bytes(field(body, 8).ok_or_else(bad)?);
    let lsn = u64::from_le_bytes(field(body, 12).ok_or_else(bad)?);
    if magic != MARKER_MAGIC {
        return Err(bad());
    }
    if found != MARKER_VERSION {
        let what = "clean-shutdown marker";
        return Err(Error::Version { what, found, supported: MARKER_VERSION });
    }
    Ok(lsn)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marker_round_trip_and_damage() {
        let bytes = encode_marker(9);
        assert_eq!(decode_marker(&bytes).unwrap(), 9);
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(decode_marker(&bytes).is_err(), "{bit}");
        }
        for len in 0..bytes.len() {
            assert!(decode_marker(&bytes[..len]).is_err(), "{len}");
        }
    }
}
