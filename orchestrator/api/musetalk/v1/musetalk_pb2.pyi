from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Output(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OUTPUT_UNSPECIFIED: _ClassVar[Output]
    OUTPUT_FRAGMENTS: _ClassVar[Output]
    OUTPUT_FRAMES: _ClassVar[Output]
OUTPUT_UNSPECIFIED: Output
OUTPUT_FRAGMENTS: Output
OUTPUT_FRAMES: Output

class SpeakRequest(_message.Message):
    __slots__ = ("text", "audio", "avatar", "fps", "output", "voice", "language")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    AUDIO_FIELD_NUMBER: _ClassVar[int]
    AVATAR_FIELD_NUMBER: _ClassVar[int]
    FPS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    VOICE_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    text: str
    audio: bytes
    avatar: str
    fps: int
    output: Output
    voice: str
    language: str
    def __init__(self, text: _Optional[str] = ..., audio: _Optional[bytes] = ..., avatar: _Optional[str] = ..., fps: _Optional[int] = ..., output: _Optional[_Union[Output, str]] = ..., voice: _Optional[str] = ..., language: _Optional[str] = ...) -> None: ...

class SpeakResponse(_message.Message):
    __slots__ = ("fragment", "frame", "sound", "finished")
    FRAGMENT_FIELD_NUMBER: _ClassVar[int]
    FRAME_FIELD_NUMBER: _ClassVar[int]
    SOUND_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    fragment: Fragment
    frame: Frame
    sound: Sound
    finished: Finished
    def __init__(self, fragment: _Optional[_Union[Fragment, _Mapping]] = ..., frame: _Optional[_Union[Frame, _Mapping]] = ..., sound: _Optional[_Union[Sound, _Mapping]] = ..., finished: _Optional[_Union[Finished, _Mapping]] = ...) -> None: ...

class Fragment(_message.Message):
    __slots__ = ("data", "start", "duration", "mime")
    DATA_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    DURATION_FIELD_NUMBER: _ClassVar[int]
    MIME_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    start: float
    duration: float
    mime: str
    def __init__(self, data: _Optional[bytes] = ..., start: _Optional[float] = ..., duration: _Optional[float] = ..., mime: _Optional[str] = ...) -> None: ...

class Frame(_message.Message):
    __slots__ = ("index", "width", "height", "bgr")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    BGR_FIELD_NUMBER: _ClassVar[int]
    index: int
    width: int
    height: int
    bgr: bytes
    def __init__(self, index: _Optional[int] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., bgr: _Optional[bytes] = ...) -> None: ...

class Sound(_message.Message):
    __slots__ = ("pcm", "rate")
    PCM_FIELD_NUMBER: _ClassVar[int]
    RATE_FIELD_NUMBER: _ClassVar[int]
    pcm: bytes
    rate: int
    def __init__(self, pcm: _Optional[bytes] = ..., rate: _Optional[int] = ...) -> None: ...

class Finished(_message.Message):
    __slots__ = ("frames", "seconds", "real_time_factor")
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    REAL_TIME_FACTOR_FIELD_NUMBER: _ClassVar[int]
    frames: int
    seconds: float
    real_time_factor: float
    def __init__(self, frames: _Optional[int] = ..., seconds: _Optional[float] = ..., real_time_factor: _Optional[float] = ...) -> None: ...

class ConverseRequest(_message.Message):
    __slots__ = ("join", "say", "ask", "speech", "interrupt", "playhead")
    JOIN_FIELD_NUMBER: _ClassVar[int]
    SAY_FIELD_NUMBER: _ClassVar[int]
    ASK_FIELD_NUMBER: _ClassVar[int]
    SPEECH_FIELD_NUMBER: _ClassVar[int]
    INTERRUPT_FIELD_NUMBER: _ClassVar[int]
    PLAYHEAD_FIELD_NUMBER: _ClassVar[int]
    join: Join
    say: Say
    ask: Ask
    speech: Speech
    interrupt: Interrupt
    playhead: Playhead
    def __init__(self, join: _Optional[_Union[Join, _Mapping]] = ..., say: _Optional[_Union[Say, _Mapping]] = ..., ask: _Optional[_Union[Ask, _Mapping]] = ..., speech: _Optional[_Union[Speech, _Mapping]] = ..., interrupt: _Optional[_Union[Interrupt, _Mapping]] = ..., playhead: _Optional[_Union[Playhead, _Mapping]] = ...) -> None: ...

class Join(_message.Message):
    __slots__ = ("avatar", "profile", "language", "voice")
    AVATAR_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    VOICE_FIELD_NUMBER: _ClassVar[int]
    avatar: str
    profile: str
    language: str
    voice: str
    def __init__(self, avatar: _Optional[str] = ..., profile: _Optional[str] = ..., language: _Optional[str] = ..., voice: _Optional[str] = ...) -> None: ...

class Say(_message.Message):
    __slots__ = ("text",)
    TEXT_FIELD_NUMBER: _ClassVar[int]
    text: str
    def __init__(self, text: _Optional[str] = ...) -> None: ...

class Ask(_message.Message):
    __slots__ = ("text",)
    TEXT_FIELD_NUMBER: _ClassVar[int]
    text: str
    def __init__(self, text: _Optional[str] = ...) -> None: ...

class Speech(_message.Message):
    __slots__ = ("pcm", "final")
    PCM_FIELD_NUMBER: _ClassVar[int]
    FINAL_FIELD_NUMBER: _ClassVar[int]
    pcm: bytes
    final: bool
    def __init__(self, pcm: _Optional[bytes] = ..., final: _Optional[bool] = ...) -> None: ...

class Interrupt(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Playhead(_message.Message):
    __slots__ = ("time",)
    TIME_FIELD_NUMBER: _ClassVar[int]
    time: float
    def __init__(self, time: _Optional[float] = ...) -> None: ...

class ConverseResponse(_message.Message):
    __slots__ = ("joined", "media", "event", "accepted")
    JOINED_FIELD_NUMBER: _ClassVar[int]
    MEDIA_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    joined: Joined
    media: Media
    event: Event
    accepted: Accepted
    def __init__(self, joined: _Optional[_Union[Joined, _Mapping]] = ..., media: _Optional[_Union[Media, _Mapping]] = ..., event: _Optional[_Union[Event, _Mapping]] = ..., accepted: _Optional[_Union[Accepted, _Mapping]] = ...) -> None: ...

class Joined(_message.Message):
    __slots__ = ("session", "avatar", "profile", "fps", "width", "height", "mime", "live_responder")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    AVATAR_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    FPS_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    MIME_FIELD_NUMBER: _ClassVar[int]
    LIVE_RESPONDER_FIELD_NUMBER: _ClassVar[int]
    session: str
    avatar: str
    profile: str
    fps: float
    width: int
    height: int
    mime: str
    live_responder: bool
    def __init__(self, session: _Optional[str] = ..., avatar: _Optional[str] = ..., profile: _Optional[str] = ..., fps: _Optional[float] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., mime: _Optional[str] = ..., live_responder: _Optional[bool] = ...) -> None: ...

class Media(_message.Message):
    __slots__ = ("sequence", "kind", "data", "start", "duration")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    DURATION_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    kind: str
    data: bytes
    start: float
    duration: float
    def __init__(self, sequence: _Optional[int] = ..., kind: _Optional[str] = ..., data: _Optional[bytes] = ..., start: _Optional[float] = ..., duration: _Optional[float] = ...) -> None: ...

class Event(_message.Message):
    __slots__ = ("name", "payload")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    name: str
    payload: _struct_pb2.Struct
    def __init__(self, name: _Optional[str] = ..., payload: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...

class Accepted(_message.Message):
    __slots__ = ("turn",)
    TURN_FIELD_NUMBER: _ClassVar[int]
    turn: str
    def __init__(self, turn: _Optional[str] = ...) -> None: ...

class Avatar(_message.Message):
    __slots__ = ("id", "name", "status", "progress", "width", "height", "fps", "frames", "consent", "notes", "deletable", "error")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    FPS_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    CONSENT_FIELD_NUMBER: _ClassVar[int]
    NOTES_FIELD_NUMBER: _ClassVar[int]
    DELETABLE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    id: str
    name: str
    status: str
    progress: float
    width: int
    height: int
    fps: int
    frames: int
    consent: str
    notes: _containers.RepeatedScalarFieldContainer[str]
    deletable: bool
    error: Problem
    def __init__(self, id: _Optional[str] = ..., name: _Optional[str] = ..., status: _Optional[str] = ..., progress: _Optional[float] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., fps: _Optional[int] = ..., frames: _Optional[int] = ..., consent: _Optional[str] = ..., notes: _Optional[_Iterable[str]] = ..., deletable: _Optional[bool] = ..., error: _Optional[_Union[Problem, _Mapping]] = ...) -> None: ...

class Problem(_message.Message):
    __slots__ = ("code", "detail", "remedy")
    CODE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    REMEDY_FIELD_NUMBER: _ClassVar[int]
    code: str
    detail: str
    remedy: str
    def __init__(self, code: _Optional[str] = ..., detail: _Optional[str] = ..., remedy: _Optional[str] = ...) -> None: ...

class ListAvatarsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListAvatarsResponse(_message.Message):
    __slots__ = ("avatars",)
    AVATARS_FIELD_NUMBER: _ClassVar[int]
    avatars: _containers.RepeatedCompositeFieldContainer[Avatar]
    def __init__(self, avatars: _Optional[_Iterable[_Union[Avatar, _Mapping]]] = ...) -> None: ...

class GetAvatarRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class AddAvatarRequest(_message.Message):
    __slots__ = ("about", "data")
    ABOUT_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    about: NewAvatar
    data: bytes
    def __init__(self, about: _Optional[_Union[NewAvatar, _Mapping]] = ..., data: _Optional[bytes] = ...) -> None: ...

class NewAvatar(_message.Message):
    __slots__ = ("name", "consent")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CONSENT_FIELD_NUMBER: _ClassVar[int]
    name: str
    consent: str
    def __init__(self, name: _Optional[str] = ..., consent: _Optional[str] = ...) -> None: ...

class DeleteAvatarRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class DeleteAvatarResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CreateVideoRequest(_message.Message):
    __slots__ = ("text", "message", "audio", "avatar", "fps", "profile", "idempotency_key", "voice", "language")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    AUDIO_FIELD_NUMBER: _ClassVar[int]
    AVATAR_FIELD_NUMBER: _ClassVar[int]
    FPS_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    VOICE_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    text: str
    message: str
    audio: bytes
    avatar: str
    fps: int
    profile: str
    idempotency_key: str
    voice: str
    language: str
    def __init__(self, text: _Optional[str] = ..., message: _Optional[str] = ..., audio: _Optional[bytes] = ..., avatar: _Optional[str] = ..., fps: _Optional[int] = ..., profile: _Optional[str] = ..., idempotency_key: _Optional[str] = ..., voice: _Optional[str] = ..., language: _Optional[str] = ...) -> None: ...

class Video(_message.Message):
    __slots__ = ("id", "status", "stage", "progress", "created", "expires", "duration", "size", "error")
    ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_FIELD_NUMBER: _ClassVar[int]
    DURATION_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    id: str
    status: str
    stage: str
    progress: float
    created: float
    expires: float
    duration: float
    size: int
    error: Problem
    def __init__(self, id: _Optional[str] = ..., status: _Optional[str] = ..., stage: _Optional[str] = ..., progress: _Optional[float] = ..., created: _Optional[float] = ..., expires: _Optional[float] = ..., duration: _Optional[float] = ..., size: _Optional[int] = ..., error: _Optional[_Union[Problem, _Mapping]] = ...) -> None: ...

class GetVideoRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class ListVideosRequest(_message.Message):
    __slots__ = ("limit", "before")
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    limit: int
    before: str
    def __init__(self, limit: _Optional[int] = ..., before: _Optional[str] = ...) -> None: ...

class ListVideosResponse(_message.Message):
    __slots__ = ("videos",)
    VIDEOS_FIELD_NUMBER: _ClassVar[int]
    videos: _containers.RepeatedCompositeFieldContainer[Video]
    def __init__(self, videos: _Optional[_Iterable[_Union[Video, _Mapping]]] = ...) -> None: ...

class CancelVideoRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class DeleteVideoRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class DeleteVideoResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DownloadVideoRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class DownloadVideoResponse(_message.Message):
    __slots__ = ("data",)
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    def __init__(self, data: _Optional[bytes] = ...) -> None: ...
