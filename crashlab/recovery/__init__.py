"""What did recovery bring back? Start a crashed directory, read it, judge nothing."""

from crashlab.recovery.observe import Reading, observe
from crashlab.recovery.restart import recover

__all__ = ["Reading", "observe", "recover"]
