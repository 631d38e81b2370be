"""Convert table cells from Parquet and Arrow to plain Python values, and values to the text of an answer.

Values come out as a person would write them: the float32 0.1 is 0.1 and not 0.10000000149011612, and UTF-8 bytes are
text.
"""

import datetime
import decimal
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow

Plain = Callable[[Any], Any]
"""A function from a value as pyarrow gives it to a plain one."""
MAX_WHOLE = 1 << 53
"""Floats represent every whole number up to here."""


def plain_row(schema: "pyarrow.Schema") -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """Return a function that converts a row's values to plain ones."""
    converters = {field.name: found for field in schema if (found := _converter(field.type)) is not None}

    def convert(row: Mapping[str, Any]) -> dict[str, Any]:
        plain = dict(row)
        for name, converter in converters.items():
            if plain.get(name) is not None:
                plain[name] = converter(plain[name])
        return plain

    return convert


def _converter(kind: "pyarrow.DataType") -> Plain | None:
    """Return the converter for an Arrow type; `None` if its values are plain already."""
    import pyarrow.types as types

    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        return _converter(kind.value_type)
    if types.is_float16(kind) or types.is_float32(kind):
        return _float32 if types.is_float32(kind) else _float16
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return _bytes
    if types.is_binary_view(kind):
        return _bytes
    if types.is_map(kind):
        return _map_converter(_converter(kind.item_type))
    if types.is_nested(kind) and hasattr(kind, "value_type"):  # lists of all kinds
        return _list_converter(_converter(kind.value_type))
    if types.is_struct(kind):
        return _struct_converter({field.name: _converter(field.type) for field in kind.fields})
    return None


def _float32(value: float) -> float:
    import numpy as np

    return float(str(np.float32(value)))


def _float16(value: Any) -> float:
    import numpy as np

    return float(str(np.float16(value)))


def _bytes(value: bytes) -> str | bytes:
    try:
        return bytes(value).decode()
    except UnicodeDecodeError:
        return value


def _list_converter(inner: Plain | None) -> Plain | None:
    if inner is None:
        return None
    return lambda values: [None if value is None else inner(value) for value in values]


def _map_converter(inner: Plain | None) -> Plain | None:
    if inner is None:
        return None
    return lambda pairs: [(key, None if value is None else inner(value)) for key, value in pairs]


def _struct_converter(fields: Mapping[str, Plain | None]) -> Plain | None:
    inner = {name: converter for name, converter in fields.items() if converter is not None}
    if not inner:
        return None

    def convert(struct: Mapping[str, Any]) -> dict[str, Any]:
        return {
            name: inner[name](value) if name in inner and value is not None else value for name, value in struct.items()
        }

    return convert


class CellError(ValueError):
    """A value that is not an answer. The text completes a sentence: `is bytes that are not UTF-8 text`."""


def answer_text(value: Any) -> str | None:
    """Return a value as the text of an answer; `None` for null, NaN, a list or an object.

    Raises:
        CellError: the value is bytes that are not text.
    """
    if value is None or isinstance(value, dict | list | tuple):
        return None
    if isinstance(value, bytes | bytearray):
        raise CellError("is bytes that are not UTF-8 text")
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, float):
        if math.isnan(value):
            return None
        # pandas turns 72 into 72.0 in a column with gaps.
        return str(int(value)) if value.is_integer() and abs(value) <= MAX_WHOLE else repr(float(value))
    if isinstance(value, decimal.Decimal):
        return _decimal(value)
    if isinstance(value, datetime.date | datetime.time):
        return _moment(value)
    return str(value)


def _decimal(value: decimal.Decimal) -> str | None:
    if value.is_nan():
        return None
    if not value.is_finite() or abs(value.adjusted()) > 50:
        return str(value)
    text = f"{value:f}" if value else "0"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _moment(value: datetime.date | datetime.time) -> str:
    """Return a date or time in ISO 8601, without a time of midnight."""
    if value != value:  # pandas' NaT, which differs from itself
        return ""
    if isinstance(value, datetime.datetime) and value.time() == datetime.time() and value.tzinfo is None:
        return value.date().isoformat()
    return value.isoformat(sep=" ") if isinstance(value, datetime.datetime) else value.isoformat()
