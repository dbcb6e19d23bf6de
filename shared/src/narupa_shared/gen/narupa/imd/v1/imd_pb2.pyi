from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PotentialKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    POTENTIAL_KIND_UNSPECIFIED: _ClassVar[PotentialKind]
    POTENTIAL_KIND_GAUSSIAN: _ClassVar[PotentialKind]
    POTENTIAL_KIND_SPRING: _ClassVar[PotentialKind]
    POTENTIAL_KIND_CONSTANT: _ClassVar[PotentialKind]
POTENTIAL_KIND_UNSPECIFIED: PotentialKind
POTENTIAL_KIND_GAUSSIAN: PotentialKind
POTENTIAL_KIND_SPRING: PotentialKind
POTENTIAL_KIND_CONSTANT: PotentialKind

class Interaction(_message.Message):
    __slots__ = ("id", "position", "particles", "kind", "scale", "mass_weighted", "reset_velocities", "max_force", "properties", "potential", "parameters", "groups", "owner")
    ID_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    PARTICLES_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    SCALE_FIELD_NUMBER: _ClassVar[int]
    MASS_WEIGHTED_FIELD_NUMBER: _ClassVar[int]
    RESET_VELOCITIES_FIELD_NUMBER: _ClassVar[int]
    MAX_FORCE_FIELD_NUMBER: _ClassVar[int]
    PROPERTIES_FIELD_NUMBER: _ClassVar[int]
    POTENTIAL_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    id: str
    position: _containers.RepeatedScalarFieldContainer[float]
    particles: _containers.RepeatedScalarFieldContainer[int]
    kind: PotentialKind
    scale: float
    mass_weighted: bool
    reset_velocities: bool
    max_force: float
    properties: _struct_pb2.Struct
    potential: str
    parameters: _struct_pb2.Struct
    groups: _containers.RepeatedCompositeFieldContainer[ParticleGroup]
    owner: str
    def __init__(self, id: _Optional[str] = ..., position: _Optional[_Iterable[float]] = ..., particles: _Optional[_Iterable[int]] = ..., kind: _Optional[_Union[PotentialKind, str]] = ..., scale: _Optional[float] = ..., mass_weighted: _Optional[bool] = ..., reset_velocities: _Optional[bool] = ..., max_force: _Optional[float] = ..., properties: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., potential: _Optional[str] = ..., parameters: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., groups: _Optional[_Iterable[_Union[ParticleGroup, _Mapping]]] = ..., owner: _Optional[str] = ...) -> None: ...

class ParticleGroup(_message.Message):
    __slots__ = ("particles",)
    PARTICLES_FIELD_NUMBER: _ClassVar[int]
    particles: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, particles: _Optional[_Iterable[int]] = ...) -> None: ...

class InteractRequest(_message.Message):
    __slots__ = ("sequence", "set", "move", "remove", "change")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    SET_FIELD_NUMBER: _ClassVar[int]
    MOVE_FIELD_NUMBER: _ClassVar[int]
    REMOVE_FIELD_NUMBER: _ClassVar[int]
    CHANGE_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    set: Interaction
    move: Move
    remove: str
    change: Interaction
    def __init__(self, sequence: _Optional[int] = ..., set: _Optional[_Union[Interaction, _Mapping]] = ..., move: _Optional[_Union[Move, _Mapping]] = ..., remove: _Optional[str] = ..., change: _Optional[_Union[Interaction, _Mapping]] = ...) -> None: ...

class Move(_message.Message):
    __slots__ = ("id", "position")
    ID_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    id: str
    position: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, id: _Optional[str] = ..., position: _Optional[_Iterable[float]] = ...) -> None: ...

class InteractResponse(_message.Message):
    __slots__ = ("sequence", "revision", "error", "code", "ended")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    revision: int
    error: str
    code: int
    ended: str
    def __init__(self, sequence: _Optional[int] = ..., revision: _Optional[int] = ..., error: _Optional[str] = ..., code: _Optional[int] = ..., ended: _Optional[str] = ...) -> None: ...

class ListInteractionsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListInteractionsResponse(_message.Message):
    __slots__ = ("interactions", "revision")
    INTERACTIONS_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    interactions: _containers.RepeatedCompositeFieldContainer[OwnedInteraction]
    revision: int
    def __init__(self, interactions: _Optional[_Iterable[_Union[OwnedInteraction, _Mapping]]] = ..., revision: _Optional[int] = ...) -> None: ...

class OwnedInteraction(_message.Message):
    __slots__ = ("interaction", "owner")
    INTERACTION_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    interaction: Interaction
    owner: str
    def __init__(self, interaction: _Optional[_Union[Interaction, _Mapping]] = ..., owner: _Optional[str] = ...) -> None: ...

