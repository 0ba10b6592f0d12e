//! Requests over the wire: order, keep-alive, limits, and what is no request (Bitcoin Core's
//! `interface_http.py` and `interface_rpc.py`).

use cofferdam_tests::process::Node;
use serde_json::json;

use super::BINARY;
use super::http_client::{Connection, cookie, post, request};

const COUNT: &str = r#"{"method":"getblockcount","id":1}"#;

#[test]
fn calls_of_a_connection_are_answered_in_order() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let node = Node::start(BINARY, dir.path(), &[]);
    let secret = cookie(dir.path());
    let mut connection = Connection::open(&node);
    for id in 0..3 {
        connection.call(
            &secret,
            "",
            &format!(r#"{{"jsonrpc":"2.0","method":"uptime","id":{id}}}"#),
        );
        let reply = connection.reply().expect("kept alive");
        assert_eq!((reply.status, &reply.json()["id"]), (200, &json!(id)));
        assert!(reply.head.to_lowercase().contains("content-type: application/json\r\n"));
    }
    let all: Vec<u8> = (0..50)
        .flat_map(|id| request(&secret, "", &format!(r#"{{"method":"uptime","id":{id}}}"#)))
        .collect();
    connection.send(&all);
    for id in 0..50 {
        assert_eq!(connection.reply().expect("pipelined").json()["id"], id);
    }
    // In pieces, with an extension and a trailer.
    let (first, second) = COUNT.split_at(10);
    let chunks = format!("a\r\n{first}\r\n{:x};x=1\r\n{second}\r\n0\r\nT: x\r\n\r\n", second.len());
    let head = String::from_utf8(request(&secret, "", "")).expect("UTF-8");
    let head = head.replace("Content-Length: 0", "Transfer-Encoding: chunked");
    connection.send(format!("{head}{chunks}").as_bytes());
    assert_eq!(connection.reply().expect("chunked").json()["result"], 0);
    connection.call(&secret, "Connection: close\r\n", COUNT);
    assert_eq!(connection.reply().expect("the last").status, 200);
    assert!(connection.is_closed());
    node.stop();
}

#[test]
fn what_is_no_request_is_refused_with_its_status() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let node = Node::start(BINARY, dir.path(), &[]);
    let long = |count: usize| "x".repeat(count);
    let lines = |count: usize| -> String {
        (0..count).map(|index| format!("header_{index:04}: foo\r\n")).collect()
    };
    for (sent, status) in [
        ("GET /\0 HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nA: b\0\r\n\r\n".into(), 400),
        ("GET / HTTP/2.5\r\n\r\n".into(), 400),
        ("GET /\r\n\r\n".into(), 400),
        ("GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n".into(), 400),
        ("GET / HTTP/1.1\r\nA : b\r\n\r\n".into(), 400),
        ("GET / HTTP/1.1\r\nAb\r\n\r\n".into(), 400),
        ("POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}".into(), 400),
        ("POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n".into(), 400),
        (format!("GET /{} HTTP/1.1\r\n\r\n", long(1000)), 404),
        (format!("GET /{} HTTP/1.1\r\n\r\n", long(10_000)), 400),
        (format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", long(9000)), 400),
        (format!("GET /x HTTP/1.1\r\nHost: 127.0.0.1\r\n{}\r\n", lines(399)), 404),
        (format!("GET /x HTTP/1.1\r\nHost: 127.0.0.1\r\n{}\r\n", lines(455)), 400),
        ("POST / HTTP/1.1\r\nContent-Length: 33554433\r\n\r\n".into(), 413),
        ("DELETE / HTTP/1.1\r\n\r\n".into(), 405),
        ("TRACE / HTTP/1.1\r\n\r\n".into(), 405),
        ("GET / HTTP/1.1\r\n\r\n".into(), 405),
        ("GET /../etc/passwd HTTP/1.1\r\n\r\n".into(), 404),
        ("GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\n\r\n".into(), 404),
        ("GET /rest/chaininfo.json HTTP/1.1\r\n\r\n".into(), 404),
        ("POST / HTTP/1.1\r\nHost: evil.example\r\n\r\n".into(), 403),
        ("POST / HTTP/1.1\r\n\r\n".into(), 401),
    ] {
        let mut connection = Connection::open(&node);
        connection.send(sent.as_bytes());
        let reply = connection.reply().unwrap_or_else(|| panic!("no reply to {sent:?}"));
        assert_eq!(reply.status, status, "{:?}", &sent[..sent.len().min(80)]);
    }
    node.stop();
}

#[test]
fn an_idle_connection_ends_and_one_with_a_call_does_not() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let node = Node::start(BINARY, dir.path(), &["-rpcservertimeout=1"]);
    let mut connection = Connection::open(&node);
    let wait = r#"{"method":"waitforblockheight","params":[5,2500],"id":1}"#;
    connection.call(&cookie(dir.path()), "", wait);
    assert_eq!(connection.reply().expect("not cut off").json()["result"]["height"], 0);
    assert!(connection.is_closed());
    let mut slow = Connection::open(&node);
    slow.send(b"POST / HTTP/1.1\r\nHost: ");
    assert!(slow.is_closed(), "a header that does not arrive");
    node.stop();
}

#[test]
fn calls_beyond_the_queue_are_turned_away() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let node = Node::start(BINARY, dir.path(), &["-rpcthreads=1", "-rpcworkqueue=1"]);
    let secret = cookie(dir.path());
    let wait = r#"{"method":"waitforblockheight","params":[5,3000],"id":1}"#;
    let mut waiting: Vec<Connection> = (0..10).map(|_| Connection::open(&node)).collect();
    for connection in &mut waiting {
        connection.call(&secret, "", wait);
    }
    // One runs and one waits for it.
    let replies: Vec<_> = waiting.iter_mut().map(|one| one.reply().expect("a reply")).collect();
    let refused: Vec<_> = replies.iter().filter(|reply| reply.status == 503).collect();
    assert!(!refused.is_empty() && refused.len() <= 8, "{} refused", refused.len());
    assert!(refused.iter().all(|reply| reply.text() == "Work queue depth exceeded"));
    assert!(replies.iter().any(|reply| reply.status == 200));
    node.stop();
}

#[test]
fn what_is_at_hand_is_answered_while_every_thread_waits() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let node = Node::start(BINARY, dir.path(), &["-rpcthreads=1"]);
    let secret = cookie(dir.path());
    let genesis = node.rpc("getbestblockhash", &[]);
    let header = format!(r#"{{"method":"getblockheader","params":[{genesis}],"id":1}}"#);
    // From now on it is at hand.
    let first = post(&node, &secret, &header).json();
    assert_eq!(first["result"]["hash"], genesis);
    // Without end, and with the one thread there is.
    let mut waiting = Connection::open(&node);
    waiting.call(&secret, "", r#"{"method":"waitforblockheight","params":[5,0],"id":1}"#);
    let info = r#"{"method":"getblockchaininfo","id":1}"#;
    let mut behind = Connection::open(&node);
    behind.call(&secret, "", info);
    for _ in 0..100 {
        assert_eq!(post(&node, &secret, &header).json(), first);
        let count = post(&node, &secret, r#"{"method":"getblockcount","id":1}"#);
        assert_eq!(count.json()["result"], 0);
        // A fault is told in the same way as ever.
        let wrong = post(&node, &secret, r#"{"method":"getblockcount","params":[1],"id":1}"#);
        assert_eq!((wrong.status, &wrong.json()["error"]["code"]), (500, &json!(-1)));
    }
}

#[test]
fn versions_notifications_and_batches_are_answered_as_core_does() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let node = Node::start(BINARY, dir.path(), &[]);
    let secret = cookie(dir.path());
    for (body, status, reply) in [
        (COUNT, 200, r#"{"result":0,"error":null,"id":1}"#),
        (
            r#"{"jsonrpc":"2.0","method":"getblockcount","id":1}"#,
            200,
            r#"{"jsonrpc":"2.0","result":0,"id":1}"#,
        ),
        (r#"{"jsonrpc":"2.0","method":"getblockcount"}"#, 204, ""),
        (
            r#"{"method":"nope","id":1}"#,
            404,
            r#"{"result":null,"error":{"code":-32601,"message":"Method not found"},"id":1}"#,
        ),
        (
            r#"{"method":"getblockhash","params":[42],"id":1}"#,
            500,
            r#"{"result":null,"error":{"code":-8,"message":"Block height out of range"},"id":1}"#,
        ),
        (
            r#"[{"jsonrpc":"2.0","method":"getblockcount","id":1},{"method":"getblockcount","id":2}]"#,
            200,
            r#"[{"jsonrpc":"2.0","result":0,"id":1},{"result":0,"error":null,"id":2}]"#,
        ),
    ] {
        let got = post(&node, &secret, body);
        assert_eq!((got.status, got.text()), (status, reply), "{body}");
    }
    node.stop();
}

#[test]
fn what_a_request_names_twice_is_refused_as_core_does() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let node = Node::start(BINARY, dir.path(), &[]);
    let secret = cookie(dir.path());
    let address = "bcrt1qjqmxmkpmxt80xz4y3746zgt0q3u3ferr34acd5";
    let twice = format!(r#"{{"{address}":1,"{address}":2}}"#);
    let duplicated = format!("Invalid parameter, duplicated address: {address}");
    for (method, params, message) in [
        ("createrawtransaction", format!("[[],{twice}]"), duplicated.as_str()),
        ("createrawtransaction", format!(r#"{{"inputs":[],"outputs":{twice}}}"#), &duplicated),
        (
            "createrawtransaction",
            r#"[[],{"data":"00","data":"01"}]"#.into(),
            "Invalid parameter, duplicate key: data",
        ),
        ("createrawtransaction", format!(r#"{{"args":[[],{twice}]}}"#), &duplicated),
        (
            "createrawtransaction",
            r#"{"args":[[],[{"data":"00","data":"01"}]]}"#.into(),
            "Invalid parameter, key-value pair must contain exactly one key",
        ),
        (
            "getblock",
            r#"{"args":["00",1],"verbose":2,"blockhash":"00"}"#.into(),
            "Parameter blockhash specified twice both as positional and named argument",
        ),
        (
            "getblock",
            r#"{"args":["00",1],"verbose":2}"#.into(),
            "Parameter verbosity|verbose specified twice both as positional and named argument",
        ),
        (
            "getblock",
            r#"{"args":["00",1],"nothing":0,"verbose":2}"#.into(),
            "Parameter verbosity|verbose specified twice both as positional and named argument",
        ),
        (
            "getblockhash",
            r#"{"height":0,"height":0}"#.into(),
            "Parameter height specified multiple times",
        ),
    ] {
        let body = format!(r#"{{"method":"{method}","params":{params},"id":1}}"#);
        let got = post(&node, &secret, &body);
        let error = format!(r#"{{"code":-8,"message":"{message}"}}"#);
        let reply = format!(r#"{{"result":null,"error":{error},"id":1}}"#);
        assert_eq!((got.status, got.text()), (500, reply.as_str()), "{body}");
    }
    node.stop();
}
