from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Role(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ROLE_UNSPECIFIED: _ClassVar[Role]
    ROLE_VIEWER: _ClassVar[Role]
    ROLE_PARTICIPANT: _ClassVar[Role]
    ROLE_HOST: _ClassVar[Role]
    ROLE_SERVICE: _ClassVar[Role]

class ServiceStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SERVICE_STATUS_UNSPECIFIED: _ClassVar[ServiceStatus]
    SERVICE_STATUS_AVAILABLE: _ClassVar[ServiceStatus]
    SERVICE_STATUS_STARTING: _ClassVar[ServiceStatus]
    SERVICE_STATUS_RUNNING: _ClassVar[ServiceStatus]
    SERVICE_STATUS_UNHEALTHY: _ClassVar[ServiceStatus]
    SERVICE_STATUS_DRAINING: _ClassVar[ServiceStatus]
    SERVICE_STATUS_STOPPED: _ClassVar[ServiceStatus]
ROLE_UNSPECIFIED: Role
ROLE_VIEWER: Role
ROLE_PARTICIPANT: Role
ROLE_HOST: Role
ROLE_SERVICE: Role
SERVICE_STATUS_UNSPECIFIED: ServiceStatus
SERVICE_STATUS_AVAILABLE: ServiceStatus
SERVICE_STATUS_STARTING: ServiceStatus
SERVICE_STATUS_RUNNING: ServiceStatus
SERVICE_STATUS_UNHEALTHY: ServiceStatus
SERVICE_STATUS_DRAINING: ServiceStatus
SERVICE_STATUS_STOPPED: ServiceStatus

class Endpoint(_message.Message):
    __slots__ = ("protocol", "host", "port")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    protocol: str
    host: str
    port: int
    def __init__(self, protocol: _Optional[str] = ..., host: _Optional[str] = ..., port: _Optional[int] = ...) -> None: ...

class Service(_message.Message):
    __slots__ = ("id", "kind", "status", "endpoints", "capacity", "occupancy", "metadata", "simulation", "reason", "progress", "log_tail", "restarts", "group", "epoch")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    ENDPOINTS_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_FIELD_NUMBER: _ClassVar[int]
    OCCUPANCY_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    SIMULATION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    LOG_TAIL_FIELD_NUMBER: _ClassVar[int]
    RESTARTS_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    id: str
    kind: str
    status: ServiceStatus
    endpoints: _containers.RepeatedCompositeFieldContainer[Endpoint]
    capacity: int
    occupancy: float
    metadata: _containers.ScalarMap[str, str]
    simulation: str
    reason: str
    progress: float
    log_tail: _containers.RepeatedScalarFieldContainer[str]
    restarts: int
    group: str
    epoch: int
    def __init__(self, id: _Optional[str] = ..., kind: _Optional[str] = ..., status: _Optional[_Union[ServiceStatus, str]] = ..., endpoints: _Optional[_Iterable[_Union[Endpoint, _Mapping]]] = ..., capacity: _Optional[int] = ..., occupancy: _Optional[float] = ..., metadata: _Optional[_Mapping[str, str]] = ..., simulation: _Optional[str] = ..., reason: _Optional[str] = ..., progress: _Optional[float] = ..., log_tail: _Optional[_Iterable[str]] = ..., restarts: _Optional[int] = ..., group: _Optional[str] = ..., epoch: _Optional[int] = ...) -> None: ...

class User(_message.Message):
    __slots__ = ("id", "name", "role")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    id: str
    name: str
    role: Role
    def __init__(self, id: _Optional[str] = ..., name: _Optional[str] = ..., role: _Optional[_Union[Role, str]] = ...) -> None: ...

class Session(_message.Message):
    __slots__ = ("id", "name", "user_count", "service_count", "max_users", "max_services", "idle_timeout_s", "join_role", "template", "created_at", "hosts", "has_password", "guest_role")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    USER_COUNT_FIELD_NUMBER: _ClassVar[int]
    SERVICE_COUNT_FIELD_NUMBER: _ClassVar[int]
    MAX_USERS_FIELD_NUMBER: _ClassVar[int]
    MAX_SERVICES_FIELD_NUMBER: _ClassVar[int]
    IDLE_TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    JOIN_ROLE_FIELD_NUMBER: _ClassVar[int]
    TEMPLATE_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    HOSTS_FIELD_NUMBER: _ClassVar[int]
    HAS_PASSWORD_FIELD_NUMBER: _ClassVar[int]
    GUEST_ROLE_FIELD_NUMBER: _ClassVar[int]
    id: str
    name: str
    user_count: int
    service_count: int
    max_users: int
    max_services: int
    idle_timeout_s: float
    join_role: Role
    template: str
    created_at: float
    hosts: _containers.RepeatedScalarFieldContainer[str]
    has_password: bool
    guest_role: Role
    def __init__(self, id: _Optional[str] = ..., name: _Optional[str] = ..., user_count: _Optional[int] = ..., service_count: _Optional[int] = ..., max_users: _Optional[int] = ..., max_services: _Optional[int] = ..., idle_timeout_s: _Optional[float] = ..., join_role: _Optional[_Union[Role, str]] = ..., template: _Optional[str] = ..., created_at: _Optional[float] = ..., hosts: _Optional[_Iterable[str]] = ..., has_password: _Optional[bool] = ..., guest_role: _Optional[_Union[Role, str]] = ...) -> None: ...

class SessionSpec(_message.Message):
    __slots__ = ("name", "join_role", "max_users", "max_services", "idle_timeout_s", "join_code", "password", "simulations", "guest_role")
    NAME_FIELD_NUMBER: _ClassVar[int]
    JOIN_ROLE_FIELD_NUMBER: _ClassVar[int]
    MAX_USERS_FIELD_NUMBER: _ClassVar[int]
    MAX_SERVICES_FIELD_NUMBER: _ClassVar[int]
    IDLE_TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    JOIN_CODE_FIELD_NUMBER: _ClassVar[int]
    PASSWORD_FIELD_NUMBER: _ClassVar[int]
    SIMULATIONS_FIELD_NUMBER: _ClassVar[int]
    GUEST_ROLE_FIELD_NUMBER: _ClassVar[int]
    name: str
    join_role: Role
    max_users: int
    max_services: int
    idle_timeout_s: float
    join_code: str
    password: str
    simulations: _containers.RepeatedScalarFieldContainer[str]
    guest_role: Role
    def __init__(self, name: _Optional[str] = ..., join_role: _Optional[_Union[Role, str]] = ..., max_users: _Optional[int] = ..., max_services: _Optional[int] = ..., idle_timeout_s: _Optional[float] = ..., join_code: _Optional[str] = ..., password: _Optional[str] = ..., simulations: _Optional[_Iterable[str]] = ..., guest_role: _Optional[_Union[Role, str]] = ...) -> None: ...

class PublicKey(_message.Message):
    __slots__ = ("key_id", "key")
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    key_id: str
    key: bytes
    def __init__(self, key_id: _Optional[str] = ..., key: _Optional[bytes] = ...) -> None: ...

class Revocation(_message.Message):
    __slots__ = ("user_id", "generation")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    generation: int
    def __init__(self, user_id: _Optional[str] = ..., generation: _Optional[int] = ...) -> None: ...

class JoinRequest(_message.Message):
    __slots__ = ("session_id", "user_name", "join_code", "password", "invite", "rejoin_token", "request_id", "client_address", "guest", "guests_welcome")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    USER_NAME_FIELD_NUMBER: _ClassVar[int]
    JOIN_CODE_FIELD_NUMBER: _ClassVar[int]
    PASSWORD_FIELD_NUMBER: _ClassVar[int]
    INVITE_FIELD_NUMBER: _ClassVar[int]
    REJOIN_TOKEN_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    GUEST_FIELD_NUMBER: _ClassVar[int]
    GUESTS_WELCOME_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    user_name: str
    join_code: str
    password: str
    invite: str
    rejoin_token: str
    request_id: str
    client_address: str
    guest: bool
    guests_welcome: bool
    def __init__(self, session_id: _Optional[str] = ..., user_name: _Optional[str] = ..., join_code: _Optional[str] = ..., password: _Optional[str] = ..., invite: _Optional[str] = ..., rejoin_token: _Optional[str] = ..., request_id: _Optional[str] = ..., client_address: _Optional[str] = ..., guest: _Optional[bool] = ..., guests_welcome: _Optional[bool] = ...) -> None: ...

class JoinResponse(_message.Message):
    __slots__ = ("session_id", "user", "token", "token_expires_in_s", "services", "revision", "user_lease_s", "rejoin_grace_s")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    TOKEN_EXPIRES_IN_S_FIELD_NUMBER: _ClassVar[int]
    SERVICES_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    USER_LEASE_S_FIELD_NUMBER: _ClassVar[int]
    REJOIN_GRACE_S_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    user: User
    token: str
    token_expires_in_s: float
    services: _containers.RepeatedCompositeFieldContainer[Service]
    revision: int
    user_lease_s: float
    rejoin_grace_s: float
    def __init__(self, session_id: _Optional[str] = ..., user: _Optional[_Union[User, _Mapping]] = ..., token: _Optional[str] = ..., token_expires_in_s: _Optional[float] = ..., services: _Optional[_Iterable[_Union[Service, _Mapping]]] = ..., revision: _Optional[int] = ..., user_lease_s: _Optional[float] = ..., rejoin_grace_s: _Optional[float] = ...) -> None: ...

class LeaveRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class LeaveResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RenewTokenRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RenewTokenResponse(_message.Message):
    __slots__ = ("token", "token_expires_in_s", "role")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    TOKEN_EXPIRES_IN_S_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    token: str
    token_expires_in_s: float
    role: Role
    def __init__(self, token: _Optional[str] = ..., token_expires_in_s: _Optional[float] = ..., role: _Optional[_Union[Role, str]] = ...) -> None: ...

class KickUserRequest(_message.Message):
    __slots__ = ("session_id", "user_id", "reason")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    user_id: str
    reason: str
    def __init__(self, session_id: _Optional[str] = ..., user_id: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class KickUserResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SetUserRoleRequest(_message.Message):
    __slots__ = ("session_id", "user_id", "role")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    user_id: str
    role: Role
    def __init__(self, session_id: _Optional[str] = ..., user_id: _Optional[str] = ..., role: _Optional[_Union[Role, str]] = ...) -> None: ...

class SetUserRoleResponse(_message.Message):
    __slots__ = ("user",)
    USER_FIELD_NUMBER: _ClassVar[int]
    user: User
    def __init__(self, user: _Optional[_Union[User, _Mapping]] = ...) -> None: ...

class SetGuestRoleRequest(_message.Message):
    __slots__ = ("session_id", "guest_role")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    GUEST_ROLE_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    guest_role: Role
    def __init__(self, session_id: _Optional[str] = ..., guest_role: _Optional[_Union[Role, str]] = ...) -> None: ...

class SetGuestRoleResponse(_message.Message):
    __slots__ = ("session",)
    SESSION_FIELD_NUMBER: _ClassVar[int]
    session: Session
    def __init__(self, session: _Optional[_Union[Session, _Mapping]] = ...) -> None: ...

class CreateSessionRequest(_message.Message):
    __slots__ = ("template", "spec", "host_name", "request_id")
    TEMPLATE_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    HOST_NAME_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    template: str
    spec: SessionSpec
    host_name: str
    request_id: str
    def __init__(self, template: _Optional[str] = ..., spec: _Optional[_Union[SessionSpec, _Mapping]] = ..., host_name: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class CreateSessionResponse(_message.Message):
    __slots__ = ("session", "join_code", "host")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    JOIN_CODE_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    session: Session
    join_code: str
    host: JoinResponse
    def __init__(self, session: _Optional[_Union[Session, _Mapping]] = ..., join_code: _Optional[str] = ..., host: _Optional[_Union[JoinResponse, _Mapping]] = ...) -> None: ...

class ListSessionsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListSessionsResponse(_message.Message):
    __slots__ = ("sessions",)
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    sessions: _containers.RepeatedCompositeFieldContainer[Session]
    def __init__(self, sessions: _Optional[_Iterable[_Union[Session, _Mapping]]] = ...) -> None: ...

class GetSessionRequest(_message.Message):
    __slots__ = ("session_id",)
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    def __init__(self, session_id: _Optional[str] = ...) -> None: ...

class GetSessionResponse(_message.Message):
    __slots__ = ("session", "join_code", "users")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    JOIN_CODE_FIELD_NUMBER: _ClassVar[int]
    USERS_FIELD_NUMBER: _ClassVar[int]
    session: Session
    join_code: str
    users: _containers.RepeatedCompositeFieldContainer[User]
    def __init__(self, session: _Optional[_Union[Session, _Mapping]] = ..., join_code: _Optional[str] = ..., users: _Optional[_Iterable[_Union[User, _Mapping]]] = ...) -> None: ...

class EndSessionRequest(_message.Message):
    __slots__ = ("session_id",)
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    def __init__(self, session_id: _Optional[str] = ...) -> None: ...

class EndSessionResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Invite(_message.Message):
    __slots__ = ("id", "role", "expires_at", "uses_left", "made_by")
    ID_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    USES_LEFT_FIELD_NUMBER: _ClassVar[int]
    MADE_BY_FIELD_NUMBER: _ClassVar[int]
    id: str
    role: Role
    expires_at: float
    uses_left: int
    made_by: str
    def __init__(self, id: _Optional[str] = ..., role: _Optional[_Union[Role, str]] = ..., expires_at: _Optional[float] = ..., uses_left: _Optional[int] = ..., made_by: _Optional[str] = ...) -> None: ...

class CreateInviteRequest(_message.Message):
    __slots__ = ("session_id", "role", "expires_in_s", "uses")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_IN_S_FIELD_NUMBER: _ClassVar[int]
    USES_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    role: Role
    expires_in_s: float
    uses: int
    def __init__(self, session_id: _Optional[str] = ..., role: _Optional[_Union[Role, str]] = ..., expires_in_s: _Optional[float] = ..., uses: _Optional[int] = ...) -> None: ...

class CreateInviteResponse(_message.Message):
    __slots__ = ("invite", "secret")
    INVITE_FIELD_NUMBER: _ClassVar[int]
    SECRET_FIELD_NUMBER: _ClassVar[int]
    invite: Invite
    secret: str
    def __init__(self, invite: _Optional[_Union[Invite, _Mapping]] = ..., secret: _Optional[str] = ...) -> None: ...

class ListInvitesRequest(_message.Message):
    __slots__ = ("session_id",)
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    def __init__(self, session_id: _Optional[str] = ...) -> None: ...

class ListInvitesResponse(_message.Message):
    __slots__ = ("invites",)
    INVITES_FIELD_NUMBER: _ClassVar[int]
    invites: _containers.RepeatedCompositeFieldContainer[Invite]
    def __init__(self, invites: _Optional[_Iterable[_Union[Invite, _Mapping]]] = ...) -> None: ...

class RevokeInviteRequest(_message.Message):
    __slots__ = ("session_id", "invite_id")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    INVITE_ID_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    invite_id: str
    def __init__(self, session_id: _Optional[str] = ..., invite_id: _Optional[str] = ...) -> None: ...

class RevokeInviteResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListServicesRequest(_message.Message):
    __slots__ = ("session_id", "kind")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    kind: str
    def __init__(self, session_id: _Optional[str] = ..., kind: _Optional[str] = ...) -> None: ...

class ListServicesResponse(_message.Message):
    __slots__ = ("services", "revision")
    SERVICES_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    services: _containers.RepeatedCompositeFieldContainer[Service]
    revision: int
    def __init__(self, services: _Optional[_Iterable[_Union[Service, _Mapping]]] = ..., revision: _Optional[int] = ...) -> None: ...

class Simulation(_message.Message):
    __slots__ = ("name", "title", "description", "kind", "launcher", "status", "service_id")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    LAUNCHER_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    SERVICE_ID_FIELD_NUMBER: _ClassVar[int]
    name: str
    title: str
    description: str
    kind: str
    launcher: str
    status: ServiceStatus
    service_id: str
    def __init__(self, name: _Optional[str] = ..., title: _Optional[str] = ..., description: _Optional[str] = ..., kind: _Optional[str] = ..., launcher: _Optional[str] = ..., status: _Optional[_Union[ServiceStatus, str]] = ..., service_id: _Optional[str] = ...) -> None: ...

class ListSimulationsRequest(_message.Message):
    __slots__ = ("session_id",)
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    def __init__(self, session_id: _Optional[str] = ...) -> None: ...

class ListSimulationsResponse(_message.Message):
    __slots__ = ("simulations", "templates", "problems")
    SIMULATIONS_FIELD_NUMBER: _ClassVar[int]
    TEMPLATES_FIELD_NUMBER: _ClassVar[int]
    PROBLEMS_FIELD_NUMBER: _ClassVar[int]
    simulations: _containers.RepeatedCompositeFieldContainer[Simulation]
    templates: _containers.RepeatedScalarFieldContainer[str]
    problems: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, simulations: _Optional[_Iterable[_Union[Simulation, _Mapping]]] = ..., templates: _Optional[_Iterable[str]] = ..., problems: _Optional[_Iterable[str]] = ...) -> None: ...

class StartServiceRequest(_message.Message):
    __slots__ = ("session_id", "simulation")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    SIMULATION_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    simulation: str
    def __init__(self, session_id: _Optional[str] = ..., simulation: _Optional[str] = ...) -> None: ...

class StartServiceResponse(_message.Message):
    __slots__ = ("service",)
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    service: Service
    def __init__(self, service: _Optional[_Union[Service, _Mapping]] = ...) -> None: ...

class StopServiceRequest(_message.Message):
    __slots__ = ("session_id", "service_id")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    SERVICE_ID_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    service_id: str
    def __init__(self, session_id: _Optional[str] = ..., service_id: _Optional[str] = ...) -> None: ...

class StopServiceResponse(_message.Message):
    __slots__ = ("service",)
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    service: Service
    def __init__(self, service: _Optional[_Union[Service, _Mapping]] = ...) -> None: ...

class DrainServiceRequest(_message.Message):
    __slots__ = ("session_id", "service_id")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    SERVICE_ID_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    service_id: str
    def __init__(self, session_id: _Optional[str] = ..., service_id: _Optional[str] = ...) -> None: ...

class DrainServiceResponse(_message.Message):
    __slots__ = ("service",)
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    service: Service
    def __init__(self, service: _Optional[_Union[Service, _Mapping]] = ...) -> None: ...

class GetServiceLogRequest(_message.Message):
    __slots__ = ("session_id", "service_id", "lines")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    SERVICE_ID_FIELD_NUMBER: _ClassVar[int]
    LINES_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    service_id: str
    lines: int
    def __init__(self, session_id: _Optional[str] = ..., service_id: _Optional[str] = ..., lines: _Optional[int] = ...) -> None: ...

class GetServiceLogResponse(_message.Message):
    __slots__ = ("lines",)
    LINES_FIELD_NUMBER: _ClassVar[int]
    lines: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, lines: _Optional[_Iterable[str]] = ...) -> None: ...

class RotateKeysRequest(_message.Message):
    __slots__ = ("revoke",)
    REVOKE_FIELD_NUMBER: _ClassVar[int]
    revoke: bool
    def __init__(self, revoke: _Optional[bool] = ...) -> None: ...

class RotateKeysResponse(_message.Message):
    __slots__ = ("public_keys",)
    PUBLIC_KEYS_FIELD_NUMBER: _ClassVar[int]
    public_keys: _containers.RepeatedCompositeFieldContainer[PublicKey]
    def __init__(self, public_keys: _Optional[_Iterable[_Union[PublicKey, _Mapping]]] = ...) -> None: ...

class WatchSessionRequest(_message.Message):
    __slots__ = ("session_id", "epoch", "after_revision")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    AFTER_REVISION_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    epoch: str
    after_revision: int
    def __init__(self, session_id: _Optional[str] = ..., epoch: _Optional[str] = ..., after_revision: _Optional[int] = ...) -> None: ...

class WatchSessionResponse(_message.Message):
    __slots__ = ("epoch", "revision", "snapshot", "user_joined", "user_left", "service_changed", "service_removed", "user_changed", "session_changed", "session_ended", "reason", "revocations", "more")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    USER_JOINED_FIELD_NUMBER: _ClassVar[int]
    USER_LEFT_FIELD_NUMBER: _ClassVar[int]
    SERVICE_CHANGED_FIELD_NUMBER: _ClassVar[int]
    SERVICE_REMOVED_FIELD_NUMBER: _ClassVar[int]
    USER_CHANGED_FIELD_NUMBER: _ClassVar[int]
    SESSION_CHANGED_FIELD_NUMBER: _ClassVar[int]
    SESSION_ENDED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    REVOCATIONS_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    epoch: str
    revision: int
    snapshot: SessionSnapshot
    user_joined: User
    user_left: User
    service_changed: Service
    service_removed: Service
    user_changed: User
    session_changed: Session
    session_ended: Session
    reason: str
    revocations: _containers.RepeatedCompositeFieldContainer[Revocation]
    more: _containers.RepeatedCompositeFieldContainer[WatchSessionResponse]
    def __init__(self, epoch: _Optional[str] = ..., revision: _Optional[int] = ..., snapshot: _Optional[_Union[SessionSnapshot, _Mapping]] = ..., user_joined: _Optional[_Union[User, _Mapping]] = ..., user_left: _Optional[_Union[User, _Mapping]] = ..., service_changed: _Optional[_Union[Service, _Mapping]] = ..., service_removed: _Optional[_Union[Service, _Mapping]] = ..., user_changed: _Optional[_Union[User, _Mapping]] = ..., session_changed: _Optional[_Union[Session, _Mapping]] = ..., session_ended: _Optional[_Union[Session, _Mapping]] = ..., reason: _Optional[str] = ..., revocations: _Optional[_Iterable[_Union[Revocation, _Mapping]]] = ..., more: _Optional[_Iterable[_Union[WatchSessionResponse, _Mapping]]] = ...) -> None: ...

class SessionSnapshot(_message.Message):
    __slots__ = ("session", "users", "services", "revocations")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    USERS_FIELD_NUMBER: _ClassVar[int]
    SERVICES_FIELD_NUMBER: _ClassVar[int]
    REVOCATIONS_FIELD_NUMBER: _ClassVar[int]
    session: Session
    users: _containers.RepeatedCompositeFieldContainer[User]
    services: _containers.RepeatedCompositeFieldContainer[Service]
    revocations: _containers.RepeatedCompositeFieldContainer[Revocation]
    def __init__(self, session: _Optional[_Union[Session, _Mapping]] = ..., users: _Optional[_Iterable[_Union[User, _Mapping]]] = ..., services: _Optional[_Iterable[_Union[Service, _Mapping]]] = ..., revocations: _Optional[_Iterable[_Union[Revocation, _Mapping]]] = ...) -> None: ...

class HoldUsersRequest(_message.Message):
    __slots__ = ("begin", "end")
    BEGIN_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    begin: _containers.RepeatedScalarFieldContainer[str]
    end: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, begin: _Optional[_Iterable[str]] = ..., end: _Optional[_Iterable[str]] = ...) -> None: ...

