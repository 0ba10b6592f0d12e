//! Block files as Bitcoin Core has them, without obfuscation: magic, length, block.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};

/// Magic bytes of regtest.
const MAGIC: [u8; 4] = [0xfa, 0xbf, 0xb5, 0xda];
/// Bytes of a file at most, as in Bitcoin Core.
const FILE_BYTES_MAX: u64 = 128 << 20;

/// Writes `blk00000.dat` and so on.
#[derive(Debug)]
pub struct BlockFiles {
    dir: PathBuf,
    number: u32,
    written: u64,
    file: BufWriter<File>,
}

fn open(dir: &Path, number: u32) -> io::Result<BufWriter<File>> {
    let file = File::create(dir.join(format!("blk{number:05}.dat")))?;
    Ok(BufWriter::with_capacity(1 << 20, file))
}

impl BlockFiles {
    /// Begins the first file in a folder, which is made.
    ///
    /// # Errors
    ///
    /// If the folder or the file cannot be made.
    pub fn create(dir: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        Ok(Self { dir: dir.to_owned(), number: 0, written: 0, file: open(dir, 0)? })
    }

    /// Appends a block.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn append(&mut self, block: &[u8]) -> io::Result<()> {
        let length = u32::try_from(block.len()).map_err(io::Error::other)?;
        if self.written > 0 && self.written + 8 + u64::from(length) > FILE_BYTES_MAX {
            self.file.flush()?;
            self.number += 1;
            (self.file, self.written) = (open(&self.dir, self.number)?, 0);
        }
        self.file.write_all(&MAGIC)?;
        self.file.write_all(&length.to_le_bytes())?;
        self.file.write_all(block)?;
        self.written += 8 + u64::from(length);
        Ok(())
    }

    /// Ends the last file, and waits until it is on the disk.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn finish(self) -> io::Result<()> {
        self.file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
    }
}
