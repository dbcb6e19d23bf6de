from google.protobuf import struct_pb2 as _struct_pb2
from narupa_shared.gen.narupa.protocol.trajectory import frame_pb2 as _frame_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetFrameRequest(_message.Message):
    __slots__ = ("data", "frame_interval")
    DATA_FIELD_NUMBER: _ClassVar[int]
    FRAME_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    data: _struct_pb2.Struct
    frame_interval: float
    def __init__(self, data: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., frame_interval: _Optional[float] = ...) -> None: ...

class GetFrameResponse(_message.Message):
    __slots__ = ("frame_index", "frame")
    FRAME_INDEX_FIELD_NUMBER: _ClassVar[int]
    FRAME_FIELD_NUMBER: _ClassVar[int]
    frame_index: int
    frame: _frame_pb2.FrameData
    def __init__(self, frame_index: _Optional[int] = ..., frame: _Optional[_Union[_frame_pb2.FrameData, _Mapping]] = ...) -> None: ...
