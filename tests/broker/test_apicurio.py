"""The registry that other tests use, itself."""

from __future__ import annotations

import json

import pytest
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient

from support.apicurio import Apicurio

pytestmark = pytest.mark.slow

ROW = {"type": "record", "name": "duck", "fields": [{"name": "id", "type": "int"}]}


def test_an_outage_forgets_nothing(apicurio: Apicurio) -> None:
    def client() -> SchemaRegistryClient:
        return SchemaRegistryClient({"url": apicurio.url})

    schema_id = client().register_schema("ducks-value", Schema(json.dumps(ROW), "AVRO"))
    for end in (apicurio.stop, apicurio.kill):
        end()
        try:
            with pytest.raises(Exception, match=r"(?i)refused|connect"):
                client().get_schema(schema_id)
        finally:
            apicurio.start()
        assert json.loads(client().get_schema(schema_id).schema_str or "")["name"] == "duck"
        assert client().get_latest_version("ducks-value").schema_id == schema_id