class HoldUsersResponse(_message.Message):
    __slots__ = ("missing",)
    MISSING_FIELD_NUMBER: _ClassVar[int]
    missing: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, missing: _Optional[_Iterable[str]] = ...) -> None: ...

class RegisterServiceRequest(_message.Message):
    __slots__ = ("session_id", "service_key", "service")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    SERVICE_KEY_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    service_key: str
    service: Service
    def __init__(self, session_id: _Optional[str] = ..., service_key: _Optional[str] = ..., service: _Optional[_Union[Service, _Mapping]] = ...) -> None: ...

class RegisterServiceResponse(_message.Message):
    __slots__ = ("service_id", "lease_id", "lease_ttl_s", "public_keys", "token", "token_expires_in_s", "session_id")
    SERVICE_ID_FIELD_NUMBER: _ClassVar[int]
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    LEASE_TTL_S_FIELD_NUMBER: _ClassVar[int]
    PUBLIC_KEYS_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    TOKEN_EXPIRES_IN_S_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    service_id: str
    lease_id: str
    lease_ttl_s: float
    public_keys: _containers.RepeatedCompositeFieldContainer[PublicKey]
    token: str
    token_expires_in_s: float
    session_id: str
    def __init__(self, service_id: _Optional[str] = ..., lease_id: _Optional[str] = ..., lease_ttl_s: _Optional[float] = ..., public_keys: _Optional[_Iterable[_Union[PublicKey, _Mapping]]] = ..., token: _Optional[str] = ..., token_expires_in_s: _Optional[float] = ..., session_id: _Optional[str] = ...) -> None: ...

