//! Finding blocks in a file: `magic(4) | length(4, LE) | block`, as Bitcoin Core writes `blk*.dat`.
//!
//! Only frames and headers are read, bodies are skipped. Core preallocates its files, so zeros
//! between and behind frames are padding. Other bytes are garbage: they are counted, and the next
//! magic is looked for, as Core's `LoadExternalBlockFile` does. A magic may stand in garbage by
//! chance: a frame counts if another frame, padding or the end follows it, or if its body is a
//! block.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use bitcoin::Block;
use bitcoin::block::Header;
use bitcoin::consensus::deserialize;
use cofferdam_ibd::params::{ChainParams, Network};

/// Bytes of a frame before the block.
const FRAME_BYTES: u64 = 8;

/// The smallest block is a header and a count; the largest is Core's `MAX_BLOCK_SERIALIZED_SIZE`.
const BLOCK_BYTES_MIN: u32 = 81;
const BLOCK_BYTES_MAX: u32 = 4_000_000;

/// How much is read at a time while looking for a magic.
const CHUNK_BYTES: usize = 64 << 10;

/// A block in a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Found {
    /// Its header.
    pub(crate) header: Header,
    /// Where the block begins, behind its frame.
    pub(crate) offset: u64,
    /// Its length.
    pub(crate) length: u32,
}

/// What a file has.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Scan {
    /// The blocks, in the file's order.
    pub(crate) blocks: Vec<Found>,
    /// Bytes that are no block and no padding.
    pub(crate) garbage_bytes: u64,
    /// Where the last block begins, if the file ends before it does.
    pub(crate) cut_off_at: Option<u64>,
    /// The network whose frames were seen, if there was none of ours before.
    pub(crate) foreign: Option<Network>,
}

/// A block file, deobfuscated with the `xor.dat` beside it.
#[derive(Debug)]
pub(crate) struct BlockFile {
    reader: BufReader<Deobfuscated>,
    position: u64,
    length: u64,
    magics: Vec<(Network, [u8; 4])>,
}

