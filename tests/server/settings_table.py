"""Write the table of settings from real servers, one of each major version; several of one are taken together.

    python tests/server/settings_table.py BINDIR ...

The words of all builds of a version count, and of versions that say the same there is one row.
"""

import sys
from pathlib import Path

import msgspec

sys.path.insert(0, str(Path(__file__).parents[2]))  # when run as a program

from crashlab.server import ServerSpec, create_server
from crashlab.server.settingstable import TABLE, Row

OF_SOME_BUILDS = {
    "default_toast_compression": ["lz4"],
    "io_method": ["io_uring"],
    "wal_compression": ["lz4", "zstd"],
}
"""Words that a build has if it was made with a library (guc_tables.c): another one's are right, too."""
QUERY = """
SELECT name, vartype, unit, min_val::float8, max_val::float8, coalesce(enumvals, '{}'), context = 'internal'
FROM pg_settings WHERE name !~ '\\.' ORDER BY name
"""


def rows_of(bindir: Path | None) -> tuple[int, dict[str, Row]]:
    """Return a build's major version, and what it says about each setting."""
    with create_server(ServerSpec(kind="local", pg_bindir=bindir)) as server:
        server.start()
        with server.connect(autocommit=True) as connection:
            found = connection.execute(QUERY).fetchall()
        major = server.version.major
    return major, {name.lower(): _row(major, name, *facts) for name, *facts in found}


def _row(
    major: int,
    name: str,
    vartype: str,
    unit: str | None,
    low: float | None,
    high: float | None,
    words: list[str],
    internal: bool,
) -> Row:
    if vartype == "enum":
        words += [word for word in OF_SOME_BUILDS.get(name, []) if word not in words]
    return Row([major], vartype, unit, _plain(low), _plain(high), words, internal)


def _plain(number: float | None) -> int | float | None:
    return int(number) if number is not None and number.is_integer() else number


def together(rows: list[Row]) -> Row:
    """Return one row for builds of one version: they differ in words alone."""
    words = list(dict.fromkeys(word for row in rows for word in row.words))
    (one,) = {msgspec.json.encode(msgspec.structs.replace(row, words=words)) for row in rows}
    return msgspec.json.decode(one, type=Row)


def main() -> None:
    """Be the program."""
    found: dict[str, dict[int, list[Row]]] = {}
    for bindir in map(Path, sys.argv[1:]):
        major, rows = rows_of(bindir)
        for name, row in rows.items():
            found.setdefault(name, {}).setdefault(major, []).append(row)
    lines = []
    for name, by_major in sorted(found.items()):
        kept: list[Row] = []
        for _, of_major in sorted(by_major.items()):
            row = together(of_major)
            if kept and msgspec.structs.replace(kept[-1], majors=[]) == msgspec.structs.replace(row, majors=[]):
                kept[-1] = msgspec.structs.replace(kept[-1], majors=[*kept[-1].majors, *row.majors])
            else:
                kept.append(row)
        lines.append(f"{msgspec.json.encode(name).decode()}:{msgspec.json.encode(kept).decode()}")
    TABLE.write_text("{" + ",\n".join(lines) + "}\n")


if __name__ == "__main__":
    main()
