"""docs/recipes.md, as a test reads it: the code of each recipe, and what it prints there.

A block is known by its language and, where the fence has one, by the name of its file. The block of ``text`` is what
the code prints.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "recipes.md"
HTTP, FLIGHT = "127.0.0.1:8080", "127.0.0.1:8815"

_FENCE = re.compile(r"^```(\w+) ?(\S*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    language: str
    name: str
    text: str


@dataclass(frozen=True)
class Recipe:
    """The blocks below one heading, up to the next."""

    blocks: tuple[Block, ...]

    def code(self, language: str) -> str:
        """The one block of that language."""
        [found] = [block.text for block in self.blocks if block.language == language]
        return found

    @property
    def printed(self) -> str:
        """What its code prints, but for empty lines at the end."""
        return self.code("text").rstrip()

    def write_files(self, folder: Path) -> None:
        """Its files that have names."""
        for block in self.blocks:
            if block.name:
                (folder / block.name).parent.mkdir(exist_ok=True)
                (folder / block.name).write_text(block.text)


def recipe(heading: str) -> Recipe:
    """What is below *heading*."""
    page = PAGE.read_text()
    [(start, end)] = [
        (found.end(), page.find("\n#", found.end()))
        for found in re.finditer(rf"^#+ {re.escape(heading)}\n", page, re.MULTILINE)
    ]
    return Recipe(tuple(Block(*found) for found in _FENCE.findall(page[start:end])))


@dataclass
class Room:
    """A folder that recipes run in, beside a broker and a node at addresses of their own."""

    folder: Path
    addresses: dict[str, str]
    broker: str
    env: dict[str, str] = field(default_factory=dict)

    def there(self, code: str) -> str:
        """*code* with the addresses of this room: all that a test changes."""
        for said, ours in self.addresses.items():
            code = code.replace(said, ours)
        return code

    def env_of(self, more: Mapping[str, str]) -> dict[str, str]:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        return {**os.environ, "PATH": path, "MERGANSER_BOOTSTRAP_SERVERS": self.broker, **self.env, **more}

    def run(self, *command: str, timeout: float = 60, **env: str) -> str:
        """What *command* printed, but for empty lines at the end. It has to end well."""
        done = subprocess.run(
            command, cwd=self.folder, env=self.env_of(env), capture_output=True, text=True, timeout=timeout
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.rstrip()

    def sh(self, code: str, timeout: float = 60, **env: str) -> str:
        return self.run("bash", "-euo", "pipefail", "-c", self.there(code), timeout=timeout, **env)

    def python(self, code: str, interpreter: str = sys.executable, timeout: float = 60, **env: str) -> str:
        (self.folder / "recipe.py").write_text(self.there(code))
        return self.run(interpreter, "-W", "error::UserWarning", "recipe.py", timeout=timeout, **env)
