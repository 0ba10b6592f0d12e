//! The status page in a browser, while the node syncs and after that.

use std::path::Path;

use cofferdam_tests::browser::Browser;
use cofferdam_tests::process::{Node, free_port, wait_for};

use super::{ADDRESS, BINARY, mine, start};

/// Age of the tip while the node is still downloading: more than a day.
const TIP_AGE_SECONDS: u64 = 7 * 86_400;

/// The text of the element with an id.
fn text<'a>(document: &'a str, id: &str) -> &'a str {
    let at = document
        .split(&format!("id=\"{id}\">"))
        .nth(1)
        .unwrap_or_else(|| panic!("{id}: {document}"));
    at.split('<').next().unwrap_or_default()
}

/// The width that a bar is drawn with, in percent.
fn width(document: &str, name: &str) -> f64 {
    let bar = document.split(&format!("aria-label=\"{name}\"")).nth(1).expect("a bar");
    let width = bar.split("width:").nth(1).and_then(|text| text.split('%').next());
    width.expect("a width").trim().parse().expect("a number")
}

/// A node with a metrics listener that follows `from`.
fn follow(dir: &Path, from: &Node, metrics: u16) -> Node {
    let (peer, page) =
        (format!("-connect=127.0.0.1:{}", from.p2p_port), format!("-metrics=127.0.0.1:{metrics}"));
    Node::start(BINARY, dir, &[&peer, &page])
}

#[test]
fn a_browser_shows_how_far_a_sync_is() {
    let port = free_port();
    let Some(browser) = Browser::find(port) else { return };
    let dirs = [(); 2].map(|()| tempfile::tempdir().expect("a temporary directory"));
    let source = start(dirs[0].path(), &[]);
    let now = source.rpc("getnettotals", &[])["timemillis"].as_u64().expect("a time") / 1000;
    let _ = source.rpc("setmocktime", &[&(now - TIP_AGE_SECONDS).to_string()]);
    mine(&source, 300);
    let node = follow(dirs[1].path(), &source, port);
    wait_for("the blocks", || (node.height() == 300).then_some(()));
    // A header whose block nobody has.
    let block = source.rpc("generateblock", &[ADDRESS, "[]", "false"]);
    let header = block["hex"].as_str().and_then(|hex| hex.get(..160)).expect("a block");
    let _ = node.rpc("submitheader", &[header]);
    wait_for("two looks after that", || {
        (node.rpc("getsyncstatus", &[])["headers"].as_f64()? > 300.5).then_some(())
    });

    let page = browser.document("/");
    assert_eq!(text(&page, "state"), "syncing");
    assert_eq!([text(&page, "blocks"), text(&page, "peers")], ["300", "1"]);
    assert!(page.contains("of 301 headers") && page.contains("1 out, 0 in"), "{page}");
    assert!(text(&page, "bottleneck").starts_with("network: "), "{page}");
    let share: f64 = text(&page, "share").trim_end_matches(" %").parse().expect("a number");
    let wanted =
        node.rpc("getsyncstatus", &[])["progress_ratio"].as_f64().expect("a number") * 100.0;
    assert!(wanted > 1.0 && (share - wanted).abs() < 0.1, "{share} for {wanted}");
    assert!((width(&page, "progress") - wanted).abs() < 0.1, "{page}");
    assert!(text(&page, "cache").contains(" of ") && width(&page, "cache") < 1.0, "{page}");
    assert!(text(&page, "log").contains("B in 1 file"), "{page}");
    let line = page.split("<polyline points=\"").nth(1).and_then(|at| at.split('"').next());
    assert!(line.expect("a plot").split(' ').count() >= 2, "{page}");
    // It loads itself anew, and nothing else.
    browser.stay("/", 4);
    let asked = browser.asked();
    let itself = format!("GET {}", browser.url("/"));
    assert!(asked.iter().all(|request| *request == itself), "{asked:?}");

    let _ = source.rpc("setmocktime", &["0"]);
    mine(&source, 2);
    wait_for("the end of the sync", || {
        let status = node.rpc("getsyncstatus", &[]);
        (status["blocks"].as_f64()? > 301.5 && status["initial_block_download"] == 0.0)
            .then_some(())
    });
    let page = browser.document("/");
    assert_eq!(text(&page, "state"), "in sync");
    assert_eq!([text(&page, "blocks"), text(&page, "share")], ["302", "100.00 %"]);
}
