"""What is measured with: the machine, the time and the programs."""

import datetime
import os
import platform
import subprocess


def memory_bytes():
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def found(path, name, otherwise):
    """What a file of lines `name: value` or `name=value` has for a name."""
    try:
        with open(path, encoding="utf-8") as lines:
            for line in lines:
                front, _, value = line.replace("=", ":", 1).partition(":")
                if front.strip() == name:
                    return value.strip().strip('"')
    except OSError:
        pass
    return otherwise


def describe():
    now = datetime.datetime.now(datetime.timezone.utc)
    return {
        "date": now.isoformat(timespec="minutes"),
        "processor": found("/proc/cpuinfo", "model name", platform.machine()),
        "processors": os.cpu_count(),
        "memory_mib": memory_bytes() >> 20,
        "kernel": f"{platform.system()} {platform.release()}",
        "system": found("/etc/os-release", "PRETTY_NAME", "unknown"),
    }


def output(*command, **options):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, **options).stdout.strip()


def version(program):
    """What a node says that it is."""
    return output(program, "-version").splitlines()[0]


def commit(checkout):
    """What of a checkout is built; nothing if it is not of git."""
    try:
        return output("git", "describe", "--always", "--dirty", cwd=checkout, stderr=subprocess.DEVNULL)
    except (OSError, subprocess.CalledProcessError):
        return None