impl BlockFile {
    /// Opens a file, and `xor.dat` in its directory if there is one.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let directory = path.parent().unwrap_or(Path::new(""));
        let key = match std::fs::read(directory.join("xor.dat")) {
            Ok(bytes) => bytes.try_into().map_err(|_| {
                io::Error::new(
                    io::ErrorKind::InvalidData,
                    "xor.dat in its directory has not 8 bytes",
                )
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => [0; 8],
            Err(error) => return Err(error),
        };
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        let reader = BufReader::with_capacity(CHUNK_BYTES, Deobfuscated { file, key, position: 0 });
        let magics =
            Network::ALL.into_iter().map(|network| (network, ChainParams::new(network).magic));
        Ok(Self { reader, position: 0, length, magics: magics.collect() })
    }

    /// Returns the magic that the file begins with, if it is that long.
    pub(crate) fn first_magic(&mut self) -> io::Result<Option<[u8; 4]>> {
        if self.length < 4 {
            return Ok(None);
        }
        Ok(self.read_at(0, 4)?.try_into().ok())
    }

    /// Reads bytes at a position.
    pub(crate) fn read_at(&mut self, offset: u64, length: u32) -> io::Result<Vec<u8>> {
        self.seek(offset)?;
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
        self.reader.read_exact(&mut bytes)?;
        self.position += u64::from(length);
        Ok(bytes)
    }

    fn seek(&mut self, offset: u64) -> io::Result<()> {
        let forth = i64::try_from(offset).unwrap_or(i64::MAX);
        let back = i64::try_from(self.position).unwrap_or(i64::MAX);
        self.reader.seek_relative(forth - back)?;
        self.position = offset;
        Ok(())
    }

    /// Finds the blocks of a network; `stop` says between blocks whether to give up.
    pub(crate) fn scan(
        &mut self,
        params: &ChainParams,
        stop: &dyn Fn() -> bool,
    ) -> io::Result<Scan> {
        let mut scan = Scan::default();
        let mut garbage_before_cut = 0;
        let mut at = 0;
        while at < self.length && !stop() {
            let Some(frame_at) = self.find_magic(at, params.magic, &mut scan)? else {
                break;
            };
            match self.frame(frame_at)? {
                Frame::Block(found) => {
                    at = found.offset + u64::from(found.length);
                    scan.blocks.push(found);
                    scan.cut_off_at = None;
                }
                Frame::CutOff => {
                    if scan.cut_off_at.is_none() {
                        scan.cut_off_at = Some(frame_at);
                        garbage_before_cut = scan.garbage_bytes;
                    }
                    scan.garbage_bytes += 1;
                    at = frame_at + 1;
                }
                Frame::Garbage => {
                    scan.garbage_bytes += 1;
                    at = frame_at + 1;
                }
            }
        }
        if scan.cut_off_at.is_some() {
            // What follows belongs to the block that was cut off.
            scan.garbage_bytes = garbage_before_cut;
        }
        Ok(scan)
    }

    /// Returns where the next magic is, and counts the bytes before it that are not zero.
    fn find_magic(
        &mut self,
        from: u64,
        magic: [u8; 4],
        scan: &mut Scan,
    ) -> io::Result<Option<u64>> {
        if from + 4 <= self.length && self.read_at(from, 4)? == magic {
            return Ok(Some(from));
        }
        let limit = u64::try_from(CHUNK_BYTES).unwrap_or(u64::MAX);
        let mut at = from;
        loop {
            self.seek(at)?;
            let mut chunk = Vec::with_capacity(CHUNK_BYTES);
            let read = (&mut self.reader).take(limit).read_to_end(&mut chunk)?;
            self.position += u64::try_from(read).unwrap_or(0);
            for (index, window) in (0_u64..).zip(chunk.windows(4)) {
                if window == magic {
                    return Ok(Some(at + index));
                }
                if scan.blocks.is_empty() && scan.foreign.is_none() {
                    scan.foreign = self.network_of(window);
                }
                scan.garbage_bytes += u64::from(window.first() != Some(&0));
            }
            if read < CHUNK_BYTES {
                let tail = chunk.iter().rev().take(3).filter(|byte| **byte != 0).count();
                scan.garbage_bytes += u64::try_from(tail).unwrap_or(0);
                return Ok(None);
            }
            // The last three bytes may be the beginning of a magic.
            at += limit - 3;
        }
    }

    /// Returns the network of a magic, if it is one of those that everybody knows.
    pub(crate) fn network_of(&self, magic: &[u8]) -> Option<Network> {
        self.magics.iter().find(|(_, known)| known == magic).map(|(network, _)| *network)
    }

    fn frame(&mut self, frame_at: u64) -> io::Result<Frame> {
        if frame_at + FRAME_BYTES > self.length {
            return Ok(Frame::CutOff);
        }
        let bytes = self.read_at(frame_at + 4, 4)?;
        let length = bytes.try_into().map_or(0, u32::from_le_bytes);
        if !(BLOCK_BYTES_MIN..=BLOCK_BYTES_MAX).contains(&length) {
            return Ok(Frame::Garbage);
        }
        let offset = frame_at + FRAME_BYTES;
        let end = offset + u64::from(length);
        if end > self.length {
            return Ok(Frame::CutOff);
        }
        let header = self.read_at(offset, 80)?;
        let Ok(header) = deserialize::<Header>(&header) else {
            return Ok(Frame::Garbage);
        };
        let is_block = self.is_boundary(end, frame_at)?
            || deserialize::<Block>(&self.read_at(offset, length)?).is_ok();
        Ok(if is_block { Frame::Block(Found { header, offset, length }) } else { Frame::Garbage })
    }

    /// Returns whether a frame of the same network, padding or the end of the file begins there.
    fn is_boundary(&mut self, at: u64, frame_at: u64) -> io::Result<bool> {
        if at == self.length {
            return Ok(true);
        }
        if at + 4 > self.length {
            return Ok(false);
        }
        let magic = self.read_at(frame_at, 4)?;
        let next = self.read_at(at, 4)?;
        Ok(next == magic || next == [0; 4])
    }
}

/// What stands behind a magic.
enum Frame {
    Block(Found),
    CutOff,
    Garbage,
}

/// Reads a file and takes Core's obfuscation off: the byte at offset `o` is xored with byte `o % 8`
/// of the key.
#[derive(Debug)]
struct Deobfuscated {
    file: File,
    key: [u8; 8],
    position: u64,
}

impl Read for Deobfuscated {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        if self.key != [0; 8] {
            let phase = usize::try_from(self.position % 8).unwrap_or(0);
            let key = self.key.iter().cycle().skip(phase);
            for (byte, key) in buffer.iter_mut().take(read).zip(key) {
                *byte ^= key;
            }
        }
        self.position += u64::try_from(read).unwrap_or(0);
        Ok(read)
    }
}

