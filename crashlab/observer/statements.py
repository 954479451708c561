"""What will a piece of SQL do to the transaction that it runs in?

Only first words are read, and where one statement ends and the next begins: enough to foresee a commit before the
server says so. What was done in the end is taken from the server's answers.

Bytes are read one character each, so that positions are those of the message. In an encoding whose second bytes may
look like a quote or a backslash that would be wrong (`UNSAFE_ENCODINGS`).
"""

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

UNSAFE_ENCODINGS = frozenset({"BIG5", "GBK", "UHC", "GB18030", "JOHAB", "SJIS", "SHIFT_JIS_2004"})
"""Of a client: their later bytes may be ASCII (PostgreSQL mbutils.c, "client-only encodings")."""
CACHED_CHARACTERS_MAX = 5000

_TOKENS = r"""
    (?P<word>[A-Za-z_\x80-\uffff][\w$\x80-\uffff]*)
  | (?P<ident>"(?:[^"]|"")*")
  | (?P<dollars>\$(?:[A-Za-z_\x80-\uffff][\w\x80-\uffff]*)?\$).*?(?P=dollars)
  | (?P<number>[$\d][\w.]*)
  | (?P<line>--[^\n\r]*) | (?P<block>/\*)
  | (?P<blank>\s+) | (?P<other>.)
"""
_FLAGS = re.VERBOSE | re.DOTALL
_ESCAPED = r"[eE]'(?:[^'\\]|\\.|'')*'"
_STANDARD = re.compile(rf"(?P<quoted>{_ESCAPED}|'(?:[^']|'')*') | {_TOKENS}", _FLAGS)
_BACKSLASH = re.compile(rf"(?P<quoted>{_ESCAPED}|'(?:[^'\\]|\\.|'')*') | {_TOKENS}", _FLAGS)  # before 9.1's default
_COMMENT = re.compile(r"/\*|\*/")

CONTROL = {
    "begin": "begin",
    "start": "begin",
    "commit": "commit",
    "end": "commit",
    "rollback": "rollback",
    "abort": "rollback",
    "savepoint": "savepoint",
    "release": "savepoint",
}
QUIET = frozenset(
    {
        "set",
        "reset",
        "show",
        "begin",
        "start",
        "deallocate",
        "prepare",
        "listen",
        "unlisten",
        "fetch",
        "move",
        "close",
        "explain",
    }
)
"""First words of what is given no transaction id."""
READS = frozenset({"select", "values", "table", "with"})
WRITES = frozenset({"insert", "update", "delete", "merge"})
OBJECTS = frozenset(
    {
        "access",
        "aggregate",
        "cast",
        "collation",
        "constraint",
        "conversion",
        "default",
        "domain",
        "event",
        "extension",
        "foreign",
        "function",
        "group",
        "index",
        "language",
        "large",
        "materialized",
        "operator",
        "owned",
        "policy",
        "procedure",
        "publication",
        "recursive",
        "role",
        "routine",
        "rule",
        "schema",
        "sequence",
        "server",
        "statistics",
        "table",
        "temp",
        "temporary",
        "text",
        "trigger",
        "trusted",
        "type",
        "unique",
        "unlogged",
        "user",
        "view",
    }
)
"""Second words of CREATE, ALTER and DROP of what may be made in a transaction block: not a database, a tablespace, a
subscription or a setting of the system."""
CHANGES = frozenset({"comment", "grant", "import", "reassign", "refresh", "revoke", "security", "truncate"})
"""First words of what else may, and changes something."""


@dataclass(frozen=True)
class Statement:
    """One statement of a message."""

    kind: str
    """"begin", "commit", "rollback", "rollback to", "savepoint", "prepare transaction", "commit prepared",
    "rollback prepared", "nothing", "quiet", "read", "write", "call" (CALL and DO, which may commit any number of
    times), or "other": anything else, such as VACUUM, which commits on its own."""
    text: str
    gid: str = ""  # of a two-phase one
    chain: bool = False  # AND CHAIN
    company: bool = False  # it does the same with another statement behind it in the same message
    copies_in: bool = False  # COPY FROM STDIN: the client sends rows

    @property
    def commits(self) -> bool:
        """It asks for the end of a transaction block, or of a prepared one, that makes it durable."""
        return self.kind in ("commit", "prepare transaction", "commit prepared")


@functools.lru_cache(maxsize=2000)
def _cached(text: str, standard: bool) -> tuple[Statement, ...]:
    return tuple(_split(text, standard))


