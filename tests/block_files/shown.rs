//! The status page, the figures for Prometheus and `cofferdam status`.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use cofferdam_tests::process::{free_port, wait_for};

use super::{mine, start};

/// Asks a listener for a path, as a browser at `host` would.
fn get(port: u16, path: &str, host: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("listens");
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("a reader");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("UTF-8");
    answer
}

/// The figures that a file for Prometheus or Grafana names, and that there are not.
fn unknown<'a>(file: &'a str, figures: &str) -> Vec<&'a str> {
    // Times are reported when something took time, which not every run brings about.
    const REPORTED: &str = include_str!("../../storage/src/wal_buffered/metrics.rs");
    let is_part = |at: char| at.is_ascii_alphanumeric() || at == '_';
    let names = file.split(|at: char| !is_part(at)).filter(|word| word.starts_with("cofferdam_"));
    let is_known = |name: &str| {
        let shown = |end: &str| figures.contains(&format!("\n{name}{end}"));
        let bare = name.trim_start_matches("cofferdam_");
        let bare = bare.strip_suffix("_sum").or_else(|| bare.strip_suffix("_bucket"));
        let is_reported = |bare| REPORTED.contains(&format!("histogram!(\"{bare}\")"));
        shown(" ") || shown("{") || bare.is_some_and(is_reported)
    };
    let names: Vec<&str> = names.collect();
    assert!(names.len() > 5, "{names:?}");
    names.into_iter().filter(|name| !is_known(name)).collect()
}

#[test]
fn page_figures_and_status_tell_of_the_chain() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let port = free_port();
    let node = start(dir.path(), &[&format!("-metrics=127.0.0.1:{port}")]);
    mine(&node, 120);
    let figures = wait_for("figures of the new blocks", || {
        let figures = get(port, "/metrics", "localhost");
        figures.contains("\ncofferdam_blocks 120\n").then_some(figures)
    });
    assert!(figures.starts_with("HTTP/1.1 200 OK"), "{figures}");
    for name in [
        "cofferdam_headers 120",
        "cofferdam_initial_block_download 0",
        "cofferdam_progress_ratio 1",
        "# TYPE cofferdam_storage_commits_total counter",
        "cofferdam_storage_recovery_seconds_bucket{le=\"+Inf\"}",
    ] {
        assert!(figures.contains(name), "{name} in {figures}");
    }
    for file in [
        include_str!("../../node/monitoring/alerts.yml"),
        include_str!("../../node/monitoring/grafana.json"),
    ] {
        assert_eq!(unknown(file, &figures), [""; 0]);
    }
    let page = get(port, "/", "127.0.0.1");
    assert!(
        page.contains("100.00 %") && page.contains(">in sync<") && page.contains("<polyline"),
        "{page}"
    );
    assert!(page.contains("content-security-policy: default-src 'none'"), "{page}");
    assert!(get(port, "/", "evil.example").starts_with("HTTP/1.1 403"));
    assert!(get(port, "/other", "localhost").starts_with("HTTP/1.1 404"));

    let status = node.rpc("getsyncstatus", &[]);
    assert_eq!(status["chain"], "regtest");
    assert!((status["connected_blocks"].as_f64().expect("a number") - 120.0).abs() < 0.5);
    node.stop();
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "it ends with the node");
}
