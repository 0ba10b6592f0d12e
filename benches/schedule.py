#!/usr/bin/env python3
"""How many processors a sync can use: stages measured, on one processor and on all, then scheduled.

    benches/schedule.py                     builds, measures, prints a table
    benches/schedule.py --ours PROGRAM --blocks 200 --rounds 3

What is measured is `-reindex-chainstate` of the signed chain, without scripts and with all of them:
wall time, and the processor time of each thread. From that follows what a block costs in each stage
(`ibd/src/pipeline/mod.rs`), and a simulation of the stages with their bounds says how long so many
processors would take. It knows neither memory bandwidth nor the disk: its figures are upper bounds.
Where it can be compared, both times are printed.
"""

import collections
import heapq
import os
import statistics
import sys

import side_by_side
from measure import Measured

# Bounds of the pipeline: LOAD_AHEAD, IN_FLIGHT_MAX, INPUTS_PER_JOB of ibd/src/pipeline.
LOAD_AHEAD = 16
IN_FLIGHT_MAX = 8
INPUTS_PER_JOB = 64
BLOCKS = 3000
PROCESSORS = (1, 2, 4, 8, 16, 32)

Stages = collections.namedtuple("Stages", "load connect scripts jobs log flush")


class Simulation:
    """The pipeline on some processors: one chain thread, as many workers as processors, one thread
    for the log and one for write-backs. A stage's task is not interrupted."""

    # Who goes first when a processor is free.
    ORDER = ("connect", "log", "flush", "scripts", "load")

    def __init__(self, stages, processors):
        self.stages, self.processors = stages, processors
        self.now, self.free, self.events, self.sequence = 0.0, processors, [], 0
        self.ready = {kind: collections.deque() for kind in self.ORDER}
        self.busy = dict.fromkeys(self.ORDER, 0.0)
        self.running = collections.Counter()
        self.loaded, self.loading, self.connected, self.committed = set(), 0, 0, 0
        self.jobs_left = {}

    def run(self):
        """Seconds for all blocks, and which part of them each thread was busy."""
        self.offer()
        while self.events:
            self.now, _, kind, block = heapq.heappop(self.events)
            self.free += 1
            self.running[kind] -= 1
            self.ended(kind, block)
            self.offer()
        assert self.committed == BLOCKS
        return self.now, {kind: busy / self.now for kind, busy in self.busy.items()}

    def ended(self, kind, block):
        if kind == "load":
            self.loaded.add(block)
        elif kind == "connect":
            self.connected += 1
            self.ready["log"].append(block)
            self.ready["flush"].append(block)
            self.jobs_left[block] = self.stages.jobs
            self.ready["scripts"].extend([block] * self.stages.jobs)
        elif kind == "scripts":
            self.jobs_left[block] -= 1
        while self.committed < self.connected and self.jobs_left[self.committed] == 0:
            self.committed += 1

    def offer(self):
        while self.loading < min(BLOCKS, self.connected + LOAD_AHEAD):
            self.ready["load"].append(self.loading)
            self.loading += 1
        following = self.connected + self.running["connect"]
        if (
            following in self.loaded
            and not self.ready["connect"]
            and self.connected - self.committed < IN_FLIGHT_MAX
        ):
            self.loaded.remove(following)
            self.ready["connect"].append(following)
        for kind in self.ORDER:
            alone = kind in ("connect", "log", "flush")
            while self.free and self.ready[kind] and not (alone and self.running[kind]):
                self.begin(kind, self.ready[kind].popleft())

    def begin(self, kind, block):
        seconds = getattr(self.stages, kind) / (self.stages.jobs if kind == "scripts" else 1)
        self.busy[kind] += seconds
        self.free -= 1
        self.running[kind] += 1
        self.sequence += 1
        heapq.heappush(self.events, (self.now + seconds, self.sequence, kind, block))


def stages_of(bench, plain, scripts):
    """What a block costs in each stage: without scripts, and with them."""
    blocks = bench.facts["full_blocks"] if "full_blocks" in bench.facts else bench.args.blocks

    def spent(runs, name):
        of = [sum(s for each, s in run["threads"].items() if each.startswith(name)) for run in runs]
        return statistics.median(of) / blocks

    jobs = max(1, round(bench.facts["inputs"] / blocks / INPUTS_PER_JOB))
    flush = spent(plain, "cofferdam-flush") + spent(plain, "cofferdam-merge")
    load, log = spent(plain, "validate"), spent(plain, "cofferdam-log")
    without = Stages(load, spent(plain, "chain"), 0.0, 0, log, flush)
    verify = spent(scripts, "validate") - load
    return without, Stages(load, spent(scripts, "chain"), verify, jobs, log, flush)


def binds(processors, busy):
    """Which stage the others wait for."""
    if sum(busy.values()) > 0.97 * processors:
        return "processors"
    if busy["connect"] > 0.97:
        return "connect (one thread)"
    return "the bounds of look-ahead"


def measure(bench):
    """Runs of our node, by mode and number of processors."""
    ours, everything = bench.nodes[0], os.sched_getaffinity(0)
    found = {}
    for mode in "ar":
        for processors in (1, len(everything)):
            os.sched_setaffinity(0, set(sorted(everything)[:processors]))
            bench.args.par = processors
            runs = [bench.measure(mode, ours) for _ in range(bench.args.rounds)]
            found[mode, processors] = runs
            walls = ", ".join(f"{run['wall']:.2f}" for run in runs)
            print(f"{side_by_side.MODES[mode]}, {processors} processors: {walls} s", flush=True)
    os.sched_setaffinity(0, everything)
    return found, len(everything)


def main():
    args = side_by_side.arguments()
    Measured.by_thread = True
    bench = side_by_side.Bench(args)
    bench.clear()
    found, most = measure(bench)
    both = stages_of(bench, found["a", most], found["r", most])
    per_block = bench.full_blocks_mb / args.blocks
    for title, mode, stages in zip(("no scripts", "all scripts"), "ar", both):
        print(f"\n**{title}**; a block of {per_block:.2f} MB, ms of processor: ", end="")
        print(", ".join(f"{k} {getattr(stages, k) * 1e3:.2f}" for k in ("load", "connect", "scripts", "log", "flush")))
        print("\n| processors | measured s | simulated s | MB/s | of one | chain's thread busy | binds |")
        print("|--:|--:|--:|--:|--:|--:|---|")
        one = None
        for processors in PROCESSORS:
            seconds, busy = Simulation(stages, processors).run()
            seconds /= BLOCKS / args.blocks
            one = one or seconds
            runs = found.get((mode, processors))
            measured = f"{statistics.median(run['wall'] for run in runs):.2f}" if runs else ""
            print(
                f"| {processors} | {measured} | {seconds:.2f} | {bench.full_blocks_mb / seconds:.0f} "
                f"| {one / seconds:.2f} | {busy['connect']:.0%} | {binds(processors, busy)} |"
            )


if __name__ == "__main__":
    sys.exit(main())
