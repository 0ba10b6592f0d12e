//! `BlockFiles`: blocks and undo data in Bitcoin Core's own files (`blk*.dat`, `rev*.dat`, `xor.dat`).
//!
//! ```text
//! blkNNNNN.dat  (magic 4 | length u32 LE | block)*
//! revNNNNN.dat  (magic 4 | length u32 LE | undo | checksum 32)*     length is that of the undo alone
//! ```
//!
//! Invariants:
//! - the undo of a block is in the `rev` file with the number of the block's `blk` file;
//! - an [`Extent`] is only made for bytes that were written, and names their CRC-32; whoever reads
//!   through it gets those bytes or an error.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bitcoin::BlockHash;
use cofferdam_storage::{
    Attachments, BlockBatch, FilePosition, FileSystem, FlatFiles, FlatFilesOptions, Op,
    write_atomic,
};

use crate::error::{Error, Result};
use crate::headers::{Extent, HeaderRow};
use crate::tables::HEADERS;
use crate::undo::undo_checksum;

/// Largest block file: Bitcoin Core's `MAX_BLOCKFILE_SIZE`, which no file of its reaches.
const FILE_BYTES_MAX: u64 = 128 * 1024 * 1024 - 1;
/// Largest block file for tests of pruning (`-fastprune`), unless one block alone is larger.
const SMALL_FILE_BYTES_MAX: u64 = 64 * 1024 - 1;
/// Magic and length before each record.
const FRAME_LEN: u32 = 8;
/// What follows undo data: its checksum.
const UNDO_CHECKSUM_LEN: u64 = 32;

/// How large block files grow before the next one is begun.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum FileSize {
    /// As Bitcoin Core's: 128 MiB.
    #[default]
    Core,
    /// 64 KiB, so that tests of pruning need few blocks.
    Small,
    /// At most so many bytes, for tests of this crate.
    Bytes(u64),
}

/// The block and undo files of one chain.
#[derive(Debug)]
pub struct BlockFiles {
    dir: PathBuf,
    magic: [u8; 4],
    blocks: FlatFiles,
    undo: FlatFiles,
}

impl BlockFiles {
    /// Opens the files in `dir`, and creates what is missing.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Storage`] if the directory cannot be read or made, and [`Error::Corrupt`] if
    /// `xor.dat` is not 8 bytes.
    pub fn open(
        fs: &Arc<dyn FileSystem>,
        dir: &Path,
        magic: [u8; 4],
        size: FileSize,
    ) -> Result<Self> {
        fs.create_dir_all(dir)?;
        let xor_key = open_xor_key(fs, dir)?;
        let file_bytes_max = match size {
            FileSize::Core => FILE_BYTES_MAX,
            FileSize::Small => SMALL_FILE_BYTES_MAX,
            FileSize::Bytes(bytes) => bytes,
        };
        let open = |prefix| {
            let options = FlatFilesOptions { prefix, file_bytes_max, xor_key };
            FlatFiles::open(Arc::clone(fs), dir, options)
        };
        Ok(Self { dir: dir.to_path_buf(), magic, blocks: open("blk")?, undo: open("rev")? })
    }

    /// Where they are.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Appends a block.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Storage`] if the write fails.
    pub fn append_block(&self, raw: &[u8]) -> Result<Extent> {
        let mut record = Vec::with_capacity(raw.len() + FRAME_LEN as usize);
        let length = self.frame(&mut record, raw)?;
        let start = self.blocks.append(&record)?;
        payload(start, length, raw)
    }

    /// Appends the first block of a chain, and makes an undo file: they come in pairs.
    pub(crate) fn begin(&self, raw: &[u8]) -> Result<Extent> {
        let block = self.append_block(raw)?;
        self.undo.append_to_file(block.position.file, &[])?;
        Ok(block)
    }

    /// Finds the block that is first in the first file, if it is this one.
    pub(crate) fn is_first(&self, raw: &[u8]) -> Option<Extent> {
        let extent = Extent::of(FilePosition { file: 0, offset: FRAME_LEN }, raw)?;
        self.read_block(extent).ok().map(|_| extent)
    }

    /// The file that the next block goes to, or the one after it.
    #[must_use]
    pub fn last_file(&self) -> u32 {
        self.blocks.last_file()
    }

    /// The numbers of the block files there are, and of undo files without one.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Storage`] if the directory cannot be read.
    pub fn numbers(&self) -> Result<Vec<u32>> {
        let mut numbers = [self.blocks.numbers()?, self.undo.numbers()?].concat();
        numbers.sort_unstable();
        numbers.dedup();
        Ok(numbers)
    }

    /// Bytes of the block and undo file of that number.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Storage`] if the system refuses.
    pub fn bytes(&self, number: u32) -> Result<u64> {
        Ok(self.blocks.file_len(number)? + self.undo.file_len(number)?)
    }