class FollowInteractionsRequest(_message.Message):
    __slots__ = ("particle_count", "velocity_reset_available", "simulation_counter", "simulation_name", "simulation_index", "ended", "replayed", "group", "epoch")
    PARTICLE_COUNT_FIELD_NUMBER: _ClassVar[int]
    VELOCITY_RESET_AVAILABLE_FIELD_NUMBER: _ClassVar[int]
    SIMULATION_COUNTER_FIELD_NUMBER: _ClassVar[int]
    SIMULATION_NAME_FIELD_NUMBER: _ClassVar[int]
    SIMULATION_INDEX_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    REPLAYED_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    particle_count: int
    velocity_reset_available: bool
    simulation_counter: int
    simulation_name: str
    simulation_index: int
    ended: _containers.RepeatedCompositeFieldContainer[EndedInteraction]
    replayed: ReplayedState
    group: str
    epoch: int
    def __init__(self, particle_count: _Optional[int] = ..., velocity_reset_available: _Optional[bool] = ..., simulation_counter: _Optional[int] = ..., simulation_name: _Optional[str] = ..., simulation_index: _Optional[int] = ..., ended: _Optional[_Iterable[_Union[EndedInteraction, _Mapping]]] = ..., replayed: _Optional[_Union[ReplayedState, _Mapping]] = ..., group: _Optional[str] = ..., epoch: _Optional[int] = ...) -> None: ...

class ReplayedState(_message.Message):
    __slots__ = ("whole", "updates", "removals")
    WHOLE_FIELD_NUMBER: _ClassVar[int]
    UPDATES_FIELD_NUMBER: _ClassVar[int]
    REMOVALS_FIELD_NUMBER: _ClassVar[int]
    whole: bool
    updates: _struct_pb2.Struct
    removals: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, whole: _Optional[bool] = ..., updates: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., removals: _Optional[_Iterable[str]] = ...) -> None: ...

class EndedInteraction(_message.Message):
    __slots__ = ("id", "reason")
    ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    id: str
    reason: str
    def __init__(self, id: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class FollowInteractionsResponse(_message.Message):
    __slots__ = ("whole", "set", "removed", "revision", "heartbeat_s")
    WHOLE_FIELD_NUMBER: _ClassVar[int]
    SET_FIELD_NUMBER: _ClassVar[int]
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_S_FIELD_NUMBER: _ClassVar[int]
    whole: bool
    set: _containers.RepeatedCompositeFieldContainer[Interaction]
    removed: _containers.RepeatedScalarFieldContainer[str]
    revision: int
    heartbeat_s: float
    def __init__(self, whole: _Optional[bool] = ..., set: _Optional[_Iterable[_Union[Interaction, _Mapping]]] = ..., removed: _Optional[_Iterable[str]] = ..., revision: _Optional[int] = ..., heartbeat_s: _Optional[float] = ...) -> None: ...

class GetStateRequest(_message.Message):
    __slots__ = ("prefix",)
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    prefix: str
    def __init__(self, prefix: _Optional[str] = ...) -> None: ...

class GetStateResponse(_message.Message):
    __slots__ = ("state", "epoch", "revision")
    STATE_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    state: _struct_pb2.Struct
    epoch: str
    revision: int
    def __init__(self, state: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., epoch: _Optional[str] = ..., revision: _Optional[int] = ...) -> None: ...

class WatchStateRequest(_message.Message):
    __slots__ = ("update_interval_s", "epoch", "after_revision", "prefix")
    UPDATE_INTERVAL_S_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    AFTER_REVISION_FIELD_NUMBER: _ClassVar[int]
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    update_interval_s: float
    epoch: str
    after_revision: int
    prefix: str
    def __init__(self, update_interval_s: _Optional[float] = ..., epoch: _Optional[str] = ..., after_revision: _Optional[int] = ..., prefix: _Optional[str] = ...) -> None: ...

class WatchStateResponse(_message.Message):
    __slots__ = ("epoch", "revision", "whole", "updates", "removals")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    WHOLE_FIELD_NUMBER: _ClassVar[int]
    UPDATES_FIELD_NUMBER: _ClassVar[int]
    REMOVALS_FIELD_NUMBER: _ClassVar[int]
    epoch: str
    revision: int
    whole: bool
    updates: _struct_pb2.Struct
    removals: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, epoch: _Optional[str] = ..., revision: _Optional[int] = ..., whole: _Optional[bool] = ..., updates: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., removals: _Optional[_Iterable[str]] = ...) -> None: ...

