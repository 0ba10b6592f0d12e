//! Reading payloads: sizes, lists and values off the front of a slice, and in Bitcoin Core's words
//! what is wrong with them.

use bitcoin::consensus::encode::{Decodable, Error, VarInt};
use cofferdam_ibd::wire::DecodeError;

/// What is said where bytes are missing (Core's `streams.h`).
pub(super) const END_OF_DATA: &str = "DataStream::read(): end of data";

/// The largest number of things or bytes that a payload may announce (`MAX_SIZE`): 32 MiB.
const SIZE_MAX: u64 = 0x0200_0000;
const SIZE_TOO_LARGE: &str = "ReadCompactSize(): size too large";
const NOT_CANONICAL: &str = "non-canonical ReadCompactSize()";

/// Splits `N` bytes off.
pub(super) fn take<const N: usize>(input: &mut &[u8]) -> Result<[u8; N], String> {
    let (taken, rest) = input.split_first_chunk::<N>().ok_or(END_OF_DATA)?;
    *input = rest;
    Ok(*taken)
}

/// Splits `length` bytes off.
pub(super) fn bytes<'a>(input: &mut &'a [u8], length: usize) -> Result<&'a [u8], String> {
    let (taken, rest) = input.split_at_checked(length).ok_or(END_OF_DATA)?;
    *input = rest;
    Ok(taken)
}

/// Reads a value.
pub(super) fn item<T: Decodable>(input: &mut &[u8]) -> Result<T, String> {
    T::consensus_decode(input).map_err(|error| String::from(in_cores_words(&error)))
}

/// Reads a number of things or bytes (`ReadCompactSize`).
pub(super) fn size(input: &mut &[u8]) -> Result<u64, String> {
    let size = number(input)?;
    if size <= SIZE_MAX { Ok(size) } else { Err(SIZE_TOO_LARGE.into()) }
}

/// Reads a number in the form of a size, however large.
pub(super) fn number(input: &mut &[u8]) -> Result<u64, String> {
    item::<VarInt>(input).map(|number| number.0)
}

/// Says what is wrong as Core's `serialize.h` and `primitives/transaction.h` do.
fn in_cores_words(error: &Error) -> &'static str {
    match error {
        Error::NonMinimalVarInt => NOT_CANONICAL,
        Error::OversizedVectorAllocation { .. } | Error::ParseFailed("Invalid length") => {
            SIZE_TOO_LARGE
        }
        Error::UnsupportedSegwitFlag(_) => "Unknown transaction optional data",
        Error::ParseFailed("witness flag set but no witnesses present") => {
            "Superfluous witness record"
        }
        Error::ParseFailed("BIP152 prefilled tx index out of bounds") => {
            "CompactSize exceeds limit of type"
        }
        Error::ParseFailed(_) => "differential value overflow",
        _ => END_OF_DATA,
    }
}

/// Says what is wrong with a block.
pub(super) fn of_block(error: DecodeError) -> &'static str {
    match error.what {
        DecodeError::END_OF_DATA => END_OF_DATA,
        what => what,
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::bip152::{BlockTransactions, BlockTransactionsRequest, HeaderAndShortIds};

    use super::*;

    #[test]
    fn what_cannot_be_read_is_named_as_in_core() {
        for (bytes, text) in [
            (&[][..], END_OF_DATA),
            (&[0xfd, 1], END_OF_DATA),
            (&[0xfd, 0xfc, 0], NOT_CANONICAL),
            (&[0xfe, 1, 0, 0, 2], SIZE_TOO_LARGE),
        ] {
            assert_eq!(size(&mut &*bytes), Err(text.into()), "{bytes:02x?}");
        }
        assert_eq!(number(&mut &[0xfe, 1, 0, 0, 2][..]), Ok(SIZE_MAX + 1));
        let hash = [7; 32];
        let transactions = |tx: &[u8]| {
            let bytes = [&hash[..], &[1], tx].concat();
            item::<BlockTransactions>(&mut bytes.as_slice()).unwrap_err()
        };
        let no_witness = [&[1, 0, 0, 0, 0, 1, 1][..], &[0; 41], &[0; 6]].concat();
        assert_eq!(transactions(&no_witness), "Superfluous witness record");
        let text = "Unknown transaction optional data";
        assert_eq!(transactions(&[1, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0]), text);
        assert_eq!(transactions(&[1, 0]), END_OF_DATA);
        let indexes = [&hash[..], &[2, 0xff], &[0xff; 8], &[0]].concat();
        let text = item::<BlockTransactionsRequest>(&mut indexes.as_slice()).unwrap_err();
        assert_eq!(text, "differential value overflow");
        let prefilled = [&[0; 80][..], &[0; 8], &[0, 1, 0xfe, 0, 0, 1, 0]].concat();
        let text = item::<HeaderAndShortIds>(&mut prefilled.as_slice()).unwrap_err();
        assert_eq!(text, "CompactSize exceeds limit of type");
    }
}
