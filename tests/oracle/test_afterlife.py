"""Does a finding of the afterlife say how the server came to its restart?"""

import pytest

from crashlab.model import Afterlife, Complaint, LifeChange, Recovery
from crashlab.oracle.codes import CODES
from tests.oracle.story import Story

KILLED = "fter a kill in place of a stop that took too long"
CHANGE = LifeChange(step="restart", kind="content", object="crashlab.register", file="base/5/201", says="2 rows are 1")
COMPLAINT = Complaint(check="restart", object="crashlab.register", file="base/5/201", sqlstate="XX001", message="bad")
DOWN = Recovery(started=False, ran=False, seconds=0.1, fatal=["FATAL:  no"])


@pytest.mark.parametrize(
    ("shown", "clean"),
    [
        ({"changes": [CHANGE]}, "After a clean restart"),
        ({"complaints": [COMPLAINT]}, "after a clean restart"),
        ({"restart": DOWN}, "after a clean stop"),
    ],
)
def test_a_restart_is_called_clean_only_if_it_was(shown, clean):
    """A stop that takes too long is a kill."""
    general = CODES["NO-START-AGAIN"].explanation
    for killed, says, never in ((False, clean, KILLED), (True, KILLED, "clean")):
        story = Story()
        life = Afterlife(steps=[], killed=killed, **shown)
        (found,) = story.judge(story.left(story.commit(1, "a", 1), afterlife=life)).findings
        told = found.explanation.replace(general, "")
        assert says in told
        assert never not in told
