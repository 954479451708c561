"""Which kinds of fault are there? One a file, which declares it as FAULT; a new file is found by itself."""

from crashlab.declared import declared
from crashlab.fault.kind import FaultKind

FAULTS: dict[str, FaultKind] = {fault.name: fault for fault in declared(__name__, __path__, "FAULT")}
"""All of them, by the name that a profile gives them."""
