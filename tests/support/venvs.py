"""Virtual environments for clients that are too large, or too choosy, for ours. For tests marked slow."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def venv(folder: Path, *requirements: str) -> tuple[Path | None, str]:
    """The ``bin`` of a new environment in *folder* with *requirements*; or None, and why they cannot be had."""
    uv = str(Path(sys.executable).with_name("uv"))
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(folder)], check=True)
    install = [uv, "pip", "install", "--quiet", "--python", str(folder), *requirements]
    done = subprocess.run(install, capture_output=True, text=True, timeout=900)
    if done.returncode:
        return None, f"{', '.join(requirements)}: {(done.stderr.strip().splitlines() or ['not installed'])[0]}"
    return folder / "bin", ""
