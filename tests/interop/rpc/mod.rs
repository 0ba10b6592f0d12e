//! Every method that both nodes have, called on both over the same chain, answers compared.
//!
//! `calls.txt` lists the calls, `exceptions` the differences that are meant.

#![expect(clippy::print_stdout, reason = "what is not complained about yet")]

mod compare;
mod exceptions;
mod facts;
mod help;
mod peers;

use std::collections::BTreeSet;

use cofferdam_tests::daemon::{Daemon, wait_until};
use cofferdam_tests::json_rpc::RpcError;
use cofferdam_tests::rpc_docs::ResultDocs;
use serde_json::{Value, json};

use self::compare::{Difference, differences};
use self::exceptions::{EXCEPTIONS, MISSING, MOMENT, NOT_YET};
use self::facts::Facts;
use crate::pair::{Pair, Who};

/// A method and the text of its parameters.
fn calls() -> Vec<(&'static str, &'static str)> {
    let lines = include_str!("calls.txt").lines();
    let calls = lines.filter(|line| !line.is_empty() && !line.starts_with(['#', '[']));
    calls.map(|line| line.split_once(' ').expect("a method and its parameters")).collect()
}

/// The methods that a node has: those that its help lists, and of the hidden ones those that are called.
fn methods(node: &Daemon) -> BTreeSet<String> {
    let help = node.rpc("help", json!([]));
    let lines = help.as_str().expect("a text").lines();
    let listed = lines.filter(|line| !line.is_empty() && !line.starts_with("=="));
    let listed = listed.map(|line| line.split(' ').next().unwrap_or_default());
    let names: BTreeSet<&str> = listed.chain(calls().into_iter().map(|(name, _)| name)).collect();
    let is_known = |name: &&str| {
        let help = node.rpc("help", json!([name]));
        !help.as_str().unwrap_or_default().starts_with("help: unknown command")
    };
    names.into_iter().filter(is_known).map(str::to_owned).collect()
}

/// Whether a row is about a difference of a method.
fn fits(row: &exceptions::Exception, method: &str, difference: &Difference) -> bool {
    let path_fits = row
        .path
        .strip_suffix('*')
        .map_or_else(|| difference.path == row.path, |prefix| difference.path.starts_with(prefix));
    path_fits && (row.method == "*" || row.method == method)
}

/// What is wrong with our answer by what our own help says of it.
fn misdescribed(ours: &Daemon, method: &str, answer: &Result<Value, RpcError>) -> Option<String> {
    let answer = answer.as_ref().ok()?;
    let help = ours.rpc("help", json!([method]));
    let docs = ResultDocs::read(help.as_str().expect("a text"));
    let complaint = docs.and_then(|docs| docs.check(answer)).err()?;
    Some(format!("{method} is not answered as its help says: {complaint}"))
}

/// Runs the list; returns what differs without a reason, and which rows were needed.
fn run(facts: &Facts, ours: &Daemon, core: &Daemon) -> (Vec<String>, BTreeSet<usize>) {
    let (mut complaints, mut needed) = (Vec::new(), BTreeSet::new());
    let (have, known) = (methods(ours), methods(core));
    for (method, text) in calls() {
        if known.contains(method) && !have.contains(method) {
            continue;
        }
        let params = facts.params(text);
        let answers = [ours, core].map(|node| node.try_rpc(method, &params));
        complaints.extend(misdescribed(ours, method, &answers[0]));
        for difference in differences(&answers[0], &answers[1]) {
            let row = EXCEPTIONS.iter().position(|row| fits(row, method, &difference));
            if let Some(row) = row {
                needed.insert(row);
                continue;
            }
            let Difference { path, ours, core } = difference;
            let text = format!("{method} {text}: {path}\n    ours {ours}\n    core {core}");
            // Of a method that is new, all is new.
            if MISSING.contains(&(method, NOT_YET)) {
                println!("{text}");
            } else {
                complaints.push(text);
            }
        }
    }
    (complaints, needed)
}

/// The methods that one has and the other has not, other than [`MISSING`] says.
fn check_methods(ours: &Daemon, core: &Daemon) -> Vec<String> {
    let (have, known) = (methods(ours), methods(core));
    let called: BTreeSet<&str> = calls().into_iter().map(|(method, _)| method).collect();
    let mut complaints = Vec::new();
    for method in &known {
        let reason = MISSING.iter().find(|(name, _)| name == method).map(|(_, reason)| *reason);
        match (have.contains(method), reason) {
            (false, None) => complaints.push(format!("{method} is missing")),
            (true, Some(NOT_YET)) => println!("{method} is no longer missing"),
            (true, Some(_)) => complaints.push(format!("{method} is listed as missing")),
            _ => {}
        }
        if have.contains(method) && !called.contains(method.as_str()) && method != "stop" {
            complaints.push(format!("{method} is never called"));
        }
    }
    complaints
}

/// Starts both with the same options, gives both the chain, runs the list; see [`run`].
fn compare(args: &[&str]) -> Option<(Vec<String>, BTreeSet<usize>)> {
    let pair = Pair::new()?;
    let mut facts = Facts::new();
    let (ours, core) = (pair.start(Who::Ours, args), pair.start(Who::Core, args));
    for node in [&ours, &core] {
        facts.give_to(node);
        wait_until("the indexes", || {
            let indexes = node.rpc("getindexinfo", json!([]));
            let mut states = indexes.as_object().expect("indexes by name").values();
            states.all(|index| index["synced"] == true).then_some(())
        });
    }
    facts.ask(&core);
    let mut complaints = check_methods(&ours, &core);
    let (differences, needed) = run(&facts, &ours, &core);
    complaints.extend(differences);
    if complaints.is_empty() {
        assert_eq!(ours.state(), core.state(), "the calls left the same chain");
        let tip = |node: &Daemon| -> Value { node.rpc("getblock", json!([node.best(), 0])) };
        assert_eq!(tip(&ours), tip(&core));
    }
    Some((complaints, needed))
}

#[test]
fn answers_are_those_of_core_field_by_field() {
    let (mut complaints, mut needed) = (Vec::new(), BTreeSet::new());
    for args in [
        ["-connect=0"].as_slice(),
        &["-connect=0", "-txindex", "-blockfilterindex", "-coinstatsindex"],
    ] {
        let Some((found, rows)) = compare(args) else { return };
        complaints.extend(found.into_iter().map(|text| format!("{args:?} {text}")));
        needed.extend(rows);
    }
    for (index, row) in EXCEPTIONS.iter().enumerate() {
        if needed.contains(&index) {
            continue;
        }
        let (method, path, reason) = (row.method, row.path, row.reason);
        let text = format!("nothing needs the exception {method} {path}: {reason}");
        if [NOT_YET, MOMENT].contains(&reason) {
            println!("{text}");
        } else {
            complaints.push(text);
        }
    }
    assert!(complaints.is_empty(), "{} differences:\n{}", complaints.len(), complaints.join("\n"));
}
