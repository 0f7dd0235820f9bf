from qscope.v1.rules import validate_pb2 as _validate_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ReportTone(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REPORT_TONE_UNSPECIFIED: _ClassVar[ReportTone]
    REPORT_TONE_WARNING: _ClassVar[ReportTone]
    REPORT_TONE_ERROR: _ClassVar[ReportTone]

class NumberStyle(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NUMBER_STYLE_UNSPECIFIED: _ClassVar[NumberStyle]
    NUMBER_STYLE_FIXED: _ClassVar[NumberStyle]
    NUMBER_STYLE_PERCENT: _ClassVar[NumberStyle]
    NUMBER_STYLE_INTEGER: _ClassVar[NumberStyle]
    NUMBER_STYLE_COUNT: _ClassVar[NumberStyle]
    NUMBER_STYLE_BYTES: _ClassVar[NumberStyle]
    NUMBER_STYLE_SECONDS: _ClassVar[NumberStyle]
REPORT_TONE_UNSPECIFIED: ReportTone
REPORT_TONE_WARNING: ReportTone
REPORT_TONE_ERROR: ReportTone
NUMBER_STYLE_UNSPECIFIED: NumberStyle
NUMBER_STYLE_FIXED: NumberStyle
NUMBER_STYLE_PERCENT: NumberStyle
NUMBER_STYLE_INTEGER: NumberStyle
NUMBER_STYLE_COUNT: NumberStyle
NUMBER_STYLE_BYTES: NumberStyle
NUMBER_STYLE_SECONDS: NumberStyle

class Report(_message.Message):
    __slots__ = ("title", "subtitle", "sections")
    TITLE_FIELD_NUMBER: _ClassVar[int]
    SUBTITLE_FIELD_NUMBER: _ClassVar[int]
    SECTIONS_FIELD_NUMBER: _ClassVar[int]
    title: str
    subtitle: str
    sections: _containers.RepeatedCompositeFieldContainer[ReportSection]
    def __init__(self, title: _Optional[str] = ..., subtitle: _Optional[str] = ..., sections: _Optional[_Iterable[_Union[ReportSection, _Mapping]]] = ...) -> None: ...

class ReportSection(_message.Message):
    __slots__ = ("heading", "text", "sections", "tone", "folded", "table", "line_plot", "matrix", "samples", "tokens", "facts", "verbatim")
    HEADING_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    SECTIONS_FIELD_NUMBER: _ClassVar[int]
    TONE_FIELD_NUMBER: _ClassVar[int]
    FOLDED_FIELD_NUMBER: _ClassVar[int]
    TABLE_FIELD_NUMBER: _ClassVar[int]
    LINE_PLOT_FIELD_NUMBER: _ClassVar[int]
    MATRIX_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    FACTS_FIELD_NUMBER: _ClassVar[int]
    VERBATIM_FIELD_NUMBER: _ClassVar[int]
    heading: str
    text: str
    sections: _containers.RepeatedCompositeFieldContainer[ReportSection]
    tone: ReportTone
    folded: bool
    table: Table
    line_plot: LinePlot
    matrix: Matrix
    samples: Samples
    tokens: Tokens
    facts: Facts
    verbatim: Verbatim
    def __init__(self, heading: _Optional[str] = ..., text: _Optional[str] = ..., sections: _Optional[_Iterable[_Union[ReportSection, _Mapping]]] = ..., tone: _Optional[_Union[ReportTone, str]] = ..., folded: _Optional[bool] = ..., table: _Optional[_Union[Table, _Mapping]] = ..., line_plot: _Optional[_Union[LinePlot, _Mapping]] = ..., matrix: _Optional[_Union[Matrix, _Mapping]] = ..., samples: _Optional[_Union[Samples, _Mapping]] = ..., tokens: _Optional[_Union[Tokens, _Mapping]] = ..., facts: _Optional[_Union[Facts, _Mapping]] = ..., verbatim: _Optional[_Union[Verbatim, _Mapping]] = ...) -> None: ...

class NumberFormat(_message.Message):
    __slots__ = ("style", "digits")
    STYLE_FIELD_NUMBER: _ClassVar[int]
    DIGITS_FIELD_NUMBER: _ClassVar[int]
    style: NumberStyle
    digits: int
    def __init__(self, style: _Optional[_Union[NumberStyle, str]] = ..., digits: _Optional[int] = ...) -> None: ...

class Table(_message.Message):
    __slots__ = ("caption", "columns", "rows")
    CAPTION_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    caption: str
    columns: _containers.RepeatedCompositeFieldContainer[TableColumn]
    rows: _containers.RepeatedCompositeFieldContainer[TableRow]
    def __init__(self, caption: _Optional[str] = ..., columns: _Optional[_Iterable[_Union[TableColumn, _Mapping]]] = ..., rows: _Optional[_Iterable[_Union[TableRow, _Mapping]]] = ...) -> None: ...

class TableColumn(_message.Message):
    __slots__ = ("name", "unit", "format", "description")
    NAME_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    name: str
    unit: str
    format: NumberFormat
    description: str
    def __init__(self, name: _Optional[str] = ..., unit: _Optional[str] = ..., format: _Optional[_Union[NumberFormat, _Mapping]] = ..., description: _Optional[str] = ...) -> None: ...

class TableRow(_message.Message):
    __slots__ = ("cells",)
    CELLS_FIELD_NUMBER: _ClassVar[int]
    cells: _containers.RepeatedCompositeFieldContainer[TableCell]
    def __init__(self, cells: _Optional[_Iterable[_Union[TableCell, _Mapping]]] = ...) -> None: ...

class TableCell(_message.Message):
    __slots__ = ("text", "number", "spread", "n")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    SPREAD_FIELD_NUMBER: _ClassVar[int]
    N_FIELD_NUMBER: _ClassVar[int]
    text: str
    number: float
    spread: float
    n: int
    def __init__(self, text: _Optional[str] = ..., number: _Optional[float] = ..., spread: _Optional[float] = ..., n: _Optional[int] = ...) -> None: ...

class LinePlot(_message.Message):
    __slots__ = ("x", "y", "series", "markers", "ordered", "band")
    X_FIELD_NUMBER: _ClassVar[int]
    Y_FIELD_NUMBER: _ClassVar[int]
    SERIES_FIELD_NUMBER: _ClassVar[int]
    MARKERS_FIELD_NUMBER: _ClassVar[int]
    ORDERED_FIELD_NUMBER: _ClassVar[int]
    BAND_FIELD_NUMBER: _ClassVar[int]
    x: PlotAxis
    y: PlotAxis
    series: _containers.RepeatedCompositeFieldContainer[PlotSeries]
    markers: _containers.RepeatedCompositeFieldContainer[PlotMarker]
    ordered: bool
    band: str
    def __init__(self, x: _Optional[_Union[PlotAxis, _Mapping]] = ..., y: _Optional[_Union[PlotAxis, _Mapping]] = ..., series: _Optional[_Iterable[_Union[PlotSeries, _Mapping]]] = ..., markers: _Optional[_Iterable[_Union[PlotMarker, _Mapping]]] = ..., ordered: _Optional[bool] = ..., band: _Optional[str] = ...) -> None: ...

class PlotAxis(_message.Message):
    __slots__ = ("label", "log", "format", "include")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    LOG_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_FIELD_NUMBER: _ClassVar[int]
    label: str
    log: bool
    format: NumberFormat
    include: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, label: _Optional[str] = ..., log: _Optional[bool] = ..., format: _Optional[_Union[NumberFormat, _Mapping]] = ..., include: _Optional[_Iterable[float]] = ...) -> None: ...

class PlotSeries(_message.Message):
    __slots__ = ("name", "x", "y", "low", "high")
    NAME_FIELD_NUMBER: _ClassVar[int]
    X_FIELD_NUMBER: _ClassVar[int]
    Y_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    name: str
    x: _containers.RepeatedScalarFieldContainer[float]
    y: _containers.RepeatedScalarFieldContainer[float]
    low: _containers.RepeatedScalarFieldContainer[float]
    high: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, name: _Optional[str] = ..., x: _Optional[_Iterable[float]] = ..., y: _Optional[_Iterable[float]] = ..., low: _Optional[_Iterable[float]] = ..., high: _Optional[_Iterable[float]] = ...) -> None: ...

