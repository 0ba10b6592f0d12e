//! `Run`: an immutable file of entries in ascending order of tree and key.
//!
//! ```text
//! block* | index | filter | footer
//!
//! block   entry* | CRC-32 of them u32                  one tree each, some 2 KiB
//! entry   see `entry.rs`
//! index   per tree: id u8 | blocks u32 | puts u64 | deletes u64
//!         per block: first 8 bytes of its first key | offset u64
//! filter  lines of 64 bytes
//! footer  magic 8 | format u32 | trees u32 | blocks u64 | lines u64 | offset of the index u64
//!         | seed u64 | CRC-32 of the index | of the filter | of the footer before it
//! ```
//!
//! Integers are little-endian. Index and filter are held in memory: 2 bytes an entry. Every byte is
//! below a checksum, and every checksum is looked at before what it covers is used.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::entry::{Coding, find_in, take_entry};
use super::filter::{Filter, LINE_BYTES};
use crate::coding::key_front;
use crate::error::{Error, Result};
use crate::file_system::{File, FileSystem};

const CRC_BYTES: usize = 4;
const TREE_BYTES: usize = 1 + 4 + 8 + 8;
const BLOCK_REF_BYTES: usize = 16;
const FOOTER_BYTES: usize = 60;
const MAGIC: [u8; 8] = *b"cofd-run";
/// The format of the files that this build writes.
const FORMAT: u32 = 2;
/// The oldest one that it reads: whole keys.
const FORMAT_MIN: u32 = 1;

/// What is wrong with a block that has an entry which cannot be read.
pub(super) const BROKEN_ENTRY: &str = "a block with a broken entry";

/// Where a block is.
#[derive(Debug, Clone, Copy)]
pub(super) struct BlockRef {
    /// The first bytes of its first key, see [`front_of`].
    pub(super) front: u64,
    /// Its first byte in the file.
    pub(super) offset: u64,
}

/// The blocks of one tree.
#[derive(Debug, Clone, Copy)]
pub(super) struct TreeSpan {
    pub(super) id: u8,
    /// The number of its first block, and of the one after its last.
    pub(super) first: usize,
    pub(super) end: usize,
    /// Entries with a value.
    pub(super) puts: u64,
    /// Entries without.
    pub(super) deletes: u64,
}

/// A run, open for reading.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) number: u64,
    pub(super) path: PathBuf,
    file: Arc<dyn File>,
    trees: Vec<TreeSpan>,
    blocks: Vec<BlockRef>,
    /// For each tree where to look for a front.
    guides: Vec<Guide>,
    filter: Filter,
    /// Where the blocks end.
    blocks_end: u64,
    coding: Coding,
}

/// [`key_front`] as a number.
pub(super) fn front_of(key: &[u8]) -> u64 {
    u64::from_be_bytes(key_front(key))
}

