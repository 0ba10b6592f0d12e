#!/usr/bin/env python3
"""What the node promises a person and a driver, measured from outside on a whole process.

    benches/aims.py BINARY [start] [stop] [rate] [headers]

    start    from the start on an existing directory of 20,000 blocks to the first RPC answer
    stop     from SIGTERM to the end of the process, while it syncs from a second node
    rate     `getblockheader` calls a second on one keep-alive connection (rpc_rate.py)
    headers  processor time of a sync of 900,000 headers from a peer in this script: as they come, and with
             presync (a minimum of work that only the last headers reach)

All on regtest and on the loopback interface, in a temporary directory. The last line of each part names
the aim.
"""
import base64
import hashlib
import http.client
import json
import os
import pathlib
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time

BLOCKS = 20_000
SYNC_BLOCKS = 150_000
HEADERS = 900_000
ROUNDS = 9
PATIENCE_SECONDS = 120
# With ten minutes, as many headers would begin before the genesis block.
HEADER_SPACING_SECONDS = 500
ADDRESS = "mjTkW3DjgyZck4KbiRusZsqTgaYTxdSz6z"
MAGIC = bytes.fromhex("fabfb5da")
GENESIS = bytes.fromhex(
    "0100000000000000000000000000000000000000000000000000000000000000000000003ba3edfd7a7b12b27ac72c3e"
    "67768f617fc81bc3888a51323a9fb8aa4b1e5e4adae5494dffff7f2002000000"
)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Node:
    """A node as a process, and the way to its RPC."""

    def __init__(self, directory, *options):
        directory.mkdir(exist_ok=True)
        self.cookie = directory / "regtest/.cookie"
        self.cookie.unlink(missing_ok=True)
        self.rpc_port, self.p2p_port = free_port(), free_port()
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            [BINARY, "-regtest", f"-datadir={directory}", "-bind=127.0.0.1", "-printtoconsole=0",
             f"-port={self.p2p_port}", f"-rpcport={self.rpc_port}", *options])
        self.connection = None

    def call(self, method, *params):
        """Returns what a method answers; an `OSError` or `KeyError` while the node is not ready."""
        if self.connection is None:
            self.auth = base64.b64encode(self.cookie.read_bytes()).decode()
            self.connection = http.client.HTTPConnection("127.0.0.1", self.rpc_port, timeout=600)
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
        try:
            self.connection.request("POST", "/", body, {"Authorization": f"Basic {self.auth}"})
            reply = self.connection.getresponse().read()
        except OSError:
            self.connection = None
            raise
        return json.loads(reply)["result"]

    def wait_ready(self):
        """Waits for the first answer; returns the seconds since the start."""
        wait(lambda: self.call("getblockcount") is not None, 0.002)
        return time.monotonic() - self.started

    def processor_seconds(self):
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")")[-1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self):
        """Returns the seconds from SIGTERM to the end."""
        begin = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(PATIENCE_SECONDS)
        assert status == 0, f"exit status {status}"
        return time.monotonic() - begin


def wait(ready, pause):
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end:
        try:
            if ready():
                return
        except (OSError, KeyError):
            pass
        time.sleep(pause)
    raise SystemExit("waited for too long")


def tell(what, times, aim):
    median, least, most = statistics.median(times), min(times), max(times)
    print(f"{what}: {median:.3f} ({least:.3f} to {most:.3f}, {len(times)} rounds); aim: {aim}", flush=True)


def mined(directory, blocks):
    node = Node(directory, "-connect=0")
    node.wait_ready()
    first = int(time.time()) - 600 * blocks
    for number in range(0, blocks, 1000):
        node.call("setmocktime", first + 600 * number)
        node.call("generatetoaddress", 1000, ADDRESS)
    node.call("setmocktime", 0)
    return node


def measure_start(directory):
    mined(directory / "start", BLOCKS).stop()
    times = []
    for _ in range(ROUNDS):
        node = Node(directory / "start", "-connect=0")
        times.append(node.wait_ready())
        node.stop()
    tell("seconds to the first answer", times, "0.3")


