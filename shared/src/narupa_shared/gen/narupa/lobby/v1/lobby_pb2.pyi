from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ServiceStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SERVICE_STATUS_UNSPECIFIED: _ClassVar[ServiceStatus]
    SERVICE_STATUS_AVAILABLE: _ClassVar[ServiceStatus]
    SERVICE_STATUS_STARTING: _ClassVar[ServiceStatus]
    SERVICE_STATUS_RUNNING: _ClassVar[ServiceStatus]
    SERVICE_STATUS_UNHEALTHY: _ClassVar[ServiceStatus]
    SERVICE_STATUS_DRAINING: _ClassVar[ServiceStatus]
SERVICE_STATUS_UNSPECIFIED: ServiceStatus
SERVICE_STATUS_AVAILABLE: ServiceStatus
SERVICE_STATUS_STARTING: ServiceStatus
SERVICE_STATUS_RUNNING: ServiceStatus
SERVICE_STATUS_UNHEALTHY: ServiceStatus
SERVICE_STATUS_DRAINING: ServiceStatus

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
    __slots__ = ("id", "kind", "status", "endpoints", "capacity", "occupancy", "metadata")
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
    id: str
    kind: str
    status: ServiceStatus
    endpoints: _containers.RepeatedCompositeFieldContainer[Endpoint]
    capacity: int
    occupancy: float
    metadata: _containers.ScalarMap[str, str]
    def __init__(self, id: _Optional[str] = ..., kind: _Optional[str] = ..., status: _Optional[_Union[ServiceStatus, str]] = ..., endpoints: _Optional[_Iterable[_Union[Endpoint, _Mapping]]] = ..., capacity: _Optional[int] = ..., occupancy: _Optional[float] = ..., metadata: _Optional[_Mapping[str, str]] = ...) -> None: ...

class User(_message.Message):
    __slots__ = ("id", "name")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    id: str
    name: str
    def __init__(self, id: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class Session(_message.Message):
    __slots__ = ("id", "name", "user_count", "service_count")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    USER_COUNT_FIELD_NUMBER: _ClassVar[int]
    SERVICE_COUNT_FIELD_NUMBER: _ClassVar[int]
    id: str
    name: str
    user_count: int
    service_count: int
    def __init__(self, id: _Optional[str] = ..., name: _Optional[str] = ..., user_count: _Optional[int] = ..., service_count: _Optional[int] = ...) -> None: ...

class PublicKey(_message.Message):
    __slots__ = ("key_id", "key")
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    key_id: str
    key: bytes
    def __init__(self, key_id: _Optional[str] = ..., key: _Optional[bytes] = ...) -> None: ...

class JoinRequest(_message.Message):
    __slots__ = ("session_id", "user_name", "join_code")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    USER_NAME_FIELD_NUMBER: _ClassVar[int]
    JOIN_CODE_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    user_name: str
    join_code: str
    def __init__(self, session_id: _Optional[str] = ..., user_name: _Optional[str] = ..., join_code: _Optional[str] = ...) -> None: ...

class JoinResponse(_message.Message):
    __slots__ = ("session_id", "user", "token", "token_expires_in_s", "services", "revision", "user_lease_s")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    TOKEN_EXPIRES_IN_S_FIELD_NUMBER: _ClassVar[int]
    SERVICES_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    USER_LEASE_S_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    user: User
    token: str
    token_expires_in_s: float
    services: _containers.RepeatedCompositeFieldContainer[Service]
    revision: int
    user_lease_s: float
    def __init__(self, session_id: _Optional[str] = ..., user: _Optional[_Union[User, _Mapping]] = ..., token: _Optional[str] = ..., token_expires_in_s: _Optional[float] = ..., services: _Optional[_Iterable[_Union[Service, _Mapping]]] = ..., revision: _Optional[int] = ..., user_lease_s: _Optional[float] = ...) -> None: ...

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
    __slots__ = ("token", "token_expires_in_s")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    TOKEN_EXPIRES_IN_S_FIELD_NUMBER: _ClassVar[int]
    token: str
    token_expires_in_s: float
    def __init__(self, token: _Optional[str] = ..., token_expires_in_s: _Optional[float] = ...) -> None: ...

class ListSessionsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListSessionsResponse(_message.Message):
    __slots__ = ("sessions",)
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    sessions: _containers.RepeatedCompositeFieldContainer[Session]
    def __init__(self, sessions: _Optional[_Iterable[_Union[Session, _Mapping]]] = ...) -> None: ...

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
    __slots__ = ("epoch", "revision", "snapshot", "user_joined", "user_left", "service_changed", "service_removed")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    USER_JOINED_FIELD_NUMBER: _ClassVar[int]
    USER_LEFT_FIELD_NUMBER: _ClassVar[int]
    SERVICE_CHANGED_FIELD_NUMBER: _ClassVar[int]
    SERVICE_REMOVED_FIELD_NUMBER: _ClassVar[int]
    epoch: str
    revision: int
    snapshot: SessionSnapshot
    user_joined: User
    user_left: User
    service_changed: Service
    service_removed: Service
    def __init__(self, epoch: _Optional[str] = ..., revision: _Optional[int] = ..., snapshot: _Optional[_Union[SessionSnapshot, _Mapping]] = ..., user_joined: _Optional[_Union[User, _Mapping]] = ..., user_left: _Optional[_Union[User, _Mapping]] = ..., service_changed: _Optional[_Union[Service, _Mapping]] = ..., service_removed: _Optional[_Union[Service, _Mapping]] = ...) -> None: ...

class SessionSnapshot(_message.Message):
    __slots__ = ("session", "users", "services")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    USERS_FIELD_NUMBER: _ClassVar[int]
    SERVICES_FIELD_NUMBER: _ClassVar[int]
    session: Session
    users: _containers.RepeatedCompositeFieldContainer[User]
    services: _containers.RepeatedCompositeFieldContainer[Service]
    def __init__(self, session: _Optional[_Union[Session, _Mapping]] = ..., users: _Optional[_Iterable[_Union[User, _Mapping]]] = ..., services: _Optional[_Iterable[_Union[Service, _Mapping]]] = ...) -> None: ...

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
    __slots__ = ("lease_id", "status", "occupancy", "metadata")
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
    lease_id: str
    status: ServiceStatus
    occupancy: float
    metadata: _containers.ScalarMap[str, str]
    def __init__(self, lease_id: _Optional[str] = ..., status: _Optional[_Union[ServiceStatus, str]] = ..., occupancy: _Optional[float] = ..., metadata: _Optional[_Mapping[str, str]] = ...) -> None: ...

class RenewLeaseResponse(_message.Message):
    __slots__ = ("lease_ttl_s", "public_keys", "token", "token_expires_in_s")
    LEASE_TTL_S_FIELD_NUMBER: _ClassVar[int]
    PUBLIC_KEYS_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    TOKEN_EXPIRES_IN_S_FIELD_NUMBER: _ClassVar[int]
    lease_ttl_s: float
    public_keys: _containers.RepeatedCompositeFieldContainer[PublicKey]
    token: str
    token_expires_in_s: float
    def __init__(self, lease_ttl_s: _Optional[float] = ..., public_keys: _Optional[_Iterable[_Union[PublicKey, _Mapping]]] = ..., token: _Optional[str] = ..., token_expires_in_s: _Optional[float] = ...) -> None: ...

class DeregisterServiceRequest(_message.Message):
    __slots__ = ("lease_id",)
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    lease_id: str
    def __init__(self, lease_id: _Optional[str] = ...) -> None: ...

class DeregisterServiceResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
