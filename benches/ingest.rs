//! `ingest_sorted` against batches: sorted entries of coin size into an empty database, then a
//! flush that survives a power cut.
//!
//! `COFFERDAM_BENCH_ENTRIES` (1,000,000) and `COFFERDAM_BENCH_ROUNDS` (3) set the scale.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use cofferdam_benches::report::{Sample, Spent, Table, alternate, from_env, ratios};
use cofferdam_benches::{TREE, batch, open, random_key, sequential_key};
use cofferdam_storage::{BackendKind, Database, Entry};

/// Operations in a batch.
const BATCH: u64 = 10_000;

fn main() {
    let count = from_env("COFFERDAM_BENCH_ENTRIES", 1_000_000) as u64;
    let rounds = from_env("COFFERDAM_BENCH_ROUNDS", 3);
    println!("{count} entries, {rounds} rounds, medians\n");
    let mut table =
        Table::new(&["engine", "batches of 10,000", "`ingest_sorted`", "times faster", "spread"]);
    for kind in BackendKind::available() {
        let ways: [fn(&dyn Database, u64); 2] = [in_batches, ingested];
        let times = alternate(rounds, &ways, |way| {
            let dir = tempfile::tempdir().expect("room");
            let database = open(kind, dir.path());
            let ((), spent) = Spent::on(|| {
                way(database.as_ref(), count);
                database.flush().expect("a disk");
            });
            let last = database.get(TREE, &sequential_key(count - 1)).expect("readable");
            assert!(last.is_some(), "{kind}: all entries are there");
            spent.wall
        });
        let [batches, ingested] = times.as_slice() else { unreachable!("two ways") };
        let ratio = ratios(batches, ingested);
        let seconds = |times: &[f64]| {
            let median = Sample::new(times.to_vec()).median();
            format!("{median:.2} s, {:.2} M/s", count as f64 / median / 1e6)
        };
        table.row([
            kind.to_string(),
            seconds(batches),
            seconds(ingested),
            format!("{:.2}", ratio.median()),
            ratio.spread(1.0, 2),
        ]);
    }
    let ((), making) =
        Spent::on(|| entries(count).for_each(|entry| drop(std::hint::black_box(entry))));
    println!("{table}");
    println!("Making the entries is a part of both: {:.2} s.", making.wall);
}

fn in_batches(database: &dyn Database, count: u64) {
    let mut start = 0;
    while start < count {
        let end = count.min(start + BATCH);
        database.apply(&batch(start..end, sequential_key)).expect("room");
        start = end;
    }
}

fn ingested(database: &dyn Database, count: u64) {
    database.ingest_sorted(TREE, &mut entries(count)).expect("room");
}

fn entries(count: u64) -> impl Iterator<Item = Entry> {
    let value = |n| random_key(n).get(..28).expect("a key is longer").to_vec();
    (0..count).map(move |n| (sequential_key(n).to_vec(), value(n)))
}
