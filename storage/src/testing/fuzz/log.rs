//! A log directory of any content is opened, or refused for a reason that has a name.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::backend::MemoryDatabase;
use crate::batch::Batch;
use crate::database::{Database, STATE_TREE};
use crate::error::{Error, Result};
use crate::file_system::FileSystem;
use crate::testing::fuzz::decoders::repair;
use crate::testing::fuzz::input::{Input, TREES};
use crate::testing::fuzz::segments::{Built, Logged, build};
use crate::testing::{CrashModel, Model, SimFileSystem};
use crate::wal_buffered::{
    BlockBatch, Durability, Lsn, NoAttachments, Recovery, Tip, WalBuffered, WalOptions,
};

type Store = WalBuffered<Arc<MemoryDatabase>>;

const LOG_DIR: &str = "log";

/// The window in which a damaged tail is searched: read whatever the file's size is.
const WINDOW_BYTES: usize = 64 << 10;

/// Opens a log directory that is made from the bytes, twice; writes to it, and opens it again.
///
/// # Panics
///
/// If a sound log is refused or read wrongly; if the second opening answers otherwise than the
/// first; if a refused log was changed; if more was read at once than a file has; or if what was
/// committed after an opening does not survive a power cut.
pub fn log(data: &[u8]) -> bool {
    let mut input = Input::new(data);
    let built = build(&mut input);
    let fs = SimFileSystem::new();
    fs.create_dir_all(Path::new(LOG_DIR)).expect("a simulated directory");
    for segment in &built.segments {
        fs.plant(&Path::new(LOG_DIR).join(file_name(segment.number)), &segment.bytes);
    }
    let plain_start = plant_marker(&fs, &mut input);
    let (backend, applied) = backend(&mut input, built.first_lsn);
    let longest = built.segments.iter().map(|segment| segment.bytes.len()).max().unwrap_or(0);
    let before = segments_of(&fs);
    let opened = open(&fs, &backend);
    assert!(fs.largest_read() <= longest.max(WINDOW_BYTES), "reads {} bytes", fs.largest_read());
    let expected = expected(&built, applied).filter(|_| plain_start);
    match opened {
        Ok((store, recovery)) => {
            if let Some((model, tip, end)) = expected {
                assert_eq!(Model::read(&store).expect("readable"), model);
                assert_eq!((store.tip(), recovery.to_lsn), (tip, end));
                assert!(recovery.torn.is_none() && !recovery.clean, "{recovery:?}");
            }
            check_opened(&fs, &backend, store, &recovery);
            true
        }
        Err(error) => {
            assert!(expected.is_none(), "a sound log is refused: {}", error.chain());
            check_refused(&fs, &backend, &error, &before);
            false
        }
    }
}

fn file_name(number: u64) -> String {
    format!("wal-{number:010}.log")
}

fn open(fs: &SimFileSystem, backend: &Arc<MemoryDatabase>) -> Result<(Store, Recovery)> {
    let options = WalOptions { durability: Durability::Strict, ..WalOptions::default() };
    let fs = Arc::new(fs.clone());
    WalBuffered::open(options, fs, Path::new(LOG_DIR), Arc::clone(backend), Arc::new(NoAttachments))
}

/// Puts a clean marker there, seldom; says that there is none.
fn plant_marker(fs: &SimFileSystem, input: &mut Input<'_>) -> bool {
    let how = input.below(8);
    let bytes = match how {
        1 | 2 => {
            let lsn = u64::from(input.byte() & 31);
            let mut bytes =
                [&b"CFDAMEND"[..], &1_u32.to_le_bytes(), &lsn.to_le_bytes(), &[0; 4]].concat();
            repair(&mut bytes);
            bytes
        }
        3 => {
            let len = input.below(40);
            input.bytes(len).to_vec()
        }
        _ => return true,
    };
    fs.plant(&Path::new(LOG_DIR).join("clean"), &bytes);
    false
}

