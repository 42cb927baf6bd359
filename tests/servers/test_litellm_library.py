"""LiteLLM as a library: the whole suite skips its tests where the package is missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

TESTS = Path(__file__).parents[1] / "test_litellm.py"
RUN = """
import sys
sys.path.append(sys.argv[1])  # behind what is installed here, which is what the router runs on
import pytest
sys.exit(pytest.main(["-q", "-rs", "-p", "no:cacheprovider", sys.argv[2]]))
"""


def test_its_tests_pass_with_the_package(installed: Callable[[str], Path]) -> None:
    """They run with the packages of LiteLLM's own environment, and hardly any is skipped."""
    (packages,) = installed("litellm").parent.glob("lib/python3*/site-packages")
    ended = subprocess.run(
        [sys.executable, "-c", RUN, str(packages), str(TESTS)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    assert ended.stdout.count("SKIPPED") <= 1, ended.stdout[-3000:]
