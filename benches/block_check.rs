//! Parse and check real blocks, on one thread: all rules that need neither the chain nor coins.
//!
//! `COFFERDAM_ROUNDS` is the number of rounds (15).
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use cofferdam_benches::report::{Sample, Spent, Table, alternate, from_env};
use cofferdam_benches::single_blocks;
use cofferdam_ibd::{CheckedBlock, RawBlock};

/// How often a block is checked in one measurement.
const TIMES: usize = 50;

fn main() {
    let blocks = single_blocks(500_000);
    let parse = |raw: &Vec<u8>| drop(RawBlock::parse(raw.clone()).expect("a block"));
    let check = |raw: &Vec<u8>| {
        let block = RawBlock::parse(raw.clone()).expect("a block");
        drop(CheckedBlock::check_without_work(block).expect("right by itself"));
    };
    let rounds = from_env("COFFERDAM_ROUNDS", 15);
    let measure = |work: &dyn Fn(&Vec<u8>)| {
        alternate(rounds, &blocks, |(_, raw)| {
            let ((), spent) = Spent::on(|| (0..TIMES).for_each(|_| work(raw)));
            spent.processor / TIMES as f64
        })
    };
    let (parsed, checked) = (measure(&parse), measure(&check));
    let mut table =
        Table::new(&["block", "MB", "parse MB/s", "parse and check MB/s", "ms per MB", "spread"]);
    let (mut bytes, mut time) = (0.0, 0.0);
    for (((name, raw), parsed), checked) in blocks.iter().zip(parsed).zip(checked) {
        let mb = raw.len() as f64 / 1e6;
        let (parsed, checked) = (Sample::new(parsed), Sample::new(checked));
        (bytes, time) = (bytes + mb, time + checked.median());
        table.row([
            name.clone(),
            format!("{mb:.2}"),
            format!("{:.0}", mb / parsed.median()),
            format!("{:.0}", mb / checked.median()),
            format!("{:.2}", checked.median() * 1e3 / mb),
            checked.spread(1e3 / mb, 2),
        ]);
    }
    println!("{table}\nAll: {:.0} MB/s", bytes / time);
}
