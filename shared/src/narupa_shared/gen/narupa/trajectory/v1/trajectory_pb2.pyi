from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FrameMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FRAME_MODE_UNSPECIFIED: _ClassVar[FrameMode]
    FRAME_MODE_LATEST: _ClassVar[FrameMode]
    FRAME_MODE_ALL: _ClassVar[FrameMode]

class EngineState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ENGINE_STATE_UNSPECIFIED: _ClassVar[EngineState]
    ENGINE_STATE_STARTING: _ClassVar[EngineState]
    ENGINE_STATE_RUNNING: _ClassVar[EngineState]
    ENGINE_STATE_PAUSED: _ClassVar[EngineState]
    ENGINE_STATE_FAILED: _ClassVar[EngineState]

class DType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DTYPE_UNSPECIFIED: _ClassVar[DType]
    DTYPE_FLOAT32: _ClassVar[DType]
    DTYPE_UINT32: _ClassVar[DType]
    DTYPE_STRING: _ClassVar[DType]
    DTYPE_POSITIONS: _ClassVar[DType]
FRAME_MODE_UNSPECIFIED: FrameMode
FRAME_MODE_LATEST: FrameMode
FRAME_MODE_ALL: FrameMode
ENGINE_STATE_UNSPECIFIED: EngineState
ENGINE_STATE_STARTING: EngineState
ENGINE_STATE_RUNNING: EngineState
ENGINE_STATE_PAUSED: EngineState
ENGINE_STATE_FAILED: EngineState
DTYPE_UNSPECIFIED: DType
DTYPE_FLOAT32: DType
DTYPE_UINT32: DType
DTYPE_STRING: DType
DTYPE_POSITIONS: DType

class Array(_message.Message):
    __slots__ = ("dtype", "shape", "data", "strings")
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    STRINGS_FIELD_NUMBER: _ClassVar[int]
    dtype: DType
    shape: _containers.RepeatedScalarFieldContainer[int]
    data: bytes
    strings: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, dtype: _Optional[_Union[DType, str]] = ..., shape: _Optional[_Iterable[int]] = ..., data: _Optional[bytes] = ..., strings: _Optional[_Iterable[str]] = ...) -> None: ...

class View(_message.Message):
    __slots__ = ("fields", "particles", "selection", "precision_nm")
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    PARTICLES_FIELD_NUMBER: _ClassVar[int]
    SELECTION_FIELD_NUMBER: _ClassVar[int]
    PRECISION_NM_FIELD_NUMBER: _ClassVar[int]
    fields: _containers.RepeatedScalarFieldContainer[str]
    particles: _containers.RepeatedScalarFieldContainer[int]
    selection: str
    precision_nm: float
    def __init__(self, fields: _Optional[_Iterable[str]] = ..., particles: _Optional[_Iterable[int]] = ..., selection: _Optional[str] = ..., precision_nm: _Optional[float] = ...) -> None: ...

class Frame(_message.Message):
    __slots__ = ("index", "values", "arrays")
    class ValuesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _struct_pb2.Value
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_struct_pb2.Value, _Mapping]] = ...) -> None: ...
    class ArraysEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Array
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Array, _Mapping]] = ...) -> None: ...
    INDEX_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    ARRAYS_FIELD_NUMBER: _ClassVar[int]
    index: int
    values: _containers.MessageMap[str, _struct_pb2.Value]
    arrays: _containers.MessageMap[str, Array]
    def __init__(self, index: _Optional[int] = ..., values: _Optional[_Mapping[str, _struct_pb2.Value]] = ..., arrays: _Optional[_Mapping[str, Array]] = ...) -> None: ...

