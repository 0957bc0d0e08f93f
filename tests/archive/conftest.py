"""Scripted logs have thousands of tiny segments: what reaches the disk has a test of its own."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    from merganser.pipeline.archive import objects

    monkeypatch.setattr(objects, "fsync", lambda fd: None)
