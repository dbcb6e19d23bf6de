"""What the lobby counts, for Prometheus."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

SESSIONS = Gauge("narupa_lobby_sessions", "Sessions that there are.")
USERS = Gauge("narupa_lobby_users", "Users in the session.", ["session"])
SERVICES = Gauge("narupa_lobby_services", "Services registered in the session.", ["session"])
WATCHERS = Gauge("narupa_lobby_watchers", "Watch streams of the session that are open at this lobby.", ["session"])
JOINS = Counter("narupa_lobby_joins_total", "Joins at this lobby that succeeded.", ["outcome"])
REFUSALS = Counter(
    "narupa_lobby_refusals_total", "Joins and registrations that this lobby refused.", ["call", "reason"]
)
LEAVES = Counter("narupa_lobby_leaves_total", "Users who left, by what made them.", ["reason"])
LEASES_LAPSED = Counter("narupa_lobby_leases_lapsed_total", "Services that stopped renewing their lease.", ["session"])
COMMIT_SECONDS = Histogram(
    "narupa_lobby_commit_seconds",
    "How long the store took for a commit, s.",
    buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5),
)
BEHIND = Counter("narupa_lobby_commits_behind_total", "Commits decided again because another lobby was first.")
STORE_TROUBLE = Counter("narupa_lobby_store_trouble_total", "Calls to the store that failed.")


def forget_session(session_id: str) -> None:
    """Nothing is counted for the session any more."""
    for gauge in (USERS, SERVICES, WATCHERS):
        gauge.remove(session_id)
