"""Who runs the trials of a profile, and who judges them again? `run_profile`, `judge_folder`, `replay`, `record`."""

from crashlab.campaign.recorded import record
from crashlab.campaign.recording import find as find_recording
from crashlab.campaign.rejudge import judge_folder, judge_trial
from crashlab.campaign.results import ProfileResult, RunRequest, ServerChoice, TrialResult
from crashlab.campaign.run import replay, run_profile

__all__ = [
    "ProfileResult",
    "RunRequest",
    "ServerChoice",
    "TrialResult",
    "find_recording",
    "judge_folder",
    "judge_trial",
    "record",
    "replay",
    "run_profile",
]
