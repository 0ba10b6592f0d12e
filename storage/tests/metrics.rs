//! Every name that a store reports through the `metrics` facade is reported, once it should be.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use cofferdam_storage::{
    Batch, BlockBatch, Durability, MemoryDatabase, NoAttachments, StdFileSystem, Tip, Tree,
    WalBuffered, WalOptions,
};
use metrics::{
    Counter, CounterFn, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit,
};

const COINS: Tree = Tree { id: 1, name: "coins" };

type Values = Arc<Mutex<BTreeMap<String, Vec<f64>>>>;

/// Keeps all that is reported.
#[derive(Clone, Default)]
struct Kept(Values);

struct Slot(Values, String);

impl Slot {
    fn push(&self, value: f64) {
        self.0.lock().expect("no panic").entry(self.1.clone()).or_default().push(value);
    }
}

impl CounterFn for Slot {
    fn increment(&self, value: u64) {
        self.push(f64::from(u32::try_from(value).expect("a small number")));
    }
    fn absolute(&self, _: u64) {
        unreachable!("no counter is set");
    }
}

impl HistogramFn for Slot {
    fn record(&self, value: f64) {
        self.push(value);
    }
}

impl Recorder for Kept {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(Arc::new(Slot(Arc::clone(&self.0), key.name().to_owned())))
    }
    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }
    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(Arc::new(Slot(Arc::clone(&self.0), key.name().to_owned())))
    }
}

#[test]
fn commits_fsyncs_flushes_waits_and_recovery_are_reported() {
    let kept = Kept::default();
    metrics::set_global_recorder(kept.clone()).ok().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let options = WalOptions {
        durability: Durability::Strict,
        memtable_bytes: 32 << 10,
        ..WalOptions::default()
    };
    let open = || {
        let (fs, none) = (Arc::new(StdFileSystem), Arc::new(NoAttachments));
        let backend = MemoryDatabase::new(&[COINS]);
        WalBuffered::open(options.clone(), fs, dir.path(), backend, none).unwrap().0
    };
    let store = open();
    let (mut height, mut prev_hash) = (0, [0; 32]);
    while store.stats().back_pressure_waits == 0 && height < 20_000 {
        let mut batch = Batch::new();
        for n in 0..20_u32 {
            batch.put_new(COINS, &(height * 100 + n).to_le_bytes(), &[7; 100]);
        }
        let mut hash = [1; 32];
        hash[..4].copy_from_slice(&height.to_le_bytes());
        store.commit(BlockBatch { tip: Tip { height, hash }, prev_hash, batch }).unwrap();
        (height, prev_hash) = (height + 1, hash);
    }
    let stats = store.stats();
    assert!(stats.back_pressure_waits > 0, "the writer never had to wait: {stats:?}");
    store.checkpoint().unwrap();
    let flushed = store.stats().flushed_ops;
    drop(store);

    let values = kept.0.lock().unwrap();
    let sum = |name: &str| values.get(name).map_or(0.0, |values| values.iter().sum());
    let count = |name: &str| values.get(name).map_or(0, Vec::len);
    let commits = f64::from(height);
    let equal = |name: &str, expected: f64| {
        assert!((sum(name) - expected).abs() < 0.5, "{name}: {} for {expected}", sum(name));
    };
    equal("storage_commits_total", commits);
    equal("storage_commit_ops_total", commits * 20.0);
    equal("storage_log_bytes_total", commits * (68.0 + 20.0 * 112.0));
    equal("storage_flush_ops_total", f64::from(u32::try_from(flushed).unwrap()));
    equal("storage_fsync_group_records", commits);
    assert!(count("storage_fsync_seconds") > 0 && sum("storage_fsync_seconds") > 0.0);
    assert!(count("storage_flush_seconds") > 0 && sum("storage_flush_seconds") > 0.0);
    assert!(sum("storage_back_pressure_waits_total") >= 1.0);
    assert!(sum("storage_back_pressure_seconds") > 0.0);
    assert_eq!(count("storage_recovery_seconds"), 1);
    equal("storage_recovery_bytes_total", 0.0);
}
