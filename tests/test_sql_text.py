"""Are variables in SQL found where they mean something?"""

from crashlab.sql_text import fill_in, variables_in


def test_variables_are_found_where_they_mean_something():
    """Not in quotes, dollar quotes and comments; a cast is none."""
    text = """SELECT :id::text, ':id', ":id", E'\\':id', $$ :id $$, $a$ $$ :id $a$, x[1: n] -- :id
              /* :id */ WHERE name = :name AND n = :tx"""
    assert variables_in(text) == {"id", "name", "tx"}
    filled = fill_in(text, {"id": -7, "name": "it's", "tx": 3})
    assert filled.startswith("SELECT (-7)::text, ':id', \":id\"")
    assert filled.endswith("WHERE name = 'it''s' AND n = 3")
    assert filled.count(":id") == text.count(":id") - 1
