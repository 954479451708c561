"""Is damage that is planted in a real data directory found, named, and never found where there is none?"""

from collections.abc import Callable
from pathlib import Path

import pytest

from crashlab.model import Outcome, PromiseStatus
from crashlab.results import TrialResult
from crashlab.server import Server

PAGE = 8192
RunOne = Callable[..., TrialResult]
Damage = Callable[[Path, Callable[[str], str]], str]

pytestmark = pytest.mark.server


def plant(damage: Damage, named: list[str]) -> Callable[[Server], None]:
    """Recover and stop the server cleanly, so that no redo repairs what is then planted in its files."""

    def before_recovery(server: Server) -> None:
        server.start()
        with server.connect(autocommit=True) as connection:
            files = {
                name: connection.execute("SELECT pg_relation_filepath(%s)", (f"crashlab.{name}",)).fetchall()[0][0]
                for name in ("marker", "marker_pkey", "account", "register")
            }
            files["value"] = connection.execute("SELECT max(value) FROM crashlab.register").fetchall()[0][0]
            files["xid"] = str(connection.execute("SELECT max(xid) FROM crashlab.marker").fetchall()[0][0])
        server.stop("fast")
        assert server.data_directory is not None
        named.append(damage(server.data_directory, files.__getitem__))

    return before_recovery


def rewrite(path: Path, offset: int, data: bytes) -> None:
    """Overwrite some bytes in the middle of a file."""
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def nothing(data: Path, file: Callable[[str], str]) -> str:
    """Plant no damage: the innocent twin of all the others."""
    return ""


def zero_a_heap_page(data: Path, file: Callable[[str], str]) -> str:
    """An all-zero page passes checksums and amcheck."""
    rewrite(data / file("marker"), PAGE, bytes(PAGE))
    return file("marker")


def truncate_a_table(data: Path, file: Callable[[str], str]) -> str:
    """A table cut to nothing starts cleanly."""
    (data / file("account")).write_bytes(b"")
    return file("account")


def flip_a_bit_of_a_value(data: Path, file: Callable[[str], str]) -> str:
    """One bit in the text of a row that is there, and of its dead copies."""
    path = data / file("register")
    value = file("value").encode()
    damaged = bytes([value[0] ^ 1]) + value[1:]
    content = path.read_bytes()
    assert value in content
    path.write_bytes(content.replace(value, damaged))
    return file("register")


def flip_a_bit_of_a_header(data: Path, file: Callable[[str], str]) -> str:
    """One bit in the middle of a page; with checksums the whole page is refused."""
    path = data / file("account")
    rewrite(path, PAGE - 100, bytes([path.read_bytes()[PAGE - 100] ^ 4]))
    return file("account")


def abort_a_committed_transaction(data: Path, file: Callable[[str], str]) -> str:
    """Two bits of pg_xact: the newest committed transaction becomes an aborted one."""
    xid = int(file("xid"))
    path = data / "pg_xact" / f"{xid // 1048576:04X}"
    offset, shift = (xid % 1048576) // 4, 2 * (xid % 4)
    byte = path.read_bytes()[offset]
    assert byte >> shift & 3 == 1
    rewrite(path, offset, bytes([byte & ~(3 << shift) | 2 << shift]))
    return f"pg_xact/{path.name}"


def remove_an_index(data: Path, file: Callable[[str], str]) -> str:
    """A file of an index is gone."""
    (data / file("marker_pkey")).unlink()
    return file("marker_pkey")


def remove_pg_xact(data: Path, file: Callable[[str], str]) -> str:
    """The commit status of every transaction is gone."""
    (data / "pg_xact" / "0000").unlink()
    return "pg_xact"


def damage_pg_control(data: Path, file: Callable[[str], str]) -> str:
    """A flipped byte in the control file breaks its checksum."""
    path = data / "global" / "pg_control"
    rewrite(path, 40, bytes([path.read_bytes()[40] ^ 255]))
    return "control file"


CHECKSUMS_OFF = 'server.initdb=["--no-data-checksums"]'


@pytest.mark.parametrize(
    ("damage", "overrides", "outcome"),
    [
        (nothing, (), Outcome.INTACT),
        (nothing, (CHECKSUMS_OFF,), Outcome.INTACT),
        (zero_a_heap_page, (), Outcome.CORRUPTION),
        (truncate_a_table, (), Outcome.CORRUPTION),
        (flip_a_bit_of_a_value, (CHECKSUMS_OFF,), Outcome.CORRUPTION),
        (flip_a_bit_of_a_value, (), Outcome.CORRUPTION),
        (flip_a_bit_of_a_header, (), Outcome.CORRUPTION),
        (abort_a_committed_transaction, (), Outcome.CORRUPTION),
        (remove_an_index, (), Outcome.CORRUPTION),
        (remove_pg_xact, (), Outcome.NO_START),
        (damage_pg_control, (), Outcome.NO_START),
    ],
)
def test_damage_is_found_and_its_file_named(
    run_one: RunOne, damage: Damage, overrides: tuple[str, ...], outcome: Outcome
) -> None:
    """Each planted damage gives its outcome and names the file; no damage gives no finding."""
    named: list[str] = []
    result = run_one("kill9-all", *overrides, before_recovery=plant(damage, named))
    assert named, "the damage was not planted"
    findings = [(finding.code, finding.summary, finding.evidence) for finding in result.verdict.findings]
    print(*result.verdict.findings, sep="\n")
    assert result.verdict.outcome is outcome, findings
    if outcome is Outcome.INTACT:
        assert result.verdict.promise is PromiseStatus.KEPT
        assert findings == []
    else:
        assert result.verdict.promise is PromiseStatus.BROKEN
        assert named[0] in str(findings)


def test_a_checksum_that_fails_is_seen_although_the_server_is_told_to_overlook_it(run_one: RunOne) -> None:
    """The observer's own session takes neither zeros nor a damaged page for data."""
    overlooking = ("zero_damaged_pages=on", "ignore_checksum_failure=on")
    result = run_one("kill9-all", *overlooking, before_recovery=plant(flip_a_bit_of_a_header, []))
    assert "CORRUPT-UNREADABLE" in [finding.code for finding in result.verdict.findings], result.verdict.findings
