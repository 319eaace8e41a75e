from alise_contract.v1 import admission_pb2 as _admission_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PredictRequest(_message.Message):
    __slots__ = ("request", "without_embedding")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    WITHOUT_EMBEDDING_FIELD_NUMBER: _ClassVar[int]
    request: _admission_pb2.AdmitRequest
    without_embedding: bool
    def __init__(self, request: _Optional[_Union[_admission_pb2.AdmitRequest, _Mapping]] = ..., without_embedding: bool = ...) -> None: ...

class PredictResponse(_message.Message):
    __slots__ = ("quantiles", "level", "work_seconds", "alone_seconds")
    QUANTILES_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    WORK_SECONDS_FIELD_NUMBER: _ClassVar[int]
    ALONE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    quantiles: _containers.RepeatedScalarFieldContainer[float]
    level: int
    work_seconds: float
    alone_seconds: float
    def __init__(self, quantiles: _Optional[_Iterable[float]] = ..., level: _Optional[int] = ..., work_seconds: _Optional[float] = ..., alone_seconds: _Optional[float] = ...) -> None: ...

class WatchLoadRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class LoadReport(_message.Message):
    __slots__ = ("levels", "slots", "draining", "connected", "max_wait_seconds", "arrivals")
    LEVELS_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    CONNECTED_FIELD_NUMBER: _ClassVar[int]
    MAX_WAIT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    ARRIVALS_FIELD_NUMBER: _ClassVar[int]
    levels: _containers.RepeatedCompositeFieldContainer[LevelLoad]
    slots: float
    draining: bool
    connected: bool
    max_wait_seconds: float
    arrivals: int
    def __init__(self, levels: _Optional[_Iterable[_Union[LevelLoad, _Mapping]]] = ..., slots: _Optional[float] = ..., draining: bool = ..., connected: bool = ..., max_wait_seconds: _Optional[float] = ..., arrivals: _Optional[int] = ...) -> None: ...

class LevelLoad(_message.Message):
    __slots__ = ("level", "samples", "work_seconds")
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    WORK_SECONDS_FIELD_NUMBER: _ClassVar[int]
    level: int
    samples: float
    work_seconds: float
    def __init__(self, level: _Optional[int] = ..., samples: _Optional[float] = ..., work_seconds: _Optional[float] = ...) -> None: ...
