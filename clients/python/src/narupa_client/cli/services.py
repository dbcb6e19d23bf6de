"""`narupa services`: what runs where."""

from __future__ import annotations

from narupa_client.address import SessionAddress
from narupa_client.cli.options import BAD_INPUT, JsonOption, fail, no_lobby, run
from narupa_client.cli.tables import print_json, print_services, service_facts
from narupa_client.cli.target import Target
from narupa_client.lobby import list_services
from narupa_client.place import Admission
from narupa_client.session import account_name
from narupa_shared.errors import InvalidArgumentError, UnavailableError


def services(at: Target, as_json: JsonOption = False) -> None:
    """List the services of the session."""
    run(_services(at, as_json))


async def _services(at: Target, as_json: bool) -> None:
    try:
        place = SessionAddress.parse(at.lobby, "--lobby")
    except InvalidArgumentError as error:
        fail(str(error), BAD_INPUT)
    admission = Admission(account_name(), at.join_code or "", at.password or "", at.invite or "", at.operator_key or "")
    try:
        found = await list_services(place, at.session or "", admission=admission, tls=at.tls)
    except UnavailableError as error:
        raise no_lobby(error) from error
    if as_json:
        print_json([service_facts(service) for service in found])
    else:
        print_services(found)
