"""How many examples does a property test try?

As few as find a break that was made on purpose, every day; more where somebody has the time:
`CRASHLAB_TEST_EXAMPLES=20 pytest -m 'not (server or container or kernel)'` tries twenty times as many.
"""

import os

TIMES = float(os.environ.get("CRASHLAB_TEST_EXAMPLES") or 1)


def examples(number: int) -> int:
    """Return how many to try of a test that tries so many every day."""
    return max(1, round(number * TIMES))
