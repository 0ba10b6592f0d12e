//! What the bytes of the log and of sorted runs have in common: lengths of few bits, and keys that
//! begin as the key before.
//!
//! A length is LEB128: seven bits a byte, the low ones first, the high bit set in all but the last.

/// The most bytes of a length: seven bits each, for 32 bits.
const LEN_BYTES_MAX: u32 = 5;

/// Appends a length.
pub(crate) fn push_len(out: &mut Vec<u8>, len: usize) {
    let mut left = len;
    loop {
        let [low, ..] = left.to_le_bytes();
        left >>= 7;
        if left == 0 {
            return out.push(low & 0x7f);
        }
        out.push(low | 0x80);
    }
}

/// Takes a length off the front; none if there is none.
pub(crate) fn take_len(rest: &mut &[u8]) -> Option<usize> {
    let mut len = 0_u64;
    for index in 0..LEN_BYTES_MAX {
        let byte = take_byte(rest)?;
        len |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return usize::try_from(len).ok();
        }
    }
    None
}

/// Takes a byte off the front.
pub(crate) fn take_byte(rest: &mut &[u8]) -> Option<u8> {
    let (byte, after) = rest.split_first()?;
    *rest = after;
    Some(*byte)
}

/// Takes so many bytes off the front.
pub(crate) fn take<'a>(rest: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, after) = rest.split_at_checked(len)?;
    *rest = after;
    Some(taken)
}

/// How many bytes both begin with.
pub(crate) fn shared_len(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// The first eight bytes of a key, zeros behind a shorter one: keys whose fronts differ are in the
/// order of these.
pub(crate) fn key_front(key: &[u8]) -> [u8; 8] {
    let mut front = [0; 8];
    front.iter_mut().zip(key).for_each(|(to, from)| *to = *from);
    front
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_come_back() {
        for bits in 0..35 {
            for len in [(1_usize << bits) - 1, 1 << bits] {
                let mut bytes = Vec::new();
                push_len(&mut bytes, len);
                let mut rest = bytes.as_slice();
                let fits = len < 1 << 35;
                assert_eq!(take_len(&mut rest), fits.then_some(len), "{len}");
                assert!(!fits || rest.is_empty(), "{len}");
            }
        }
        assert_eq!(take_len(&mut [0x80, 0x80, 0x80, 0x80, 0x80, 0].as_slice()), None, "endless");
        assert_eq!(take_len(&mut [0x80].as_slice()), None, "cut off");
    }
}
