//! The decoders: a batch, a clean marker, a segment's header page, names of files.

use std::path::Path;
use std::sync::Arc;

use crate::batch::Batch;
use crate::error::Error;
use crate::flat_files::{FlatFiles, FlatFilesOptions};
use crate::testing::SimFileSystem;
use crate::testing::fuzz::input::Input;
use crate::wal::format::{
    SEGMENT_HEADER_BYTES, SegmentHeader, VERSION, VERSION_MIN, segment_name, segment_number,
};
use crate::wal::marker::{decode_marker, encode_marker};
use crate::wal::pack::{pack, unpack};

/// Four bytes can ask for a key of 64 KiB: more than an input needs to show what it shows.
const UNPACKED_BYTES_MAX: usize = 1 << 20;

/// Decodes and unpacks a batch, and builds one from the same bytes taken as choices.
///
/// # Panics
///
/// If a batch that was accepted, or built, is not encoded to the same bytes, or not the same after
/// packing and unpacking.
pub fn batch(data: &[u8]) -> bool {
    let built = Input::new(data).batch();
    assert_eq!(Batch::decode(built.as_bytes()).expect("what was built"), built);
    let mut packed = Vec::new();
    if pack(&built, &mut packed) {
        assert!(packed.len() < built.byte_len());
        assert_eq!(unpack(&packed, built.byte_len()).expect("what was packed"), built);
    }
    if let Ok(unpacked) = unpack(data, UNPACKED_BYTES_MAX) {
        assert!(unpacked.byte_len() <= UNPACKED_BYTES_MAX);
    }
    match Batch::decode(data) {
        Ok(decoded) => {
            assert_eq!(decoded.as_bytes(), data);
            let mut again = Batch::with_capacity(data.len());
            decoded.ops().for_each(|op| again.push_op(op));
            assert_eq!(again, decoded);
            true
        }
        Err(error) => {
            assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
            false
        }
    }
}

/// Decodes a clean marker: the bytes as they are, and with their checksum put right.
///
/// # Panics
///
/// If a marker that was accepted is not encoded to the same bytes.
pub fn marker(data: &[u8]) -> bool {
    let accepted = |bytes: &[u8]| match decode_marker(bytes) {
        Ok(lsn) => {
            assert_eq!(encode_marker(lsn), bytes);
            true
        }
        Err(error) => {
            let typed = matches!(error, Error::Corrupt { .. } | Error::Version { .. });
            assert!(typed, "{error:?}");
            false
        }
    };
    let mut repaired = data.to_vec();
    repair(&mut repaired);
    accepted(data) | accepted(&repaired)
}

/// Decodes a segment's header page, which begins with the given bytes: as it is, and with its
/// checksum put right.
///
/// # Panics
///
/// If a header that was accepted is not encoded to the same bytes.
pub fn segment_header(data: &[u8]) -> bool {
    let mut page = [0; SEGMENT_HEADER_BYTES];
    page.iter_mut().zip(data).for_each(|(to, from)| *to = *from);
    let accepted = |page: &[u8; SEGMENT_HEADER_BYTES]| match SegmentHeader::decode(page) {
        Ok((header, chain)) => {
            let versions = [VERSION_MIN, VERSION];
            let same = versions.iter().any(|version| header.encode_as(*version) == *page);
            assert!(same, "{header:?} has other bytes than it was read from");
            assert!(page.ends_with(&chain.to_le_bytes()));
            true
        }
        Err(error) => {
            let typed = matches!(error, Error::Corrupt { .. } | Error::Version { .. });
            assert!(typed, "{error:?}");
            false
        }
    };
    let as_it_is = accepted(&page);
    repair(&mut page);
    as_it_is | accepted(&page)
}

/// Puts the checksum at the end right.
pub(super) fn repair(bytes: &mut [u8]) {
    if let Some((body, crc)) = bytes.split_last_chunk_mut::<4>() {
        *crc = crc32fast::hash(body).to_le_bytes();
    }
}

/// Takes the lines of the bytes for the names in a directory: which of them are segments, and
/// whether flat files can be opened among them and appended to.
///
/// # Panics
///
/// If a name is taken for that of a file that would be named otherwise, or if names that are not
/// ours disturb.
pub fn names(data: &[u8]) -> bool {
    let (fs, dir) = (SimFileSystem::new(), Path::new("names"));
    let text = String::from_utf8_lossy(data);
    let names = || text.lines().filter(|name| !name.contains('/') && !name.is_empty());
    let mut accepted = false;
    for name in names() {
        fs.plant(&dir.join(name), b"");
        if let Some(number) = segment_number(name) {
            assert_eq!(segment_name(number), name);
            accepted = true;
        }
    }
    let flat_name = |number: u32| format!("blk{number:05}.dat");
    let numbers = names().filter_map(|name| {
        let number = name.get(3..name.len().saturating_sub(4))?.parse().ok()?;
        (flat_name(number) == name).then_some(number)
    });
    let last = numbers.max();
    let options = FlatFilesOptions { prefix: "blk", file_bytes_max: 9, xor_key: [1; 8] };
    let files = FlatFiles::open(Arc::new(fs), dir, options).expect("foreign names do not disturb");
    assert_eq!(files.last_file(), last.unwrap_or(0));
    for _ in 0..2 {
        let appended = files.append(b"record");
        assert!(appended.is_ok() || last >= Some(u32::MAX - 1), "{appended:?}");
    }
    accepted || last.is_some()
}
