//! `MappedFile`: a file whose first bytes are written by copying into a memory mapping.
//!
//! The bytes go into the page cache, where [`File::sync_data`] and reads find them as if they had
//! been written by a call. What differs: a disk that cannot give or take a page ends the process by
//! a signal (SIGBUS) instead of an error. The blocks are therefore allocated before.
//!
//! The one unsafe block of the crate is here. It is run under `AddressSanitizer` with
//! `RUSTFLAGS=-Zsanitizer=address cargo +nightly test -p cofferdam-storage --features testing,mmap
//! --lib --target x86_64-unknown-linux-gnu -- mapped log_options` (Miri knows no file mappings).

use std::ptr;
use std::sync::Arc;

use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::FallocateFlags;

use super::{File, StdFile};
use crate::error::{Error, Result};

/// A file of which a part is mapped.
#[derive(Debug)]
pub(super) struct MappedFile {
    file: StdFile,
    map: MmapRaw,
}

impl MappedFile {
    /// Maps the first `bytes` of a file; none if the file system cannot allocate them.
    pub(super) fn new(file: StdFile, bytes: u64) -> Result<Option<Self>> {
        let len = usize::try_from(bytes).unwrap_or(usize::MAX);
        match rustix::fs::fallocate(&file.file, FallocateFlags::empty(), 0, bytes) {
            Ok(()) => {}
            Err(rustix::io::Errno::OPNOTSUPP) => return Ok(None),
            Err(source) => return Err(Error::io("allocate", &file.path, source.into())),
        }
        let map = MmapOptions::new().len(len).map_raw(&file.file).map_err(file.error("map"))?;
        Ok(Some(Self { file, map }))
    }

    /// Copies into the mapping what is within it; returns how many bytes that were.
    fn copy(&self, offset: u64, bytes: &[u8]) -> usize {
        let at = usize::try_from(offset).unwrap_or(usize::MAX).min(self.map.len());
        let len = bytes.len().min(self.map.len() - at);
        #[expect(unsafe_code, reason = "memory that is shared with the system has no safe writer")]
        // SAFETY: `at + len <= map.len()`, so the target lies within the mapping, which lives as
        // long as `self` and which the file still covers: it was allocated to that size, and
        // `set_len` refuses to cut it. `len <= bytes.len()`, so the source is initialised and
        // readable. They do not overlap: the mapping is not lent to anybody. No reference to the
        // mapped memory is ever made, only this raw pointer, so nothing is assumed of its content
        // or of who else changes it.
        unsafe {
            ptr::copy_nonoverlapping(bytes.as_ptr(), self.map.as_mut_ptr().add(at), len);
        }
        len
    }
}

impl File for MappedFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        self.file.read_at(offset, buffer)
    }

    /// What reaches beyond the mapping is written by a call.
    fn write_all_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let copied = self.copy(offset, bytes);
        let rest = bytes.get(copied..).unwrap_or_default();
        if rest.is_empty() {
            return Ok(());
        }
        self.file.write_all_at(offset + u64::try_from(copied).unwrap_or(u64::MAX), rest)
    }

    fn set_len(&self, bytes: u64) -> Result<()> {
        if usize::try_from(bytes).is_ok_and(|bytes| bytes < self.map.len()) {
            return Err(Error::misuse("a mapped file cannot be cut below its mapping"));
        }
        self.file.set_len(bytes)
    }

    fn map(&self, _: u64) -> Result<Option<Arc<dyn File>>> {
        Ok(None)
    }

    fn len(&self) -> Result<u64> {
        self.file.len()
    }

    /// `fdatasync` writes pages that were changed through a mapping as it writes others.
    fn sync_data(&self) -> Result<()> {
        self.file.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file_system::{FileSystem as _, StdFileSystem};

    #[test]
    fn bytes_within_across_and_beyond_the_mapping_are_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let plain = StdFileSystem.create_new(&dir.path().join("f")).unwrap();
        let mapped = plain.map(10_000).unwrap().expect("this file system allocates");
        let bytes: Vec<u8> = (0..=255_u8).cycle().take(15_000).collect();
        for (from, to) in [(0, 4096), (4096, 9000), (9000, 12_000), (12_000, 15_000)] {
            mapped.write_all_at(u64::try_from(from).unwrap(), &bytes[from..to]).unwrap();
        }
        mapped.sync_data().unwrap();
        let mut read = vec![0; 20_000];
        assert_eq!(plain.read_at(0, &mut read).unwrap(), 15_000);
        assert_eq!(read[..15_000], bytes);
        assert!(matches!(mapped.set_len(9999), Err(Error::Misuse { .. })));
        assert_eq!(mapped.len().unwrap(), 15_000);
    }
}