class PlotMarker(_message.Message):
    __slots__ = ("x", "label")
    X_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    x: float
    label: str
    def __init__(self, x: _Optional[float] = ..., label: _Optional[str] = ...) -> None: ...

class Matrix(_message.Message):
    __slots__ = ("row_title", "column_title", "row_labels", "column_labels", "values", "scale_title", "low", "high", "diverging", "format")
    ROW_TITLE_FIELD_NUMBER: _ClassVar[int]
    COLUMN_TITLE_FIELD_NUMBER: _ClassVar[int]
    ROW_LABELS_FIELD_NUMBER: _ClassVar[int]
    COLUMN_LABELS_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    SCALE_TITLE_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    DIVERGING_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    row_title: str
    column_title: str
    row_labels: _containers.RepeatedScalarFieldContainer[str]
    column_labels: _containers.RepeatedScalarFieldContainer[str]
    values: _containers.RepeatedScalarFieldContainer[float]
    scale_title: str
    low: float
    high: float
    diverging: bool
    format: NumberFormat
    def __init__(self, row_title: _Optional[str] = ..., column_title: _Optional[str] = ..., row_labels: _Optional[_Iterable[str]] = ..., column_labels: _Optional[_Iterable[str]] = ..., values: _Optional[_Iterable[float]] = ..., scale_title: _Optional[str] = ..., low: _Optional[float] = ..., high: _Optional[float] = ..., diverging: _Optional[bool] = ..., format: _Optional[_Union[NumberFormat, _Mapping]] = ...) -> None: ...

