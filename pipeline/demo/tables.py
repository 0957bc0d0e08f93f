"""The tables of the demo: their columns, their keys, and the names they have in the log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_AVRO: Mapping[str, Any] = {
    "text": "string",
    "int": "int",
    "long": "long",
    "double": "double",
    "time": {"type": "long", "logicalType": "timestamp-millis"},
}


@dataclass(frozen=True)
class DemoTable:
    """*columns* name a type for each column; one that ends in ``?`` may be null. No key: append."""

    name: str
    columns: Mapping[str, str]
    key: tuple[str, ...] = ()

    def schema(self) -> dict[str, Any]:
        return {"type": "record", "name": self.name, "fields": [_field(*item) for item in self.columns.items()]}


def _field(name: str, kind: str) -> dict[str, Any]:
    type_ = _AVRO[kind.rstrip("?")]
    if kind.endswith("?"):
        return {"name": name, "type": ["null", type_], "default": None}
    return {"name": name, "type": type_}


def _columns(text: str) -> dict[str, str]:
    return dict(pair.split(":") for pair in text.split())


AIRLINES = DemoTable("airlines", _columns("carrier:text name:text"), key=("carrier",))
AIRPORTS = DemoTable(
    "airports",
    _columns("faa:text name:text lat:double lon:double alt:int tz:int dst:text tzone:text?"),
    key=("faa",),
)
PLANES = DemoTable(
    "planes",
    _columns(
        "tailnum:text year:int? type:text manufacturer:text model:text engines:int seats:int speed:int? engine:text"
    ),
    key=("tailnum",),
)
WEATHER = DemoTable(
    "weather",
    _columns(
        "origin:text year:int month:int day:int hour:int temp:double? dewp:double? humid:double? wind_dir:int?"
        " wind_speed:double? wind_gust:double? precip:double? pressure:double? visib:double? time_hour:time"
    ),
    key=("origin", "time_hour"),
)
FLIGHTS = DemoTable(
    "flights",
    _columns(
        "year:int month:int day:int dep_time:int? sched_dep_time:int dep_delay:int? arr_time:int?"
        " sched_arr_time:int arr_delay:int? carrier:text flight:int tailnum:text? origin:text dest:text"
        " air_time:int? distance:int hour:int minute:int time_hour:time"
    ),
)
#: The last known state of each plane: where it went last, and what it has flown by then.
AIRCRAFT = DemoTable(
    "aircraft",
    _columns("tailnum:text carrier:text flight:int origin:text dest:text scheduled:time flights:long miles:long"),
    key=("tailnum",),
)

TABLES = (AIRLINES, AIRPORTS, PLANES, WEATHER, FLIGHTS, AIRCRAFT)
