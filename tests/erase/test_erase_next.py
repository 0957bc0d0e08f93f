"""One key after another: an erasure stands in nobody's way, and remembers nothing of who is next."""

from __future__ import annotations

from pathlib import Path

import pytest

from erase.erased import a_town, cells, forget_ada
from erase.people import ADA, IDS, TABLE, People, hashes_of_ada
from merganser.consumers.checks import digest
from merganser.pipeline.archive.archive import Archive
from merganser.pipeline.archive.check import check
from merganser.pipeline.erase.erase import Eraser
from restore.town import Town

KIM = IDS["kim"]


@pytest.fixture
def two_deleted(tmp_path: Path) -> Town:
    """Of one partition; the first that is erased is deleted last."""
    people = People(3, forgotten=False)
    people.delete("kim")
    people.delete("ada")
    return a_town(people, tmp_path, backups=((2, "full"), (4, "incr")))


def test_what_an_erasure_came_after_can_be_erased_next(two_deleted: Town) -> None:
    objects = two_deleted.memory
    partition = two_deleted.world.log.partitions[two_deleted.world.place("kim")]
    kims = {digest(r.key_bytes, r.value_bytes).hex() for r in partition if r and KIM in str(r.key_bytes).lower()}
    assert forget_ada(Archive(objects)).records
    assert Eraser(Archive(objects), TABLE, [KIM]).run().records
    assert not check(Archive(objects)).findings
    told = [data.lower() for _, data in cells(objects)]
    gone = [ADA.encode(), KIM.encode(), *(each.encode() for each in kims | hashes_of_ada(two_deleted.world.log))]
    assert not [each for each in gone if any(each in data for data in told)]
    for who in (ADA, KIM):
        assert Eraser(Archive(objects), TABLE, [who]).plan().nothing
    two_deleted.world.write("bob", 100)
    two_deleted.archive = Archive(objects)
    two_deleted.archive_up_to(two_deleted.ends)
    assert not check(Archive(objects)).findings
