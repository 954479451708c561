"""What did the server itself warn of while it recovered?

Checks: every WARNING between the begin of recovery and the first connection, and the lines of level LOG that speak of
    damage; a page of a table, an index or a visibility map for which the server took zeros.
Does not check: what it logged before the crash, when sessions of any kind could make it warn; FATAL and PANIC, which
    `start` tells. Pages of a free space map, which is a hint, are told and no damage.
Choices: a warning alone is a note; what it means for the data is for the checks of the data to say.

Sources: postgres-contract.md 4, 6; twophase.c, multixact.c, bufmgr.c for their messages.
"""

import re
from collections.abc import Iterator

from crashlab.model import Observation, Recovery
from crashlab.oracle.findings import Findings
from crashlab.oracle.physical import ZEROED, files_in, is_hint

_BEGINS = ("database system was interrupted", "not properly shut down", "reinitializing")
_READY = "ready to accept connections"
_WARNING = re.compile(r"\bWARNING:\s+(.*)")
_LOG = re.compile(r"\bLOG:\s+(.*)")
_OF_DAMAGE = ("wraparound protections are disabled", "invalid page")
_OF_SESSIONS = ("terminating connection",)


def warnings(recovery: Recovery) -> list[str]:
    """Return what the server warned of while it recovered, each line once, without its prefix."""
    return list(dict.fromkeys(_warnings(recovery.log_lines)))


def _warnings(lines: list[str]) -> Iterator[str]:
    recovering = False
    for line in lines:
        if any(sign in line for sign in _BEGINS):
            recovering = True
        elif _READY in line:
            recovering = False
        elif not recovering:
            continue
        elif match := _WARNING.search(line):
            if not match[1].startswith(_OF_SESSIONS):
                yield match[1].strip()
        elif (match := _LOG.search(line)) and any(text in match[1] for text in _OF_DAMAGE):
            yield match[1].strip()


def check_server_log(findings: Findings, observation: Observation) -> None:
    """Tell what the server warned of."""
    for text in warnings(observation.recovery):
        says = f"While it recovered, the server warned: {text}."
        if ZEROED in text and not is_hint(text):
            findings.add("CORRUPT-UNREADABLE", "recovery", says, files=files_in(text), warning=text)
        else:
            findings.add("NOTE-SERVER-WARNING", "server log", says, files=files_in(text), warning=text)
