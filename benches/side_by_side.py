#!/usr/bin/env python3
"""Cofferdam and Bitcoin Core side by side: the same blocks, the same cache, in turn.

    benches/side_by_side.py                         every mode on the signed chain
    benches/side_by_side.py --all                   and the set beyond the cache: nearly four hours
    benches/side_by_side.py --modes a,c --rounds 5  some of them
    benches/side_by_side.py --chain growing --blocks 800 --dbcache 100

Every run ends by comparing the UTXO hash with that of the reference, which Core made. Builds what it
needs, and keeps chains and data directories in the cache folder. What is measured is the whole
process, from its start until it has ended with everything on disk.
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "side_by_side"))

import machine  # noqa: E402
import report  # noqa: E402
from measure import drop_page_cache  # noqa: E402
from nodes import Node, copy  # noqa: E402

# The folder below --work that is this program's alone, and the file in it that says so.
OWN_FOLDER = "side_by_side-directories"
OWN_MARK = "made-by-side_by_side.py"
CACHE = pathlib.Path(os.environ.get("COFFERDAM_CACHE", pathlib.Path.home() / ".cache/cofferdam"))
# Core's -dbcache unless told, in MiB: GetDefaultDBCache of its src/node/caches.cpp.
CORE_DBCACHE_SMALL, CORE_DBCACHE_LARGE, LARGE_FROM_BYTES = 450, 1024, 4 << 30
MODES = {
    "a": "(a) -reindex-chainstate, no scripts",
    "i": "(a') -loadblock, no scripts",
    "c": "(c) P2P, all scripts",
    "l": "(c') -loadblock, all scripts",
    "r": "-reindex-chainstate, all scripts",
    "d": "(d) P2P, no scripts",
    "q": "(d) P2P from four peers, no scripts",
    "w": "(d) P2P from four peers, all scripts",
    "e": "(e) back after kill -9 at 60 % of a P2P sync",
    "f": "(f) restart to the first answer",
}
# What `--all` measures: chain, full blocks, -dbcache, modes. (b) is the growing chain, whose set is
# beyond the cache with 100 and 450 MiB; 0 is Core's own default; with 4000 all of it fits, which is
# Core at its best.
ALL = [
    ("signed", 200, 450, "a,i,c,l,d,q,w,e,f"),
    ("growing", 1300, 450, "a,d,q"),
    ("growing", 1300, 100, "a,i,d,q"),
    ("growing", 1300, 0, "a"),
    ("growing", 1300, 4000, "a"),
]


# Arguments that say nothing of what was measured, or are said elsewhere.
UNSAID = ("all", "modes", "work", "ours", "core", "out")


class Bench:
    """What is measured, and where."""

    def __init__(self, args):
        self.args = args
        target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", CACHE / "target"))
        ours = args.ours or build(target)
        core = args.core or machine.output(HERE.parent / "scripts/bitcoind", "release")
        self.nodes = [
            Node("cofferdam", ours, args.our_options.split()),
            Node("core", core, args.core_options.split()),
        ]
        self.chain = CACHE / "chains" / f"{args.chain}-{args.blocks}-{args.seed}"
        self.own = own_folder(pathlib.Path(args.work))
        self.work = self.own / self.chain.name
        self.facts = self.make_chain(ours)
        self.full_blocks_mb = self.facts["bytes"] / 1e6

    def clear(self):
        """Removes the data directories of earlier runs."""
        for each in self.own.iterdir():
            if each.name != OWN_MARK:
                shutil.rmtree(each)

    def make_chain(self, ours):
        facts = self.chain / "chain.json"
        if not facts.exists():
            shutil.rmtree(self.chain, ignore_errors=True)
            plan = [self.args.chain, str(self.args.blocks), str(self.args.seed)]
            subprocess.run([ours, "bench", "gen", self.chain, *plan], check=True)
        return json.loads(facts.read_text())

    def cache(self, node):
        """The memory of a node: what was asked for, or what Core takes, which is then not told."""
        if self.args.dbcache == 0 and node is self.nodes[1]:
            return []
        return [f"-dbcache={dbcache(self.args)}"]

    def options(self, node, scripts):
        valid = "0" if scripts else self.facts["tip"]
        return [
            *self.cache(node),
            f"-par={self.args.par}",
            f"-assumevalid={valid}",
            f"-stopatheight={self.facts['blocks']}",
            "-connect=0",
            "-listen=0",
        ]

    def files(self):
        return [f"-loadblock={path}" for path in sorted(self.chain.glob("blk*.dat"))]

    def base(self, node):
        """A data directory with the whole chain, made once; in a folder of the chain's name."""
        home = self.work / f"base-{node.name}"
        if not (home / "done").exists():
            shutil.rmtree(home, ignore_errors=True)
            node.run(home, [*self.options(node, False), *self.files()])
            (home / "done").touch()
        return home

    def fresh(self, node):
        home = self.work / f"run-{node.name}"
        shutil.rmtree(home, ignore_errors=True)
        return home

    def utxo_hash(self, node, home):
        running = node.start(home, ["-connect=0", "-listen=0"])
        running.wait()
        info = running.call("gettxoutsetinfo", "muhash")
        running.stop()
        return info["bestblock"], info["txouts"], info["muhash"]

    def serve(self, count):
        """Core, with the chain, as peers to sync from."""
        core, servers = self.nodes[1], []
        for number in range(count):
            home = self.work / f"serve-{number}"
            if not home.exists():
                copy(self.base(core), home)
            options = [f"-bind=127.0.0.1:{(port := 21000 + number)}", "-connect=0", "-par=1"]
            running = core.start(home, [*options, "-dbcache=4", "-whitelist=noban,download@127.0.0.1"])
            running.wait()
            servers.append((running, port))
        return servers

    def measure(self, mode, node):
        """One run of a mode: what it cost."""
        if mode == "f":
            return self.restart(node)
        if mode == "e":
            return self.recover(node)
        home = self.fresh(node)
        options = self.options(node, scripts=mode in "clrw")
        servers = []
        if mode in "ar":
            copy(self.base(node), home)
            (home / "done").unlink()
            options.append("-reindex-chainstate")
        elif mode in "il":
            options += self.files()
        else:
            servers = self.serve(4 if mode in "qw" else 1)
            options.remove("-connect=0")
            options += [f"-connect=127.0.0.1:{port}" for _, port in servers]
        self.cool()
        result = node.run(home, options)
        for server, _ in servers:
            server.stop()
        self.check(node, home)
        result["mb_a_second"] = self.full_blocks_mb / result["wall"]
        result["inputs_a_second"] = self.facts["inputs"] / result["wall"]
        result["cpu_ms_a_mb"] = result["cpu"] * 1e3 / self.full_blocks_mb
        return result

    def cool(self):
        """Drops the page cache, with --cold: what is measured begins after this."""
        if self.args.cold and not drop_page_cache():
            raise SystemExit("--cold needs root")

    def check(self, node, home):
        found = self.utxo_hash(node, home)
        expected = self.reference()
        if found != expected:
            raise SystemExit(f"{node.name} has another set: {found}, not {expected}")

    def reference(self):
        """Core's last block, number of coins and hash of them; kept beside the chain."""
        path = self.chain / "reference.json"
        known = tuple(json.loads(path.read_text())) if path.exists() else ("none",)
        if known[0] != self.facts["tip"]:
            core = self.nodes[1]
            known = self.utxo_hash(core, self.base(core))
            if known[0] != self.facts["tip"]:
                raise SystemExit(f"core ends at block {known[0]}, the chain at {self.facts['tip']}")
            path.write_text(json.dumps(known))
        return known

    def restart(self, node):
        home = self.fresh(node)
        copy(self.base(node), home)
        self.cool()
        running = node.start(home, ["-connect=0", "-listen=0", *self.cache(node)])
        seconds = running.wait()
        stopping = time.monotonic()
        result = running.stop()
        return {**result, "wall": seconds, "stop": time.monotonic() - stopping}

    def recover(self, node):
        home = self.fresh(node)
        servers = self.serve(1)
        stop, connect = f"-stopatheight={self.facts['blocks']}", f"-connect=127.0.0.1:{servers[0][1]}"
        options = [each for each in self.options(node, True) if each not in (stop, "-connect=0")]
        options.append(connect)
        # Of the full blocks: those before are small.
        wanted = self.facts["full_height"] - int(self.args.blocks * 0.4)
        running = node.start(home, options)
        running.wait()
        running.wait_for_height(wanted)
        height = running.call("getblockcount")
        running.kill()
        self.cool()
        again = node.start(home, options)
        again.wait()
        came_up = again.call("getblockcount")
        again.wait_for_height(height)
        seconds = time.monotonic() - again.measured.started
        again.wait_for_height(self.facts["blocks"])
        result = again.stop()
        for server, _ in servers:
            server.stop()
        self.check(node, home)
        return {**result, "wall": seconds, "killed_at": height, "came_up_at": came_up}


