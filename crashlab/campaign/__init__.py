"""Who runs the trials of a profile, and who judges them again? `run_profile`, `judge_folder`, `replay`, `record`."""

from crashlab.campaign.recorded import record
from crashlab.campaign.rejudge import add_missed, judge_folder, judge_run
from crashlab.campaign.run import replay, run_profile
from crashlab.campaign.runrecord import save_run
from crashlab.exploration.recording import find as find_recording
from crashlab.results import ProfileResult, RunRequest, RunResult, TrialResult
from crashlab.server import ServerChoice
from crashlab.trial.judged import judge_trial

__all__ = [
    "ProfileResult",
    "RunRequest",
    "RunResult",
    "ServerChoice",
    "TrialResult",
    "add_missed",
    "find_recording",
    "judge_folder",
    "judge_run",
    "judge_trial",
    "record",
    "replay",
    "run_profile",
    "save_run",
]
