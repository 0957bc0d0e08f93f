"""Every error a user can meet: ``schemas/errors.py`` under its public name."""

from __future__ import annotations

from .schemas.errors import *  # noqa: F403  the whole of it
