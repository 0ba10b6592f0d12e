//! No byte of a damaged log makes its opening take more memory than a small multiple of the log:
//! an allocator with a limit ends the process if one does.

#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test that panics has failed")]

use std::alloc::System;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cap::Cap;
use cofferdam_storage::testing::{Random, SimFileSystem, effort};
use cofferdam_storage::{
    Batch, Durability, Error, FileSystem as _, MemoryDatabase, NoAttachments, PAYLOAD_BYTES_MAX,
    Result, Tree, WalBuffered, WalOptions,
};

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

const TREE: Tree = Tree { id: 1, name: "one" };
const RECORDS: usize = 60;
const SEGMENT_HEADER: usize = 4096;
const RECORD_HEADER: usize = 25;
/// What an undamaged store takes when it is empty, its threads and first tables included.
const FIXED_BYTES: usize = 512 << 10;

type Store = WalBuffered<MemoryDatabase>;

fn open(fs: &SimFileSystem) -> Result<Store> {
    let options = WalOptions {
        durability: Durability::Relaxed { interval_ms: 3_600_000 },
        segment_bytes: 1 << 30,
        memtable_bytes: 1 << 20,
        ..WalOptions::default()
    };
    let backend = MemoryDatabase::new(&[TREE]);
    let fs = Arc::new(fs.clone());
    WalBuffered::open(options, fs, Path::new("log"), backend, Arc::new(NoAttachments))
        .map(|(store, _)| store)
}

struct Log {
    path: PathBuf,
    bytes: Vec<u8>,
    /// Where each record begins.
    begins: Vec<usize>,
}

impl Log {
    fn new() -> Self {
        let fs = SimFileSystem::new();
        let store = open(&fs).unwrap();
        let names = fs.list(Path::new("log")).unwrap();
        let name = names.into_iter().find(|name| name.starts_with("wal-")).unwrap();
        let path = Path::new("log").join(name);
        let (mut random, mut begins) = (Random::new(1), Vec::new());
        for _ in 0..RECORDS {
            begins.push(fs.read(&path).unwrap().len());
            let mut batch = Batch::new();
            let len = 1 + random.below(4000);
            batch.put(TREE, &random.bytes(8), &random.bytes(len));
            cofferdam_storage::Database::apply(&store, &batch).unwrap();
        }
        let bytes = fs.read(&path).unwrap();
        Self { path, bytes, begins }
    }

    /// Opens a log of other bytes with little memory. Returns whether it opened.
    fn open(&self, bytes: &[u8]) -> bool {
        let fs = SimFileSystem::new();
        fs.create_dir_all(Path::new("log")).unwrap();
        fs.plant(&self.path, bytes);
        // Records that are not proven durable are copied, in the simulated disk twice.
        let limit = ALLOCATOR.allocated() + 4 * bytes.len() + FIXED_BYTES;
        ALLOCATOR.set_limit(limit).unwrap();
        let opened = open(&fs);
        let ok = match &opened {
            Ok(_) => true,
            Err(Error::Corrupt { .. }) => false,
            Err(error) => panic!("{}", error.chain()),
        };
        drop(opened);
        ALLOCATOR.set_limit(usize::MAX).unwrap();
        assert!(fs.largest_read() <= bytes.len().max(64 << 10), "{}", fs.largest_read());
        ok
    }

    fn generation(&self) -> &[u8] {
        &self.bytes[32..40]
    }

    /// The log with another length in a record's header, whose checksum is right all the same.
    fn with_length(&self, record: usize, length: u32) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        let at = self.begins[record];
        bytes[at..at + 4].copy_from_slice(&length.to_le_bytes());
        let header = &bytes[at..at + RECORD_HEADER];
        let covered = [self.generation(), &header[..4], &header[8..]].concat();
        bytes[at + 4..at + 8].copy_from_slice(&crc32fast::hash(&covered).to_le_bytes());
        bytes
    }

    /// The log with other bytes in the last record's payload, and a right checksum behind it.
    fn with_last_payload(&self, at: usize, new: &[u8]) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        let begin = *self.begins.last().unwrap();
        let payload = begin + RECORD_HEADER + at;
        bytes[payload..payload + new.len()].copy_from_slice(new);
        let chain = u32::from_le_bytes(bytes[begin - 4..begin].try_into().unwrap());
        let mut hasher = crc32fast::Hasher::new_with_initial(chain);
        hasher.update(self.generation());
        let end = bytes.len() - 4;
        hasher.update(&bytes[begin..end]);
        bytes[end..].copy_from_slice(&hasher.finalize().to_le_bytes());
        bytes
    }
}

/// One test, since the limit is that of the process.
#[test]
fn no_damaged_length_takes_memory() {
    let log = Log::new();
    assert!(log.open(&log.bytes), "the log as it was written");
    // The limit is felt.
    ALLOCATOR.set_limit(ALLOCATOR.allocated() + FIXED_BYTES).unwrap();
    let more = Vec::<u8>::new().try_reserve_exact(2 * FIXED_BYTES);
    ALLOCATOR.set_limit(usize::MAX).unwrap();
    assert!(more.is_err());
    let (stride, mut cases) = (effort().pick(9, 1, 1), 0);
    for (record, begin) in log.begins.iter().enumerate() {
        // Any wrong bit in the header.
        for bit in (record % stride..RECORD_HEADER * 8).step_by(stride) {
            let mut bytes = log.bytes.clone();
            bytes[begin + bit / 8] ^= 1 << (bit % 8);
            log.open(&bytes);
            cases += 1;
        }
        // A wrong length that looks right.
        let left = u32::try_from(log.bytes.len() - begin).unwrap();
        let longest = u32::try_from(PAYLOAD_BYTES_MAX).unwrap();
        for length in [0, left - 29, left - 28, left, 1 << 20, longest, u32::MAX] {
            log.open(&log.with_length(record, length));
            cases += 1;
        }
    }
    // In a whole record: lengths of key and value that are not those of the record.
    for value in [0, 1, 100, 0xffff_u32, 32 << 20, u32::MAX] {
        let key = u16::try_from(value.min(0xffff)).unwrap().to_le_bytes();
        for (at, new) in [(2, &key[..]), (4, &value.to_le_bytes())] {
            assert!(!log.open(&log.with_last_payload(at, new)), "{value} at {at}");
            cases += 1;
        }
    }
    assert_eq!(log.bytes[..8], *b"CFDAMWAL");
    for bit in 0..SEGMENT_HEADER * 8 {
        if bit % 13 == 0 || bit < 44 * 8 {
            let mut bytes = log.bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(!log.open(&bytes), "bit {bit} of the segment's header");
            cases += 1;
        }
    }
    println!("{cases} damaged logs of {} bytes", log.bytes.len());
}
