"""Between the core's records and the messages of lobby.proto."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from narupa_lobby.catalogue.template import SessionTemplate
from narupa_lobby.records import USER_ROLES, Event, GuestRole, Invite, Revocation, SessionView, User, UserRole
from narupa_lobby.rules import Rules
from narupa_lobby.services import Endpoint, Service, ServiceStatus, check_status
from narupa_lobby.sessions import Spec
from narupa_lobby.users import MAX_NAME
from narupa_shared.errors import InvalidArgumentError
from narupa_shared.gen.narupa.lobby.v1 import lobby_pb2 as pb


def role_of(field: str, number: int) -> UserRole | None:
    """The role of this number; None when it is unset.

    Raises:
        InvalidArgumentError: it is none that users have.
    """
    if not 0 <= number <= len(USER_ROLES):
        raise InvalidArgumentError(field, number, "needs one of 1 (viewer), 2 (participant), 3 (host)")
    return USER_ROLES[number - 1] if number else None


def guest_role_of(field: str, message: pb.SessionSpec | pb.SetGuestRoleRequest) -> GuestRole | None:
    """The role of guests that `message` says; None when it is unset, which is not the same as "none".

    Raises:
        InvalidArgumentError: it is none that guests can have.
    """
    return (role_of(field, message.guest_role) or "none") if message.HasField("guest_role") else None


def role_name(role: UserRole) -> str:
    return f"ROLE_{role.upper()}"


def spec_of(message: pb.SessionSpec) -> Spec:
    """What `message` asks for, unchecked but for the role."""
    return Spec(
        name=message.name or None,
        join_role=role_of("spec.join_role", message.join_role),
        max_users=message.max_users or None,
        max_services=message.max_services or None,
        idle_timeout_s=message.idle_timeout_s if message.HasField("idle_timeout_s") else None,
        join_code=message.join_code or None,
        password=message.password or None,
        simulations=tuple(message.simulations) or None,
        guest_role=guest_role_of("spec.guest_role", message),
    )


def template_spec(template: SessionTemplate, rules: Rules) -> Spec:
    """What `template` says, within what the lobby takes."""
    return Spec(
        name=template.session_name or (template.title or template.name)[:MAX_NAME],
        join_role=template.join_role,
        max_users=template.max_users and min(template.max_users, rules.max_users),
        max_services=template.max_services and min(template.max_services, rules.max_services),
        idle_timeout_s=template.idle_timeout_s,
        join_code=template.join_code.get_secret_value() if template.join_code else None,
        password=template.password.get_secret_value() if template.password else None,
        simulations=template.simulations or None,
        guest_role=template.guest_role,
    )


def status_of(field: str, number: int) -> ServiceStatus | None:
    """The status of this number; None when it is unset. InvalidArgumentError when there is none."""
    return check_status(field, number) if number else None


def service_of(message: pb.Service) -> Service:
    """The service that `message` describes, unchecked but for its status; an unset status means running."""
    return Service(
        id=message.id,
        kind=message.kind,
        status=status_of("service.status", message.status) or ServiceStatus.RUNNING,
        endpoints=tuple(Endpoint(each.protocol, each.host, each.port) for each in message.endpoints),
        capacity=message.capacity,
        load=message.occupancy,
        metadata=dict(message.metadata),
        reason=message.reason,
        progress=message.progress,
        group=message.group,
    )


def service_message(service: Service) -> pb.Service:
    return pb.Service(
        id=service.id,
        kind=service.kind,
        status=f"SERVICE_STATUS_{service.status.name}",
        endpoints=[pb.Endpoint(protocol=each.protocol, host=each.host, port=each.port) for each in service.endpoints],
        capacity=service.capacity,
        occupancy=service.load,
        metadata=service.metadata,
        simulation=service.simulation,
        reason=service.reason,
        progress=service.progress,
        log_tail=service.log_tail,
        restarts=service.restarts,
        group=service.group,
        epoch=service.epoch,
    )


def user_message(user: User) -> pb.User:
    return pb.User(id=user.id, name=user.name, role=role_name(user.role))


def session_message(session: SessionView) -> pb.Session:
    return pb.Session(
        id=session.id,
        name=session.name,
        user_count=session.user_count,
        service_count=session.service_count,
        max_users=session.max_users,
        max_services=session.max_services,
        idle_timeout_s=session.idle_timeout_s,
        join_role=role_name(session.join_role),
        template=session.template,
        created_at=session.created_at,
        hosts=session.hosts,
        has_password=session.has_password,
        guest_role=_guest_role_name(session.guest_role),
    )


def _guest_role_name(role: GuestRole | None) -> str | None:
    return None if role is None else "ROLE_UNSPECIFIED" if role == "none" else role_name(role)


def invite_message(invite: Invite) -> pb.Invite:
    return pb.Invite(
        id=invite.id,
        role=role_name(invite.role),
        expires_at=invite.expires_at,
        uses_left=invite.uses_left,
        made_by=invite.made_by,
    )


def key_messages(keys: Iterable[tuple[str, bytes]]) -> list[pb.PublicKey]:
    return [pb.PublicKey(key_id=key_id, key=key) for key_id, key in keys]


def revocation_messages(revocations: Iterable[Revocation]) -> list[pb.Revocation]:
    return [pb.Revocation(user_id=each.user_id, generation=each.generation) for each in revocations]


_MORE_FIELD = pb.WatchSessionResponse.DESCRIPTOR.fields_by_name["more"].number
_MORE_TAG = bytes([_MORE_FIELD << 3 | 2])  # a field with a length


def joined_messages(messages: Sequence[bytes]) -> bytes:
    """Serialised `WatchSessionResponse`s as one: the first, with the others in its field `more`; nothing is encoded anew."""
    first, *others = messages
    parts = [first]
    for other in others:
        parts += (_MORE_TAG, _varint(len(other)), other)
    return b"".join(parts)


def _varint(number: int) -> bytes:
    digits = bytearray()
    while number > 0x7F:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    digits.append(number)
    return bytes(digits)


def event_message(epoch: str, event: Event) -> pb.WatchSessionResponse:
    message = pb.WatchSessionResponse(
        epoch=epoch,
        revision=event.revision,
        reason=event.reason,
        revocations=revocation_messages(event.revocations),
    )
    content: pb.User | pb.Service | pb.Session
    if event.user is not None:
        content = user_message(event.user)
    elif event.service is not None:
        content = service_message(event.service)
    else:
        assert event.session is not None, "every event has a subject"
        content = session_message(event.session)
    getattr(message, event.kind).CopyFrom(content)
    return message
