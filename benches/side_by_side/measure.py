"""Runs a process and says what it cost: time, memory, bytes read and written."""

import glob
import os
import subprocess
import threading
import time

SAMPLE_SECONDS = 0.05


class Measured:
    """A process that is watched until it ends."""

    # Whether its threads are watched too: more work beside what is measured, for who asks only.
    by_thread = False

    def __init__(self, command, log):
        self.command = command
        with open(log, "ab") as output:
            self.child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        self.started = time.monotonic()
        self.rss_kib, self.anonymous_kib = 0, 0
        self.sampling = threading.Lock()
        self.threads = {}
        self.result = None
        self.watcher = threading.Thread(target=self._watch, daemon=True)
        self.watcher.start()

    @property
    def pid(self):
        return self.child.pid

    def _watch(self):
        while self.child.returncode is None and self.result is None:
            self.sample()
            if self.by_thread:
                self.threads.update(threads(self.pid))
            time.sleep(SAMPLE_SECONDS)

    def sample(self):
        """Takes note of its memory. Who is about to end it calls this first: a short life has few samples."""
        with self.sampling:
            # Not `ru_maxrss`: that of a child begins with what its parent, this script, has used.
            self.rss_kib = max(self.rss_kib, field(self.pid, "status", "VmHWM:"))
            self.anonymous_kib = max(self.anonymous_kib, field(self.pid, "status", "RssAnon:"))

    def wait(self):
        """Waits for the end; returns what the process cost."""
        # Its counters are read while it is a zombie: they are complete, and still there.
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        wall = time.monotonic() - self.started
        io = {name: field(self.pid, "io", name + ":") for name in ("read_bytes", "write_bytes")}
        _, status, usage = os.wait4(self.pid, 0)
        self.child.returncode = os.waitstatus_to_exitcode(status)
        self.result = {
            "wall": wall,
            "user": usage.ru_utime,
            "system": usage.ru_stime,
            "cpu": usage.ru_utime + usage.ru_stime,
            "rss_mb": self.rss_kib * 1024 / 1e6,
            "anonymous_mb": self.anonymous_kib * 1024 / 1e6,
            "read_mb": io["read_bytes"] / 1e6,
            "written_mb": io["write_bytes"] / 1e6,
            "exit": self.child.returncode,
        }
        self.watcher.join()
        if self.by_thread:
            self.result["threads"] = self.by_name()
        return self.result

    def by_name(self):
        """Processor seconds of all threads of a name, to within a sample."""
        sums = {}
        for name, seconds in list(self.threads.values()):
            sums[name] = round(sums.get(name, 0) + seconds, 2)
        return sums


def threads(pid):
    """Name and processor seconds so far of each thread, by its id."""
    found = {}
    for task in glob.glob(f"/proc/{pid}/task/*/stat"):
        try:
            with open(task, encoding="ascii", errors="replace") as stat:
                front, _, rest = stat.read().rpartition(")")
        except OSError:
            continue
        fields = rest.split()
        ticks = int(fields[11]) + int(fields[12])
        found[task] = (front.partition("(")[2], ticks / os.sysconf("SC_CLK_TCK"))
    return found


def field(pid, file, name):
    """A number of a file below /proc; 0 if the process is gone."""
    try:
        with open(f"/proc/{pid}/{file}", encoding="ascii") as lines:
            for line in lines:
                if line.startswith(name):
                    return int(line.split()[1])
    except OSError:
        pass
    return 0


def drop_page_cache():
    """Lets the next process begin with a cold page cache; False if that is not permitted."""
    os.sync()
    try:
        with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as control:
            control.write("3\n")
    except OSError:
        return False
    return True
