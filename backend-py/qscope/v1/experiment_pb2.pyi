from qscope.v1.rules import validate_pb2 as _validate_pb2
from qscope.v1 import classify_pb2 as _classify_pb2
from qscope.v1 import diagnose_pb2 as _diagnose_pb2
from qscope.v1 import eval_pb2 as _eval_pb2
from qscope.v1 import explain_pb2 as _explain_pb2
from qscope.v1 import features_pb2 as _features_pb2
from qscope.v1 import model_pb2 as _model_pb2
from qscope.v1 import options_pb2 as _options_pb2
from qscope.v1 import redundancy_pb2 as _redundancy_pb2
from qscope.v1 import rl_pb2 as _rl_pb2
from qscope.v1 import sae_pb2 as _sae_pb2
from qscope.v1 import sft_pb2 as _sft_pb2
from qscope.v1 import steer_pb2 as _steer_pb2
from qscope.v1 import synthesize_pb2 as _synthesize_pb2
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Device(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DEVICE_UNSPECIFIED: _ClassVar[Device]
    DEVICE_AUTO: _ClassVar[Device]
    DEVICE_CPU: _ClassVar[Device]
    DEVICE_CUDA: _ClassVar[Device]

class Sharding(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SHARDING_UNSPECIFIED: _ClassVar[Sharding]
    SHARDING_REPLICATED: _ClassVar[Sharding]
    SHARDING_FSDP2: _ClassVar[Sharding]
DEVICE_UNSPECIFIED: Device
DEVICE_AUTO: Device
DEVICE_CPU: Device
DEVICE_CUDA: Device
SHARDING_UNSPECIFIED: Sharding
SHARDING_REPLICATED: Sharding
SHARDING_FSDP2: Sharding

class Compute(_message.Message):
    __slots__ = ("device", "threads", "processes", "sharding")
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    THREADS_FIELD_NUMBER: _ClassVar[int]
    PROCESSES_FIELD_NUMBER: _ClassVar[int]
    SHARDING_FIELD_NUMBER: _ClassVar[int]
    device: Device
    threads: int
    processes: int
    sharding: Sharding
    def __init__(self, device: _Optional[_Union[Device, str]] = ..., threads: _Optional[int] = ..., processes: _Optional[int] = ..., sharding: _Optional[_Union[Sharding, str]] = ...) -> None: ...

class Experiment(_message.Message):
    __slots__ = ("name", "seed", "model", "model_options", "compute", "train_sae", "eval_sae", "extract_features", "contrast_features", "top_features", "language_features", "repetition_features", "diagnose_features", "explain_features", "steer", "bench_redundancy", "classify", "apply_classifier", "synthesize", "sft", "rl", "eval_responses")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MODEL_OPTIONS_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_FIELD_NUMBER: _ClassVar[int]
    TRAIN_SAE_FIELD_NUMBER: _ClassVar[int]
    EVAL_SAE_FIELD_NUMBER: _ClassVar[int]
    EXTRACT_FEATURES_FIELD_NUMBER: _ClassVar[int]
    CONTRAST_FEATURES_FIELD_NUMBER: _ClassVar[int]
    TOP_FEATURES_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_FEATURES_FIELD_NUMBER: _ClassVar[int]
    REPETITION_FEATURES_FIELD_NUMBER: _ClassVar[int]
    DIAGNOSE_FEATURES_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_FEATURES_FIELD_NUMBER: _ClassVar[int]
    STEER_FIELD_NUMBER: _ClassVar[int]
    BENCH_REDUNDANCY_FIELD_NUMBER: _ClassVar[int]
    CLASSIFY_FIELD_NUMBER: _ClassVar[int]
    APPLY_CLASSIFIER_FIELD_NUMBER: _ClassVar[int]
    SYNTHESIZE_FIELD_NUMBER: _ClassVar[int]
    SFT_FIELD_NUMBER: _ClassVar[int]
    RL_FIELD_NUMBER: _ClassVar[int]
    EVAL_RESPONSES_FIELD_NUMBER: _ClassVar[int]
    name: str
    seed: int
    model: str
    model_options: _model_pb2.ModelOptions
    compute: Compute
    train_sae: _sae_pb2.TrainSae
    eval_sae: _sae_pb2.EvalSae
    extract_features: _features_pb2.ExtractFeatures
    contrast_features: _features_pb2.ContrastFeatures
    top_features: _features_pb2.TopFeatures
    language_features: _features_pb2.LanguageFeatures
    repetition_features: _features_pb2.RepetitionFeatures
    diagnose_features: _diagnose_pb2.DiagnoseFeatures
    explain_features: _explain_pb2.ExplainFeatures
    steer: _steer_pb2.Steer
    bench_redundancy: _redundancy_pb2.BenchRedundancy
    classify: _classify_pb2.Classify
    apply_classifier: _classify_pb2.ApplyClassifier
    synthesize: _synthesize_pb2.Synthesize
    sft: _sft_pb2.Sft
    rl: _rl_pb2.Rl
    eval_responses: _eval_pb2.EvalResponses
    def __init__(self, name: _Optional[str] = ..., seed: _Optional[int] = ..., model: _Optional[str] = ..., model_options: _Optional[_Union[_model_pb2.ModelOptions, _Mapping]] = ..., compute: _Optional[_Union[Compute, _Mapping]] = ..., train_sae: _Optional[_Union[_sae_pb2.TrainSae, _Mapping]] = ..., eval_sae: _Optional[_Union[_sae_pb2.EvalSae, _Mapping]] = ..., extract_features: _Optional[_Union[_features_pb2.ExtractFeatures, _Mapping]] = ..., contrast_features: _Optional[_Union[_features_pb2.ContrastFeatures, _Mapping]] = ..., top_features: _Optional[_Union[_features_pb2.TopFeatures, _Mapping]] = ..., language_features: _Optional[_Union[_features_pb2.LanguageFeatures, _Mapping]] = ..., repetition_features: _Optional[_Union[_features_pb2.RepetitionFeatures, _Mapping]] = ..., diagnose_features: _Optional[_Union[_diagnose_pb2.DiagnoseFeatures, _Mapping]] = ..., explain_features: _Optional[_Union[_explain_pb2.ExplainFeatures, _Mapping]] = ..., steer: _Optional[_Union[_steer_pb2.Steer, _Mapping]] = ..., bench_redundancy: _Optional[_Union[_redundancy_pb2.BenchRedundancy, _Mapping]] = ..., classify: _Optional[_Union[_classify_pb2.Classify, _Mapping]] = ..., apply_classifier: _Optional[_Union[_classify_pb2.ApplyClassifier, _Mapping]] = ..., synthesize: _Optional[_Union[_synthesize_pb2.Synthesize, _Mapping]] = ..., sft: _Optional[_Union[_sft_pb2.Sft, _Mapping]] = ..., rl: _Optional[_Union[_rl_pb2.Rl, _Mapping]] = ..., eval_responses: _Optional[_Union[_eval_pb2.EvalResponses, _Mapping]] = ...) -> None: ...
