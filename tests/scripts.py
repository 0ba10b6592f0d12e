#!/usr/bin/env python3
"""What the scripts promise, asked without a node: `tests/scripts.rs` runs it, or `tests/scripts.py`."""

import argparse
import ast
import contextlib
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import unittest
from unittest import mock

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benches"))

import side_by_side  # noqa: E402
import measure  # noqa: E402
import nodes as nodes_module  # noqa: E402

# A Rust that is new enough for years.
RUST = {"cargo": "exit 0", "rustc": "echo 'rustc 9.0.0 (0123456 2050-01-01)'"}


def scripts():
    """Every script with its text."""
    for folder in (".ci", "scripts", "benches", "benches/side_by_side", "tests"):
        for path in sorted((ROOT / folder).iterdir()):
            if path.is_file() and (path.suffix == ".py" or path.read_bytes().startswith(b"#!")):
                yield path, path.read_text()


class All(unittest.TestCase):
    def test_every_script_can_be_read(self):
        seen = 0
        for path, text in scripts():
            with self.subTest(path=path):
                if "bash" in text.splitlines()[0]:
                    subprocess.run(["bash", "-n", path], check=True)
                else:
                    ast.parse(text)
                seen += 1
        self.assertGreater(seen, 10)


class Run(unittest.TestCase):
    def test_each_node_is_told_whom_to_connect_to(self):
        starts = re.findall(r"^start .*$", (ROOT / "scripts/run").read_text(), re.M)
        self.assertEqual(len(starts), 2)
        for start in starts:
            self.assertRegex(start, r" -bind=127\.0\.0\.1 .*-connect=(0|127\.0\.0\.1:)")


class Ci(unittest.TestCase):
    def told(self, **environment):
        """What `.ci/run` lets `scripts/test` know of CI."""
        with tempfile.TemporaryDirectory() as folder:
            for name in (".ci", "scripts"):
                os.mkdir(f"{folder}/{name}")
            shutil.copy(ROOT / ".ci/run", f"{folder}/.ci/run")
            test = pathlib.Path(folder, "scripts/test")
            test.write_text("#!/bin/sh\necho $CI\n")
            test.chmod(0o755)
            environment = {"PATH": os.environ["PATH"], **environment}
            return subprocess.check_output([f"{folder}/.ci/run"], env=environment, text=True).strip()

    def test_tests_are_told_that_they_run_in_ci(self):
        self.assertEqual(self.told(), "true")
        self.assertEqual(self.told(CI="1"), "1")


class Setup(unittest.TestCase):
    def setup(self, programs):
        """What `scripts/setup` says where there are these programs and no others; shell scripts, by name."""
        with tempfile.TemporaryDirectory() as folder:
            tools = ["bash", "dirname", "sed", "cut", "sort", "tr", "id", "ls", "grep", "cat", "false"]
            for tool in tools:
                os.symlink(shutil.which(tool), f"{folder}/{tool}")
            for name, text in programs.items():
                program = pathlib.Path(folder, name)
                program.write_text(f"#!{shutil.which('bash')}\n{text}\n")
                program.chmod(0o755)
            command = ["bash", "-c", ". scripts/setup kernel"]
            environment = {"PATH": folder, "HOME": folder}
            return subprocess.run(command, cwd=ROOT, env=environment, text=True, capture_output=True)

    def test_make_is_named_where_it_is_missing(self):
        programs = {**RUST, **dict.fromkeys(["gcc", "g++", "python3", "cmake"], "exit 0")}
        said = self.setup(programs)
        self.assertIn("missing: make ; install the packages", said.stderr)
        self.assertNotEqual(said.returncode, 0)
        self.assertEqual(self.setup({**programs, "make": "exit 0"}).returncode, 0)

    def test_an_old_rust_or_none_is_told_which_one_is_needed(self):
        needed = re.search(r'^rust-version = "(.*)"$', (ROOT / "Cargo.toml").read_text(), re.M)[1]
        self.assertIn(f"Rust {needed} or later", (ROOT / "README.md").read_text())
        old = {**RUST, "rustc": "echo 'rustc 1.63.0 (4b91a6ea7 2022-08-08)'"}
        for programs, found in [(old, "1.63.0"), ({}, "none"), ({"cargo": "exit 0"}, "none")]:
            said = self.setup(programs)
            self.assertIn(f"Rust {needed} or later is needed, and {found} is installed", said.stderr)
            self.assertNotEqual(said.returncode, 0)


class Measured(unittest.TestCase):
    def test_memory_is_the_childs_own_up_to_its_end(self):
        ours = bytearray(os.urandom(1 << 20) * 200)
        with tempfile.TemporaryDirectory() as folder, mock.patch.object(measure, "SAMPLE_SECONDS", 1):
            log = pathlib.Path(folder, "log")
            script = "import os, time; kept = os.urandom(50 << 20); print(len(kept), flush=True); time.sleep(600)"
            measured = measure.Measured([sys.executable, "-c", script], log)
            while not log.read_text().endswith("\n"):
                time.sleep(0.01)
            measured.sample()
            measured.child.terminate()
            result = measured.wait()
        self.assertGreater(len(ours), 150e6)
        for name in ("rss_mb", "anonymous_mb"):
            self.assertGreater(result[name], 50)
            self.assertLess(result[name], 150)