class RenewLeaseRequest(_message.Message):
    __slots__ = ("lease_id", "status", "occupancy", "metadata", "reason", "progress")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    OCCUPANCY_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    lease_id: str
    status: ServiceStatus
    occupancy: float
    metadata: _containers.ScalarMap[str, str]
    reason: str
    progress: float
    def __init__(self, lease_id: _Optional[str] = ..., status: _Optional[_Union[ServiceStatus, str]] = ..., occupancy: _Optional[float] = ..., metadata: _Optional[_Mapping[str, str]] = ..., reason: _Optional[str] = ..., progress: _Optional[float] = ...) -> None: ...

class RenewLeaseResponse(_message.Message):
    __slots__ = ("lease_ttl_s", "public_keys", "token", "token_expires_in_s", "drain")
    LEASE_TTL_S_FIELD_NUMBER: _ClassVar[int]
    PUBLIC_KEYS_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    TOKEN_EXPIRES_IN_S_FIELD_NUMBER: _ClassVar[int]
    DRAIN_FIELD_NUMBER: _ClassVar[int]
    lease_ttl_s: float
    public_keys: _containers.RepeatedCompositeFieldContainer[PublicKey]
    token: str
    token_expires_in_s: float
    drain: bool
    def __init__(self, lease_ttl_s: _Optional[float] = ..., public_keys: _Optional[_Iterable[_Union[PublicKey, _Mapping]]] = ..., token: _Optional[str] = ..., token_expires_in_s: _Optional[float] = ..., drain: _Optional[bool] = ...) -> None: ...