class UpdateStateRequest(_message.Message):
    __slots__ = ("updates", "removals")
    UPDATES_FIELD_NUMBER: _ClassVar[int]
    REMOVALS_FIELD_NUMBER: _ClassVar[int]
    updates: _struct_pb2.Struct
    removals: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, updates: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., removals: _Optional[_Iterable[str]] = ...) -> None: ...

class UpdateStateResponse(_message.Message):
    __slots__ = ("revision",)
    REVISION_FIELD_NUMBER: _ClassVar[int]
    revision: int
    def __init__(self, revision: _Optional[int] = ...) -> None: ...

class WriteStateRequest(_message.Message):
    __slots__ = ("sequence", "updates", "removals")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    UPDATES_FIELD_NUMBER: _ClassVar[int]
    REMOVALS_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    updates: _struct_pb2.Struct
    removals: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, sequence: _Optional[int] = ..., updates: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., removals: _Optional[_Iterable[str]] = ...) -> None: ...

class WriteStateResponse(_message.Message):
    __slots__ = ("sequence", "revision", "error", "code")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    revision: int
    error: str
    code: int
    def __init__(self, sequence: _Optional[int] = ..., revision: _Optional[int] = ..., error: _Optional[str] = ..., code: _Optional[int] = ...) -> None: ...

class UpdateLocksRequest(_message.Message):
    __slots__ = ("acquire_s", "release")
    class AcquireSEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    ACQUIRE_S_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    acquire_s: _containers.ScalarMap[str, float]
    release: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, acquire_s: _Optional[_Mapping[str, float]] = ..., release: _Optional[_Iterable[str]] = ...) -> None: ...

class UpdateLocksResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Command(_message.Message):
    __slots__ = ("name", "arguments", "label", "icon", "provider")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    ICON_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_FIELD_NUMBER: _ClassVar[int]
    name: str
    arguments: _struct_pb2.Struct
    label: str
    icon: str
    provider: str
    def __init__(self, name: _Optional[str] = ..., arguments: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., label: _Optional[str] = ..., icon: _Optional[str] = ..., provider: _Optional[str] = ...) -> None: ...

class ListCommandsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListCommandsResponse(_message.Message):
    __slots__ = ("commands",)
    COMMANDS_FIELD_NUMBER: _ClassVar[int]
    commands: _containers.RepeatedCompositeFieldContainer[Command]
    def __init__(self, commands: _Optional[_Iterable[_Union[Command, _Mapping]]] = ...) -> None: ...

class RunCommandRequest(_message.Message):
    __slots__ = ("name", "arguments")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_FIELD_NUMBER: _ClassVar[int]
    name: str
    arguments: _struct_pb2.Struct
    def __init__(self, name: _Optional[str] = ..., arguments: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...

class RunCommandResponse(_message.Message):
    __slots__ = ("result",)
    RESULT_FIELD_NUMBER: _ClassVar[int]
    result: _struct_pb2.Struct
    def __init__(self, result: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...

class ProvideCommandsRequest(_message.Message):
    __slots__ = ("register", "withdraw", "result")
    REGISTER_FIELD_NUMBER: _ClassVar[int]
    WITHDRAW_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    register: Command
    withdraw: str
    result: CommandResult
    def __init__(self, register: _Optional[_Union[Command, _Mapping]] = ..., withdraw: _Optional[str] = ..., result: _Optional[_Union[CommandResult, _Mapping]] = ...) -> None: ...

class CommandResult(_message.Message):
    __slots__ = ("call", "result", "error")
    CALL_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    call: int
    result: _struct_pb2.Struct
    error: str
    def __init__(self, call: _Optional[int] = ..., result: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., error: _Optional[str] = ...) -> None: ...

class ProvideCommandsResponse(_message.Message):
    __slots__ = ("call", "refused", "registered")
    CALL_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    REGISTERED_FIELD_NUMBER: _ClassVar[int]
    call: CommandCall
    refused: RefusedCommand
    registered: str
    def __init__(self, call: _Optional[_Union[CommandCall, _Mapping]] = ..., refused: _Optional[_Union[RefusedCommand, _Mapping]] = ..., registered: _Optional[str] = ...) -> None: ...

class CommandCall(_message.Message):
    __slots__ = ("call", "name", "arguments", "caller")
    CALL_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_FIELD_NUMBER: _ClassVar[int]
    CALLER_FIELD_NUMBER: _ClassVar[int]
    call: int
    name: str
    arguments: _struct_pb2.Struct
    caller: str
    def __init__(self, call: _Optional[int] = ..., name: _Optional[str] = ..., arguments: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., caller: _Optional[str] = ...) -> None: ...

class RefusedCommand(_message.Message):
    __slots__ = ("name", "error")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    name: str
    error: str
    def __init__(self, name: _Optional[str] = ..., error: _Optional[str] = ...) -> None: ...
