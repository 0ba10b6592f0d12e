//! Callers that mean harm: does RPC stay there for those who may call?

use std::fs;
use std::time::Duration;

use cofferdam_tests::process::{Node, wait_for};

use super::BINARY;
use super::http_client::{Connection, cookie, post, request};

/// A call that needs one of the server's threads.
const COUNT: &str = r#"{"method":"getconnectioncount","id":1}"#;
/// Connections that guess at a time: more than the server has threads and places in its queue.
const GUESSERS: usize = 100;

/// Bytes of the log.
fn log_bytes(dir: &std::path::Path) -> u64 {
    fs::metadata(dir.join("regtest/debug.log")).expect("a log").len()
}

#[test]
fn who_guesses_passwords_keeps_nobody_from_calling_and_does_not_fill_the_log() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let node = Node::start(BINARY, dir.path(), &["-rpcthreads=2", "-rpcworkqueue=2"]);
    let secret = cookie(dir.path());
    let mut guessers: Vec<Connection> = (0..GUESSERS).map(|_| Connection::open(&node)).collect();
    for round in 0..4 {
        for (number, guesser) in guessers.iter_mut().enumerate() {
            guesser.call(&format!("__cookie__:{round}{number}"), "", COUNT);
        }
        // While every one of them waits for its refusal.
        assert_eq!(post(&node, &secret, COUNT).json()["result"], 0, "round {round}");
        for guesser in &mut guessers {
            assert_eq!(guesser.reply().expect("a reply").status, 401);
        }
    }
    // The length of a guess, and how much of it is right, do not matter.
    for guess in ["", &secret[..secret.len() - 1], &format!("{secret}0"), &"x".repeat(4000)] {
        assert_eq!(post(&node, guess, COUNT).status, 401);
    }
    assert!(log_bytes(dir.path()) < 1 << 20);
    node.stop();
}

#[test]
fn bodies_that_do_not_come_hold_up_nobody() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let options = ["-rpcservertimeout=2", "-rpcthreads=2", "-rpcworkqueue=2"];
    let node = Node::start(BINARY, dir.path(), &options);
    let secret = cookie(dir.path());
    let mut slow: Vec<Connection> = (0..600).map(|_| Connection::open(&node)).collect();
    for (number, connection) in slow.iter_mut().enumerate() {
        // Half of them may call. A new connection may have taken the place of an old one.
        let whole = request(if number % 2 == 0 { &secret } else { "no:body" }, "", COUNT);
        let _ = connection.try_send(&whole[..whole.len() - 1]);
    }
    assert_eq!(post(&node, &secret, COUNT).json()["result"], 0);
    for connection in &mut slow {
        let reply = connection.reply();
        assert!(reply.is_none_or(|reply| [401, 408].contains(&reply.status)));
    }
    // Whoever says the whole of it within its time is heard.
    let mut late = Connection::open(&node);
    let whole = request(&secret, "", COUNT);
    for piece in whole.chunks(whole.len() / 5) {
        late.send(piece);
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(late.reply().expect("a reply").json()["result"], 0);
    node.stop();
}

#[test]
fn bodies_that_are_too_deep_too_long_or_too_many_are_refused() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let node = Node::start(BINARY, dir.path(), &[]);
    let secret = cookie(dir.path());
    let deep = |open: &str, close: &str| open.repeat(100_000) + &close.repeat(100_000);
    for body in [
        deep("[", "]"),
        deep(r#"{"a":"#, "}"),
        "[".repeat(1_000_000),
        format!(r#"{{"method":"getblockcount","params":{},"id":1}}"#, deep("[", "]")),
    ] {
        let reply = post(&node, &secret, &body);
        assert_eq!(reply.status, 500, "{}", reply.text());
        assert_eq!(reply.json()["error"]["code"], -32700);
    }
    // As the argument of a call that is JSON in a text.
    let nested = format!(r#"{{"method":"setmocktime","params":["{}"],"id":1}}"#, "[".repeat(9000));
    assert_eq!(post(&node, &secret, &nested).status, 500);
    let many = format!("[{}0]", "0,".repeat(1_000_000));
    let reply = post(&node, &secret, &many);
    assert_eq!(reply.json()["error"]["message"], "Too many requests in a batch");
    // A gigabyte is refused before any of it is read, whoever says that it comes.
    for secret in [secret.as_str(), "nobody:x"] {
        let mut connection = Connection::open(&node);
        let head = String::from_utf8(request(secret, "", "")).expect("UTF-8");
        let head = head.replace("Content-Length: 0", "Content-Length: 1073741824");
        connection.send(head.as_bytes());
        assert_eq!(connection.reply().expect("a reply").status, 413);
        assert!(connection.is_closed());
    }
    // One whose length is not said is cut off where it gets too long.
    let mut endless = Connection::open(&node);
    let head = String::from_utf8(request(&secret, "", "")).expect("UTF-8");
    endless.send(head.replace("Content-Length: 0", "Transfer-Encoding: chunked").as_bytes());
    let chunk = format!("100000\r\n{}\r\n", " ".repeat(1 << 20));
    wait_for("the end of what is read", || {
        endless.try_send(chunk.as_bytes()).is_err().then_some(())
    });
    assert_eq!(post(&node, &secret, COUNT).json()["result"], 0);
    node.stop();
}

/// On the main chain's difficulty, which nobody meets here.
#[test]
fn a_search_for_a_block_holds_up_neither_the_chain_nor_a_stop() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let node = Node::start_on("main", BINARY, dir.path(), &[]);
    let secret = fs::read_to_string(dir.path().join(".cookie")).expect("a cookie");
    let mine = r#"{"method":"generatetoaddress","params":[1,"1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa",2147483647],"id":1}"#;
    let mut searching = Connection::open(&node);
    searching.call(&secret, "", mine);
    wait_for("the search", || {
        let info = node.rpc("getrpcinfo", &[]).to_string();
        info.contains("generatetoaddress").then_some(())
    });
    let genesis = "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f";
    for _ in 0..20 {
        assert_eq!(node.rpc("getblockhash", &["0"]), genesis);
    }
    let info = node.rpc("getrpcinfo", &[]).to_string();
    assert!(info.contains("generatetoaddress"), "it went on meanwhile");
    node.stop();
}
