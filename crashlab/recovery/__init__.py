"""What did recovery bring back? Start a crashed directory, read it, judge nothing."""

from crashlab.recovery.before import look_before
from crashlab.recovery.observe import Reading, observe
from crashlab.recovery.restart import recover

__all__ = ["Reading", "look_before", "observe", "recover"]
