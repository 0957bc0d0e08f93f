"""Flight SQL's messages, as far as a door that only reads needs them.

The protocol is Apache Arrow's; names and numbers here are those of its FlightSql.proto and Flight.proto. They are
described in a table, and made when this is imported, in a descriptor pool of their own: so there is no
generated code to keep in step with a compiler, and no quarrel with another library that has them too.

Invariant: :func:`unpack` gives one of these messages or raises BadMessage, whatever the bytes.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.any_pb2 import Any as Envelope
from google.protobuf.message import DecodeError, Message

_PACKAGE = "arrow.flight.protocol.sql"

#: Fields are numbered as they stand. `?` may be absent and that is told apart from empty, `*` is repeated. What
#: is a message or an enum in the protocol is `bytes` or `int32` where it looks the same on the wire.
_MESSAGES = {
    "CommandGetSqlInfo": "info:uint32*",
    "CommandGetXdbcTypeInfo": "data_type:int32?",
    "CommandGetCatalogs": "",
    "CommandGetDbSchemas": "catalog:string? db_schema_filter_pattern:string?",
    "CommandGetTables": "catalog:string? db_schema_filter_pattern:string? table_name_filter_pattern:string?"
    " table_types:string* include_schema:bool",
    "CommandGetTableTypes": "",
    "CommandGetPrimaryKeys": "catalog:string? db_schema:string? table:string",
    "CommandGetExportedKeys": "catalog:string? db_schema:string? table:string",
    "CommandGetImportedKeys": "catalog:string? db_schema:string? table:string",
    "CommandGetCrossReference": "pk_catalog:string? pk_db_schema:string? pk_table:string"
    " fk_catalog:string? fk_db_schema:string? fk_table:string",
    "CommandStatementQuery": "query:string transaction_id:bytes?",
    "CommandStatementUpdate": "query:string transaction_id:bytes?",
    "CommandStatementSubstraitPlan": "plan:bytes transaction_id:bytes?",
    "CommandStatementIngest": "",
    "CommandPreparedStatementQuery": "prepared_statement_handle:bytes",
    "CommandPreparedStatementUpdate": "prepared_statement_handle:bytes",
    "TicketStatementQuery": "statement_handle:bytes",
    "ActionCreatePreparedStatementRequest": "query:string transaction_id:bytes?",
    "ActionCreatePreparedStatementResult": "prepared_statement_handle:bytes dataset_schema:bytes"
    " parameter_schema:bytes",
    "ActionCreatePreparedSubstraitPlanRequest": "plan:bytes transaction_id:bytes?",
    "ActionClosePreparedStatementRequest": "prepared_statement_handle:bytes",
    "ActionBeginTransactionRequest": "",
    "ActionBeginSavepointRequest": "transaction_id:bytes name:string",
    "ActionEndTransactionRequest": "transaction_id:bytes action:int32",
    "ActionEndSavepointRequest": "savepoint_id:bytes action:int32",
    "ActionCancelQueryRequest": "info:bytes",
    "ActionCancelQueryResult": "result:int32",
    "DoPutPreparedStatementResult": "prepared_statement_handle:bytes?",
    # Of Flight itself; these travel without an envelope.
    "CancelFlightInfoRequest": "info:bytes",
    "CancelFlightInfoResult": "status:int32",
    "CloseSessionResult": "status:int32",
}

_TYPES = {
    "string": descriptor_pb2.FieldDescriptorProto.TYPE_STRING,
    "bytes": descriptor_pb2.FieldDescriptorProto.TYPE_BYTES,
    "bool": descriptor_pb2.FieldDescriptorProto.TYPE_BOOL,
    "int32": descriptor_pb2.FieldDescriptorProto.TYPE_INT32,
    "uint32": descriptor_pb2.FieldDescriptorProto.TYPE_UINT32,
}

#: What `status` and `result` of a cancellation say.
CANCELLED, NOT_CANCELLABLE = 1, 3
CLOSED = 1


class BadMessage(Exception):
    """Bytes that are none of the messages."""


def _described() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name="merganser/flight_sql.proto", package=_PACKAGE, syntax="proto3")
    for name, text in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, spec in enumerate(text.split(), 1):
            field_name, _, kind = spec.partition(":")
            field = message.field.add(name=field_name, number=number, type=_TYPES[kind.rstrip("?*")])
            repeated = kind.endswith("*")
            field.label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
            if kind.endswith("?"):
                field.proto3_optional = True
                field.oneof_index = len(message.oneof_decl)
                message.oneof_decl.add(name=f"_{field_name}")
    return file


_pool = descriptor_pool.DescriptorPool()
_file = _pool.AddSerializedFile(_described().SerializeToString())
_classes: dict[str, type[Message]] = {
    name: message_factory.GetMessageClass(_pool.FindMessageTypeByName(f"{_PACKAGE}.{name}")) for name in _MESSAGES
}


def make(name: str, **fields: Any) -> Message:
    """The message *name*."""
    return _classes[name](**fields)


def parse(name: str, data: bytes) -> Any:
    """The message *name* that *data* holds, without an envelope. BadMessage."""
    message = _classes[name]()
    try:
        message.ParseFromString(data)
    except (DecodeError, ValueError) as error:
        raise BadMessage(f"no {name}") from error
    return message


def unpack(data: bytes) -> tuple[str, Any]:
    """Name and content of the message that *data* holds in its envelope. BadMessage."""
    envelope = Envelope()
    try:
        envelope.ParseFromString(data)
    except (DecodeError, ValueError) as error:
        raise BadMessage("not a Flight SQL command") from error
    prefix, _, name = envelope.type_url.rpartition(f"/{_PACKAGE}.")
    if not prefix or name not in _classes:
        raise BadMessage(f"not a command that this server knows: {envelope.type_url[:100]!r}")
    return name, parse(name, envelope.value)


def pack(message: Message) -> bytes:
    """*message* in its envelope."""
    envelope = Envelope()
    envelope.Pack(message)
    return envelope.SerializeToString()