pub(super) fn as_u64(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

fn as_usize(n: u64) -> Result<usize> {
    usize::try_from(n).map_err(|_| Error::corrupt("a run has a length beyond memory"))
}

impl Run {
    /// Opens a run, and reads index and filter.
    pub(super) fn open(fs: &dyn FileSystem, path: &Path, number: u64) -> Result<Self> {
        let file = fs.open(path)?;
        let bad = |what: &str| Error::corrupt(format!("{}: {what}", path.display()));
        let footer_at =
            file.len()?.checked_sub(as_u64(FOOTER_BYTES)).ok_or_else(|| bad("cut off"))?;
        let footer = Footer::parse(&read(&*file, footer_at, FOOTER_BYTES)?).map_err(bad)?;
        let index_bytes = footer.index_bytes().ok_or_else(|| bad("index out of bounds"))?;
        let filter_at = footer.index_at + as_u64(index_bytes);
        let filter_bytes = footer.lines.checked_mul(LINE_BYTES);
        if filter_bytes.and_then(|bytes| filter_at.checked_add(as_u64(bytes))) != Some(footer_at) {
            return Err(bad("lengths that do not add up"));
        }
        let index = read(&*file, footer.index_at, index_bytes)?;
        if crc32fast::hash(&index) != footer.index_crc {
            return Err(bad("wrong checksum of the index"));
        }
        let (trees, blocks) = parse_index(&index, &footer).ok_or_else(|| bad("wrong index"))?;
        let mut filter = Filter::of_lines(footer.lines);
        let wanted = filter.bytes().len();
        if file.read_at(filter_at, filter.bytes_mut())? != wanted
            || crc32fast::hash(filter.bytes()) != footer.filter_crc
        {
            return Err(bad("wrong checksum of the filter"));
        }
        let blocks_end = footer.index_at;
        let path = path.to_path_buf();
        let run = Self::new((number, path, file), (trees, blocks), filter, blocks_end);
        Ok(Self { coding: footer.coding, ..run })
    }

    /// A run of the present format whose parts are in memory.
    pub(super) fn new(
        (number, path, file): (u64, PathBuf, Arc<dyn File>),
        (trees, blocks): (Vec<TreeSpan>, Vec<BlockRef>),
        filter: Filter,
        blocks_end: u64,
    ) -> Self {
        let of = |tree: &TreeSpan| blocks.get(tree.first..tree.end).unwrap_or_default();
        let guides = trees.iter().map(|tree| Guide::new(of(tree))).collect();
        let coding = Coding::Shared;
        Self { number, path, file, trees, blocks, guides, filter, blocks_end, coding }
    }

    /// The blocks of a tree, if it has any.
    pub(super) fn tree(&self, id: u8) -> Option<&TreeSpan> {
        self.trees.iter().find(|tree| tree.id == id)
    }

    /// The trees in order of id.
    pub(super) fn trees(&self) -> &[TreeSpan] {
        &self.trees
    }

    /// How its entries are coded.
    pub(super) const fn coding(&self) -> Coding {
        self.coding
    }

    /// The number of bytes of all entries.
    pub(super) const fn byte_len(&self) -> u64 {
        self.blocks_end
    }

    /// The number of bytes of a tree's entries.
    pub(super) fn tree_bytes(&self, tree: &TreeSpan) -> u64 {
        self.offset_of(tree.end).saturating_sub(self.offset_of(tree.first))
    }

    /// Whether a key, by its hash, may be in the run.
    pub(super) fn may_have(&self, hash: u64) -> bool {
        self.filter.may_have(hash)
    }

    /// The key's value, `Some(None)` if it is deleted, none if the run does not know it. `buffer` is
    /// kept from one call to the next for its memory.
    pub(super) fn find<'b>(
        &self,
        tree: &TreeSpan,
        key: &[u8],
        buffer: &'b mut Vec<u8>,
    ) -> Result<Option<Option<&'b [u8]>>> {
        let Some(at) = self.block_of(tree, key, buffer)? else {
            return Ok(None);
        };
        let len = self.read_blocks(at, at + 1, buffer)?;
        let block = buffer.get(..len).unwrap_or_default();
        find_in(self.coding, block, key).map_err(|_| self.corrupt(BROKEN_ENTRY))
    }

    /// The number of the only block of a tree in which a key can be: the last one that does not
    /// begin after it.
    pub(super) fn block_of(
        &self,
        tree: &TreeSpan,
        key: &[u8],
        buffer: &mut Vec<u8>,
    ) -> Result<Option<usize>> {
        let front = front_of(key);
        let blocks = self.blocks.get(tree.first..tree.end).unwrap_or_default();
        let guide = self.trees.iter().position(|each| each.id == tree.id);
        let guide = guide.and_then(|at| self.guides.get(at));
        let near = guide.map_or(0..blocks.len(), |guide| guide.near(front));
        let near_blocks = blocks.get(near.clone()).unwrap_or_default();
        let mut end = near.start + near_blocks.partition_point(|block| block.front <= front);
        // The fronts of those from here to the end are the key's own: their first keys have to be
        // looked at.
        let mut first = near.start + near_blocks.partition_point(|block| block.front < front);
        while first < end {
            let middle = first.midpoint(end);
            let len = self.read_blocks(tree.first + middle, tree.first + middle + 1, buffer)?;
            let mut block = buffer.get(..len).unwrap_or_default();
            let begins = take_entry(self.coding, &mut block);
            if begins.ok_or_else(|| self.corrupt(BROKEN_ENTRY))?.rest <= key {
                first = middle + 1;
            } else {
                end = middle;
            }
        }
        Ok(first.checked_sub(1).map(|at| tree.first + at))
    }

    /// Reads blocks that stand side by side; checks the first one, and returns the length of its
    /// entries.
    pub(super) fn read_blocks(
        &self,
        first: usize,
        end: usize,
        buffer: &mut Vec<u8>,
    ) -> Result<usize> {
        let from = self.offset_of(first);
        let bytes = as_usize(self.offset_of(end).saturating_sub(from))?;
        if buffer.len() < bytes {
            buffer.resize(bytes, 0);
        }
        let to = buffer.get_mut(..bytes).unwrap_or_default();
        if self.file.read_at(from, to)? != bytes {
            return Err(self.corrupt("a block that is cut off"));
        }
        self.check_block(first, buffer)
    }

    /// Checks the block whose bytes `bytes` begins with; returns the length of its entries.
    pub(super) fn check_block(&self, number: usize, bytes: &[u8]) -> Result<usize> {
        let len = as_usize(self.offset_of(number + 1).saturating_sub(self.offset_of(number)))?;
        let checked = bytes.get(..len).and_then(|block| block.split_last_chunk::<CRC_BYTES>());
        match checked {
            Some((entries, crc)) if crc32fast::hash(entries) == u32::from_le_bytes(*crc) => {
                Ok(entries.len())
            }
            _ => Err(self.corrupt("wrong checksum of a block")),
        }
    }

    /// Where a block begins; where all blocks end, for the one after the last.
    pub(super) fn offset_of(&self, block: usize) -> u64 {
        self.blocks.get(block).map_or(self.blocks_end, |block| block.offset)
    }

    pub(super) fn corrupt(&self, what: &str) -> Error {
        Error::corrupt(format!("{}: {what}", self.path.display()))
    }
}

