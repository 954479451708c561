"""How does one root seed replay everything?

Each part draws from its own named stream, so that a new draw in one part shifts no other part.
The only module that imports `random`.
"""

import hashlib
import secrets
from random import Random

SEED_BITS = 48
"""Short enough to be read aloud and to survive JSON readers that use doubles."""


def new_seed() -> int:
    """Draw a root seed, for a run that was given none; the caller prints it."""
    return secrets.randbits(SEED_BITS)


def derive(seed: int, *names: str | int) -> int:
    """Derive the seed of a named child, the same on every machine and Python version."""
    text = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[: SEED_BITS // 8], "big")


def stream(seed: int, *names: str | int) -> Random:
    """Return the random stream of a named part of the run."""
    return Random(derive(seed, *names))


def trial_seed(run_seed: int, profile: str, trial: int) -> int:
    """Return the seed of one trial of a run."""
    return derive(run_seed, profile, trial)
