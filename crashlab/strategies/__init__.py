"""How does Hypothesis find the smallest set-up, or the shortest story, that loses something?

Strategies for settings, workloads, and the crash states of a recording; and a state machine whose server dies. The
import registers the Hypothesis profile "crashlab", without deadline and with few examples: state machines use it.
"""

from crashlab.strategies.machine import PROFILE, CrashStateMachine
from crashlab.strategies.recorded import RecordedState, Recovered, crash_points, crash_states, recovered
from crashlab.strategies.settings import server_settings
from crashlab.strategies.workloads import workloads

__all__ = [
    "PROFILE",
    "CrashStateMachine",
    "RecordedState",
    "Recovered",
    "crash_points",
    "crash_states",
    "recovered",
    "server_settings",
    "workloads",
]
