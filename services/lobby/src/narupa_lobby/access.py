"""Who may come in while the lobby is closed."""

from __future__ import annotations

import hmac
from dataclasses import dataclass

from pydantic import SecretStr

from narupa_shared.errors import PermissionDeniedError


@dataclass(frozen=True, slots=True)
class Access:
    """The lobby's door: open to all, or to those who know the join code (users) or the service key (services)."""

    open: bool
    join_code: SecretStr | None = None
    service_key: SecretStr | None = None

    def admit_user(self, join_code: str) -> None:
        """Returns when a user who says `join_code` may join, or raises PermissionDeniedError."""
        self._admit("join_code", "NARUPA_LOBBY_JOIN_CODE", self.join_code, join_code)

    def admit_service(self, service_key: str) -> None:
        """Returns when a service that says `service_key` may register, or raises PermissionDeniedError."""
        self._admit("service_key", "NARUPA_LOBBY_SERVICE_KEY", self.service_key, service_key)

    def _admit(self, field: str, variable: str, secret: SecretStr | None, given: str) -> None:
        if self.open:
            return
        if secret is None or not secret.get_secret_value():
            raise PermissionDeniedError(
                f"this lobby is closed and has no {field}, so nobody can use one; its operator can set "
                f"--{field.replace('_', '-')} ({variable}), or open it with --open-access"
            )
        # The comparison takes the same time wherever the two differ.
        if not hmac.compare_digest(secret.get_secret_value().encode(), given.encode("utf-8", "surrogatepass")):
            raise PermissionDeniedError(
                f"{field} is {'wrong' if given else 'missing'}; ask the lobby's operator for it"
            )