/// The database below the log: it says how far it is, rightly or in any bytes. Returns what it
/// says if it can be right.
fn backend(input: &mut Input<'_>, first_lsn: Lsn) -> (Arc<MemoryDatabase>, Option<Lsn>) {
    let database = MemoryDatabase::new(&TREES);
    let how = input.below(8);
    let ahead = u64::from(input.byte() & 3);
    let applied = first_lsn - 1 + ahead;
    let mut batch = Batch::new();
    let mut sound = Some(applied);
    if applied > 0 || how == 1 {
        let writing = applied + if how == 2 { u64::from(input.byte() & 7) } else { 0 };
        batch.put(STATE_TREE, b"format", &1_u32.to_le_bytes());
        batch.put(STATE_TREE, b"applied", &applied.to_le_bytes());
        batch.put(STATE_TREE, b"writing", &writing.to_le_bytes());
        // Not the tip, nor the entries, of the records that it says it holds.
        sound = (ahead == 0 && writing == applied).then_some(applied);
    }
    if how == 3 {
        for key in [&b"format"[..], b"applied", b"writing", b"tip"] {
            let len = input.below(40);
            let row = input.bytes(len);
            if !row.is_empty() {
                batch.put(STATE_TREE, key, row);
                sound = None;
            }
        }
    }
    if how == 4 {
        let number = input.u64();
        batch.put(STATE_TREE, b"applied", &number.to_le_bytes());
        sound = None;
    }
    database.apply(&batch).expect("the state tree is open");
    (Arc::new(database), sound)
}

/// The state that a sound log gives, its tip, and its last record.
fn expected(built: &Built, applied: Option<Lsn>) -> Option<(Model, Option<Tip>, Lsn)> {
    let applied = applied.filter(|applied| applied + 1 == built.first_lsn)?;
    let logged = built.sound.as_ref().filter(|_| !built.segments.is_empty())?;
    let (mut model, mut tip, mut end) = (Model::default(), None, applied);
    for change in logged {
        let batch = match change {
            Logged::Block(block) => {
                tip = Some(block.tip);
                &block.batch
            }
            Logged::Plain(batch) => batch,
        };
        if batch.ops().any(|op| TREES.iter().all(|tree| tree.id != op.tree_id())) {
            return None;
        }
        model.apply(batch);
        end += 1;
    }
    Some((model, tip, end))
}

/// The segments' files.
fn segments_of(fs: &SimFileSystem) -> BTreeMap<String, Vec<u8>> {
    let names = fs.list(Path::new(LOG_DIR)).expect("a directory");
    let logs = names.into_iter().filter(|name| name.ends_with(".log"));
    logs.map(|name| {
        let bytes = fs.read(&Path::new(LOG_DIR).join(&name)).expect("a file");
        (name, bytes)
    })
    .collect()
}

/// What was opened is opened again, also after a power cut, and can be written to.
fn check_opened(
    fs: &SimFileSystem,
    backend: &Arc<MemoryDatabase>,
    store: Store,
    recovery: &Recovery,
) {
    let model = Model::read(&store).expect("readable");
    let tip = store.tip();
    assert_eq!(tip, recovery.tip);
    assert_eq!((store.durable_lsn(), store.stats().lsn), (recovery.to_lsn, recovery.to_lsn));
    let cut = fs.after_crash(CrashModel::SyncedOnly, 0);
    drop(store);
    for fs in [&cut, fs] {
        let (store, again) = open(fs, backend).expect("what was opened opens again");
        assert_eq!(Model::read(&store).expect("readable"), model);
        assert_eq!((store.tip(), again.to_lsn, again.torn), (tip, recovery.to_lsn, None));
    }
    let (store, _) = open(fs, backend).expect("what was opened opens again");
    let next = Tip { height: 77, hash: [0x77; 32] };
    let prev_hash = tip.map_or([0; 32], |tip| tip.hash);
    let (mut batch, mut model) = (Batch::new(), model);
    batch.put(TREES[0], b"next", b"block");
    model.apply(&batch);
    let lsn = store.commit(BlockBatch { tip: next, prev_hash, batch }).expect("a commit");
    assert_eq!(lsn, recovery.to_lsn + 1);
    let cut = fs.after_crash(CrashModel::SyncedOnly, 0);
    let (store, again) = open(&cut, backend).expect("a power cut after a commit");
    assert_eq!((store.tip(), again.to_lsn), (Some(next), lsn));
    assert_eq!(Model::read(&store).expect("readable"), model);
}

/// What was refused has a named reason, is as it was, and is refused again.
fn check_refused(
    fs: &SimFileSystem,
    backend: &Arc<MemoryDatabase>,
    error: &Error,
    before: &BTreeMap<String, Vec<u8>>,
) {
    let named =
        matches!(error, Error::Corrupt { .. } | Error::Version { .. } | Error::UnknownTree { .. });
    assert!(named, "{error:?}");
    let after = segments_of(fs);
    for (name, bytes) in before {
        assert_eq!(after.get(name), Some(bytes), "{name} was changed");
    }
    let again = open(fs, backend).map(drop).expect_err("refused again");
    assert_eq!(again.chain(), error.chain());
}