class RpcRate(unittest.TestCase):
    def said(self, answer):
        """What it says of a node that answers this once, and hangs up."""
        with socket.create_server(("127.0.0.1", 0)) as listener, tempfile.NamedTemporaryFile() as cookie:
            command = [sys.executable, ROOT / "benches/rpc_rate.py", cookie.name, str(listener.getsockname()[1])]
            with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as child:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(1 << 16)
                    connection.sendall(answer)
                try:
                    return child.communicate(timeout=60)[1]
                finally:
                    child.kill()

    def test_it_ends_where_the_node_does_not_answer(self):
        self.assertEqual(self.said(b""), "error: the other side has hung up\n")
        self.assertEqual(self.said(b"HTTP/1.1 200 OK\r\n"), "error: the other side has hung up\n")
        refused = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"
        self.assertEqual(self.said(refused), "error: the node answers HTTP/1.1 401 Unauthorized\n")


class SideBySide(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def bench(self, **fields):
        """A bench that has built and made nothing."""
        bench = side_by_side.Bench.__new__(side_by_side.Bench)
        vars(bench).update(fields)
        return bench

    def test_nothing_is_removed_that_it_did_not_make(self):
        other = self.folder / "thesis"
        other.mkdir()
        work = side_by_side.own_folder(self.folder)
        (work / "run-core").mkdir()
        self.bench(own=side_by_side.own_folder(self.folder)).clear()
        self.assertEqual([each.name for each in work.iterdir()], [side_by_side.OWN_MARK])
        self.assertTrue(other.exists())
        taken = other / side_by_side.OWN_FOLDER / "chapter"
        taken.mkdir(parents=True)
        with self.assertRaises(SystemExit):
            side_by_side.own_folder(other)
        self.assertEqual(list(taken.parent.iterdir()), [taken])

    def test_core_is_left_its_default_cache_and_ours_has_the_same(self):
        ours, core = object(), object()
        with mock.patch.object(side_by_side.machine, "memory_bytes") as memory:
            for asked, ram, expected in [(450, 8, ["-dbcache=450"] * 2), (0, 8, ["-dbcache=1024"]), (0, 3, ["-dbcache=450"])]:
                memory.return_value = ram << 30
                bench = self.bench(args=argparse.Namespace(dbcache=asked), nodes=[ours, core])
                self.assertEqual(bench.cache(ours) + bench.cache(core), expected)

    def test_only_a_set_at_the_tip_of_the_chain_is_a_reference(self):
        found = []
        bench = self.bench(chain=self.folder, facts={"tip": "aa"}, nodes=[None, None])
        bench.base, bench.utxo_hash = lambda node: None, lambda node, home: found.pop()
        path = self.folder / "reference.json"
        found.append(("bb", 1, "of another chain"))
        with self.assertRaises(SystemExit):
            bench.reference()
        self.assertFalse(path.exists())
        path.write_text('["bb", 1, "of another chain"]')
        found.append(("aa", 2, "right"))
        self.assertEqual(bench.reference(), ("aa", 2, "right"))
        self.assertEqual(bench.reference(), ("aa", 2, "right"))

    def test_every_mode_begins_cold_where_that_is_asked_for(self):
        for mode in side_by_side.MODES:
            with mock.patch.multiple(side_by_side, drop_page_cache=mock.DEFAULT, copy=mock.DEFAULT) as patched:
                node = mock.MagicMock()
                node.start().measured.started, node.start().wait.return_value = 0, 0
                node.run.return_value = node.start().stop.return_value = {"wall": 1, "cpu": 1}
                facts = {"tip": "aa", "blocks": 9, "full_height": 9, "inputs": 1}
                args = mock.MagicMock(cold=True, blocks=1, dbcache=4)
                bench = self.bench(args=args, facts=facts, chain=self.folder, work=self.folder, nodes=[node, node])
                bench.full_blocks_mb = 1
                bench.base, bench.check = lambda node: self.folder, lambda node, home: None
                bench.serve = lambda count: [(mock.MagicMock(), 1)] * count
                (self.folder / "run-x").mkdir(exist_ok=True)
                bench.fresh = lambda node: self.folder / "run-x"
                (self.folder / "run-x/done").touch()
                bench.measure(mode, node)
                self.assertEqual(patched["drop_page_cache"].call_count, 1, mode)

    def test_the_result_has_every_run_on_a_line_and_what_it_was(self):
        with mock.patch.object(sys, "argv", ["side_by_side.py", "--rounds", "2", "--dbcache", "7"]):
            args = side_by_side.arguments()
        nodes = [nodes_module.Node(name, shutil.which("echo"), []) for name in ("cofferdam", "core")]
        bench = self.bench(args=args, nodes=nodes, facts={"tip": "aa", "inputs": 5})
        bench.measure = lambda letter, node: {"wall": 2 / 3, "cpu": 1e6 / 3, "exit": 0}
        facts = side_by_side.about(bench)
        with contextlib.redirect_stdout(None):
            side_by_side.report.write(self.folder, facts, [side_by_side.run_mode(bench, "a")])
        text = (self.folder / "result.json").read_text()
        self.assertEqual(text.count('{"wall": 0.66667, "cpu": 333330.0, "exit": 0}'), 4)
        found = json.loads(text)
        self.assertEqual(found["programs"]["core"], {"version": "-version"})
        self.assertLessEqual({"date", "processor", "processors", "memory_mib", "kernel", "system"}, set(found))
        self.assertEqual({**found["modes"][0], "runs": None, "title": None}, {
            "mode": "a", "title": None, "runs": None, "dbcache_mib": 7, "chain": {"tip": "aa", "inputs": 5},
            "options": {"rounds": 2, "chain": "signed", "blocks": 300, "seed": 1, "dbcache": 7, "par": os.cpu_count(),
                        "our_options": "", "core_options": "", "cold": False}})
        self.assertNotIn(str(self.folder), text)


if __name__ == "__main__":
    unittest.main()