/// Where fronts that begin with certain bits are among the blocks of a tree: a search of all of them
/// would miss the processor's cache at every step.
#[derive(Debug)]
struct Guide {
    bits: u32,
    /// The first block whose front begins with so much or more.
    starts: Vec<u32>,
}

impl Guide {
    /// About four blocks for each beginning, if keys are spread evenly.
    fn new(blocks: &[BlockRef]) -> Self {
        let bits = (blocks.len() / 4).max(1).ilog2().clamp(1, 24);
        let mut starts = vec![0; 1 << bits];
        for (at, block) in blocks.iter().enumerate().rev() {
            let begins = usize::try_from(block.front >> (64 - bits)).unwrap_or(usize::MAX);
            if let Some(start) = starts.get_mut(begins) {
                // Runs are far below 2^32 blocks: the index counts them in 32 bits.
                *start = u32::try_from(at).unwrap_or(u32::MAX) + 1;
            }
        }
        // Beginnings without a block: as the next one that has any.
        let mut next = u32::try_from(blocks.len()).unwrap_or(u32::MAX);
        for start in starts.iter_mut().rev() {
            next = start.checked_sub(1).unwrap_or(next);
            *start = next;
        }
        starts.push(u32::try_from(blocks.len()).unwrap_or(u32::MAX));
        Self { bits, starts }
    }

    /// The blocks with the same beginning: before them all fronts are less, behind them greater.
    fn near(&self, front: u64) -> std::ops::Range<usize> {
        let begins = usize::try_from(front >> (64 - self.bits)).unwrap_or(usize::MAX - 1);
        let start = |at: usize| self.starts.get(at).map_or(0, |start| *start as usize);
        start(begins)..start(begins + 1)
    }
}

/// The bytes of the index.
pub(super) fn encode_index(trees: &[TreeSpan], blocks: &[BlockRef]) -> Result<Vec<u8>> {
    let mut index = Vec::with_capacity(blocks.len() * BLOCK_REF_BYTES);
    for tree in trees {
        let count = u32::try_from(tree.end - tree.first)
            .map_err(|_| Error::misuse("a run has too many blocks"))?;
        index.push(tree.id);
        index.extend_from_slice(&count.to_le_bytes());
        index.extend_from_slice(&tree.puts.to_le_bytes());
        index.extend_from_slice(&tree.deletes.to_le_bytes());
    }
    for block in blocks {
        index.extend_from_slice(&block.front.to_le_bytes());
        index.extend_from_slice(&block.offset.to_le_bytes());
    }
    Ok(index)
}

