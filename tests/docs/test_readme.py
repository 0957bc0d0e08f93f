"""The README's first program runs as it stands, and its promises about itself hold."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text()


def program() -> str:
    return re.findall(r"```python\n(.*?)```", README, re.DOTALL)[0]


def test_the_first_program_prints_what_the_readme_says(broker: str, tmp_path: Path) -> None:
    env = {**os.environ, "MERGANSER_BOOTSTRAP_SERVERS": broker}
    done = subprocess.run([sys.executable, "-c", program()], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.stderr == ""
    printed = re.search(r"It prints `(.*?)`", README)
    assert printed is not None and done.stdout.strip() == printed[1]


def test_the_first_program_is_under_fifteen_lines() -> None:
    code = [line for line in program().splitlines() if line.strip() and not line.lstrip().startswith("#")]
    assert len(code) < 15


def test_no_document_has_an_unfilled_figure() -> None:
    for page in [ROOT / "README.md", ROOT / "ARCHITECTURE.md", *(ROOT / "docs").glob("*.md")]:
        assert not re.findall(r"\bFIG_\w+|TODO|TBD", page.read_text()), page


def test_every_link_between_documents_leads_somewhere() -> None:
    for page in [ROOT / "README.md", ROOT / "ARCHITECTURE.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_shell_block_runs_as_it_stands(broker: str, tmp_path: Path) -> None:
    block = re.findall(r"## From the shell\n\n```sh\n(.*?)```", README, re.DOTALL)[0]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {**os.environ, "MERGANSER_BOOTSTRAP_SERVERS": broker, "MERGANSER_HOME": str(tmp_path), "PATH": path}
    done = subprocess.run(["bash", "-euc", block], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "duck" in done.stdout and "1 row" in done.stdout + done.stderr
