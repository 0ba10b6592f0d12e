//! Who may call (Bitcoin Core's `rpc_users.py`, `rpc_whitelist.py` and `rpc_bind.py`).

use std::net::{IpAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;

use cofferdam_tests::process::{Node, run, said};

use super::BINARY;
use super::http_client::{Connection, cookie, post};

/// Password `bitcoin`.
const USER: &str = "user1:6dd184e5e69271fdd69103464630014f$eb3d7ce67c4d1ff3564270519b03b636c0291012692a5fa3dd1d2075daedd07b";
const BEST: &str = r#"{"method":"getbestblockhash","id":1}"#;
const COUNT: &str = r#"{"method":"getblockcount","id":1}"#;
const NO_SERVER: &str = "Error: Unable to start HTTP server. See debug log for details.";

#[test]
fn users_log_in_and_call_what_they_may() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let auth = format!("-rpcauth={USER}");
    let options =
        [auth.as_str(), "-rpcwhitelist=user1:getblockcount, uptime", "-rpcwhitelistdefault=0"];
    let node = Node::start(BINARY, dir.path(), &options);
    let secret = cookie(dir.path());
    assert_eq!(post(&node, &secret, BEST).status, 200, "no list");
    assert_eq!(post(&node, "user1:bitcoin", COUNT).status, 200);
    assert_eq!(post(&node, "user1:bitcoin", BEST).status, 403);
    let both = format!("[{COUNT},{BEST}]");
    assert_eq!(post(&node, "user1:bitcoin", &both).status, 403);
    // A refused login keeps the connection, and says what is wanted.
    let mut connection = Connection::open(&node);
    for wrong in ["user1:bitcoin2", "user2:bitcoin", "", ":", &secret[..secret.len() - 1]] {
        connection.call(wrong, "", COUNT);
        let reply = connection.reply().expect("a reply");
        assert_eq!(reply.status, 401, "{wrong}");
        assert!(reply.head.to_lowercase().contains("www-authenticate: basic realm=\"jsonrpc\""));
    }
    connection.call("user1:bitcoin", "", COUNT);
    assert_eq!(connection.reply().expect("a reply").status, 200);
    let mode = |name: &str| {
        let data = std::fs::metadata(dir.path().join(name)).expect("a file");
        data.permissions().mode() & 0o777
    };
    assert_eq!(mode("regtest/.cookie"), 0o600);
    node.stop();
    assert!(!dir.path().join("regtest/.cookie").exists());
    let conf = "rpccookiefile=secret\nrpccookieperms=group\n";
    std::fs::write(dir.path().join("bitcoin.conf"), conf).expect("a file");
    let node = Node::start(BINARY, dir.path(), &[]);
    assert_eq!(mode("regtest/secret"), 0o640);
    assert_eq!(post(&node, "user1:bitcoin", COUNT).status, 401, "not a user of this run");
    node.stop();
    let options = ["-rpcuser=rpcuser💻", "-rpcpassword=rpcpassword🔑"];
    let dir = tempfile::tempdir().expect("a temporary directory");
    let conf = "rpcuser=rpcuser💻\nrpcpassword=rpcpassword🔑\n";
    std::fs::write(dir.path().join("bitcoin.conf"), conf).expect("a file");
    let node = Node::start(BINARY, dir.path(), &options);
    assert_eq!(post(&node, "rpcuser💻:rpcpassword🔑", COUNT).status, 200);
    assert!(!dir.path().join("regtest/.cookie").exists(), "a password replaces the cookie");
    node.stop();
}

/// Returns an address of this machine that others see; none on a machine without a network. Nothing
/// is sent.
fn outer_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_loopback() && !ip.is_unspecified()).then_some(ip)
}

#[test]
fn who_calls_from_elsewhere_needs_to_be_allowed() {
    let Some(outer) = outer_address() else {
        println!("NOT RUN: this machine has no address but that of itself");
        return;
    };
    for (allowed, status) in [(outer.to_string(), 200), ("203.0.113.1".into(), 403)] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let allow = format!("-rpcallowip={allowed}");
        let node = Node::start(BINARY, dir.path(), &["-rpcbind=0.0.0.0", &allow]);
        let secret = cookie(dir.path());
        let mut connection = Connection::open_at(outer, &node);
        connection.call(&secret, "", COUNT);
        assert_eq!(connection.reply().expect("a reply").status, status, "{allowed}");
        // From this machine itself one may always call.
        assert_eq!(post(&node, &secret, COUNT).status, 200, "{allowed}");
        node.stop();
    }
}

#[test]
fn a_start_with_broken_access_is_refused() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let refused = |options: &[&str], text: &str| {
        let options: Vec<&str> =
            ["-regtest", "-printtoconsole=0"].iter().chain(options).copied().collect();
        let output = run(BINARY, dir.path(), &options);
        let said_all = said(&output);
        assert_eq!(output.status.code(), Some(1), "{options:?}: {said_all}");
        assert_eq!(String::from_utf8_lossy(&output.stderr).trim(), text, "{options:?}");
    };
    let user = format!("-rpcauth={USER}");
    for wrong in
        ["-rpcauth", "-rpcauth=", "-rpcauth=foo", "-rpcauth=foo:bar:baz", "-rpcauth=foo$bar:baz"]
    {
        refused(&[&user, wrong], NO_SERVER);
    }
    refused(&["-rpccookieperms=me"], NO_SERVER);
    for port in ["127.0.0.1:notaport", "127.0.0.1:-18443", "127.0.0.1:0", "127.0.0.1:65536"] {
        let text = format!("Error: Invalid port specified in -rpcbind: '{port}'");
        refused(&[&format!("-rpcbind={port}")], &text);
    }
    std::fs::create_dir(dir.path().join("regtest/.cookie.tmp")).expect("a directory");
    refused(&[], NO_SERVER);
}
