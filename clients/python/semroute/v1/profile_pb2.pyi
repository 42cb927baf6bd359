from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

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
