from qscope.v1.rules import validate_pb2 as _validate_pb2
from qscope.v1 import features_pb2 as _features_pb2
from qscope.v1 import options_pb2 as _options_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ScoreMeasure(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SCORE_MEASURE_UNSPECIFIED: _ClassVar[ScoreMeasure]
    SCORE_MEASURE_CHOICE: _ClassVar[ScoreMeasure]
    SCORE_MEASURE_EXACT: _ClassVar[ScoreMeasure]
    SCORE_MEASURE_TOKENS: _ClassVar[ScoreMeasure]
    SCORE_MEASURE_PROBABILITY: _ClassVar[ScoreMeasure]
    SCORE_MEASURE_NONE: _ClassVar[ScoreMeasure]

class BadRows(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    BAD_ROWS_UNSPECIFIED: _ClassVar[BadRows]
    BAD_ROWS_SKIP: _ClassVar[BadRows]
    BAD_ROWS_REFUSE: _ClassVar[BadRows]
SCORE_MEASURE_UNSPECIFIED: ScoreMeasure
SCORE_MEASURE_CHOICE: ScoreMeasure
SCORE_MEASURE_EXACT: ScoreMeasure
SCORE_MEASURE_TOKENS: ScoreMeasure
SCORE_MEASURE_PROBABILITY: ScoreMeasure
SCORE_MEASURE_NONE: ScoreMeasure
BAD_ROWS_UNSPECIFIED: BadRows
BAD_ROWS_SKIP: BadRows
BAD_ROWS_REFUSE: BadRows

class ItemScoring(_message.Message):
    __slots__ = ("measure", "answer", "choices", "by_length", "max_tokens", "until", "extract")
    MEASURE_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    CHOICES_FIELD_NUMBER: _ClassVar[int]
    BY_LENGTH_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    UNTIL_FIELD_NUMBER: _ClassVar[int]
    EXTRACT_FIELD_NUMBER: _ClassVar[int]
    measure: ScoreMeasure
    answer: str
    choices: _containers.RepeatedScalarFieldContainer[str]
    by_length: bool
    max_tokens: int
    until: _containers.RepeatedScalarFieldContainer[str]
    extract: str
    def __init__(self, measure: _Optional[_Union[ScoreMeasure, str]] = ..., answer: _Optional[str] = ..., choices: _Optional[_Iterable[str]] = ..., by_length: _Optional[bool] = ..., max_tokens: _Optional[int] = ..., until: _Optional[_Iterable[str]] = ..., extract: _Optional[str] = ...) -> None: ...

class BenchmarkSource(_message.Message):
    __slots__ = ("name", "source", "prompt", "columns", "records", "where", "answer", "limit", "score", "config", "split", "revision", "task", "shots", "folder")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    WHERE_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    SPLIT_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    SHOTS_FIELD_NUMBER: _ClassVar[int]
    FOLDER_FIELD_NUMBER: _ClassVar[int]
    name: str
    source: str
    prompt: str
    columns: _containers.RepeatedScalarFieldContainer[str]
    records: str
    where: str
    answer: str
    limit: int
    score: ItemScoring
    config: str
    split: str
    revision: str
    task: str
    shots: int
    folder: str
    def __init__(self, name: _Optional[str] = ..., source: _Optional[str] = ..., prompt: _Optional[str] = ..., columns: _Optional[_Iterable[str]] = ..., records: _Optional[str] = ..., where: _Optional[str] = ..., answer: _Optional[str] = ..., limit: _Optional[int] = ..., score: _Optional[_Union[ItemScoring, _Mapping]] = ..., config: _Optional[str] = ..., split: _Optional[str] = ..., revision: _Optional[str] = ..., task: _Optional[str] = ..., shots: _Optional[int] = ..., folder: _Optional[str] = ...) -> None: ...

class ModelUtility(_message.Message):
    __slots__ = ("share", "neurons")
    SHARE_FIELD_NUMBER: _ClassVar[int]
    NEURONS_FIELD_NUMBER: _ClassVar[int]
    share: float
    neurons: float
    def __init__(self, share: _Optional[float] = ..., neurons: _Optional[float] = ...) -> None: ...

class SelectionRule(_message.Message):
    __slots__ = ("name", "top", "share")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TOP_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    name: str
    top: int
    share: float
    def __init__(self, name: _Optional[str] = ..., top: _Optional[int] = ..., share: _Optional[float] = ...) -> None: ...

class PanelModel(_message.Message):
    __slots__ = ("model", "name", "revision")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    model: str
    name: str
    revision: str
    def __init__(self, model: _Optional[str] = ..., name: _Optional[str] = ..., revision: _Optional[str] = ...) -> None: ...

class PanelScores(_message.Message):
    __slots__ = ("source", "metrics", "models", "batch_rows", "tide", "draws")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    BATCH_ROWS_FIELD_NUMBER: _ClassVar[int]
    TIDE_FIELD_NUMBER: _ClassVar[int]
    DRAWS_FIELD_NUMBER: _ClassVar[int]
    source: str
    metrics: _containers.RepeatedScalarFieldContainer[str]
    models: _containers.RepeatedCompositeFieldContainer[PanelModel]
    batch_rows: int
    tide: str
    draws: int
    def __init__(self, source: _Optional[str] = ..., metrics: _Optional[_Iterable[str]] = ..., models: _Optional[_Iterable[_Union[PanelModel, _Mapping]]] = ..., batch_rows: _Optional[int] = ..., tide: _Optional[str] = ..., draws: _Optional[int] = ...) -> None: ...

class BenchRedundancy(_message.Message):
    __slots__ = ("sae", "benchmarks", "layers", "layer", "rules", "rendering", "context", "bad_rows", "subsets", "draws", "panel", "utility", "near_duplicate_from", "near_duplicate_rows", "model_batch_tokens", "shard_items")
    SAE_FIELD_NUMBER: _ClassVar[int]
    BENCHMARKS_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    LAYER_FIELD_NUMBER: _ClassVar[int]
    RULES_FIELD_NUMBER: _ClassVar[int]
    RENDERING_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    BAD_ROWS_FIELD_NUMBER: _ClassVar[int]
    SUBSETS_FIELD_NUMBER: _ClassVar[int]
    DRAWS_FIELD_NUMBER: _ClassVar[int]
    PANEL_FIELD_NUMBER: _ClassVar[int]
    UTILITY_FIELD_NUMBER: _ClassVar[int]
    NEAR_DUPLICATE_FROM_FIELD_NUMBER: _ClassVar[int]
    NEAR_DUPLICATE_ROWS_FIELD_NUMBER: _ClassVar[int]
    MODEL_BATCH_TOKENS_FIELD_NUMBER: _ClassVar[int]
    SHARD_ITEMS_FIELD_NUMBER: _ClassVar[int]
    sae: str
    benchmarks: _containers.RepeatedCompositeFieldContainer[BenchmarkSource]
    layers: _containers.RepeatedScalarFieldContainer[int]
    layer: int
    rules: _containers.RepeatedCompositeFieldContainer[SelectionRule]
    rendering: _features_pb2.Rendering
    context: int
    bad_rows: BadRows
    subsets: _containers.RepeatedScalarFieldContainer[float]
    draws: int
    panel: PanelScores
    utility: ModelUtility
    near_duplicate_from: float
    near_duplicate_rows: int
    model_batch_tokens: int
    shard_items: int
    def __init__(self, sae: _Optional[str] = ..., benchmarks: _Optional[_Iterable[_Union[BenchmarkSource, _Mapping]]] = ..., layers: _Optional[_Iterable[int]] = ..., layer: _Optional[int] = ..., rules: _Optional[_Iterable[_Union[SelectionRule, _Mapping]]] = ..., rendering: _Optional[_Union[_features_pb2.Rendering, _Mapping]] = ..., context: _Optional[int] = ..., bad_rows: _Optional[_Union[BadRows, str]] = ..., subsets: _Optional[_Iterable[float]] = ..., draws: _Optional[int] = ..., panel: _Optional[_Union[PanelScores, _Mapping]] = ..., utility: _Optional[_Union[ModelUtility, _Mapping]] = ..., near_duplicate_from: _Optional[float] = ..., near_duplicate_rows: _Optional[int] = ..., model_batch_tokens: _Optional[int] = ..., shard_items: _Optional[int] = ...) -> None: ...
