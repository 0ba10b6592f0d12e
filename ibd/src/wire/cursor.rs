//! `Cursor`: reads Bitcoin's serialisation off a slice, without copying.
//!
//! Accepts what Bitcoin Core's `serialize.h` accepts, and nothing else.

use bitcoin::VarInt;

/// Why bytes are no block or transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{what} at byte {offset}")]
pub struct DecodeError {
    /// What is wrong, in Bitcoin Core's words; [`DecodeError::END_OF_DATA`] where bytes are missing.
    pub what: &'static str,
    /// Where it was noticed: a number of bytes from the start.
    pub offset: usize,
}

impl DecodeError {
    /// What is wrong where bytes are missing: Core's words say besides what they are read from.
    pub const END_OF_DATA: &str = "end of data";
}

/// The largest number of things or bytes that a message may announce (`MAX_SIZE`): 32 MiB.
pub(super) const SIZE_MAX: u32 = 0x0200_0000;

/// A slice and how far it has been read.
#[derive(Clone, Debug)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// How many bytes have been read. Whoever makes a cursor sees to it that they are below 2^32.
    pub(super) fn offset(&self) -> u32 {
        u32::try_from(self.at).unwrap_or(u32::MAX)
    }

    pub(super) fn error(&self, what: &'static str) -> DecodeError {
        DecodeError { what, offset: self.at }
    }

    pub(super) fn remaining(&self) -> usize {
        self.bytes.len().saturating_sub(self.at)
    }

    #[inline]
    pub(super) fn take<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let taken = self.bytes.get(self.at..).and_then(|rest| rest.first_chunk::<N>());
        let taken = *taken.ok_or_else(|| self.error(DecodeError::END_OF_DATA))?;
        self.at += N;
        Ok(taken)
    }

    #[inline]
    pub(super) fn skip(&mut self, len: u32) -> Result<(), DecodeError> {
        // Lossless: no platform of this crate has pointers of less than 32 bits.
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        if len > self.remaining() {
            return Err(self.error(DecodeError::END_OF_DATA));
        }
        self.at += len;
        Ok(())
    }

    /// Reads a `CompactSize` (`ReadCompactSize`): in its shortest form, and no more than `MAX_SIZE`.
    #[inline]
    pub(super) fn size(&mut self) -> Result<u32, DecodeError> {
        let [first] = self.take::<1>()?;
        let (size, least) = match first {
            0xfd => (u64::from(u16::from_le_bytes(self.take()?)), 0xfd),
            0xfe => (u64::from(u32::from_le_bytes(self.take()?)), 0x1_0000),
            0xff => (u64::from_le_bytes(self.take()?), 0x1_0000_0000),
            small => return Ok(u32::from(small)),
        };
        if size < least {
            return Err(self.error("non-canonical ReadCompactSize()"));
        }
        let size = u32::try_from(size).ok().filter(|&size| size <= SIZE_MAX);
        size.ok_or_else(|| self.error("ReadCompactSize(): size too large"))
    }
}

/// Splits a `CompactSize` off bytes that were read before.
pub(super) fn split_size(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut cursor = Cursor::new(bytes);
    let size = usize::try_from(cursor.size().ok()?).ok()?;
    Some((size, bytes.get(cursor.at..)?))
}

/// Length of a number's `CompactSize`.
pub(super) fn size_len(size: usize) -> usize {
    VarInt::from(size).size()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(bytes: &[u8], expected: Option<u32>) {
        assert_eq!(Cursor::new(bytes).size().ok(), expected, "{bytes:02x?}");
    }

    #[test]
    fn sizes_have_one_form_and_a_bound() {
        check(&[0], Some(0));
        check(&[0xfc], Some(252));
        check(&[0xfd, 0xfd, 0], Some(253));
        check(&[0xfd, 0xfc, 0], None);
        check(&[0xfd, 0xff, 0xff], Some(0xffff));
        check(&[0xfe, 0xff, 0xff, 0, 0], None);
        check(&[0xfe, 0, 0, 1, 0], Some(0x1_0000));
        check(&[0xfe, 0, 0, 0, 2], Some(0x0200_0000));
        check(&[0xfe, 1, 0, 0, 2], None);
        check(&[0xff, 0, 0, 0, 0, 1, 0, 0, 0], None);
        check(&[0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0], None);
        check(&[], None);
        check(&[0xfd, 0xff], None);
        check(&[0xff; 8], None);
    }
}
