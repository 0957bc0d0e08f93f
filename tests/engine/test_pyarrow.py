"""What Arrow Flight's server offers, and what not: docs/serving.md tells its limits by this."""

from __future__ import annotations

import pytest
from pyarrow import flight


class Counting(flight.FlightServerBase):  # type: ignore[misc]  # pyarrow has no types
    """Refuses every call, once its message is here."""

    def __init__(self) -> None:
        self.came: list[int] = []
        super().__init__("grpc+tcp://127.0.0.1:0")

    def get_flight_info(self, context: object, descriptor: flight.FlightDescriptor) -> flight.FlightInfo:
        self.came.append(len(descriptor.command))
        raise flight.FlightUnauthenticatedError("who are you?")


def test_a_message_of_any_size_comes_in_before_anything_can_be_asked_of_its_sender() -> None:
    """gRPC would refuse more than 4 MiB; Arrow lifts that, and its hook to set another bound (`builder_hook` in C++) is
    not in Python. A certificate cannot be changed for the same reason. When there is more to say here, say it
    (`flight/server.py`)."""
    for name, value in (("generic_options", [("grpc.max_receive_message_length", 1)]), ("builder_hook", None)):
        with pytest.raises(TypeError, match=name):
            flight.FlightServerBase("grpc+tcp://127.0.0.1:0", **{name: value})
    with Counting() as server, flight.FlightClient(f"grpc+tcp://127.0.0.1:{server.port}") as client:
        with pytest.raises(flight.FlightUnauthenticatedError):
            client.get_flight_info(flight.FlightDescriptor.for_command(b"x" * (32 * 2**20)))
        assert server.came == [32 * 2**20]
