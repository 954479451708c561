"""Which tests are long, and left out unless somebody asks for them?

They sweep a whole table of which a test of every day takes a part, or show once more, for longer, what another shows.
`pytest -m long` runs them, and so does whoever names one of them or its file; `.ci/run` runs all tests.
"""

LONG = (
    "tests/campaign/test_bisect.py::test_the_release_that_mended_the_empty_table_is_found",
    "tests/campaign/test_dask.py::test_a_client_that_is_killed_can_go_on_with_another_kind_of_worker",
    "tests/campaign/test_dask.py::test_a_scheduler_that_ends_is_an_error_and_the_run_can_go_on",
    "tests/campaign/test_dask.py::test_a_worker_that_is_killed_costs_nothing",
    "tests/campaign/test_dask.py::test_workers_that_share_no_folder_come_to_the_same",
    "tests/campaign/test_dask.py::test_what_is_recorded_on_a_worker_comes_back_whole",
    "tests/campaign/test_pool.py::test_a_run_with_a_stopped_worker_ends_and_leaves_nothing[False]",
    "tests/campaign/test_pool.py::test_a_task_whose_workers_get_stuck_is_an_error[stopped for]",
    "tests/campaign/test_resume.py::test_killed_at_any_moment_and_resumed_it_is_the_same_run[2]",
    "tests/campaign/test_shrink.py::test_a_live_trial_shrinks_to_a_shorter_run",
    "tests/campaign/test_shrink.py::test_a_shorter_run_that_is_not_taken_leaves_nothing",
    "tests/campaign/test_shrink.py::test_a_shorter_run_that_shows_the_same_is_taken",
    "tests/exploration/test_redo_counts.py::test_the_count_of_a_crash_state_is_that_of_pg_waldump[structure]",
    "tests/lessons/test_lessons_run.py::test_a_lesson_shows_what_it_says",
    "tests/power/test_confusion.py",
    "tests/power/test_interrupts.py::test_a_run_that_is_struck_at_any_moment_leaves_what_it_should",
    "tests/power/test_jitter.py::test_a_truncation_that_a_checkpoint_forgot_brings_rows_back[16.14-True-0]",
    "tests/power/test_jitter.py::test_a_truncation_that_a_checkpoint_forgot_brings_rows_back[17.10-True-0]",
    "tests/power/test_known_bugs.py::test_a_database_whose_version_file_was_not_flushed_is_found",
    "tests/power/test_known_bugs.py::test_the_known_limit_with_unlogged_tables_is_shown",
    "tests/power/test_known_bugs.py::test_the_newest_release_passes_the_same_profiles",
    "tests/power/test_known_bugs.py::test_where_it_is_fixed_nothing_is_found",
    "tests/power/test_known_bugs.py::test_where_such_a_file_has_its_right_name_nothing_is_found",
    "tests/power/test_one_flush.py",
    "tests/power/test_strangers.py::test_no_damage_is_drawn",
    "tests/power/test_swallowed_fsync.py::test_a_class_of_files_without_fsync_is_found",
    "tests/power/test_torn_pages.py::test_without_images_and_checksums_pages_rot_silently",
    "tests/recording/test_recorder_postgres.py::test_replay_equals_the_data_directory",
    "tests/report/test_in_browser.py::test_no_serious_barrier[everything-dark]",
    "tests/server/test_leftovers.py::test_a_kill_at_any_step_of_a_server_leaves_nothing_after_clean",
    "tests/server/test_leftovers.py::test_clean_leaves_nothing_of_a_killed_run",
    "tests/test_cli_judge.py::test_a_live_tour_is_judged_alike_wherever_it_lies",
    "tests/test_cli_judge.py::test_a_recorded_run_and_what_came_of_it_are_judged_alike",
    "tests/test_commands_run.py::test_the_commands_of_a_document_run",
    "tests/test_strategies_machine.py::test_a_planted_bug_shrinks_to_its_rules",
    "tests/testing/test_recipes.py::test_a_recipe[outbox_worker]",
    "tests/testing/test_sweeps.py::test_a_sweep",
    "tests/tradeoff/test_tradeoff.py::test_it_ranks_as_anybody_would_expect_and_is_cut_short_without_a_loss",
    "tests/trial/test_full_disk.py::test_a_live_trial_names_the_full_disk",
    "tests/trial/test_live.py::test_a_process_that_was_stopped_with_a_lock_is_stopped_once_more[9]",
    "tests/trial/test_live.py::test_process_crashes_lose_nothing",
    "tests/workload/test_sql_trials.py::test_the_last_look_before_the_fault_is_enough",
)
"""Files, tests and parameters of tests, by the beginning of their names."""
SHORT = (
    "tests/lessons/test_lessons_run.py::test_a_lesson_shows_what_it_says[async-commit]",
    "tests/lessons/test_lessons_run.py::test_a_lesson_shows_what_it_says[missing-flush]",
    "tests/power/test_interrupts.py::test_a_run_that_is_struck_at_any_moment_leaves_what_it_should[ctrl-c-live]",
    "tests/power/test_interrupts.py::test_a_run_that_is_struck_at_any_moment_leaves_what_it_should[kill-recorded]",
    "tests/power/test_strangers.py::test_no_damage_is_drawn[report of campaign]",
    "tests/power/test_strangers.py::test_no_damage_is_drawn[report of ledger]",
    "tests/power/test_strangers.py::test_no_damage_is_drawn[show --html of io.log]",
    "tests/power/test_swallowed_fsync.py::test_a_class_of_files_without_fsync_is_found[wal]",
    "tests/recording/test_recorder_postgres.py::test_replay_equals_the_data_directory[14.23]",
    "tests/recording/test_recorder_postgres.py::test_replay_equals_the_data_directory[pginstall]",
    *(
        f"tests/server/test_leftovers.py::test_clean_leaves_nothing_of_a_killed_run[{one}]"
        for one in ("live-0", "recorded-1", "pool-live", "pool-recorded", "containers-1")
    ),
    "tests/test_commands_run.py::test_the_commands_of_a_document_run[matrix]",
    *(
        f"tests/trial/test_live.py::test_process_crashes_lose_nothing[{profile}]"
        for profile in ("checkpoint-storm", "fsync-off-kill9", "immediate-shutdown", "kill9-all", "two-phase")
    ),
)
"""Those among them that are run every day."""


def is_long(name: str) -> bool:
    """Whether a test of this name (file::test[parameters]) is left out every day."""
    return name.startswith(LONG) and not name.startswith(SHORT)
