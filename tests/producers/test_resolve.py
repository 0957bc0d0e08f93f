"""A decision on a torn transaction is written only if every reader will take it for one."""

from __future__ import annotations

import pytest

from merganser.producers.resolve import resolve
from merganser.schemas.errors import UsageError
from merganser.schemas.headers import BadHeader, Marks, decode, encode
from merganser.schemas.table import Table


@pytest.mark.parametrize("tx", ["0aa2f9e3 ", "a b", "", "x" * 201])
def test_what_no_reader_takes_for_an_id_is_refused(tx: str) -> None:
    """With the space that a copied id brings along, it would be a bad record in each partition."""
    with pytest.raises(BadHeader):
        decode(encode(Marks(tx=tx, resolution="discard")))
    with pytest.raises(UsageError, match="transaction id"):
        resolve({}, [Table("t", "id", 1, ())], tx, "discard", 1)
