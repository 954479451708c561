"""Does an index that has no order find each row of its table by the row's own values?

Each value of a column is looked for through the index, and the rows that hold it must be among the answers. A row
counts only if the operator, applied to it in the heap, finds it by its own value: so `&&` asks nothing of an empty
range, and `@>` nothing of NULL in an array. An answer that comes twice, or that is not equal where the operator is
`=`, does not belong in the index.

Choices:
    Only the newest VALUES_MAX values are looked for, fewer where each one costs a walk over the table: they stand where
    the last pages were written. How many rows were found by them is in the check's detail if it is not all.
    Values are told apart by their text, in the C collation; whether they are equal is the operator's affair.
    A column that holds NaN is not read through an index that keeps bounds (gist, spgist, brin): one NaN among them, and
    other rows are not found either, in sound databases too (measured with point, box and cube).
    An index on several columns is asked for each of them on its own.
    PostgreSQL holds the answers of a lossy index (brin, bloom, hash, most of gin) against the row, so only missing rows
    can show there.

Does not check: operator classes that cannot look for a value of their own type; answers that do not fit, where the
    operator is not `=` (near points are equal to one operator and not to the other, in sound databases too); more than
    LEXEMES_MAX lexemes of a document.
"""

from crashlab.model import IndexRead
from crashlab.recovery.forced import BY_VALUE, Forced, Plan, Question
from crashlab.recovery.indexes import Column, Index, NotRead

VALUES_MAX = 500
PAIRS_MAX = 100_000  # values x rows, where values may overlap
BRIN_PAIRS_MAX = 20_000  # each value costs a walk over the rows
LEXEMES_MAX = 100
_OPERATORS = ("=", "~=", "@>", "@@", "&&", "%")
"""The first one that there is. Each finds nearly every value by itself."""
_WITH_BOUNDS = ("gist", "spgist", "brin")

_LEXEMES = f"""(SELECT string_agg(lexeme, ' & ')::tsquery FROM (
  SELECT chr(39) || replace(replace(lexeme, chr(92), repeat(chr(92), 2)), chr(39), repeat(chr(39), 2)) || chr(39)
  FROM unnest(v) LIMIT {LEXEMES_MAX}) quoted(lexeme))"""

# Whatever a user's table and columns are called, the inner queries below have nothing but that table in scope, and
# what comes from outside has a name that nobody else gives.
_QUERY = """
WITH crashlab_held AS MATERIALIZED (
  SELECT at, name, v, {own} AS own, v::text COLLATE "C" AS image
  FROM (SELECT ctid AS at, {row_name} AS name, CASE WHEN {condition} THEN {value} END AS v, {condition} AS inside
    FROM ONLY {table} OFFSET 0) rows
  WHERE inside
), crashlab_value AS MATERIALIZED (
  SELECT row_number() OVER () AS n, own, image FROM (
    SELECT DISTINCT ON (image) own, image, at FROM crashlab_held WHERE own IS NOT NULL ORDER BY image, at DESC
  ) newest ORDER BY at DESC LIMIT {limit}
), crashlab_answer AS MATERIALIZED (
  SELECT n, hit.* FROM crashlab_value, LATERAL (
    SELECT ctid AS at, {row_name} AS name, {value} {operator} crashlab_value.own AS fits FROM ONLY {table}
    WHERE {value} {operator} crashlab_value.own AND {condition} OFFSET 0) hit
  {or_null}
), crashlab_expected AS MATERIALIZED (
  SELECT n, at, name FROM crashlab_held JOIN crashlab_value USING (image)
  WHERE crashlab_held.v {operator} crashlab_value.own
  {or_null_held}
), crashlab_told AS (
  SELECT n, at, min(name) AS name, count(*) AS times, bool_and(fits) AS fits FROM crashlab_answer GROUP BY n, at
)
SELECT 'rows', count(*)::text FROM crashlab_held
UNION ALL SELECT 'nan', count(*)::text FROM crashlab_held WHERE image ~ '(^|[^[:alnum:]])NaN($|[^[:alnum:]])'
UNION ALL SELECT 'expected', count(*)::text FROM crashlab_expected
UNION ALL SELECT 'missing', name FROM crashlab_expected e
  WHERE NOT EXISTS (SELECT FROM crashlab_told t WHERE t.n = e.n AND t.at = e.at)
UNION ALL SELECT 'extra', name FROM crashlab_told WHERE times > 1 {or_unfit}
"""
_NULL = "UNION ALL SELECT 0, ctid, {row_name}, true FROM ONLY {table} WHERE {value} IS NULL AND {condition}"
_NULL_HELD = "UNION ALL SELECT 0, at, name FROM crashlab_held WHERE v IS NULL"


