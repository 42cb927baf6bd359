"""``servers``: launch recipes for a profile's own vLLM servers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from semroute_classifier.documents import ConfigError, Problem, suggest, yaml_files
from semroute_service.cli import output
from semroute_service.cli.files import folder
from semroute_service.profile import load_profile
from semroute_service.recipes import FORMATS, RecipeError, plan

if TYPE_CHECKING:
    import argparse

    from semroute_service.profile import Profile
    from semroute_service.recipes import Plan


def servers(options: argparse.Namespace) -> int:
    """Check that every server fits its GPU, then write how to launch them, or only say so."""
    if not options.profile:
        return output.fail("name a profile: --profile NAME", status=2)
    if not (options.check or options.format):
        return output.fail("name a format: --format NAME; or ask for --check", status=2)
    try:
        made = plan(_profile(folder("profiles", options.profiles), options.profile))
        files = FORMATS[options.format](made) if options.format else {}
    except (ConfigError, RecipeError) as error:
        return output.fail(str(error))
    _tell(made, options.format)
    if options.check:
        return 0
    if options.out:
        return _write(Path(options.out), files)
    for name, text in files.items():
        if len(files) > 1:
            print(f"### {name}")
        print(text, end="")
    return 0


def _profile(where: Path, name: str) -> Profile:
    paths = {path.stem: path for path in yaml_files(where, "profile (<name>.yaml)")}
    if name not in paths:
        message = f'there is no profile "{name}"{suggest(name, paths)}'
        raise ConfigError([Problem(str(where), 0, "", message)])
    return load_profile(paths[name])


def _tell(made: Plan, form: str | None) -> None:
    """To standard error, since the recipes may go to standard output."""
    for server in made.servers:
        gpu = f"{server.need.gpus} {server.gpu.type}"
        print(f"{server.name}: {server.model} on {gpu}: {server.need}", file=sys.stderr)
    for name in made.unserved:
        print(f"{name}: not launched, none of its models has a serve part", file=sys.stderr)
    if form == "modal":
        for server in made.servers:
            if server.backend.local:
                print(
                    f"warning: Modal is outside the building, and {server.backend.name} counts as "
                    'inside; write "locality: cloud" there before it is used',
                    file=sys.stderr,
                )


def _write(target: Path, files: dict[str, str]) -> int:
    try:
        target.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            path = target / name
            path.write_text(text, encoding="utf-8")
            if text.startswith("#!"):
                path.chmod(0o755)
            print(path)
    except OSError as error:
        return output.fail(f"{target}: {error.strerror}")
    return 0
