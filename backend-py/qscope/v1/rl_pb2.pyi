from qscope.v1.rules import validate_pb2 as _validate_pb2
from qscope.v1 import generation_pb2 as _generation_pb2
from qscope.v1 import options_pb2 as _options_pb2
from qscope.v1 import posttraining_pb2 as _posttraining_pb2
from qscope.v1 import sae_pb2 as _sae_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GraderKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    GRADER_KIND_UNSPECIFIED: _ClassVar[GraderKind]
    GRADER_KIND_ANSWER: _ClassVar[GraderKind]
    GRADER_KIND_REPETITION: _ClassVar[GraderKind]
    GRADER_KIND_ENDLESS: _ClassVar[GraderKind]
    GRADER_KIND_LANGUAGE: _ClassVar[GraderKind]
    GRADER_KIND_REGEX: _ClassVar[GraderKind]
    GRADER_KIND_PYTHON: _ClassVar[GraderKind]

class OverlongMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OVERLONG_MODE_UNSPECIFIED: _ClassVar[OverlongMode]
    OVERLONG_MODE_SOFT: _ClassVar[OverlongMode]
    OVERLONG_MODE_FILTER: _ClassVar[OverlongMode]
    OVERLONG_MODE_NONE: _ClassVar[OverlongMode]

class AdvantageBaseline(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ADVANTAGE_BASELINE_UNSPECIFIED: _ClassVar[AdvantageBaseline]
    ADVANTAGE_BASELINE_JOINT: _ClassVar[AdvantageBaseline]
    ADVANTAGE_BASELINE_SEPARATE: _ClassVar[AdvantageBaseline]

class AdvantageStd(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ADVANTAGE_STD_UNSPECIFIED: _ClassVar[AdvantageStd]
    ADVANTAGE_STD_UNBIASED: _ClassVar[AdvantageStd]
    ADVANTAGE_STD_POPULATION: _ClassVar[AdvantageStd]

class SaePenaltyMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SAE_PENALTY_MODE_UNSPECIFIED: _ClassVar[SaePenaltyMode]
    SAE_PENALTY_MODE_NONE: _ClassVar[SaePenaltyMode]
    SAE_PENALTY_MODE_RARE_NEGATIVE: _ClassVar[SaePenaltyMode]
    SAE_PENALTY_MODE_REWARD: _ClassVar[SaePenaltyMode]

class RareNegativeSource(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RARE_NEGATIVE_SOURCE_UNSPECIFIED: _ClassVar[RareNegativeSource]
    RARE_NEGATIVE_SOURCE_STEERED: _ClassVar[RareNegativeSource]
    RARE_NEGATIVE_SOURCE_RANDOM_FEATURES: _ClassVar[RareNegativeSource]
    RARE_NEGATIVE_SOURCE_PASTED: _ClassVar[RareNegativeSource]

class OnMiss(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ON_MISS_UNSPECIFIED: _ClassVar[OnMiss]
    ON_MISS_DROP: _ClassVar[OnMiss]
    ON_MISS_RESAMPLE: _ClassVar[OnMiss]
    ON_MISS_KEEP: _ClassVar[OnMiss]

class SteeredRatio(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STEERED_RATIO_UNSPECIFIED: _ClassVar[SteeredRatio]
    STEERED_RATIO_UNSTEERED: _ClassVar[SteeredRatio]
    STEERED_RATIO_BEHAVIOR: _ClassVar[SteeredRatio]

class ImportanceMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    IMPORTANCE_MODE_UNSPECIFIED: _ClassVar[ImportanceMode]
    IMPORTANCE_MODE_NONE: _ClassVar[ImportanceMode]
    IMPORTANCE_MODE_TOKEN_TRUNCATE: _ClassVar[ImportanceMode]
    IMPORTANCE_MODE_SEQUENCE_MASK: _ClassVar[ImportanceMode]
GRADER_KIND_UNSPECIFIED: GraderKind
GRADER_KIND_ANSWER: GraderKind
GRADER_KIND_REPETITION: GraderKind
GRADER_KIND_ENDLESS: GraderKind
GRADER_KIND_LANGUAGE: GraderKind
GRADER_KIND_REGEX: GraderKind
GRADER_KIND_PYTHON: GraderKind
OVERLONG_MODE_UNSPECIFIED: OverlongMode
OVERLONG_MODE_SOFT: OverlongMode
OVERLONG_MODE_FILTER: OverlongMode
OVERLONG_MODE_NONE: OverlongMode
ADVANTAGE_BASELINE_UNSPECIFIED: AdvantageBaseline
ADVANTAGE_BASELINE_JOINT: AdvantageBaseline
ADVANTAGE_BASELINE_SEPARATE: AdvantageBaseline
ADVANTAGE_STD_UNSPECIFIED: AdvantageStd
ADVANTAGE_STD_UNBIASED: AdvantageStd
ADVANTAGE_STD_POPULATION: AdvantageStd
SAE_PENALTY_MODE_UNSPECIFIED: SaePenaltyMode
SAE_PENALTY_MODE_NONE: SaePenaltyMode
SAE_PENALTY_MODE_RARE_NEGATIVE: SaePenaltyMode
SAE_PENALTY_MODE_REWARD: SaePenaltyMode
RARE_NEGATIVE_SOURCE_UNSPECIFIED: RareNegativeSource
RARE_NEGATIVE_SOURCE_STEERED: RareNegativeSource
RARE_NEGATIVE_SOURCE_RANDOM_FEATURES: RareNegativeSource
RARE_NEGATIVE_SOURCE_PASTED: RareNegativeSource
ON_MISS_UNSPECIFIED: OnMiss
ON_MISS_DROP: OnMiss
ON_MISS_RESAMPLE: OnMiss
ON_MISS_KEEP: OnMiss
STEERED_RATIO_UNSPECIFIED: SteeredRatio
STEERED_RATIO_UNSTEERED: SteeredRatio
STEERED_RATIO_BEHAVIOR: SteeredRatio
IMPORTANCE_MODE_UNSPECIFIED: ImportanceMode
IMPORTANCE_MODE_NONE: ImportanceMode
IMPORTANCE_MODE_TOKEN_TRUNCATE: ImportanceMode
IMPORTANCE_MODE_SEQUENCE_MASK: ImportanceMode

class Reward(_message.Message):
    __slots__ = ("kind", "name", "weight", "rule", "pattern", "ngram", "path")
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    PATTERN_FIELD_NUMBER: _ClassVar[int]
    NGRAM_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    kind: GraderKind
    name: str
    weight: float
    rule: str
    pattern: str
    ngram: int
    path: str
    def __init__(self, kind: _Optional[_Union[GraderKind, str]] = ..., name: _Optional[str] = ..., weight: _Optional[float] = ..., rule: _Optional[str] = ..., pattern: _Optional[str] = ..., ngram: _Optional[int] = ..., path: _Optional[str] = ...) -> None: ...

class GraderLimits(_message.Message):
    __slots__ = ("processes", "seconds")
    PROCESSES_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    processes: int
    seconds: float
    def __init__(self, processes: _Optional[int] = ..., seconds: _Optional[float] = ...) -> None: ...

class Overlong(_message.Message):
    __slots__ = ("mode", "cache")
    MODE_FIELD_NUMBER: _ClassVar[int]
    CACHE_FIELD_NUMBER: _ClassVar[int]
    mode: OverlongMode
    cache: int
    def __init__(self, mode: _Optional[_Union[OverlongMode, str]] = ..., cache: _Optional[int] = ...) -> None: ...

class DynamicSampling(_message.Message):
    __slots__ = ("enabled", "max_rounds")
    ENABLED_FIELD_NUMBER: _ClassVar[int]
    MAX_ROUNDS_FIELD_NUMBER: _ClassVar[int]
    enabled: bool
    max_rounds: int
    def __init__(self, enabled: _Optional[bool] = ..., max_rounds: _Optional[int] = ...) -> None: ...

class SteeringCalibration(_message.Message):
    __slots__ = ("prompts", "strengths", "loop_rate", "floor", "every_steps")
    PROMPTS_FIELD_NUMBER: _ClassVar[int]
    STRENGTHS_FIELD_NUMBER: _ClassVar[int]
    LOOP_RATE_FIELD_NUMBER: _ClassVar[int]
    FLOOR_FIELD_NUMBER: _ClassVar[int]
    EVERY_STEPS_FIELD_NUMBER: _ClassVar[int]
    prompts: int
    strengths: _containers.RepeatedScalarFieldContainer[float]
    loop_rate: float
    floor: float
    every_steps: int
    def __init__(self, prompts: _Optional[int] = ..., strengths: _Optional[_Iterable[float]] = ..., loop_rate: _Optional[float] = ..., floor: _Optional[float] = ..., every_steps: _Optional[int] = ...) -> None: ...

class RareNegative(_message.Message):
    __slots__ = ("source", "features", "feature_set", "top_k", "strength", "calibrate", "per_group", "max_tokens", "stop_after_loops", "verify", "on_miss", "ratio", "advantage", "min_token_prob", "warmup_steps", "stop_below")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    FEATURE_SET_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    STRENGTH_FIELD_NUMBER: _ClassVar[int]
    CALIBRATE_FIELD_NUMBER: _ClassVar[int]
    PER_GROUP_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    STOP_AFTER_LOOPS_FIELD_NUMBER: _ClassVar[int]
    VERIFY_FIELD_NUMBER: _ClassVar[int]
    ON_MISS_FIELD_NUMBER: _ClassVar[int]
    RATIO_FIELD_NUMBER: _ClassVar[int]
    ADVANTAGE_FIELD_NUMBER: _ClassVar[int]
    MIN_TOKEN_PROB_FIELD_NUMBER: _ClassVar[int]
    WARMUP_STEPS_FIELD_NUMBER: _ClassVar[int]
    STOP_BELOW_FIELD_NUMBER: _ClassVar[int]
    source: RareNegativeSource
    features: _containers.RepeatedScalarFieldContainer[str]
    feature_set: str
    top_k: int
    strength: float
    calibrate: SteeringCalibration
    per_group: int
    max_tokens: int
    stop_after_loops: int
    verify: bool
    on_miss: OnMiss
    ratio: SteeredRatio
    advantage: AdvantageBaseline
    min_token_prob: float
    warmup_steps: int
    stop_below: float
    def __init__(self, source: _Optional[_Union[RareNegativeSource, str]] = ..., features: _Optional[_Iterable[str]] = ..., feature_set: _Optional[str] = ..., top_k: _Optional[int] = ..., strength: _Optional[float] = ..., calibrate: _Optional[_Union[SteeringCalibration, _Mapping]] = ..., per_group: _Optional[int] = ..., max_tokens: _Optional[int] = ..., stop_after_loops: _Optional[int] = ..., verify: _Optional[bool] = ..., on_miss: _Optional[_Union[OnMiss, str]] = ..., ratio: _Optional[_Union[SteeredRatio, str]] = ..., advantage: _Optional[_Union[AdvantageBaseline, str]] = ..., min_token_prob: _Optional[float] = ..., warmup_steps: _Optional[int] = ..., stop_below: _Optional[float] = ...) -> None: ...

class FeaturePenalty(_message.Message):
    __slots__ = ("features", "feature_set", "top_k", "weight", "threshold_rows")
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    FEATURE_SET_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_ROWS_FIELD_NUMBER: _ClassVar[int]
    features: _containers.RepeatedScalarFieldContainer[str]
    feature_set: str
    top_k: int
    weight: float
    threshold_rows: int
    def __init__(self, features: _Optional[_Iterable[str]] = ..., feature_set: _Optional[str] = ..., top_k: _Optional[int] = ..., weight: _Optional[float] = ..., threshold_rows: _Optional[int] = ...) -> None: ...

class SaePenalty(_message.Message):
    __slots__ = ("mode", "sae", "rare_negative", "reward")
    MODE_FIELD_NUMBER: _ClassVar[int]
    SAE_FIELD_NUMBER: _ClassVar[int]
    RARE_NEGATIVE_FIELD_NUMBER: _ClassVar[int]
    REWARD_FIELD_NUMBER: _ClassVar[int]
    mode: SaePenaltyMode
    sae: str
    rare_negative: RareNegative
    reward: FeaturePenalty
    def __init__(self, mode: _Optional[_Union[SaePenaltyMode, str]] = ..., sae: _Optional[str] = ..., rare_negative: _Optional[_Union[RareNegative, _Mapping]] = ..., reward: _Optional[_Union[FeaturePenalty, _Mapping]] = ...) -> None: ...

class ImportanceCorrection(_message.Message):
    __slots__ = ("mode", "cap")
    MODE_FIELD_NUMBER: _ClassVar[int]
    CAP_FIELD_NUMBER: _ClassVar[int]
    mode: ImportanceMode
    cap: float
    def __init__(self, mode: _Optional[_Union[ImportanceMode, str]] = ..., cap: _Optional[float] = ...) -> None: ...

class RolloutLog(_message.Message):
    __slots__ = ("every_steps", "groups")
    EVERY_STEPS_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    every_steps: int
    groups: int
    def __init__(self, every_steps: _Optional[int] = ..., groups: _Optional[int] = ...) -> None: ...

class RlEvaluation(_message.Message):
    __slots__ = ("prompts", "every_steps", "sampling")
    PROMPTS_FIELD_NUMBER: _ClassVar[int]
    EVERY_STEPS_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    prompts: _posttraining_pb2.TrainRows
    every_steps: int
    sampling: _generation_pb2.Sampling
    def __init__(self, prompts: _Optional[_Union[_posttraining_pb2.TrainRows, _Mapping]] = ..., every_steps: _Optional[int] = ..., sampling: _Optional[_Union[_generation_pb2.Sampling, _Mapping]] = ...) -> None: ...

class Rl(_message.Message):
    __slots__ = ("prompts", "format", "group_size", "prompts_per_step", "steps", "iterations", "micro_batch_rows", "generation_rows", "sampling", "epsilon_low", "epsilon_high", "dual_clip", "advantage_std", "overlong", "dynamic_sampling", "importance_correction", "rewards", "graders", "sae_penalty", "trainable", "optimizer", "evaluate", "rollouts", "checkpoint", "metrics", "alarms")
    PROMPTS_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    GROUP_SIZE_FIELD_NUMBER: _ClassVar[int]
    PROMPTS_PER_STEP_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    ITERATIONS_FIELD_NUMBER: _ClassVar[int]
    MICRO_BATCH_ROWS_FIELD_NUMBER: _ClassVar[int]
    GENERATION_ROWS_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    EPSILON_LOW_FIELD_NUMBER: _ClassVar[int]
    EPSILON_HIGH_FIELD_NUMBER: _ClassVar[int]
    DUAL_CLIP_FIELD_NUMBER: _ClassVar[int]
    ADVANTAGE_STD_FIELD_NUMBER: _ClassVar[int]
    OVERLONG_FIELD_NUMBER: _ClassVar[int]
    DYNAMIC_SAMPLING_FIELD_NUMBER: _ClassVar[int]
    IMPORTANCE_CORRECTION_FIELD_NUMBER: _ClassVar[int]
    REWARDS_FIELD_NUMBER: _ClassVar[int]
    GRADERS_FIELD_NUMBER: _ClassVar[int]
    SAE_PENALTY_FIELD_NUMBER: _ClassVar[int]
    TRAINABLE_FIELD_NUMBER: _ClassVar[int]
    OPTIMIZER_FIELD_NUMBER: _ClassVar[int]
    EVALUATE_FIELD_NUMBER: _ClassVar[int]
    ROLLOUTS_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    ALARMS_FIELD_NUMBER: _ClassVar[int]
    prompts: _posttraining_pb2.TrainRows
    format: _generation_pb2.PromptFormat
    group_size: int
    prompts_per_step: int
    steps: int
    iterations: int
    micro_batch_rows: int
    generation_rows: int
    sampling: _generation_pb2.Sampling
    epsilon_low: float
    epsilon_high: float
    dual_clip: float
    advantage_std: AdvantageStd
    overlong: Overlong
    dynamic_sampling: DynamicSampling
    importance_correction: ImportanceCorrection
    rewards: _containers.RepeatedCompositeFieldContainer[Reward]
    graders: GraderLimits
    sae_penalty: SaePenalty
    trainable: _posttraining_pb2.Trainable
    optimizer: _posttraining_pb2.TuningOptimizer
    evaluate: RlEvaluation
    rollouts: RolloutLog
    checkpoint: _sae_pb2.CheckpointPolicy
    metrics: _sae_pb2.MetricSinks
    alarms: _posttraining_pb2.Alarms
    def __init__(self, prompts: _Optional[_Union[_posttraining_pb2.TrainRows, _Mapping]] = ..., format: _Optional[_Union[_generation_pb2.PromptFormat, _Mapping]] = ..., group_size: _Optional[int] = ..., prompts_per_step: _Optional[int] = ..., steps: _Optional[int] = ..., iterations: _Optional[int] = ..., micro_batch_rows: _Optional[int] = ..., generation_rows: _Optional[int] = ..., sampling: _Optional[_Union[_generation_pb2.Sampling, _Mapping]] = ..., epsilon_low: _Optional[float] = ..., epsilon_high: _Optional[float] = ..., dual_clip: _Optional[float] = ..., advantage_std: _Optional[_Union[AdvantageStd, str]] = ..., overlong: _Optional[_Union[Overlong, _Mapping]] = ..., dynamic_sampling: _Optional[_Union[DynamicSampling, _Mapping]] = ..., importance_correction: _Optional[_Union[ImportanceCorrection, _Mapping]] = ..., rewards: _Optional[_Iterable[_Union[Reward, _Mapping]]] = ..., graders: _Optional[_Union[GraderLimits, _Mapping]] = ..., sae_penalty: _Optional[_Union[SaePenalty, _Mapping]] = ..., trainable: _Optional[_Union[_posttraining_pb2.Trainable, _Mapping]] = ..., optimizer: _Optional[_Union[_posttraining_pb2.TuningOptimizer, _Mapping]] = ..., evaluate: _Optional[_Union[RlEvaluation, _Mapping]] = ..., rollouts: _Optional[_Union[RolloutLog, _Mapping]] = ..., checkpoint: _Optional[_Union[_sae_pb2.CheckpointPolicy, _Mapping]] = ..., metrics: _Optional[_Union[_sae_pb2.MetricSinks, _Mapping]] = ..., alarms: _Optional[_Union[_posttraining_pb2.Alarms, _Mapping]] = ...) -> None: ...
