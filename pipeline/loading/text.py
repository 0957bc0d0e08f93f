"""Text to values: the fields of a CSV file in the type of their column.

Invariant: `columns` gives exactly what `converter` gives for each field alone, or None. Nothing is guessed or
rounded: the forms are those of ``schemas/jsonrows.py``, as text (docs/loading.md lists them).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ...schemas import jsonrows
from ...schemas.arrow import arrow_type
from ...schemas.encode import Refused
from ...schemas.types import Type

Convert = Callable[[str], Any]

_BLANKS = " \t"
_WHOLE = re.compile(r"[+-]?[0-9]{1,100}")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,5})?")
_BOOLEANS = {"true": True, "false": False, "t": True, "f": False}
_SPECIAL = {"nan": math.nan, "inf": math.inf, "infinity": math.inf}


def converter(type_: Type) -> Convert:
    """From one field's text to what a row holds; Refused if it is none."""
    match type_.kind:
        case "string" | "enum":
            return lambda text: text
        case "boolean":
            return _boolean
        case "int" | "long":
            return _whole
        case "float" | "double":
            return _float
        case "array" | "map" | "record":
            return _nested(type_)
    convert = jsonrows.converter(type_)
    if convert is None:  # a uuid, which is text in JSON too
        return lambda text: text.strip(_BLANKS)
    return lambda text: convert(text.strip(_BLANKS))


def _boolean(text: str) -> bool:
    found = _BOOLEANS.get(text.strip(_BLANKS).lower())
    if found is None:
        raise Refused(text, "neither true nor false")
    return found


def _whole(text: str) -> int:
    bare = text.strip(_BLANKS)
    if not _WHOLE.fullmatch(bare):
        raise Refused(text, "not a whole number")
    return int(bare)


def _float(text: str) -> Any:
    bare = text.strip(_BLANKS)
    if _WHOLE.fullmatch(bare):
        # An int, so that one with more digits than the column holds is refused, not rounded; -0 is a float only.
        return int(bare) or float(bare)
    if _NUMBER.fullmatch(bare):
        number = float(bare)
        if math.isinf(number):
            raise Refused(text, "out of the range of a double")
        return number
    sign = -1 if bare.startswith("-") else 1
    special = _SPECIAL.get(bare.lstrip("+-").lower() if len(bare.lstrip("+-")) + 1 >= len(bare) else "")
    if special is None:
        raise Refused(text, "not a number")
    return sign * special if special == math.inf else special


def _nested(type_: Type) -> Convert:
    convert = jsonrows.converter(type_)

    def value(text: str) -> Any:
        try:
            found = jsonrows.loads(text)
        except (ValueError, RecursionError) as error:
            raise Refused(text, f"not JSON: {error}") from None
        return found if convert is None or found is None else convert(found)

    return value


# -- whole columns -----------------------------------------------------------------------------

_MOMENT = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?"

#: The text that Arrow may parse: less than `converter` takes, and nothing that it would take otherwise.
_PATTERNS: dict[str, str] = {
    "int": r"^-?[0-9]{1,18}$",
    "long": r"^-?[0-9]{1,18}$",
    # Whole numbers of so many digits are exact in the type; of others the nearest is meant.
    "float": r"^-?([0-9]{1,7}|[0-9]{1,15}\.[0-9]{1,30}|[0-9]\.[0-9]{1,20}[eE]-?[0-9]{1,2})$",
    "double": r"^-?([0-9]{1,15}|[0-9]{1,100}\.[0-9]{1,100}|[0-9](\.[0-9]{1,30})?[eE][+-]?[0-9]{1,2})$",
    "date": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$",
    "time-millis": r"^[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,3})?$",
    "time-micros": r"^[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?$",
    "timestamp-millis": _MOMENT + r"(Z|[+-][0-9]{2}:[0-9]{2})$",
    "timestamp-micros": _MOMENT + r"(Z|[+-][0-9]{2}:[0-9]{2})$",
    "local-timestamp-millis": _MOMENT + "$",
    "local-timestamp-micros": _MOMENT + "$",
}


def columns(type_: Type, texts: pa.Array) -> pa.Array | None:
    """*texts* in the Arrow type of the column; None if one of them has to be looked at alone."""
    if type_.kind in ("string", "enum") or (type_.kind == "uuid" and type_.size is None):
        return texts  # whoever writes them looks at the text
    try:
        if type_.kind == "boolean":
            return _truths(texts)
        pattern = _PATTERNS.get(type_.kind)
        if pattern is None or pc.all(pc.match_substring_regex(texts, pattern), min_count=0).as_py() is False:
            return None
        if type_.kind == "float":
            numbers = texts.cast(pa.float64()).cast(pa.float32())
            return None if pc.any(pc.is_inf(numbers)).as_py() else numbers
        if type_.kind.startswith("time-"):  # Arrow has no cast for these, so by way of the first day
            moments = pc.binary_join_element_wise("1970-01-01 ", texts, "").cast(pa.timestamp("us"))
            return moments.cast(pa.int64()).view(arrow_type(type_))
        return texts.cast(arrow_type(type_))
    except pa.ArrowInvalid:
        return None


def _truths(texts: pa.Array) -> pa.Array | None:
    found = pc.index_in(pc.ascii_lower(texts), value_set=pa.array(["true", "t", "false", "f"]))
    return pc.less(found, 2) if found.null_count == texts.null_count else None