def questions(index: Index) -> list[Question]:
    """Return what `read` will ask."""
    made = (_question(index, column) for column in index.columns)
    return [one for one in made if isinstance(one, Question)]


def read(forced: Forced, index: Index) -> list[IndexRead | NotRead]:
    """Ask an index for the rows of its table; what could not be asked is named, column by column.

    Raises:
        psycopg.Error: the server could not read the index or the table.
    """
    not_read: list[IndexRead | NotRead] = []
    asked, missing, extra = [], set(), []
    for column in index.columns:
        found = _ask(forced, index, column)
        if isinstance(found, NotRead):
            not_read.append(found)
            continue
        asked.append(int(found["expected"][0]))
        missing |= set(found["missing"])
        extra += found["extra"]
        if found["expected"] != found["rows"]:
            reason = f"{found['expected'][0]} of {found['rows'][0]} rows"
            not_read.append(NotRead(_column_name(index, column), reason))
    if not asked:
        return not_read
    rows = max(asked)
    return [index.read(rows, rows - len(missing) + len(extra), missing, extra), *not_read]


def _ask(forced: Forced, index: Index, column: Column) -> dict[str, list[str]] | NotRead:
    name = _column_name(index, column)
    question = _question(index, column)
    if isinstance(question, NotRead):
        return question
    rows = forced.ask(question)
    if isinstance(rows, Plan):
        return NotRead(name, f"the planner chose {rows}")
    found: dict[str, list[str]] = {"rows": [], "nan": [], "expected": [], "missing": [], "extra": []}
    for kind, what in rows:
        found[kind].append(what)
    if found["nan"] != ["0"] and column.category != "S" and index.method in _WITH_BOUNDS:
        return NotRead(name, "it holds NaN")
    if found["expected"] == ["0"] and found["rows"] != ["0"]:
        return NotRead(name, f"no row is found by its own value with {_operator(column)}")
    return found


def _question(index: Index, column: Column) -> Question | NotRead:
    operator = _operator(column)
    if operator is None:
        return NotRead(_column_name(index, column), "no operator that looks for a value of its own type")
    through = {("Index Scan", index.bare_name), ("Bitmap Index Scan", index.bare_name)}

    def fits(plan: Plan) -> bool:
        used = {scan for scan in plan.scans if scan[0] != "Bitmap Heap Scan"}
        return ("Seq Scan", "") in used and bool(used & through) and not used - through - {("Seq Scan", "")}

    return Question(_query(index, column, operator), BY_VALUE, fits, index.name, alone=True)


def _operator(column: Column) -> str | None:
    return next((one for one in _OPERATORS if one in column.operators), None)


def _query(index: Index, column: Column, operator: str) -> str:
    parts = {
        "row_name": index.row_name,
        "table": index.table,
        "condition": index.condition,
        "value": column.value,
        "operator": column.operators[operator],
    }
    pairs = BRIN_PAIRS_MAX if index.method == "brin" else PAIRS_MAX
    share = f"greatest(20, least({VALUES_MAX}, {pairs} / (SELECT 1 + count(*) FROM crashlab_held)))"
    return _QUERY.format(
        **parts,
        own=_LEXEMES if column.lexemes else "v",
        limit=VALUES_MAX if operator == "=" and index.method != "brin" else share,
        or_null=_NULL.format(**parts) if column.finds_null else "",
        or_null_held=_NULL_HELD if column.finds_null else "",
        or_unfit="OR NOT fits" if operator == "=" else "",
    )


def _column_name(index: Index, column: Column) -> str:
    return index.name if len(index.columns) == 1 else f"{index.name}, column {column.name}"