class SubscribeFramesRequest(_message.Message):
    __slots__ = ("mode", "frame_interval_s", "place", "view")
    MODE_FIELD_NUMBER: _ClassVar[int]
    FRAME_INTERVAL_S_FIELD_NUMBER: _ClassVar[int]
    PLACE_FIELD_NUMBER: _ClassVar[int]
    VIEW_FIELD_NUMBER: _ClassVar[int]
    mode: FrameMode
    frame_interval_s: float
    place: Place
    view: View
    def __init__(self, mode: _Optional[_Union[FrameMode, str]] = ..., frame_interval_s: _Optional[float] = ..., place: _Optional[_Union[Place, _Mapping]] = ..., view: _Optional[_Union[View, _Mapping]] = ...) -> None: ...

class Place(_message.Message):
    __slots__ = ("run_id", "frame", "paused", "dynamics_interval_s")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    FRAME_FIELD_NUMBER: _ClassVar[int]
    PAUSED_FIELD_NUMBER: _ClassVar[int]
    DYNAMICS_INTERVAL_S_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    frame: int
    paused: bool
    dynamics_interval_s: float
    def __init__(self, run_id: _Optional[str] = ..., frame: _Optional[int] = ..., paused: _Optional[bool] = ..., dynamics_interval_s: _Optional[float] = ...) -> None: ...

class SubscribeFramesResponse(_message.Message):
    __slots__ = ("frame",)
    FRAME_FIELD_NUMBER: _ClassVar[int]
    frame: Frame
    def __init__(self, frame: _Optional[_Union[Frame, _Mapping]] = ...) -> None: ...

class GetFrameRequest(_message.Message):
    __slots__ = ("index", "view")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    VIEW_FIELD_NUMBER: _ClassVar[int]
    index: int
    view: View
    def __init__(self, index: _Optional[int] = ..., view: _Optional[_Union[View, _Mapping]] = ...) -> None: ...

class GetFrameResponse(_message.Message):
    __slots__ = ("frame",)
    FRAME_FIELD_NUMBER: _ClassVar[int]
    frame: Frame
    def __init__(self, frame: _Optional[_Union[Frame, _Mapping]] = ...) -> None: ...

class GetFramesRequest(_message.Message):
    __slots__ = ("start", "stop", "stride", "view")
    START_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    STRIDE_FIELD_NUMBER: _ClassVar[int]
    VIEW_FIELD_NUMBER: _ClassVar[int]
    start: int
    stop: int
    stride: int
    view: View
    def __init__(self, start: _Optional[int] = ..., stop: _Optional[int] = ..., stride: _Optional[int] = ..., view: _Optional[_Union[View, _Mapping]] = ...) -> None: ...

class GetFramesResponse(_message.Message):
    __slots__ = ("frame",)
    FRAME_FIELD_NUMBER: _ClassVar[int]
    frame: Frame
    def __init__(self, frame: _Optional[_Union[Frame, _Mapping]] = ...) -> None: ...

class PublishFrameRequest(_message.Message):
    __slots__ = ("frame",)
    FRAME_FIELD_NUMBER: _ClassVar[int]
    frame: Frame
    def __init__(self, frame: _Optional[_Union[Frame, _Mapping]] = ...) -> None: ...

class PublishFrameResponse(_message.Message):
    __slots__ = ("index",)
    INDEX_FIELD_NUMBER: _ClassVar[int]
    index: int
    def __init__(self, index: _Optional[int] = ...) -> None: ...

class WatchFinishedInteractionsRequest(_message.Message):
    __slots__ = ("epoch", "after_sequence")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    AFTER_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    epoch: str
    after_sequence: int
    def __init__(self, epoch: _Optional[str] = ..., after_sequence: _Optional[int] = ...) -> None: ...

class WatchFinishedInteractionsResponse(_message.Message):
    __slots__ = ("epoch", "finished")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    epoch: str
    finished: _containers.RepeatedCompositeFieldContainer[FinishedInteraction]
    def __init__(self, epoch: _Optional[str] = ..., finished: _Optional[_Iterable[_Union[FinishedInteraction, _Mapping]]] = ...) -> None: ...

