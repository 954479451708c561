"""Is everything there that was promised, and is anything there that should not be?

Pure: a history, a contract, receipts and an observation go in, a verdict comes out. No clock, no file, no server,
so that old evidence can be judged again by a newer oracle.
"""

from crashlab.oracle.judge import Judgement, judge, judge_closely

__all__ = ["Judgement", "judge", "judge_closely"]