class Samples(_message.Message):
    __slots__ = ("arms", "rows", "value_title", "max")
    ARMS_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    VALUE_TITLE_FIELD_NUMBER: _ClassVar[int]
    MAX_FIELD_NUMBER: _ClassVar[int]
    arms: _containers.RepeatedCompositeFieldContainer[SampleArm]
    rows: _containers.RepeatedCompositeFieldContainer[SampleRow]
    value_title: str
    max: float
    def __init__(self, arms: _Optional[_Iterable[_Union[SampleArm, _Mapping]]] = ..., rows: _Optional[_Iterable[_Union[SampleRow, _Mapping]]] = ..., value_title: _Optional[str] = ..., max: _Optional[float] = ...) -> None: ...

class SampleArm(_message.Message):
    __slots__ = ("name", "description")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    name: str
    description: str
    def __init__(self, name: _Optional[str] = ..., description: _Optional[str] = ...) -> None: ...

class SampleRow(_message.Message):
    __slots__ = ("prompt", "cells")
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    CELLS_FIELD_NUMBER: _ClassVar[int]
    prompt: str
    cells: _containers.RepeatedCompositeFieldContainer[SampleCell]
    def __init__(self, prompt: _Optional[str] = ..., cells: _Optional[_Iterable[_Union[SampleCell, _Mapping]]] = ...) -> None: ...

class SampleCell(_message.Message):
    __slots__ = ("text", "tokens", "note")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    text: str
    tokens: _containers.RepeatedCompositeFieldContainer[TokenValue]
    note: str
    def __init__(self, text: _Optional[str] = ..., tokens: _Optional[_Iterable[_Union[TokenValue, _Mapping]]] = ..., note: _Optional[str] = ...) -> None: ...

class TokenValue(_message.Message):
    __slots__ = ("text", "value")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    text: str
    value: float
    def __init__(self, text: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...

class Tokens(_message.Message):
    __slots__ = ("sequences", "value_title", "max")
    SEQUENCES_FIELD_NUMBER: _ClassVar[int]
    VALUE_TITLE_FIELD_NUMBER: _ClassVar[int]
    MAX_FIELD_NUMBER: _ClassVar[int]
    sequences: _containers.RepeatedCompositeFieldContainer[TokenSequence]
    value_title: str
    max: float
    def __init__(self, sequences: _Optional[_Iterable[_Union[TokenSequence, _Mapping]]] = ..., value_title: _Optional[str] = ..., max: _Optional[float] = ...) -> None: ...

class TokenSequence(_message.Message):
    __slots__ = ("label", "tokens")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    label: str
    tokens: _containers.RepeatedCompositeFieldContainer[TokenValue]
    def __init__(self, label: _Optional[str] = ..., tokens: _Optional[_Iterable[_Union[TokenValue, _Mapping]]] = ...) -> None: ...

class Facts(_message.Message):
    __slots__ = ("facts",)
    FACTS_FIELD_NUMBER: _ClassVar[int]
    facts: _containers.RepeatedCompositeFieldContainer[Fact]
    def __init__(self, facts: _Optional[_Iterable[_Union[Fact, _Mapping]]] = ...) -> None: ...

class Fact(_message.Message):
    __slots__ = ("name", "value")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: str
    def __init__(self, name: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...

class Verbatim(_message.Message):
    __slots__ = ("text", "language")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    text: str
    language: str
    def __init__(self, text: _Optional[str] = ..., language: _Optional[str] = ...) -> None: ...