    /// Removes the block and undo file of that number, which no row names any more.
    pub(crate) fn remove(&self, number: u32) -> Result<()> {
        if number >= self.last_file() {
            return Err(Error::Corrupt { what: format!("block file {number} is in use") });
        }
        // The undo files end where the block files do, or before.
        if number < self.undo.last_file() {
            self.undo.remove(number)?;
        }
        Ok(self.blocks.remove(number)?)
    }

    /// Appends the undo data of the block at `block`, whose parent is `prev`.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Storage`] if the write fails.
    pub fn append_undo(&self, block: Extent, prev: &BlockHash, undo: &[u8]) -> Result<Extent> {
        let mut record = Vec::with_capacity(undo.len() + FRAME_LEN as usize + 32);
        let length = self.frame(&mut record, undo)?;
        record.extend_from_slice(&undo_checksum(prev, undo));
        let start = self.undo.append_to_file(block.position.file, &record)?;
        payload(start, length, undo)
    }

    /// Reads a block's bytes.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Corrupt`] if they are not those that were written.
    pub fn read_block(&self, at: Extent) -> Result<Vec<u8>> {
        read_checked(&self.blocks, at, "block")
    }

    /// Reads a block's undo bytes.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Corrupt`] if they are not those that were written.
    pub fn read_undo(&self, at: Extent) -> Result<Vec<u8>> {
        read_checked(&self.undo, at, "undo data")
    }

    fn frame(&self, record: &mut Vec<u8>, payload: &[u8]) -> Result<u32> {
        let length = u32::try_from(payload.len())
            .map_err(|_| Error::Corrupt { what: format!("a record of {} bytes", payload.len()) })?;
        record.extend_from_slice(&self.magic);
        record.extend_from_slice(&length.to_le_bytes());
        record.extend_from_slice(payload);
        Ok(length)
    }
}

impl Attachments for BlockFiles {
    fn sync(&self) -> cofferdam_storage::Result<()> {
        self.blocks.sync()?;
        self.undo.sync()
    }

