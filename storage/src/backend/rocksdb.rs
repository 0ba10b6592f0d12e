//! `RocksDatabase`: RocksDB, a column family per tree.
//!
//! RocksDB's own log is off: the log of this crate is in front of it. `atomic_flush` makes all
//! column families durable together, so that what a crash loses are whole batches.

use std::path::Path;

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DataBlockIndexType,
    FlushOptions, IteratorMode, LruCacheOptions, Options, ReadOptions, WriteBatch, WriteOptions,
};

use crate::backend::BackendOptions;
use crate::backend::rocksdb_ingest::Ingester;
use crate::batch::{Batch, Op};
use crate::database::{
    Count, Database, Entries, Entry, KeyRange, Tree, check_tree, check_trees, with_state_tree,
};
use crate::error::{Error, Result};

const ENGINE: &str = "rocksdb";
/// With this many bits a missing key costs a disk read once in a hundred times.
const BLOOM_BITS_PER_KEY: f64 = 10.0;
/// Two shards. A block that is larger than a shard is never cached; with the default of 64 shards
/// the index and filter blocks of a 64 MiB cache are such blocks and are read again every time.
const CACHE_SHARD_BITS: i32 = 1;
/// Leaves most of the usual limit of 1024 descriptors to block files and sockets.
const OPEN_FILES_MAX: i32 = 256;

/// A database over RocksDB.
#[derive(Debug)]
pub struct RocksDatabase {
    trees: Vec<Tree>,
    db: DB,
    ingester: Ingester,
}

impl RocksDatabase {
    /// Opens or makes a database in the directory `path`.
    ///
    /// # Errors
    ///
    /// [`Error::Locked`] if another process has it open; or what RocksDB answers.
    pub fn open(path: &Path, trees: &[Tree], options: &BackendOptions) -> Result<Self> {
        let trees = with_state_tree(trees);
        let mut db_options = Options::default();
        db_options.create_if_missing(true);
        db_options.create_missing_column_families(true);
        db_options.set_atomic_flush(true);
        db_options.set_max_open_files(OPEN_FILES_MAX);
        db_options.set_keep_log_file_num(2);

        let table_options = table_options(options);
        let mut names: Vec<String> = trees.iter().map(|tree| tree.name.to_owned()).collect();
        if path.join("CURRENT").exists() {
            // RocksDB demands that every column family it has is opened.
            names.extend(DB::list_cf(&db_options, path).map_err(failed("list column families"))?);
        }
        names.sort_unstable();
        names.dedup();
        let families = names
            .into_iter()
            .map(|name| ColumnFamilyDescriptor::new(name, family_options(&table_options)));
        let db = DB::open_cf_descriptors(&db_options, path, families)
            .map_err(|error| open_error(path, error))?;
        let ingester = Ingester::new(path, family_options(&table_options))?;
        Ok(Self { trees, db, ingester })
    }

    fn family(&self, tree_id: u8) -> Result<&ColumnFamily> {
        check_tree(&self.trees, tree_id)?;
        let tree = self.trees.iter().find(|tree| tree.id == tree_id);
        tree.and_then(|tree| self.db.cf_handle(tree.name)).ok_or(Error::UnknownTree { id: tree_id })
    }

    fn write(&self, writes: WriteBatch, action: &'static str) -> Result<()> {
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        self.db.write_opt(writes, &options).map_err(failed(action))
    }
}

fn table_options(options: &BackendOptions) -> BlockBasedOptions {
    let mut cache_options = LruCacheOptions::default();
    cache_options.set_capacity(options.cache_bytes);
    cache_options.set_num_shard_bits(CACHE_SHARD_BITS);
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&Cache::new_lru_cache_opts(&cache_options));
    table.set_bloom_filter(BLOOM_BITS_PER_KEY, false);
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    table.set_data_block_index_type(DataBlockIndexType::BinaryAndHash);
    table.set_format_version(6);
    table
}

fn family_options(table: &BlockBasedOptions) -> Options {
    let mut options = Options::default();
    options.set_block_based_table_factory(table);
    options.set_level_compaction_dynamic_level_bytes(true);
    // Coins are compressed by their own coding and look random.
    options.set_compression_type(rocksdb::DBCompressionType::None);
    options
}

fn open_error(path: &Path, error: rocksdb::Error) -> Error {
    let text = error.as_ref();
    if text.contains("lock hold by current process") || text.contains("While lock file") {
        return Error::Locked { path: path.to_path_buf() };
    }
    failed("open")(error)
}