impl Seek for Deobfuscated {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.position = self.file.seek(to)?;
        Ok(self.position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::consensus::serialize;

    fn params() -> ChainParams {
        ChainParams::new(Network::Regtest)
    }

    fn block(nonce: u32) -> Vec<u8> {
        let mut block = params().genesis;
        block.header.nonce = nonce;
        serialize(&block)
    }

    fn frame(magic: [u8; 4], block: &[u8]) -> Vec<u8> {
        let length = u32::try_from(block.len()).unwrap();
        [&magic[..], &length.to_le_bytes(), block].concat()
    }

    fn ours(nonce: u32) -> Vec<u8> {
        frame(params().magic, &block(nonce))
    }

    fn scan(bytes: &[u8], key: Option<[u8; 8]>) -> Scan {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("blk00000.dat");
        let key_bytes = key.unwrap_or_default();
        let stored: Vec<u8> =
            bytes.iter().zip(key_bytes.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
        std::fs::write(&path, stored).unwrap();
        if let Some(key) = key {
            std::fs::write(dir.path().join("xor.dat"), key).unwrap();
        }
        let mut file = BlockFile::open(&path).unwrap();
        let scan = file.scan(&params(), &|| false).unwrap();
        for found in &scan.blocks {
            let raw = file.read_at(found.offset, found.length).unwrap();
            assert_eq!(raw, block(found.header.nonce), "the block is where the scan says");
        }
        scan
    }

    fn nonces(scan: &Scan) -> Vec<u32> {
        scan.blocks.iter().map(|found| found.header.nonce).collect()
    }

    #[test]
    fn frames_are_found_with_and_without_a_key() {
        let bytes = [ours(1), ours(2), ours(3)].concat();
        for key in [None, Some([1, 2, 3, 4, 5, 6, 7, 8]), Some([0; 8])] {
            let scan = scan(&bytes, key);
            assert_eq!(nonces(&scan), [1, 2, 3]);
            assert_eq!((scan.garbage_bytes, scan.cut_off_at, scan.foreign), (0, None, None));
        }
    }

    #[test]
    fn padding_is_no_garbage() {
        let padding = vec![0; 200_000];
        let scan = scan(&[ours(1), padding.clone(), ours(2), padding].concat(), None);
        assert_eq!((nonces(&scan), scan.garbage_bytes), (vec![1, 2], 0));
    }

    #[test]
    fn garbage_is_counted_and_skipped_wherever_it_is() {
        let garbage = [7_u8; 70_001];
        let bytes = [&garbage[..], &ours(1), &garbage[..5], &ours(2), &garbage[..3]].concat();
        let scan = scan(&bytes, None);
        assert_eq!((nonces(&scan), scan.garbage_bytes), (vec![1, 2], 70_009));
    }

    #[test]
    fn a_magic_in_garbage_hides_no_block() {
        // A frame that claims to span the next block.
        let fake = frame(params().magic, &[9; 100]);
        let fake = [&fake[..4], &400_u32.to_le_bytes(), &fake[8..]].concat();
        let scan = scan(&[ours(1), fake, ours(2), ours(3)].concat(), None);
        assert_eq!(
            (nonces(&scan), scan.garbage_bytes),
            (vec![1, 2, 3], 106),
            "zeros are not counted"
        );
    }

    #[test]
    fn a_cut_off_block_is_reported_and_those_before_it_are_kept() {
        let bytes = [ours(1), ours(2)].concat();
        let second = ours(1).len();
        for cut in second + 4..bytes.len() {
            let scan = scan(&bytes[..cut], None);
            assert_eq!(nonces(&scan), [1], "cut at {cut}");
            assert_eq!(scan.cut_off_at, Some(u64::try_from(second).unwrap()), "cut at {cut}");
            assert_eq!(scan.garbage_bytes, 0, "cut at {cut}");
        }
    }

    #[test]
    fn another_network_is_named() {
        let signet = ChainParams::new(Network::Signet).magic;
        let found = scan(&frame(signet, &block(1)), None);
        assert!(found.blocks.is_empty());
        assert_eq!(found.foreign, Some(Network::Signet));
    }

    #[test]
    fn an_empty_file_has_nothing() {
        assert_eq!(scan(&[], None), Scan::default());
    }
}