    /// Tells whether every block and undo extent that the batch names can be read back.
    fn intact(&self, batch: &BlockBatch) -> cofferdam_storage::Result<bool> {
        let Some(extents) = self.extents(batch) else {
            return Ok(false);
        };
        for (files, at) in extents {
            if !is_intact(files, at)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Writes every extent that the batch names again, with its frame and checksum.
    fn rewrite(&self, batch: &BlockBatch) -> cofferdam_storage::Result<()> {
        for (files, at) in self.extents(batch).unwrap_or_default() {
            let FilePosition { file, offset } = at.position;
            let begin = offset.saturating_sub(FRAME_LEN);
            let end = u64::from(offset) + u64::from(at.length.get()) + UNDO_CHECKSUM_LEN;
            let len = end.min(files.file_len(file)?).saturating_sub(u64::from(begin));
            let len = usize::try_from(len).unwrap_or(usize::MAX);
            files.rewrite(FilePosition { file, offset: begin }, len)?;
        }
        Ok(())
    }
}

impl BlockFiles {
    /// The extents that a batch names, each with its files; none if a row is malformed.
    fn extents(&self, batch: &BlockBatch) -> Option<Vec<(&FlatFiles, Extent)>> {
        let mut extents = Vec::new();
        for op in batch.batch.ops() {
            let (Op::Put { tree_id, key, value } | Op::PutNew { tree_id, key, value }) = op else {
                continue;
            };
            if tree_id == HEADERS.id {
                let row = HeaderRow::decode(key, value).ok()?;
                extents.extend(row.block.map(|at| (&self.blocks, at)));
                extents.extend(row.undo.map(|at| (&self.undo, at)));
            }
        }
        Some(extents)
    }
}

/// Tells whether an extent has the bytes that were written. A disk that cannot be read is an error,
/// not an answer: it must not pass for bytes that never arrived.
fn is_intact(files: &FlatFiles, at: Extent) -> cofferdam_storage::Result<bool> {
    match files.read(at.position, at.length.get() as usize) {
        Ok(bytes) => Ok(crc32fast::hash(&bytes) == at.crc32),
        Err(cofferdam_storage::Error::OutOfBounds { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Position of a payload behind its frame.
fn payload(start: FilePosition, length: u32, bytes: &[u8]) -> Result<Extent> {
    let offset = start.offset.checked_add(FRAME_LEN).ok_or_else(|| Error::Corrupt {
        what: format!("offset {} in a block file", start.offset),
    })?;
    let position = FilePosition { file: start.file, offset };
    let length = NonZeroU32::new(length)
        .ok_or_else(|| Error::Corrupt { what: "a record of no bytes".into() })?;
    Ok(Extent { position, length, crc32: crc32fast::hash(bytes) })
}

fn read_checked(files: &FlatFiles, at: Extent, what: &str) -> Result<Vec<u8>> {
    let bytes = files.read(at.position, at.length.get() as usize)?;
    if crc32fast::hash(&bytes) == at.crc32 {
        return Ok(bytes);
    }
    let FilePosition { file, offset } = at.position;
    Err(Error::Corrupt {
        what: format!("{what} of {} bytes in file {file} at {offset}", at.length),
    })
}

/// Reads the key of the files' XOR, or makes a random one for a new directory.
///
/// The key keeps virus scanners from finding "signatures" in block data (Bitcoin Core's
/// `-blocksxor`); it is no secret.
fn open_xor_key(fs: &Arc<dyn FileSystem>, dir: &Path) -> Result<[u8; 8]> {
    use std::hash::BuildHasher as _;
    let path = dir.join("xor.dat");
    // One byte more than there may be tells a longer file.
    if let Some(bytes) = cofferdam_storage::read_small(fs.as_ref(), &path, 9)? {
        return bytes.as_slice().try_into().map_err(|_| Error::Corrupt {
            what: format!("{}: {} bytes instead of 8", path.display(), bytes.len()),
        });
    }
    // Block files without a key are not obfuscated.
    let has_blocks = fs.list(dir)?.iter().any(|name| name.starts_with("blk"));
    let random = || std::hash::RandomState::new().hash_one(()).to_le_bytes();
    let key = if has_blocks { [0; 8] } else { random() };
    write_atomic(fs.as_ref(), &path, &key)?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use bitcoin::hashes::Hash as _;
    use cofferdam_storage::{Batch, StdFileSystem, Tip};

    use super::*;
    use crate::headers::HeaderStatus;
    use crate::params::{ChainParams, Network};

    fn open(dir: &Path) -> BlockFiles {
        let fs: Arc<dyn FileSystem> = Arc::new(StdFileSystem);
        BlockFiles::open(&fs, dir, [0xfa, 0xbf, 0xb5, 0xda], FileSize::Core).expect("opens")
    }

    /// A log record whose row names `block` and `undo`.
    fn record(block: Extent, undo: Extent) -> BlockBatch {
        let header = ChainParams::new(Network::Regtest).genesis.header;
        let row = HeaderRow {
            height: 0,
            header,
            status: HeaderStatus::VALID,
            tx_count: 1,
            block: Some(block),
            undo: Some(undo),
        };
        let mut batch = Batch::new();
        batch.put(HEADERS, &HeaderRow::key(0, &header.block_hash()), &row.encode());
        BlockBatch { tip: Tip { height: 0, hash: [0; 32] }, prev_hash: [0; 32], batch }
    }

    #[test]
    fn files_have_cores_frames_under_the_key() {
        let dir = tempfile::tempdir().expect("temporary");
        let files = open(dir.path());
        let block = files.append_block(b"block").expect("room");
        let prev = BlockHash::all_zeros();
        let undo = files.append_undo(block, &prev, b"undo!").expect("room");
        assert_eq!(files.read_block(block).expect("readable"), b"block");
        assert_eq!(files.read_undo(undo).expect("readable"), b"undo!");

        let key = std::fs::read(dir.path().join("xor.dat")).expect("written");
        assert_eq!(key.len(), 8);
        let read = |name: &str| -> Vec<u8> {
            let bytes = std::fs::read(dir.path().join(name)).expect("written");
            bytes.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key).collect()
        };
        assert_eq!(read("blk00000.dat"), b"\xfa\xbf\xb5\xda\x05\0\0\0block");
        let mut expected = b"\xfa\xbf\xb5\xda\x05\0\0\0undo!".to_vec();
        expected.extend(undo_checksum(&prev, b"undo!"));
        assert_eq!(read("rev00000.dat"), expected);
    }

    #[test]
    fn a_record_is_intact_only_with_all_its_bytes() {
        let dir = tempfile::tempdir().expect("temporary");
        let files = open(dir.path());
        let block = files.append_block(b"block").expect("room");
        let undo = files.append_undo(block, &BlockHash::all_zeros(), b"undo!").expect("room");
        assert!(files.intact(&record(block, undo)).expect("readable"));
        let elsewhere = Extent { crc32: block.crc32 ^ 1, ..block };
        assert!(!files.intact(&record(elsewhere, undo)).expect("readable"));
        let beyond = Extent { length: NonZeroU32::MAX, ..undo };
        assert!(!files.intact(&record(block, beyond)).expect("readable"));
    }

    #[test]
    fn a_directory_with_blocks_and_no_key_is_not_obfuscated() {
        let dir = tempfile::tempdir().expect("temporary");
        std::fs::write(dir.path().join("blk00000.dat"), b"").expect("room");
        open(dir.path());
        assert_eq!(std::fs::read(dir.path().join("xor.dat")).expect("written"), [0; 8]);
        std::fs::write(dir.path().join("xor.dat"), b"short").expect("room");
        let fs: Arc<dyn FileSystem> = Arc::new(StdFileSystem);
        let error = BlockFiles::open(&fs, dir.path(), [0; 4], FileSize::Core).expect_err("refused");
        assert!(error.to_string().contains("xor.dat"), "{error}");
    }
}
