//! `RunWriter`: entries in ascending order become a run.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::entry::{Coding, push_entry};
use super::filter::{FilterBuilder, key_hash};
use super::run::{BlockRef, Footer, Run, TreeSpan, as_u64, encode_index, front_of};
use crate::batch::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use crate::coding::shared_len;
use crate::error::{Error, Result};
use crate::file_system::{File, FileSystem};

/// A block is closed when it has so many bytes: a read reads all of it, and each costs 16 bytes of memory.
const BLOCK_BYTES: usize = 2 << 10;
/// Bytes that are gathered before they are handed to the system.
const WRITE_BYTES: usize = 1 << 20;

/// Writes a run.
#[derive(Debug)]
pub(super) struct RunWriter {
    number: u64,
    path: PathBuf,
    file: Arc<dyn File>,
    seed: u64,
    /// Bytes not yet written; the last of them, from `block` on, are the open block's.
    out: Vec<u8>,
    block: usize,
    written: u64,
    trees: Vec<TreeSpan>,
    blocks: Vec<BlockRef>,
    filter: FilterBuilder,
    last_key: Vec<u8>,
}

impl RunWriter {
    /// Makes the file; there will be at most `entries_max` entries.
    pub(super) fn create(
        fs: &dyn FileSystem,
        path: &Path,
        (number, seed): (u64, u64),
        entries_max: usize,
    ) -> Result<Self> {
        Ok(Self {
            number,
            path: path.to_path_buf(),
            file: fs.create_new(path)?,
            seed,
            out: Vec::with_capacity(WRITE_BYTES + 2 * BLOCK_BYTES),
            block: 0,
            written: 0,
            trees: Vec::new(),
            blocks: Vec::new(),
            filter: FilterBuilder::for_keys(entries_max),
            last_key: Vec::new(),
        })
    }

    /// Adds an entry; trees and keys ascend.
    pub(super) fn push(&mut self, tree_id: u8, key: &[u8], value: Option<&[u8]>) -> Result<()> {
        let same_tree = self.trees.last().is_some_and(|tree| tree.id == tree_id);
        let mut shared = shared_len(&self.last_key, key);
        let ascends = match self.trees.last() {
            Some(_) if same_tree => self.last_key.get(shared) < key.get(shared),
            Some(last) => last.id < tree_id,
            None => true,
        };
        if !ascends {
            return Err(Error::misuse("sorted operations: the keys do not ascend"));
        }
        if key.len() > KEY_BYTES_MAX || value.is_some_and(|value| value.len() > VALUE_BYTES_MAX) {
            return Err(Error::misuse("sorted operations: a key or a value is too long"));
        }
        if !same_tree || self.out.len() - self.block >= BLOCK_BYTES {
            self.close_block()?;
        }
        if !same_tree {
            let first = self.blocks.len();
            self.trees.push(TreeSpan { id: tree_id, first, end: first, puts: 0, deletes: 0 });
        }
        if self.out.len() == self.block {
            let offset = self.written + as_u64(self.block);
            self.blocks.push(BlockRef { front: front_of(key), offset });
            shared = 0;
        }
        let end = self.blocks.len();
        if let Some(tree) = self.trees.last_mut() {
            tree.end = end;
            tree.puts += u64::from(value.is_some());
            tree.deletes += u64::from(value.is_none());
        }
        push_entry(&mut self.out, shared, key.get(shared..).unwrap_or_default(), value);
        self.filter.add(key_hash(self.seed, tree_id, key));
        self.last_key.truncate(shared);
        self.last_key.extend_from_slice(key.get(shared..).unwrap_or_default());
        Ok(())
    }

    fn close_block(&mut self) -> Result<()> {
        let entries = self.out.get(self.block..).unwrap_or_default();
        if !entries.is_empty() {
            let crc = crc32fast::hash(entries);
            self.out.extend_from_slice(&crc.to_le_bytes());
        }
        self.block = self.out.len();
        if self.out.len() >= WRITE_BYTES { self.write_out() } else { Ok(()) }
    }

    fn write_out(&mut self) -> Result<()> {
        self.file.write_all_at(self.written, &self.out)?;
        self.written += as_u64(self.out.len());
        self.out.clear();
        self.block = 0;
        Ok(())
    }

    /// How many bytes there are of the run so far.
    pub(super) fn byte_len(&self) -> u64 {
        self.written + as_u64(self.out.len())
    }

    /// Whether nothing was added.
    pub(super) fn is_empty(&self) -> bool {
        self.trees.is_empty()
    }

    /// Writes the rest, and makes the bytes durable; the name is the caller's.
    pub(super) fn finish(mut self) -> Result<Run> {
        self.close_block()?;
        self.write_out()?;
        let Self { number, path, file, seed, written, trees, mut blocks, filter, .. } = self;
        let (blocks_end, filter) = (written, filter.finish());
        let index = encode_index(&trees, &blocks)?;
        let footer = Footer {
            trees: trees.len(),
            blocks: blocks.len(),
            lines: filter.lines(),
            index_at: blocks_end,
            seed,
            index_crc: crc32fast::hash(&index),
            filter_crc: crc32fast::hash(filter.bytes()),
            coding: Coding::Shared,
        };
        let filter_at = blocks_end + as_u64(index.len());
        file.write_all_at(blocks_end, &index)?;
        file.write_all_at(filter_at, filter.bytes())?;
        let footer_at = filter_at + as_u64(filter.bytes().len());
        file.write_all_at(footer_at, &footer.encode())?;
        file.sync_data()?;
        blocks.shrink_to_fit();
        Ok(Run::new((number, path, file), (trees, blocks), filter, blocks_end))
    }
}
