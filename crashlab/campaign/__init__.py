"""How are many trials run within a budget, by whoever can, and what becomes of them afterwards?"""

from crashlab.campaign.chronicles import chronicles_of
from crashlab.campaign.events import Handler
from crashlab.campaign.executor import Executor
from crashlab.campaign.loop import Campaign, run
from crashlab.campaign.plan import Asked, Plan, executor_for
from crashlab.campaign.rejudge import add_missed, done_so_far, judge_folder, judge_run, stored_results, stored_run
from crashlab.campaign.replay import replay
from crashlab.campaign.runrecord import begun_now, forget_plan, load_plan, save_plan, save_run, unfinished
from crashlab.campaign.sameserver import require_same_server
from crashlab.campaign.store import Store, reindex
from crashlab.errors import CrashlabError
from crashlab.results import RunResult

__all__ = [
    "Asked",
    "Campaign",
    "Plan",
    "Store",
    "begun_now",
    "chronicles_of",
    "done_so_far",
    "executor_for",
    "forget_plan",
    "judge_folder",
    "judge_run",
    "load_plan",
    "reindex",
    "replay",
    "require_same_server",
    "run_campaign",
    "save_plan",
    "save_run",
    "stored_results",
    "stored_run",
    "unfinished",
]


def run_campaign(campaign: Campaign, executor: Executor, *handlers: Handler) -> RunResult:
    """Run a campaign, close the executor, and return all that was finished, also by workers that were cut short."""
    with executor:
        result = run(campaign, executor, handlers)
    resumed = any(order.earlier is not None for order in campaign.orders)
    if resumed or result.error is not None or any(one.interrupted for one in result.profiles):
        folders = {order.job.name: order.job.out for order in campaign.orders}
        try:
            for one in result.profiles:
                add_missed(one, folders[one.profile.name])
        except CrashlabError as error:  # such as a full disk: what was finished is told all the same
            result.error = result.error or error
    return result