def measure_stop(directory):
    source = mined(directory / "source", SYNC_BLOCKS)
    times = []
    for number in range(ROUNDS):
        node = Node(directory / f"syncs{number}", f"-connect=127.0.0.1:{source.p2p_port}")
        node.wait_ready()
        wait(lambda: node.call("getblockcount") > 2000 * (number + 1), 0.05)
        height = node.call("getblockcount")
        times.append(node.stop())
        assert height < SYNC_BLOCKS, "it was no longer syncing"
    source.stop()
    tell("seconds to stop while syncing", times, "3")


def measure_rate(directory):
    node = mined(directory / "rate", 2000)
    script = pathlib.Path(__file__).with_name("rpc_rate.py")
    for _ in range(3):
        subprocess.run([sys.executable, script, node.cookie, str(node.rpc_port)], check=True)
    node.stop()
    print("aim: 10,000 calls a second", flush=True)


def sha256d(data):
    return hashlib.sha256(hashlib.sha256(data).digest()).digest()


def mine_headers(count):
    """Returns a chain of headers above the genesis block, and the place of each by its hash."""
    headers, places, parent = [], {sha256d(GENESIS): 0}, sha256d(GENESIS)
    first = int(time.time()) - HEADER_SPACING_SECONDS * count
    for number in range(count):
        front = struct.pack("<i", 0x20000000) + parent + struct.pack("<32xII", first + HEADER_SPACING_SECONDS * number, 0x207FFFFF)
        nonce = 0
        while (parent := sha256d(header := front + struct.pack("<I", nonce)))[31] > 0x7F:
            nonce += 1
        headers.append(header + b"\0")
        places[parent] = number + 1
    return headers, places


def serve_headers(listener, headers, places):
    """Answers `getheaders`, and `ping`; one connection."""
    peer, _ = listener.accept()
    stream = peer.makefile("rb")

    def send(command, payload=b""):
        head = MAGIC + command.ljust(12, b"\0") + struct.pack("<I", len(payload))
        peer.sendall(head + sha256d(payload)[:4] + payload)

    while head := stream.read(24):
        command, payload = head[4:16].rstrip(b"\0"), stream.read(struct.unpack_from("<I", head, 16)[0])
        if command == b"version":
            address = struct.pack("<Q16sH", 9, bytes(16), 0)
            send(b"version", struct.pack("<iQq", 70016, 9, int(time.time())) + address * 2
                 + struct.pack("<QBi?", 1, 0, len(headers), True))
            send(b"verack")
        elif command == b"ping":
            send(b"pong", payload)
        elif command == b"getheaders":
            hashes = [payload[at:at + 32] for at in range(5, len(payload) - 32, 32)]
            place = next(places[known] for known in hashes if known in places)
            part = headers[place:place + 2000]
            send(b"headers", b"\xfd" + struct.pack("<H", len(part)) + b"".join(part))


def measure_headers(directory):
    headers, places = mine_headers(HEADERS)
    # Every block of regtest counts as two hashes tried.
    work = f"-minimumchainwork=0x{2 * HEADERS:x}"
    for what, options in [("as they come", []), ("with presync", [work])]:
        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        threading.Thread(target=serve_headers, args=(listener, headers, places), daemon=True).start()
        node = Node(directory / what.replace(" ", "-"), f"-connect=127.0.0.1:{port}", "-v2transport=0", *options)
        node.wait_ready()
        wait(lambda: node.call("getblockchaininfo")["headers"] == HEADERS, 0.05)
        taken, processor = time.monotonic() - node.started, node.processor_seconds()
        print(f"{HEADERS:,} headers {what}: {processor:.1f} s of processor time, {taken:.1f} s; aim: 20 s")
        node.stop()


def main():
    parts = sys.argv[2:] or ["start", "stop", "rate", "headers"]
    with tempfile.TemporaryDirectory() as directory:
        for part in parts:
            globals()[f"measure_{part}"](pathlib.Path(directory))


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    BINARY = sys.argv[1]
    main()