def dbcache(args):
    """MiB of memory for the set."""
    large = machine.memory_bytes() >= LARGE_FROM_BYTES
    return args.dbcache or (CORE_DBCACHE_LARGE if large else CORE_DBCACHE_SMALL)


def own_folder(parent):
    """The folder below another whose content may be removed: it is new, empty, or of an earlier call."""
    folder = parent / OWN_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()) and not (folder / OWN_MARK).is_file():
        raise SystemExit(f"{folder} is not of {pathlib.Path(__file__).name}; name another --work")
    (folder / OWN_MARK).touch()
    return folder


def build(target):
    """Our program, after what it needs to compile has been installed."""
    cargo = "cargo build --release --locked --workspace --all-features --bin cofferdam"
    command = ["bash", "-c", f". scripts/setup engines; {cargo}"]
    environment = {**os.environ, "CARGO_TARGET_DIR": str(target)}
    if subprocess.run(command, cwd=HERE.parent, env=environment, check=False).returncode != 0:
        raise SystemExit("cofferdam could not be built")
    return target / "release/cofferdam"


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--modes", default="a,i,c,l,d,q,w,e,f", help="\n".join(f"{k}: {v}" for k, v in MODES.items()).replace("%", "%%"))
    parser.add_argument("--all", action="store_true", help="every mode on both chains, with four sizes of the cache")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--chain", choices=["signed", "growing"], default="signed")
    parser.add_argument("--blocks", type=int, default=300, help="full blocks")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--dbcache", type=int, default=450, help="MiB, for both; 0: what Core takes unless told")
    parser.add_argument("--par", type=int, default=os.cpu_count())
    parser.add_argument("--our-options", default="", help="further ones, as another -backend")
    parser.add_argument("--core-options", default="", help="further ones, for its best settings")
    parser.add_argument("--cold", action="store_true", help="drop the page cache before each run")
    parser.add_argument("--work", default=str(CACHE), help=f"where a folder {OWN_FOLDER} for data directories is made; what is in that one is removed")
    parser.add_argument("--ours", help="a program instead of building it")
    parser.add_argument("--core", help="a bitcoind instead of building it")
    parser.add_argument("--out", help="where result.md, .json and .svg go (default: side_by_side-out in the cache folder)")
    return parser.parse_args()


