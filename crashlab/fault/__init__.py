"""How is a server crashed, and what proves that it happened? One fault a file, each returning a receipt."""

from crashlab.fault.inject import inject

__all__ = ["inject"]
