"""What did a fault do, before its receipt is written?"""

from dataclasses import dataclass, field


@dataclass(kw_only=True)
class Effect:
    """What a fault did, before the receipt is written."""

    pid: int | None
    pids: list[int]
    confirmed: bool
    proof: list[str] = field(default_factory=list)
    crashes_server: bool = True
    bounds_window: bool = True