def plans(args):
    """The arguments of each part: what was asked for, or all there is."""
    if not args.all:
        return [args]
    names = ("chain", "blocks", "dbcache", "modes")
    return [argparse.Namespace(**{**vars(args), **dict(zip(names, each))}) for each in ALL]


def about(bench):
    """What all modes have in common: the machine, and the programs."""
    programs = {node.name: {"version": machine.version(node.program)} for node in bench.nodes}
    if not bench.args.ours:
        programs["cofferdam"]["commit"] = machine.commit(HERE.parent)
    return {**machine.describe(), "programs": programs}


def run_mode(bench, letter):
    """All rounds of a mode, of both nodes in turn."""
    args = bench.args
    title = f"{MODES[letter]}; {args.chain}, dbcache {dbcache(args)}" + (" (Core's default)" if not args.dbcache else "")
    runs = {node.name: [] for node in bench.nodes}
    for number in range(args.rounds):
        # In turn, and the first one changes: what else the machine does falls on both.
        for node in bench.nodes[:: -1 if number % 2 else 1]:
            result = bench.measure(letter, node)
            runs[node.name].append(result)
            print(f"{title}: {node.name} {result['wall']:.2f} s, CPU {result['cpu']:.2f} s", flush=True)
    options = {name: value for name, value in vars(args).items() if name not in UNSAID}
    return {"mode": letter, "title": title, "options": options, "dbcache_mib": dbcache(args), "chain": bench.facts, "runs": runs}


def main():
    args = arguments()
    modes, chain, facts = [], None, None
    for plan in plans(args):
        bench = Bench(plan)
        facts = facts or about(bench)
        if bench.chain != chain:
            # What was made of another chain: the data directories that runs begin with.
            bench.clear()
            chain = bench.chain
        for letter in plan.modes.split(","):
            modes.append(run_mode(bench, letter))
            text = report.write(pathlib.Path(args.out or CACHE / "side_by_side-out"), facts, modes)
    print(text)


if __name__ == "__main__":
    main()
