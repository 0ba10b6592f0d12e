#!/usr/bin/env python3
"""Calls a second on one keep-alive connection, one after another.

    benches/rpc_rate.py DATADIR/regtest/.cookie PORT [METHOD [PARAMS]]
    benches/rpc_rate.py --echo

Without a method: `getblockheader` along the chain, each call with the hash that the one before named.
The client is a bare socket, and its share of the time is in the figure. `--echo` is what there is to
gain at most: a process that answers every request with the same bytes. Most of the time both sides
wait to be woken: with `taskset -c 0` before this and before the node neither has to wake a processor.
"""
import base64
import json
import os
import socket
import sys
import time

CALLS = 20000


def received(connection):
    """What has come; the end of a connection ends the measurement."""
    part = connection.recv(1 << 16)
    if not part:
        raise SystemExit("error: the other side has hung up")
    return part


def echo():
    """Round trips a second with a process that does nothing else."""
    listener = socket.create_server(("127.0.0.1", 0))
    if os.fork() == 0:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while connection.recv(1 << 16):
            connection.sendall(b"x" * 900)
        os._exit(0)
    connection = socket.create_connection(listener.getsockname())
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    started = time.monotonic()
    for _ in range(CALLS):
        connection.sendall(b"x" * 300)
        left = 900
        while left:
            left -= len(received(connection))
    print(f"echo: {CALLS / (time.monotonic() - started):,.0f} round trips a second")


def main():
    if sys.argv[1:] == ["--echo"]:
        return echo()
    cookie, port = open(sys.argv[1]).read(), int(sys.argv[2])
    auth = base64.b64encode(cookie.encode()).decode()
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def call(method, params):
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
        connection.sendall(
            f"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Basic {auth}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        reply = received(connection)
        if not reply.startswith(b"HTTP/1.1 200 "):
            raise SystemExit("error: the node answers " + reply.partition(b"\r")[0].decode("latin-1"))
        while not reply.endswith(b"}\n"):
            reply += received(connection)
        return reply

    def result(reply):
        return json.loads(reply[reply.index(b"\r\n\r\n"):])["result"]

    genesis = result(call("getblockhash", [0]))
    if len(sys.argv) > 3:
        method, params = sys.argv[3], json.loads(sys.argv[4] if len(sys.argv) > 4 else "[]")
        started = time.monotonic()
        for _ in range(CALLS):
            call(method, params)
    else:
        method, block = "getblockheader", genesis
        started = time.monotonic()
        for _ in range(CALLS):
            reply = call(method, [block])
            at = reply.find(b'"nextblockhash":"')
            block = reply[at + 17:at + 81].decode() if at > 0 else genesis
    seconds = time.monotonic() - started
    print(f"{method}: {CALLS / seconds:,.0f} calls a second")


if __name__ == "__main__":
    main()