class FinishedInteraction(_message.Message):
    __slots__ = ("sequence", "id", "owner", "potential", "particles", "started_at", "duration_s", "start_time_ps", "end_time_ps", "work", "run_id", "reason")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    POTENTIAL_FIELD_NUMBER: _ClassVar[int]
    PARTICLES_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    DURATION_S_FIELD_NUMBER: _ClassVar[int]
    START_TIME_PS_FIELD_NUMBER: _ClassVar[int]
    END_TIME_PS_FIELD_NUMBER: _ClassVar[int]
    WORK_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    id: str
    owner: str
    potential: str
    particles: _containers.RepeatedScalarFieldContainer[int]
    started_at: float
    duration_s: float
    start_time_ps: float
    end_time_ps: float
    work: float
    run_id: str
    reason: str
    def __init__(self, sequence: _Optional[int] = ..., id: _Optional[str] = ..., owner: _Optional[str] = ..., potential: _Optional[str] = ..., particles: _Optional[_Iterable[int]] = ..., started_at: _Optional[float] = ..., duration_s: _Optional[float] = ..., start_time_ps: _Optional[float] = ..., end_time_ps: _Optional[float] = ..., work: _Optional[float] = ..., run_id: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetStatusResponse(_message.Message):
    __slots__ = ("state", "sources", "source_index", "live", "frame_count", "frame_index", "particle_count", "steps_per_second", "dynamics_interval_s", "frame_interval_steps", "subscribers", "restarts", "exception", "frames_encoded", "frames_sent", "run_id")
    STATE_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    SOURCE_INDEX_FIELD_NUMBER: _ClassVar[int]
    LIVE_FIELD_NUMBER: _ClassVar[int]
    FRAME_COUNT_FIELD_NUMBER: _ClassVar[int]
    FRAME_INDEX_FIELD_NUMBER: _ClassVar[int]
    PARTICLE_COUNT_FIELD_NUMBER: _ClassVar[int]
    STEPS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    DYNAMICS_INTERVAL_S_FIELD_NUMBER: _ClassVar[int]
    FRAME_INTERVAL_STEPS_FIELD_NUMBER: _ClassVar[int]
    SUBSCRIBERS_FIELD_NUMBER: _ClassVar[int]
    RESTARTS_FIELD_NUMBER: _ClassVar[int]
    EXCEPTION_FIELD_NUMBER: _ClassVar[int]
    FRAMES_ENCODED_FIELD_NUMBER: _ClassVar[int]
    FRAMES_SENT_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    state: EngineState
    sources: _containers.RepeatedScalarFieldContainer[str]
    source_index: int
    live: bool
    frame_count: int
    frame_index: int
    particle_count: int
    steps_per_second: float
    dynamics_interval_s: float
    frame_interval_steps: int
    subscribers: int
    restarts: int
    exception: str
    frames_encoded: int
    frames_sent: int
    run_id: str
    def __init__(self, state: _Optional[_Union[EngineState, str]] = ..., sources: _Optional[_Iterable[str]] = ..., source_index: _Optional[int] = ..., live: _Optional[bool] = ..., frame_count: _Optional[int] = ..., frame_index: _Optional[int] = ..., particle_count: _Optional[int] = ..., steps_per_second: _Optional[float] = ..., dynamics_interval_s: _Optional[float] = ..., frame_interval_steps: _Optional[int] = ..., subscribers: _Optional[int] = ..., restarts: _Optional[int] = ..., exception: _Optional[str] = ..., frames_encoded: _Optional[int] = ..., frames_sent: _Optional[int] = ..., run_id: _Optional[str] = ...) -> None: ...

class Command(_message.Message):
    __slots__ = ("name", "arguments")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_FIELD_NUMBER: _ClassVar[int]
    name: str
    arguments: _struct_pb2.Struct
    def __init__(self, name: _Optional[str] = ..., arguments: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...

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
