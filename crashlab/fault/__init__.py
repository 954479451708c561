"""How is a server crashed, and what proves that it happened? One kind of fault a file, each returning a receipt."""

from crashlab.fault.inject import inject
from crashlab.fault.kinds import FAULTS
from crashlab.fault.targets import TARGETS

__all__ = ["FAULTS", "TARGETS", "inject"]
