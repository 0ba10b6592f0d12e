#!/usr/bin/env python3
"""What the scripts promise, asked without a node: `tests/scripts.rs` runs it, or `tests/scripts.py`."""

import ast
import pathlib
import re
import subprocess
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent


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


if __name__ == "__main__":
    unittest.main()
