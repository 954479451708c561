"""Does requirements.lock, from which .ci/run installs, still fit what pyproject.toml asks for?

Written anew by the command in its first lines (`pip install uv`). Only names and versions are compared here, without
the network; that nothing is missing further down is seen by pip, which checks the digests of all that it installs.
"""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
WANTED = [*PROJECT["dependencies"], *(one for extra in PROJECT["optional-dependencies"].values() for one in extra)]
PINNED = dict(re.findall(r"^(\S+)==([^\s;]+)", (ROOT / "requirements.lock").read_text(encoding="utf-8"), re.MULTILINE))


@pytest.mark.parametrize("line", WANTED)
def test_what_the_project_asks_for_is_pinned(line: str) -> None:
    """Each dependency, those of the extras too, at a version that it allows."""
    wanted = Requirement(line)
    assert wanted.specifier.contains(PINNED[canonicalize_name(wanted.name)], prereleases=True)
