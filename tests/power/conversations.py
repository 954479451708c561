"""Is the observer's account of a random conversation true, and does its client notice nothing?

    python tests/power/conversations.py [--runs N] [--seed S]

Each conversation is held with a server, and again through the observer. See `tests/observer/talks.py` for what is
drawn and what is compared; a difference is shrunk and told.
"""

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.observer import talks
from tests.observer.scene import Scene, started


def main(runs: int, number: int) -> int:
    """Hold that many conversations; 1 if an account was wrong."""
    seen: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder, started() as server:
        scene = Scene(server, Path(folder))

        @seed(number)
        @settings(
            max_examples=runs,
            deadline=None,
            database=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        )
        @given(talks.talk)
        def examine(drawn: talks.Talk) -> None:
            found = scene.examine(drawn, seen)
            assert not found, "\n".join(found)

        try:
            examine()
            found = scene.wal_differences()
            print(*found, sep="\n")
        finally:
            scene.close()
            print(f"{scene.talks} conversations, {len(scene.ids)} transaction ids", dict(sorted(seen.items())))
    return int(bool(found))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    sys.exit(main(asked.runs, asked.seed))
