"""On what machine does this run, in words that matter for a crash test and name nobody?"""

import os
import platform

import psutil


def this_machine() -> str:
    """Return kernel, architecture, processors and memory; no host name, for reports are passed on."""
    processors = len(os.sched_getaffinity(0))
    memory_gb = psutil.virtual_memory().total / 1e9
    return (
        f"{platform.system()} {platform.release()}, {platform.machine()}, "
        f"{processors} processor{'s' if processors != 1 else ''}, {memory_gb:.0f} GB"
    )
