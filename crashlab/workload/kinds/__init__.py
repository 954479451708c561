"""Which kinds of transactions are there? One a file, or a few that share most; a new file is found by itself.

Each file declares its classes as KINDS. To know them costs no driver: profiles are checked against these names.
"""

from collections.abc import Callable

from crashlab.declared import declared
from crashlab.workload.kind import Kind

KINDS: dict[str, Callable[[], Kind]] = {
    kind.name: kind for some in declared(__name__, __path__, "KINDS") for kind in some
}
"""All of them, by the name that a profile gives them."""
