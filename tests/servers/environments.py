"""An environment of its own for each server that is not ours.

    python tests/servers/environments.py litellm     # prints the folder of its programs

It is made on first use, from requirements/NAME.txt, and made anew when that file changes.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
REQUIREMENTS = Path(__file__).parent / "requirements"
INSTALL_SECONDS = 900.0
_SAY_EVERY = 10.0


class InstallError(Exception):
    """The environment cannot be made; says what the installer said."""


def programs(name: str) -> Path:
    """The folder of the programs of the server ``name``; raises ``InstallError``."""
    wanted = (REQUIREMENTS / f"{name}.txt").read_text(encoding="utf-8")
    folder = ROOT / f".venv-servers-{name}"
    ready = folder / ".ready"
    if not ready.exists() or ready.read_text(encoding="utf-8") != wanted:
        _install(name, folder)
        ready.write_text(wanted, encoding="utf-8")
    return folder / "bin"


def _install(name: str, folder: Path) -> None:
    _say(f"{name}: installing into {folder.name} (once; some minutes) ...")
    start = time.monotonic()
    _run([sys.executable, "-m", "venv", str(folder)], folder)
    pip = [str(folder / "bin/python"), "-m", "pip", "install", "--disable-pip-version-check"]
    _run([*pip, "--requirement", str(REQUIREMENTS / f"{name}.txt")], folder)
    _say(f"{name}: installed in {time.monotonic() - start:.0f} s")


def _run(command: list[str], folder: Path) -> None:
    """Run ``command``; now and then say how far its log is."""
    folder.mkdir(exist_ok=True)
    log = folder / "install.log"
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
        ended = threading.Event()
        telling = threading.Thread(target=_tell, args=(log, ended), daemon=True)
        telling.start()
        try:
            status = process.wait(INSTALL_SECONDS)
        except subprocess.TimeoutExpired:
            raise InstallError(f"not installed within {INSTALL_SECONDS:.0f} s; see {log}") from None
        finally:
            ended.set()
            process.kill()
            process.wait()
    if status:
        raise InstallError(_errors(log))


def _tell(log: Path, ended: threading.Event) -> None:
    while not ended.wait(_SAY_EVERY):
        lines = log.read_text(errors="replace").splitlines()
        found = sum(line.startswith(("Collecting", "Processing")) for line in lines)
        _say(f"  {found} packages found; {lines[-1].strip()[:70] if lines else ''}")


def _errors(log: Path) -> str:
    """What the resolver complained of, or else how it ended."""
    lines = log.read_text(errors="replace").splitlines()
    errors = [line for line in lines if line.startswith("ERROR")]
    return "\n".join(errors or lines[-10:])


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        print(programs(sys.argv[1]))
    except InstallError as error:
        sys.exit(f"{sys.argv[1]} cannot be installed:\n{error}")