/// Wraps an answer of RocksDB.
pub(super) fn failed(action: &'static str) -> impl FnOnce(rocksdb::Error) -> Error {
    move |error| match error.kind() {
        rocksdb::ErrorKind::Corruption => Error::corrupt(format!("{ENGINE}: {error}")),
        _ if error.as_ref().contains("No space left on device") => {
            Error::io(action, Path::new(ENGINE), std::io::ErrorKind::StorageFull.into())
        }
        _ => Error::backend(ENGINE, action, error),
    }
}

impl Database for RocksDatabase {
    fn trees(&self) -> &[Tree] {
        &self.trees
    }

    fn get(&self, tree: Tree, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let value = self.db.get_pinned_cf(self.family(tree.id)?, key).map_err(failed("get"))?;
        Ok(value.map(|value| value.to_vec()))
    }

    fn multi_get(&self, tree: Tree, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>> {
        let family = self.family(tree.id)?;
        let values = self.db.batched_multi_get_cf(family, keys.iter().copied(), true);
        let owned = |value: std::result::Result<Option<rocksdb::DBPinnableSlice<'_>>, _>| {
            Ok(value.map_err(failed("get"))?.map(|value| value.to_vec()))
        };
        values.into_iter().map(owned).collect()
    }

    fn range(&self, tree: Tree, range: KeyRange) -> Result<Entries<'_>> {
        let family = self.family(tree.id)?;
        if range.is_empty() {
            return Ok(Box::new(std::iter::empty()));
        }
        let (start, end) = range.half_open();
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(start);
        if let Some(end) = end {
            options.set_iterate_upper_bound(end);
        }
        let entries = self.db.iterator_cf_opt(family, options, IteratorMode::Start).map(|entry| {
            let (key, value) = entry.map_err(failed("iterate"))?;
            Ok((key.into_vec(), value.into_vec()))
        });
        Ok(Box::new(entries))
    }

    fn len(&self, tree: Tree) -> Result<Count> {
        let family = self.family(tree.id)?;
        let keys = self.db.property_int_value_cf(family, "rocksdb.estimate-num-keys");
        Ok(Count::Estimate(keys.map_err(failed("count"))?.unwrap_or(0)))
    }

    fn clear(&self, tree: Tree) -> Result<()> {
        let family = self.family(tree.id)?;
        let options = ReadOptions::default();
        let last = self.db.iterator_cf_opt(family, options, IteratorMode::End).next();
        let Some(last) = last.transpose().map_err(failed("iterate"))? else {
            return Ok(());
        };
        let mut writes = WriteBatch::default();
        // The end of a range is exclusive.
        writes.delete_range_cf(family, &[][..], &last.0);
        writes.delete_cf(family, &last.0);
        self.write(writes, "clear a tree")
    }

    fn apply(&self, batch: &Batch) -> Result<()> {
        check_trees(&self.trees, batch)?;
        let mut writes = WriteBatch::default();
        for op in batch.ops() {
            let family = self.family(op.tree_id())?;
            match op {
                Op::Put { key, value, .. } | Op::PutNew { key, value, .. } => {
                    writes.put_cf(family, key, value);
                }
                Op::Delete { key, .. } => writes.delete_cf(family, key),
            }
        }
        self.write(writes, "apply a batch")
    }

    /// As table files if they are more than one batch.
    fn ingest_sorted(&self, tree: Tree, entries: &mut dyn Iterator<Item = Entry>) -> Result<()> {
        let family = self.family(tree.id)?;
        let front: Vec<Entry> = entries.take(self.batch_ops_max()).collect();
        if front.len() >= self.batch_ops_max() {
            return self.ingester.ingest((&self.db, family), front, entries);
        }
        let mut batch = Batch::new();
        for (key, value) in &front {
            batch.put(tree, key, value);
        }
        self.apply(&batch)
    }

    /// Writes the tables of all column families; RocksDB fsyncs them, its manifest and directory.
    fn flush(&self) -> Result<()> {
        let families =
            self.trees.iter().map(|tree| self.family(tree.id)).collect::<Result<Vec<_>>>()?;
        let mut options = FlushOptions::default();
        options.set_wait(true);
        self.db.flush_cfs_opt(&families, &options).map_err(failed("flush"))
    }

    fn iterates_over_snapshots(&self) -> bool {
        true
    }
}
