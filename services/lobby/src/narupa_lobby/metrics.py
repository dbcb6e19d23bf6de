"""What the lobby counts, for Prometheus."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

USERS = Gauge("narupa_lobby_users", "Users in the session.", ["session"])
SERVICES = Gauge("narupa_lobby_services", "Services registered in the session.", ["session"])
WATCHERS = Gauge("narupa_lobby_watchers", "Open watch streams of the session.", ["session"])
JOINS = Counter("narupa_lobby_joins_total", "Users who joined.", ["session"])
LEASES_LAPSED = Counter("narupa_lobby_leases_lapsed_total", "Services that stopped renewing their lease.", ["session"])
