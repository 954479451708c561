"""Is a page that was flushed and then lost found, and is a disk that keeps its word never accused?

Without a kernel: files that are changed as a power cut would. With one: a file system in a file is cut off while a
client writes to it. The guilty set-up flushes nothing; its innocent twin differs in that alone.
"""

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from crashlab.cli import invoke
from crashlab.errors import EvidenceError, UsageProblem
from crashlab.flush import ledgerserver
from crashlab.flush.ledgerserver import Begin, Flushed, Last, Ledger, LedgerClient, LedgerServer, address_of
from crashlab.flush.powercut import (
    FILE,
    PAGE_BYTES,
    SECTOR_BYTES,
    expected,
    hold_against,
    page_bytes,
    sector,
    write_pages,
)
from crashlab.recording.kernelcut import FileSystem, LoopDisk

SEED, PAGES, WRITES = 5, 16, 40
SECONDS_MAX = 60


def written(folder: Path, writes: int = WRITES) -> None:
    """A disk with so many writes, all of them in the ledger."""
    done = write_pages(folder, SEED, PAGES, "none", lambda: None, lambda number: number < writes)
    assert done == writes


def patch(folder: Path, at: int, data: bytes) -> None:
    with (folder / FILE).open("r+b") as file:
        file.seek(at)
        file.write(data)


def test_what_was_written_is_there(tmp_path):
    """Nothing is wrong with a disk that kept everything, nor if it kept more or less of the page under way."""
    written(tmp_path)
    held = hold_against(tmp_path, SEED, PAGES, WRITES)
    assert (held.wrong, held.under_way, held.flushed) == ([], "old", WRITES)
    _, next_page = expected(SEED, PAGES, WRITES)
    for sectors, became in ((3, "3 of 8 sectors new"), (8, "new")):
        patch(tmp_path, next_page * PAGE_BYTES, page_bytes(SEED, WRITES + 1, next_page)[: sectors * SECTOR_BYTES])
        held = hold_against(tmp_path, SEED, PAGES, WRITES)
        assert (held.wrong, held.under_way) == ([], became)


@pytest.mark.parametrize("what", ["older page", "older sector", "zeros", "another place", "flipped bit", "future"])
def test_each_kind_of_loss_is_found(tmp_path, what):
    """One page that is not as the ledger says is named, and is called damaged where no write of it left that."""
    written(tmp_path)
    last, next_page = expected(SEED, PAGES, WRITES)
    page = next(page for page in last if page != next_page)
    at = page * PAGE_BYTES
    data, damaged = {
        "older page": (page_bytes(SEED, 0, page), False),
        "older sector": (sector(SEED, 0, page, 0), False),
        "zeros": (bytes(SECTOR_BYTES), True),
        "another place": (sector(SEED, last[page], page + 1, 0), True),
        "flipped bit": (bytes([sector(SEED, last[page], page, 0)[0] ^ 1]), True),
        "future": (page_bytes(SEED, WRITES + 7, page), True),
    }[what]
    patch(tmp_path, at, data)
    (wrong,) = hold_against(tmp_path, SEED, PAGES, WRITES).wrong
    assert (wrong.page, wrong.flushed, wrong.damaged) == (page, last[page], damaged)


def test_a_file_that_is_gone_or_shorter_has_lost_its_pages(tmp_path):
    """All pages, or those behind the end."""
    written(tmp_path)
    with (tmp_path / FILE).open("r+b") as file:
        file.truncate(10 * PAGE_BYTES)
    assert [wrong.page for wrong in hold_against(tmp_path, SEED, PAGES, WRITES).wrong] == list(range(10, PAGES))
    (tmp_path / FILE).unlink()
    assert len(hold_against(tmp_path, SEED, PAGES, WRITES).wrong) == PAGES


def test_nothing_is_overwritten(tmp_path):
    """A file of an earlier run is evidence."""
    written(tmp_path)
    with pytest.raises(EvidenceError, match="it exists"):
        written(tmp_path)


# --- the ledger


@contextmanager
def serving(folder: Path) -> Iterator[tuple[Ledger, str]]:
    """A ledger that listens on a free port of this machine."""
    ledger = Ledger(folder)
    with LedgerServer(("127.0.0.1", 0), ledger) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield ledger, f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()
    ledger.close()


