from qscope.v1.rules import validate_pb2 as _validate_pb2
from qscope.v1 import generation_pb2 as _generation_pb2
from qscope.v1 import options_pb2 as _options_pb2
from qscope.v1 import steering_pb2 as _steering_pb2
from qscope.v1 import text_pb2 as _text_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SteeringControl(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STEERING_CONTROL_UNSPECIFIED: _ClassVar[SteeringControl]
    STEERING_CONTROL_ZERO: _ClassVar[SteeringControl]
    STEERING_CONTROL_FLIPPED: _ClassVar[SteeringControl]
    STEERING_CONTROL_RANDOM: _ClassVar[SteeringControl]
    STEERING_CONTROL_FOREIGN: _ClassVar[SteeringControl]
    STEERING_CONTROL_PROMPT: _ClassVar[SteeringControl]
    STEERING_CONTROL_DIFF_IN_MEANS: _ClassVar[SteeringControl]
    STEERING_CONTROL_SDCV: _ClassVar[SteeringControl]
STEERING_CONTROL_UNSPECIFIED: SteeringControl
STEERING_CONTROL_ZERO: SteeringControl
STEERING_CONTROL_FLIPPED: SteeringControl
STEERING_CONTROL_RANDOM: SteeringControl
STEERING_CONTROL_FOREIGN: SteeringControl
STEERING_CONTROL_PROMPT: SteeringControl
STEERING_CONTROL_DIFF_IN_MEANS: SteeringControl
STEERING_CONTROL_SDCV: SteeringControl

class Baselines(_message.Message):
    __slots__ = ("positives", "negatives", "tokens", "latents", "prompt_prefix")
    POSITIVES_FIELD_NUMBER: _ClassVar[int]
    NEGATIVES_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    LATENTS_FIELD_NUMBER: _ClassVar[int]
    PROMPT_PREFIX_FIELD_NUMBER: _ClassVar[int]
    positives: _text_pb2.TextSource
    negatives: _text_pb2.TextSource
    tokens: int
    latents: int
    prompt_prefix: str
    def __init__(self, positives: _Optional[_Union[_text_pb2.TextSource, _Mapping]] = ..., negatives: _Optional[_Union[_text_pb2.TextSource, _Mapping]] = ..., tokens: _Optional[int] = ..., latents: _Optional[int] = ..., prompt_prefix: _Optional[str] = ...) -> None: ...

class SideEffects(_message.Message):
    __slots__ = ("text", "tokens")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    text: _text_pb2.TextSource
    tokens: int
    def __init__(self, text: _Optional[_Union[_text_pb2.TextSource, _Mapping]] = ..., tokens: _Optional[int] = ...) -> None: ...

class Paraphrases(_message.Message):
    __slots__ = ("prompts",)
    PROMPTS_FIELD_NUMBER: _ClassVar[int]
    prompts: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, prompts: _Optional[_Iterable[str]] = ...) -> None: ...

class CapabilityTasks(_message.Message):
    __slots__ = ("tasks", "folder", "limit", "shots")
    TASKS_FIELD_NUMBER: _ClassVar[int]
    FOLDER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    SHOTS_FIELD_NUMBER: _ClassVar[int]
    tasks: _containers.RepeatedScalarFieldContainer[str]
    folder: str
    limit: int
    shots: int
    def __init__(self, tasks: _Optional[_Iterable[str]] = ..., folder: _Optional[str] = ..., limit: _Optional[int] = ..., shots: _Optional[int] = ...) -> None: ...

class Steer(_message.Message):
    __slots__ = ("sae", "prompts", "prompt_text", "format", "steering", "sampling", "samples", "controls", "sweep", "side_effects", "baselines", "languages", "paraphrases", "capability", "batch_rows")
    SAE_FIELD_NUMBER: _ClassVar[int]
    PROMPTS_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TEXT_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    STEERING_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    CONTROLS_FIELD_NUMBER: _ClassVar[int]
    SWEEP_FIELD_NUMBER: _ClassVar[int]
    SIDE_EFFECTS_FIELD_NUMBER: _ClassVar[int]
    BASELINES_FIELD_NUMBER: _ClassVar[int]
    LANGUAGES_FIELD_NUMBER: _ClassVar[int]
    PARAPHRASES_FIELD_NUMBER: _ClassVar[int]
    CAPABILITY_FIELD_NUMBER: _ClassVar[int]
    BATCH_ROWS_FIELD_NUMBER: _ClassVar[int]
    sae: str
    prompts: _containers.RepeatedScalarFieldContainer[str]
    prompt_text: PromptText
    format: _generation_pb2.PromptFormat
    steering: _steering_pb2.SteeringSpec
    sampling: _generation_pb2.Sampling
    samples: int
    controls: _containers.RepeatedScalarFieldContainer[SteeringControl]
    sweep: _containers.RepeatedScalarFieldContainer[float]
    side_effects: SideEffects
    baselines: Baselines
    languages: _containers.RepeatedScalarFieldContainer[str]
    paraphrases: _containers.RepeatedCompositeFieldContainer[Paraphrases]
    capability: CapabilityTasks
    batch_rows: int
    def __init__(self, sae: _Optional[str] = ..., prompts: _Optional[_Iterable[str]] = ..., prompt_text: _Optional[_Union[PromptText, _Mapping]] = ..., format: _Optional[_Union[_generation_pb2.PromptFormat, _Mapping]] = ..., steering: _Optional[_Union[_steering_pb2.SteeringSpec, _Mapping]] = ..., sampling: _Optional[_Union[_generation_pb2.Sampling, _Mapping]] = ..., samples: _Optional[int] = ..., controls: _Optional[_Iterable[_Union[SteeringControl, str]]] = ..., sweep: _Optional[_Iterable[float]] = ..., side_effects: _Optional[_Union[SideEffects, _Mapping]] = ..., baselines: _Optional[_Union[Baselines, _Mapping]] = ..., languages: _Optional[_Iterable[str]] = ..., paraphrases: _Optional[_Iterable[_Union[Paraphrases, _Mapping]]] = ..., capability: _Optional[_Union[CapabilityTasks, _Mapping]] = ..., batch_rows: _Optional[int] = ...) -> None: ...

class PromptText(_message.Message):
    __slots__ = ("text", "prompts", "tokens")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    PROMPTS_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    text: _text_pb2.TextSource
    prompts: int
    tokens: int
    def __init__(self, text: _Optional[_Union[_text_pb2.TextSource, _Mapping]] = ..., prompts: _Optional[int] = ..., tokens: _Optional[int] = ...) -> None: ...