class LeadRequest(_message.Message):
    __slots__ = ("lease_id", "seen_epoch", "resign")
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    SEEN_EPOCH_FIELD_NUMBER: _ClassVar[int]
    RESIGN_FIELD_NUMBER: _ClassVar[int]
    lease_id: str
    seen_epoch: int
    resign: bool
    def __init__(self, lease_id: _Optional[str] = ..., seen_epoch: _Optional[int] = ..., resign: _Optional[bool] = ...) -> None: ...

class LeadResponse(_message.Message):
    __slots__ = ("epoch", "lease_ttl_s", "standbys", "leader_id", "leader_epoch")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    LEASE_TTL_S_FIELD_NUMBER: _ClassVar[int]
    STANDBYS_FIELD_NUMBER: _ClassVar[int]
    LEADER_ID_FIELD_NUMBER: _ClassVar[int]
    LEADER_EPOCH_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    lease_ttl_s: float
    standbys: int
    leader_id: str
    leader_epoch: int
    def __init__(self, epoch: _Optional[int] = ..., lease_ttl_s: _Optional[float] = ..., standbys: _Optional[int] = ..., leader_id: _Optional[str] = ..., leader_epoch: _Optional[int] = ...) -> None: ...

class DeregisterServiceRequest(_message.Message):
    __slots__ = ("lease_id",)
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    lease_id: str
    def __init__(self, lease_id: _Optional[str] = ...) -> None: ...

class DeregisterServiceResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
