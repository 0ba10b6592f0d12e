"""Both nodes, started alike: the same options, the same blocks, the same cache."""

import base64
import http.client
import json
import os
import pathlib
import shutil
import socket
import time

from measure import Measured

ANSWER_SECONDS = 600


class RpcError(Exception):
    """The node's error."""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Node:
    """A program, and what it takes beside the common options."""

    def __init__(self, name, program, extra):
        self.name, self.program, self.extra = name, str(program), list(extra)

    def command(self, home, options):
        common = [
            f"-datadir={home}",
            "-regtest",
            "-dnsseed=0",
            "-fixedseeds=0",
            "-discover=0",
            "-listenonion=0",
            "-natpmp=0",
            "-printtoconsole=0",
            "-maxtipage=2000000000",
            "-blocksonly",
            # On by default on regtest, and quadratic.
            "-checkblockindex=0",
            "-checkmempool=0",
        ]
        return [self.program, *common, *self.extra, *options]

    def run(self, home, options):
        """Runs until the node ends by itself (-stopatheight); returns what it cost."""
        home.mkdir(parents=True, exist_ok=True)
        options = ["-server=0", *options]
        measured = Measured(self.command(home, options), home / "output")
        result = measured.wait()
        if result["exit"] != 0:
            raise SystemExit(f"{self.name} ended with {result['exit']}, see {home}/output")
        return result

    def start(self, home, options):
        home.mkdir(parents=True, exist_ok=True)
        return Running(self, home, options)


class Running:
    """A node that answers."""

    def __init__(self, node, home, options):
        self.node, self.home, self.port = node, home, free_port()
        cookie = home / "regtest/.cookie"
        cookie.unlink(missing_ok=True)
        command = node.command(home, [f"-rpcport={self.port}", *options])
        self.measured = Measured(command, home / "output")
        self.cookie, self.connection = cookie, None

    def wait(self):
        """Waits for the first answer; returns the seconds since the start."""
        while True:
            try:
                self.call("getblockcount")
                return time.monotonic() - self.measured.started
            except (OSError, http.client.HTTPException, RpcError):
                self.connection = None
                if self.measured.child.poll() is not None:
                    raise SystemExit(f"{self.node.name} ended, see {self.home}/output") from None
                time.sleep(0.002)

    def call(self, method, *params):
        try:
            return self.ask(method, params)
        except (BrokenPipeError, ConnectionResetError, http.client.RemoteDisconnected):
            # Nodes hang up on who was silent for long.
            self.connection = None
            return self.ask(method, params)

    def ask(self, method, params):
        if self.connection is None:
            user = base64.b64encode(self.cookie.read_bytes()).decode()
            self.headers = {"Authorization": f"Basic {user}", "Content-Type": "application/json"}
            address = ("127.0.0.1", self.port)
            self.connection = http.client.HTTPConnection(*address, timeout=ANSWER_SECONDS)
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
        self.connection.request("POST", "/", body, self.headers)
        reply = json.loads(self.connection.getresponse().read())
        if "error" in reply and reply["error"]:
            raise RpcError(f"{method}: {reply['error']}")
        return reply["result"]

    def wait_for_height(self, height):
        while self.call("getblockcount") < height:
            time.sleep(0.01)

    def kill(self):
        self.measured.child.kill()
        return self.measured.wait()

    def stop(self):
        self.measured.sample()
        self.measured.child.terminate()
        return self.measured.wait()


def copy(source, target):
    """Copies a data directory; block files, which nobody writes to again, by links."""

    def link(original, place):
        name = os.path.basename(original)
        if name.startswith(("blk", "rev")):
            os.link(original, place)
        else:
            shutil.copy2(original, place)

    shutil.copytree(source, target, copy_function=link)
    for name in (".cookie", "bitcoind.pid", ".lock"):
        pathlib.Path(target, "regtest", name).unlink(missing_ok=True)