fn read(file: &dyn File, offset: u64, bytes: usize) -> Result<Vec<u8>> {
    let mut buffer = vec![0; bytes];
    let read = file.read_at(offset, &mut buffer)?;
    buffer.truncate(read);
    Ok(buffer)
}

fn parse_index(index: &[u8], footer: &Footer) -> Option<(Vec<TreeSpan>, Vec<BlockRef>)> {
    let (heads, refs) = index.split_at_checked(footer.trees * TREE_BYTES)?;
    let mut trees = Vec::with_capacity(footer.trees);
    let mut first = 0;
    for head in heads.as_chunks::<TREE_BYTES>().0 {
        let (id, rest) = head.split_first()?;
        let (count, rest) = rest.split_first_chunk::<4>()?;
        let (puts, deletes) = rest.split_first_chunk::<8>()?;
        let end = first + usize::try_from(u32::from_le_bytes(*count)).ok()?;
        let puts = u64::from_le_bytes(*puts);
        let deletes = u64::from_le_bytes(*deletes.first_chunk()?);
        trees.push(TreeSpan { id: *id, first, end, puts, deletes });
        first = end;
    }
    let block = |bytes: &[u8; BLOCK_REF_BYTES]| {
        let (front, offset) = bytes.split_first_chunk::<8>()?;
        let offset = u64::from_le_bytes(*offset.first_chunk()?);
        Some(BlockRef { front: u64::from_le_bytes(*front), offset })
    };
    let blocks: Option<Vec<_>> = refs.as_chunks().0.iter().map(block).collect();
    blocks.filter(|blocks| blocks.len() == first && first == footer.blocks).map(|b| (trees, b))
}

#[derive(Debug)]
pub(super) struct Footer {
    pub(super) trees: usize,
    pub(super) blocks: usize,
    pub(super) lines: usize,
    pub(super) index_at: u64,
    pub(super) seed: u64,
    pub(super) index_crc: u32,
    pub(super) filter_crc: u32,
    pub(super) coding: Coding,
}

impl Footer {
    /// The footer of a run of the present format.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        // At most 256 trees.
        bytes.extend_from_slice(&u32::try_from(self.trees).unwrap_or(u32::MAX).to_le_bytes());
        for number in [as_u64(self.blocks), as_u64(self.lines), self.index_at, self.seed] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&self.index_crc.to_le_bytes());
        bytes.extend_from_slice(&self.filter_crc.to_le_bytes());
        let crc = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn parse(bytes: &[u8]) -> std::result::Result<Self, &'static str> {
        let (checked, crc) = bytes.split_last_chunk::<CRC_BYTES>().ok_or("cut off")?;
        if !checked.starts_with(&MAGIC) || crc32fast::hash(checked) != u32::from_le_bytes(*crc) {
            return Err("no footer");
        }
        let field = |at: usize| checked.get(at..).and_then(|bytes| bytes.first_chunk::<4>());
        let number = |at: usize| field(at).map_or(0, |bytes| u32::from_le_bytes(*bytes));
        let long = |at: usize| u64::from(number(at)) | u64::from(number(at + 4)) << 32;
        let size = |n: u64| usize::try_from(n).map_err(|_| "a length beyond memory");
        let coding = match number(8) {
            FORMAT => Coding::Shared,
            FORMAT_MIN => Coding::Whole,
            _ => return Err("a format that this version does not know"),
        };
        Ok(Self {
            trees: size(u64::from(number(12)))?,
            blocks: size(long(16))?,
            lines: size(long(24))?,
            index_at: long(32),
            seed: long(40),
            index_crc: number(48),
            filter_crc: number(52),
            coding,
        })
    }

    fn index_bytes(&self) -> Option<usize> {
        let heads = self.trees.checked_mul(TREE_BYTES)?;
        self.blocks.checked_mul(BLOCK_REF_BYTES)?.checked_add(heads)
    }
}
