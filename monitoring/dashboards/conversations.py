"""Conversations: what people ask for, how fast the bot answers, where it goes on without a part."""

from __future__ import annotations

from monitoring.dashboards.panels import Board, panel
from monitoring.objectives import load

_stages = "sum by (stage, le) (rate(turn_stage_duration_seconds_bucket[5m]))"
_recognised = 'sum by (domain) (rate(intents_total{intent!="none"}[5m]))'
_heard = "sum by (domain) (rate(intents_total[5m]))"

CONVERSATIONS = Board(
    "conversations",
    "Conversations",
    "What people ask for, how fast they are answered, and what they think of it.",
    {
        "Turns": (
            panel(
                "Turns a minute",
                "By domain pack.",
                "short",
                ("60 * sum by (domain) (rate(turns_total[5m]))", "{{domain}}"),
            ),
            panel(
                "Stages of a turn, p95",
                "stt, nlu, policy, generate, action, tts; `first_audio` and `total` count from the"
                " beginning of the turn.",
                "s",
                (f"histogram_quantile(0.95, {_stages})", "{{stage}}"),
                objective=load().services["gateway"].p95_seconds,
            ),
            panel(
                "Stages of a turn, mean",
                "Where the time goes.",
                "s",
                (
                    "sum by (stage) (rate(turn_stage_duration_seconds_sum[5m]))"
                    " / sum by (stage) (rate(turn_stage_duration_seconds_count[5m]))",
                    "{{stage}}",
                ),
            ),
        ),
        "Understanding": (
            panel(
                "Intents a minute",
                "The ten most frequent; `none` is what was not recognised.",
                "short",
                (
                    "topk(10, 60 * sum by (domain, intent) (rate(intents_total[5m])))",
                    "{{domain}} {{intent}}",
                ),
            ),
            panel(
                "Recognised",
                "Share of the understood utterances that had an intent.",
                "percentunit",
                (f"({_recognised} or 0 * {_heard}) / {_heard}", "{{domain}}"),
            ),
            panel(
                "Feedback",
                "Ratings in the last hour.",
                "short",
                ("sum by (rating) (increase(feedback_total[1h]))", "{{rating}}"),
            ),
        ),
        "Degraded": (
            panel(
                "Turns that went on without a part",
                "Share of all turns, over five minutes; a service that is down costs its own share"
                " of a turn only.",
                "percentunit",
                ("part:turns_degraded:ratio5m", "{{part}}"),
                objective=load().turns.degraded_rate,
            ),
            panel(
                "Records kept on disk",
                "Rows a second that went to the spool while the database was away, or were lost.",
                "short",
                ("sum(rate(records_spooled_total[5m]))", "spooled"),
                ("sum(rate(records_dropped_total[5m]))", "lost"),
            ),
        ),
    },
)
