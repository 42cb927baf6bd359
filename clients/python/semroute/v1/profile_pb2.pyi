import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GpuSource(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    GPU_SOURCE_UNSPECIFIED: _ClassVar[GpuSource]
    GPU_SOURCE_NVML: _ClassVar[GpuSource]
    GPU_SOURCE_SLURM: _ClassVar[GpuSource]
    GPU_SOURCE_BACKEND: _ClassVar[GpuSource]

class Health(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    HEALTH_UNSPECIFIED: _ClassVar[Health]
    HEALTH_UP: _ClassVar[Health]
    HEALTH_DOWN: _ClassVar[Health]

class Circuit(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CIRCUIT_UNSPECIFIED: _ClassVar[Circuit]
    CIRCUIT_CLOSED: _ClassVar[Circuit]
    CIRCUIT_OPEN: _ClassVar[Circuit]
    CIRCUIT_HALF_OPEN: _ClassVar[Circuit]
GPU_SOURCE_UNSPECIFIED: GpuSource
GPU_SOURCE_NVML: GpuSource
GPU_SOURCE_SLURM: GpuSource
GPU_SOURCE_BACKEND: GpuSource
HEALTH_UNSPECIFIED: Health
HEALTH_UP: Health
HEALTH_DOWN: Health
CIRCUIT_UNSPECIFIED: Circuit
CIRCUIT_CLOSED: Circuit
CIRCUIT_OPEN: Circuit
CIRCUIT_HALF_OPEN: Circuit

class ListProfilesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListProfilesResponse(_message.Message):
    __slots__ = ("profiles",)
    PROFILES_FIELD_NUMBER: _ClassVar[int]
    profiles: _containers.RepeatedCompositeFieldContainer[ProfileSummary]
    def __init__(self, profiles: _Optional[_Iterable[_Union[ProfileSummary, _Mapping]]] = ...) -> None: ...

class ProfileSummary(_message.Message):
    __slots__ = ("name", "description", "version", "revision", "active")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_FIELD_NUMBER: _ClassVar[int]
    name: str
    description: str
    version: str
    revision: str
    active: bool
    def __init__(self, name: _Optional[str] = ..., description: _Optional[str] = ..., version: _Optional[str] = ..., revision: _Optional[str] = ..., active: bool = ...) -> None: ...

class GetProfileRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class GetProfileResponse(_message.Message):
    __slots__ = ("profile",)
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    profile: Profile
    def __init__(self, profile: _Optional[_Union[Profile, _Mapping]] = ...) -> None: ...

class Profile(_message.Message):
    __slots__ = ("summary", "models", "routes", "allow_cloud")
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    ROUTES_FIELD_NUMBER: _ClassVar[int]
    ALLOW_CLOUD_FIELD_NUMBER: _ClassVar[int]
    summary: ProfileSummary
    models: _containers.RepeatedCompositeFieldContainer[Model]
    routes: _containers.RepeatedCompositeFieldContainer[Route]
    allow_cloud: bool
    def __init__(self, summary: _Optional[_Union[ProfileSummary, _Mapping]] = ..., models: _Optional[_Iterable[_Union[Model, _Mapping]]] = ..., routes: _Optional[_Iterable[_Union[Route, _Mapping]]] = ..., allow_cloud: bool = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("name", "id", "backend", "provider", "local")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_FIELD_NUMBER: _ClassVar[int]
    LOCAL_FIELD_NUMBER: _ClassVar[int]
    name: str
    id: str
    backend: str
    provider: str
    local: bool
    def __init__(self, name: _Optional[str] = ..., id: _Optional[str] = ..., backend: _Optional[str] = ..., provider: _Optional[str] = ..., local: bool = ...) -> None: ...

class Route(_message.Message):
    __slots__ = ("task", "low", "medium", "high", "allow_cloud")
    TASK_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    MEDIUM_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    ALLOW_CLOUD_FIELD_NUMBER: _ClassVar[int]
    task: str
    low: _containers.RepeatedScalarFieldContainer[str]
    medium: _containers.RepeatedScalarFieldContainer[str]
    high: _containers.RepeatedScalarFieldContainer[str]
    allow_cloud: bool
    def __init__(self, task: _Optional[str] = ..., low: _Optional[_Iterable[str]] = ..., medium: _Optional[_Iterable[str]] = ..., high: _Optional[_Iterable[str]] = ..., allow_cloud: bool = ...) -> None: ...

class ActivateProfileRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class ActivateProfileResponse(_message.Message):
    __slots__ = ("active", "previous")
    ACTIVE_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_FIELD_NUMBER: _ClassVar[int]
    active: ProfileSummary
    previous: str
    def __init__(self, active: _Optional[_Union[ProfileSummary, _Mapping]] = ..., previous: _Optional[str] = ...) -> None: ...

class DetectResourcesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DetectResourcesResponse(_message.Message):
    __slots__ = ("resources", "fits", "recommended")
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    FITS_FIELD_NUMBER: _ClassVar[int]
    RECOMMENDED_FIELD_NUMBER: _ClassVar[int]
    resources: Resources
    fits: _containers.RepeatedCompositeFieldContainer[ProfileFit]
    recommended: str
    def __init__(self, resources: _Optional[_Union[Resources, _Mapping]] = ..., fits: _Optional[_Iterable[_Union[ProfileFit, _Mapping]]] = ..., recommended: _Optional[str] = ...) -> None: ...

class Resources(_message.Message):
    __slots__ = ("gpus", "slurm", "providers_with_key", "backends", "encoders", "cpu_cores", "memory_gb", "elapsed", "problems")
    GPUS_FIELD_NUMBER: _ClassVar[int]
    SLURM_FIELD_NUMBER: _ClassVar[int]
    PROVIDERS_WITH_KEY_FIELD_NUMBER: _ClassVar[int]
    BACKENDS_FIELD_NUMBER: _ClassVar[int]
    ENCODERS_FIELD_NUMBER: _ClassVar[int]
    CPU_CORES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_GB_FIELD_NUMBER: _ClassVar[int]
    ELAPSED_FIELD_NUMBER: _ClassVar[int]
    PROBLEMS_FIELD_NUMBER: _ClassVar[int]
    gpus: _containers.RepeatedCompositeFieldContainer[Gpu]
    slurm: Slurm
    providers_with_key: _containers.RepeatedScalarFieldContainer[str]
    backends: _containers.RepeatedCompositeFieldContainer[BackendProbe]
    encoders: _containers.RepeatedScalarFieldContainer[str]
    cpu_cores: int
    memory_gb: float
    elapsed: _duration_pb2.Duration
    problems: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, gpus: _Optional[_Iterable[_Union[Gpu, _Mapping]]] = ..., slurm: _Optional[_Union[Slurm, _Mapping]] = ..., providers_with_key: _Optional[_Iterable[str]] = ..., backends: _Optional[_Iterable[_Union[BackendProbe, _Mapping]]] = ..., encoders: _Optional[_Iterable[str]] = ..., cpu_cores: _Optional[int] = ..., memory_gb: _Optional[float] = ..., elapsed: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., problems: _Optional[_Iterable[str]] = ...) -> None: ...

class Gpu(_message.Message):
    __slots__ = ("type", "count", "memory_gb", "source", "place")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    MEMORY_GB_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    PLACE_FIELD_NUMBER: _ClassVar[int]
    type: str
    count: int
    memory_gb: float
    source: GpuSource
    place: str
    def __init__(self, type: _Optional[str] = ..., count: _Optional[int] = ..., memory_gb: _Optional[float] = ..., source: _Optional[_Union[GpuSource, str]] = ..., place: _Optional[str] = ...) -> None: ...

class Slurm(_message.Message):
    __slots__ = ("partitions", "job_id", "job_partition")
    PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    JOB_PARTITION_FIELD_NUMBER: _ClassVar[int]
    partitions: _containers.RepeatedScalarFieldContainer[str]
    job_id: str
    job_partition: str
    def __init__(self, partitions: _Optional[_Iterable[str]] = ..., job_id: _Optional[str] = ..., job_partition: _Optional[str] = ...) -> None: ...

class BackendProbe(_message.Message):
    __slots__ = ("backend", "profile", "url", "answers", "models", "missing_models", "problem")
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    URL_FIELD_NUMBER: _ClassVar[int]
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    MISSING_MODELS_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    backend: str
    profile: str
    url: str
    answers: bool
    models: _containers.RepeatedScalarFieldContainer[str]
    missing_models: _containers.RepeatedScalarFieldContainer[str]
    problem: str
    def __init__(self, backend: _Optional[str] = ..., profile: _Optional[str] = ..., url: _Optional[str] = ..., answers: bool = ..., models: _Optional[_Iterable[str]] = ..., missing_models: _Optional[_Iterable[str]] = ..., problem: _Optional[str] = ...) -> None: ...

class ProfileFit(_message.Message):
    __slots__ = ("profile", "fits", "requirements")
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    FITS_FIELD_NUMBER: _ClassVar[int]
    REQUIREMENTS_FIELD_NUMBER: _ClassVar[int]
    profile: str
    fits: bool
    requirements: _containers.RepeatedCompositeFieldContainer[Requirement]
    def __init__(self, profile: _Optional[str] = ..., fits: bool = ..., requirements: _Optional[_Iterable[_Union[Requirement, _Mapping]]] = ...) -> None: ...

class Requirement(_message.Message):
    __slots__ = ("what", "met")
    WHAT_FIELD_NUMBER: _ClassVar[int]
    MET_FIELD_NUMBER: _ClassVar[int]
    what: str
    met: bool
    def __init__(self, what: _Optional[str] = ..., met: bool = ...) -> None: ...

class EndSessionRequest(_message.Message):
    __slots__ = ("session_id", "tenant")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    tenant: str
    def __init__(self, session_id: _Optional[str] = ..., tenant: _Optional[str] = ...) -> None: ...

class EndSessionResponse(_message.Message):
    __slots__ = ("duration", "requests", "cost_nano_usd", "errors")
    DURATION_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    COST_NANO_USD_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    duration: _duration_pb2.Duration
    requests: int
    cost_nano_usd: int
    errors: int
    def __init__(self, duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., requests: _Optional[int] = ..., cost_nano_usd: _Optional[int] = ..., errors: _Optional[int] = ...) -> None: ...

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetStatusResponse(_message.Message):
    __slots__ = ("active", "utterances_revision", "started_at", "uptime", "sessions", "requests", "errors", "fallbacks", "version")
    ACTIVE_FIELD_NUMBER: _ClassVar[int]
    UTTERANCES_REVISION_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    UPTIME_FIELD_NUMBER: _ClassVar[int]
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    FALLBACKS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    active: ProfileSummary
    utterances_revision: str
    started_at: _timestamp_pb2.Timestamp
    uptime: _duration_pb2.Duration
    sessions: int
    requests: int
    errors: int
    fallbacks: int
    version: str
    def __init__(self, active: _Optional[_Union[ProfileSummary, _Mapping]] = ..., utterances_revision: _Optional[str] = ..., started_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., uptime: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., sessions: _Optional[int] = ..., requests: _Optional[int] = ..., errors: _Optional[int] = ..., fallbacks: _Optional[int] = ..., version: _Optional[str] = ...) -> None: ...

class ListBackendsRequest(_message.Message):
    __slots__ = ("profile",)
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    profile: str
    def __init__(self, profile: _Optional[str] = ...) -> None: ...

class ListBackendsResponse(_message.Message):
    __slots__ = ("profile", "backends")
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    BACKENDS_FIELD_NUMBER: _ClassVar[int]
    profile: str
    backends: _containers.RepeatedCompositeFieldContainer[BackendStatus]
    def __init__(self, profile: _Optional[str] = ..., backends: _Optional[_Iterable[_Union[BackendStatus, _Mapping]]] = ...) -> None: ...

class BackendStatus(_message.Message):
    __slots__ = ("backend", "provider", "local", "health", "problem", "checked_at", "waiting", "models")
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_FIELD_NUMBER: _ClassVar[int]
    LOCAL_FIELD_NUMBER: _ClassVar[int]
    HEALTH_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    CHECKED_AT_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    backend: str
    provider: str
    local: bool
    health: Health
    problem: str
    checked_at: _timestamp_pb2.Timestamp
    waiting: int
    models: _containers.RepeatedCompositeFieldContainer[ModelStatus]
    def __init__(self, backend: _Optional[str] = ..., provider: _Optional[str] = ..., local: bool = ..., health: _Optional[_Union[Health, str]] = ..., problem: _Optional[str] = ..., checked_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., waiting: _Optional[int] = ..., models: _Optional[_Iterable[_Union[ModelStatus, _Mapping]]] = ...) -> None: ...

class ModelStatus(_message.Message):
    __slots__ = ("model", "unavailable", "circuit", "ready_in", "calls", "failures", "time_to_first_token", "tokens_per_second")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    UNAVAILABLE_FIELD_NUMBER: _ClassVar[int]
    CIRCUIT_FIELD_NUMBER: _ClassVar[int]
    READY_IN_FIELD_NUMBER: _ClassVar[int]
    CALLS_FIELD_NUMBER: _ClassVar[int]
    FAILURES_FIELD_NUMBER: _ClassVar[int]
    TIME_TO_FIRST_TOKEN_FIELD_NUMBER: _ClassVar[int]
    TOKENS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    model: str
    unavailable: str
    circuit: Circuit
    ready_in: _duration_pb2.Duration
    calls: int
    failures: int
    time_to_first_token: Quantiles
    tokens_per_second: float
    def __init__(self, model: _Optional[str] = ..., unavailable: _Optional[str] = ..., circuit: _Optional[_Union[Circuit, str]] = ..., ready_in: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., calls: _Optional[int] = ..., failures: _Optional[int] = ..., time_to_first_token: _Optional[_Union[Quantiles, _Mapping]] = ..., tokens_per_second: _Optional[float] = ...) -> None: ...

class Quantiles(_message.Message):
    __slots__ = ("p50", "p95", "count")
    P50_FIELD_NUMBER: _ClassVar[int]
    P95_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    p50: _duration_pb2.Duration
    p95: _duration_pb2.Duration
    count: int
    def __init__(self, p50: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., p95: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., count: _Optional[int] = ...) -> None: ...
