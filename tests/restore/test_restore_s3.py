"""Backups and restores on a real S3 API server: marked slow, since the server is built from source at first."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from merganser.pipeline.archive.key import Key
from merganser.pipeline.archive.objects import open_objects
from merganser.pipeline.backup.catalog import catalog
from merganser.pipeline.backup.drill import drill
from merganser.pipeline.backup.expire import expire
from merganser.pipeline.backup.policy import Policy
from merganser.pipeline.backup.verify import verify
from merganser.pipeline.restore.sources import Wish
from merganser.schemas.errors import ArchiveDamaged
from restore.conftest import halfway
from restore.town import Town, held
from stories.txworld import TxWorld

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("key", [None, Key(bytes(range(32)))], ids=["plain", "encrypted"])
def test_backed_up_proved_restored_and_expired(key: Key | None, s3_url: str, tmp_path: Path) -> None:
    objects = open_objects(s3_url)
    town = Town(TxWorld(6, transactions=40), tmp_path, key, objects)
    for part in (1, 2, 3):
        town.apply(halfway(town.ends, part, 4))
        town.back_up("incr" if part == 2 else "full")
    town.archive_up_to(town.ends)
    found = catalog(objects)
    report = verify(town.archive, found)
    assert len(found) == 3 and not report.findings and not report.loose
    assert not drill(town.archive, found[1].backup, tmp_path).wrong  # type: ignore[arg-type]
    for part in (2, 5):
        path, target = tmp_path / f"{part}.duckdb", halfway(town.ends, part, 5)
        town.restore(path, Wish(str(target)))
        assert held(path) == held(town.folded(target))
    done = expire(objects, Policy(full=1), datetime.now(UTC))
    assert done.files and not done.waiting and len(catalog(objects)) == 1
    assert not verify(town.archive, catalog(objects)).findings
    newest = catalog(objects)[0].backup
    assert newest is not None
    objects.delete(newest.files[0].name)
    with pytest.raises(ArchiveDamaged, match="missing"):
        town.restore(tmp_path / "never.duckdb", Wish(newest.position))
