"""Training: what waits, what runs, what came of it."""

from __future__ import annotations

from monitoring.dashboards.panels import Board, panel
from monitoring.objectives import load

_jobs = load().jobs

TRAINING = Board(
    "training",
    "Training",
    "Jobs and their queues, the progress of training, and the quality that it leads to.",
    {
        "Jobs": (
            panel("Jobs", "By state, now.", "short", ("sum by (state) (jobs)", "{{state}}")),
            panel(
                "Jobs ended",
                "In the last hour, by how.",
                "short",
                (
                    "sum by (recipe, state) (increase(jobs_finished_total[1h]))",
                    "{{recipe}} {{state}}",
                ),
            ),
            panel(
                "Duration of a job",
                "Of the last one that ended, by how.",
                "s",
                ("max by (recipe, state) (job_last_duration_seconds)", "{{recipe}} {{state}}"),
            ),
        ),
        "Queues": (
            panel(
                "Longest wait for a worker",
                "Of the jobs that wait now.",
                "s",
                ("max by (queue) (jobs_oldest_queued_seconds)", "{{queue}}"),
                objective=_jobs.queued_seconds,
            ),
            panel(
                "Workers",
                "Containers that take jobs, and the one that keeps the schedule.",
                "short",
                ('sum by (job) (up{job=~"worker|beat"})', "{{job}}"),
            ),
            panel(
                "Running jobs that say nothing",
                "Seconds since the last progress of a running job; jobs whose lease ran out.",
                "s",
                ("max by (recipe) (training_silent_seconds)", "{{recipe}} silent"),
                ("max by (recipe) (jobs_lease_expired)", "{{recipe}} leases that ran out"),
                objective=_jobs.silent_seconds,
            ),
        ),
        "Training": (
            panel(
                "Progress",
                "Of the newest job of each recipe.",
                "percentunit",
                ("max by (recipe) (training_progress_ratio)", "{{recipe}}"),
            ),
            panel(
                "Epoch",
                "Of the newest job of each recipe.",
                "short",
                ("max by (recipe) (training_epoch)", "{{recipe}}"),
            ),
            panel(
                "Loss",
                "Of the newest job of each recipe.",
                "short",
                ("max by (recipe) (training_loss)", "{{recipe}}"),
            ),
        ),
    },
)