def test_a_ledger_is_one_run_after_the_other_and_survives_its_keeper(tmp_path):
    """Numbers follow one another; what does not is refused; read again it says the same; damage is an error."""
    begin = Begin(seed=1, pages=2, method="fsync", boot="b")
    with serving(tmp_path) as (_, where):
        with LedgerClient(address_of(where)) as client:
            assert client.ask(Last()).run is None
            client.ask(begin)
            client.ask(Flushed(1))
            with pytest.raises(EvidenceError, match="write 3 does not follow"):
                client.ask(Flushed(3))
        with socket.create_connection(address_of(where)) as stranger:
            stranger.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert b'"ok":false' in stranger.makefile("rb").readline()
    with serving(tmp_path) as (_, where), LedgerClient(address_of(where)) as client:
        run = client.ask(Last()).run
    assert run is not None
    assert (run.begun, run.flushed) == (begin, 1)
    (tmp_path / ledgerserver.LEDGER).write_text('{"event":"flushed","number":9}\n')
    with pytest.raises(EvidenceError, match=r"damaged ledger .* line 1"):
        Ledger(tmp_path)


def test_addresses(tmp_path, capsys):
    """HOST:PORT and its short forms; anything else, and nobody there, is a clear error."""
    assert address_of("10.0.0.2:77") == ("10.0.0.2", 77)
    assert address_of("disk-host") == ("disk-host", ledgerserver.DEFAULT_PORT)
    assert address_of(":77") == ("", 77)
    for wrong in ("host:x", "host:99999", ""):
        with pytest.raises(UsageProblem, match="cannot use the address"):
            address_of(wrong)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert invoke(["disk", str(tmp_path), "--verify", f"127.0.0.1:{port}"]) == 4
    assert "could not reach the ledger" in capsys.readouterr().err
    assert invoke(["disk", str(tmp_path), "--disk-alone"]) == 2


def test_without_a_cut_nothing_is_shown(tmp_path, capsys):
    """A run that simply ended keeps everything, of course: inconclusive, and so is one without a flushed page."""
    with serving(tmp_path / "ledger") as (ledger, where):
        assert invoke(["disk", str(tmp_path), "--client", where, "--pages", "4", "--seconds", "50ms"]) == 0
        assert invoke(["disk", str(tmp_path), "--verify", where]) == 3
        assert "has not been restarted" in capsys.readouterr().out
        assert invoke(["disk", str(tmp_path), "--verify", where, "--disk-alone", "--json", "-"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert ledger.run is not None
        assert (told["code"], told["flushed"], told["wrong"]) == (0, ledger.run.flushed, [])
        ledger.note(Begin(seed=9, pages=4, method="fsync", boot="b"))
        assert invoke(["disk", str(tmp_path), "--verify", where, "--disk-alone"]) == 1  # another run's file


# --- a real file system that is cut off


@pytest.mark.parametrize("kind", [pytest.param("ext4", marks=pytest.mark.kernel("ext4"))])
@pytest.mark.parametrize(("method", "code"), [("none", 1), ("fdatasync", 0), ("open_datasync", 0)])
def test_a_power_cut_finds_out_who_does_not_flush(kind: FileSystem, method, code, tmp_path, capsys):
    """Cut off after 200 noted pages: without a flush pages are older than noted, with one all are there."""
    folder = Path("/tmp") / f"crashlab-powercut-{tmp_path.name}"
    with LoopDisk(folder, kind) as disk, serving(tmp_path / "ledger") as (ledger, where):
        command = [sys.executable, "-m", "crashlab", "disk", str(disk.mount), "--client", where, "--pages", "64"]
        client = subprocess.Popen(
            [*command, "--method", method], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        try:
            end = time.monotonic() + SECONDS_MAX
            while ledger.run is None or ledger.run.flushed < 200:
                assert client.poll() is None
                assert time.monotonic() < end
                time.sleep(0.002)
            disk.cut()
            _, said = client.communicate(timeout=SECONDS_MAX)
        finally:
            client.kill()
            client.wait()
        assert client.returncode == 4, said
        assert "flushed pages" in said
        disk.remount()
        assert invoke(["disk", str(disk.mount), "--verify", where, "--disk-alone"]) == code
        assert ("NOT KEPT" in capsys.readouterr().out) == (code == 1)