def statements_of(text: str, *, standard_strings: bool = True) -> tuple[Statement, ...]:
    """Return the statements of a message, without empty ones.

    Args:
        standard_strings: the setting standard_conforming_strings.
    """
    if len(text) > CACHED_CHARACTERS_MAX:
        return tuple(_split(text, standard_strings))
    return _cached(text, standard_strings)


def _tokens(text: str, standard: bool) -> Iterator[tuple[str, str, int, int]]:
    """Yield kind, text, begin and end of each token that is no blank and no comment."""
    pattern, at = (_STANDARD if standard else _BACKSLASH), 0
    while match := pattern.match(text, at):
        kind, begin, at = str(match.lastgroup), match.start(), match.end()
        if kind == "block":
            at = _after_comment(text, at)
        elif kind not in ("blank", "line"):
            yield kind, match[0], begin, at


def _after_comment(text: str, at: int) -> int:
    depth = 1  # they nest
    while depth and (match := _COMMENT.search(text, at)):
        depth += 1 if match[0] == "/*" else -1
        at = match.end()
    return at if depth == 0 else len(text)


def _split(text: str, standard: bool) -> Iterator[Statement]:
    words: list[str] = []  # outside of parentheses, in lower case; quoted ones in their quotes
    begin = end = -1
    depth = blocks = 0  # parentheses; BEGIN ATOMIC and CASE in the body of a function
    for kind, token, start, stop in _tokens(text, standard):
        if token == ";" and depth <= 0 and not blocks:
            if begin >= 0:
                yield classify(tuple(words), text[begin:end])
            words, begin, depth = [], -1, 0
            continue
        begin, end = (start if begin < 0 else begin), stop
        depth += (token == "(") - (token == ")")
        if kind == "word":
            word = token.lower()
            if words[:1] == ["create"] and word == "atomic" and words[-1] == "begin":
                blocks = 1
            elif blocks:
                blocks += (word in ("case", "begin")) - (word == "end")
            if depth == 0:
                words.append(word)
        elif depth == 0 and kind in ("quoted", "ident"):
            words.append(token)
    if begin >= 0:
        yield classify(tuple(words), text[begin:end])


def classify(words: tuple[str, ...], text: str) -> Statement:
    """Return what the words of one statement outside of parentheses say."""
    first = words[0] if words else ""
    if first in CONTROL or words[:2] == ("prepare", "transaction"):
        return _control(words, text)
    lower = text.lower()
    plain = Statement("other", text)
    if first in READS or not first:  # "(SELECT ...)" begins with no word
        touches = any(re.search(rf"\b{word}\b", lower) for word in (*WRITES, "into"))
        return replace(plain, kind="write" if touches else "read", company=bool(first))
    if first in ("call", "do"):
        return replace(plain, kind="call")
    if first in WRITES or first in CHANGES or first == "execute":
        return replace(plain, kind="write", company=True)
    if first == "copy":
        comes = "from" in words
        return replace(plain, kind="write" if comes else "read", company=True, copies_in=comes and "stdin" in words)
    if first in QUIET:
        if first == "explain" and "analyze" in lower:
            return plain
        return replace(plain, kind="quiet", company=True)
    if first in ("create", "drop", "alter") and "concurrently" not in words:
        named = [word for word in words[1:5] if word not in ("or", "replace", "global", "local")]
        fits = bool(named) and named[0] in OBJECTS
        return replace(plain, kind="write" if fits else "other", company=fits)
    return plain


def _control(words: tuple[str, ...], text: str) -> Statement:
    kind = CONTROL.get(words[0], "")
    gid = words[-1][1:-1].replace("''", "'") if words[-1].startswith("'") else ""
    if words[:2] == ("prepare", "transaction"):
        return Statement("prepare transaction", text, gid)
    if kind in ("commit", "rollback") and words[1:2] == ("prepared",):
        return Statement(f"{kind} prepared", text, gid)
    if kind == "rollback" and "to" in words[1:3]:
        return Statement("rollback to", text)
    return Statement(kind, text, chain=words[-1] == "chain" and "no" not in words)


def changed_setting(text: str, name: str) -> bool:
    """Say whether a statement may have changed a setting, as far as its own text shows."""
    return re.search(rf"\b{name}\b", text, re.IGNORECASE) is not None and (
        re.match(r"\s*(set|reset|alter)\b", text, re.IGNORECASE) is not None or "set_config" in text.lower()
    )
