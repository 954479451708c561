"""Do the checksums of all files hold once the server is stopped cleanly?

pg_checksums reads every block of every database, whether or not a query ever does, and needs a clean stop for it. So it
comes last, and only for a server whose data directory and binaries are here.

Choices:
    Damage in a map of free space or of visibility is left out: the server takes such a page for an empty one.
    What keeps pg_checksums from its end says nothing about the data: the check is skipped, with the reason.

Source: postgres-contract.md section 6; PostgreSQL's src/bin/pg_checksums/pg_checksums.c for its messages.
"""

import os
import re
import subprocess
import time
from pathlib import Path

import msgspec

from crashlab.errors import ServerError
from crashlab.model import CheckRun, Complaint, Observation
from crashlab.server import Server
from crashlab.server.privileges import server_environment, server_user

NAME = "checksums"
TIMEOUT_S = 120.0
COMPLAINTS_MAX = 20
NOT_STOPPED = CheckRun(status="skipped", count=0, seconds=0.0, detail="needs a clean stop, and the server goes on")
_BAD_BLOCK = re.compile(r'checksum verification failed in file "(.+)", (block \d+: .+)')
_BLOCKS = re.compile(r"^Blocks scanned: +(\d+)", re.MULTILINE)
_MAPS = ("_fsm", "_vm")


def add_checksums(server: Server, observation: Observation) -> Observation:
    """Stop a server that was read, check its files, and return the observation with what was found.

    A server that did not start, or went away while it was read, has been found damaged already: nothing is added.
    """
    if not observation.recovery.started or observation.died is not None:
        return observation
    begun = time.monotonic()
    complaints: list[Complaint] = []
    counted = _count_blocks(server, complaints)
    run = CheckRun(
        status="ran" if isinstance(counted, int) else "skipped",
        count=counted if isinstance(counted, int) else 0,
        seconds=round(time.monotonic() - begun, 4),
        detail="" if isinstance(counted, int) else counted,
    )
    return msgspec.structs.replace(
        observation,
        checks={**observation.checks, NAME: run},
        complaints=[*observation.complaints, *complaints],
    )


def _count_blocks(server: Server, complaints: list[Complaint]) -> int | str:
    """Return the number of blocks that were read, or why that could not be."""
    program = Path(server.source) / "pg_checksums"
    data = server.data_directory
    if server.kind != "local" or data is None:
        return "the data directory is in a container"
    if not program.exists():
        return f"no pg_checksums in {program.parent}"
    try:
        server.stop("fast")
        done = subprocess.run(
            [program, "--check", "-D", data],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT_S,
            cwd="/",
            env=server_environment(),
            **server_user().credentials(),
        )
    except ServerError as error:
        return str(error)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"could not run pg_checksums: {error}"
    blocks = _BLOCKS.search(done.stdout)
    if blocks is None:
        return done.stderr.strip() or f"pg_checksums ended with exit code {done.returncode}"
    for file, what in _BAD_BLOCK.findall(done.stderr):
        if not file.split(".")[0].endswith(_MAPS) and len(complaints) < COMPLAINTS_MAX:
            path = os.path.relpath(file, data)
            complaints.append(Complaint(check=NAME, object=path, file=path, sqlstate=None, message=what))
    return int(blocks[1])
