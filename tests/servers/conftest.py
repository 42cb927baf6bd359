"""Servers that are not ours. ``make test-servers`` runs these; the whole suite does not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from servers.environments import InstallError, programs

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).parent


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """They are asked for by name, or not at all: installing them takes minutes."""
    named = [Path(config.invocation_params.dir, arg.partition("::")[0]) for arg in config.args]
    return None if any(path.is_relative_to(HERE) for path in named) else True


@pytest.fixture(scope="session")
def installed(pytestconfig: pytest.Config) -> Callable[[str], Path]:
    """The programs of the server of that name; a test fails with what the installer said."""

    def install(name: str) -> Path:
        capture = pytestconfig.pluginmanager.getplugin("capturemanager")
        with capture.global_and_fixture_disabled():  # so that the progress is seen
            try:
                return programs(name)
            except InstallError as error:
                reason = str(error)
        pytest.fail(f"{name} cannot be installed:\n{reason}", pytrace=False)

    return install
