"""What a batch has done so far, on disk: ``OUT.partial``, until ``OUT`` appears whole.

The journal is lines of JSON, appended as things happen, so that a process that is killed loses
nothing that it had received:

    {"batch": 1, "options": {...}}                a run begins; what it asks of every line
    {"line": 7, "digest": "9f..", "row": null}    line 7 is being asked
    {"line": 7, "digest": "9f..", "row": {...}}   line 7 has its answer, or its error
    {"line": 7}                                   line 7 was put back: nothing came of it

An answer belongs to the text of its line, not to its place: lines may be added, moved and removed
between two runs, and what stays is not asked again.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from array import array
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from semroute_service.cli.appearing import appearing

if TYPE_CHECKING:
    from collections.abc import Mapping
    from io import FileIO
    from pathlib import Path

_VERSION = 1


class JournalError(Exception):
    """Why ``OUT`` cannot be worked on, and what to do."""


def digest(line: str) -> int:
    """What tells the texts of lines apart; 64 bits."""
    return int.from_bytes(blake2b(line.strip().encode(), digest_size=8).digest())


@dataclass
class Spent:
    """What all rows of a journal used together, also those that others have replaced."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float = 0.0

    def add(self, row: Mapping[str, Any]) -> None:
        usage = row.get("usage") or {}
        self.prompt_tokens += usage.get("prompt_tokens", 0)
        self.completion_tokens += usage.get("completion_tokens", 0)
        self.cost_usd += row.get("cost_usd", 0.0)


class Journal:
    """The journal of ``out``, which no other process can open meanwhile.

    ``cut_off`` are the lines whose answers were on their way when the last run ended, ``dropped``
    counts lines of the journal that cannot be read, and ``resumed`` says whether there was one.
    Raises ``JournalError`` and ``OSError``.
    """

    def __init__(self, out: Path, options: Mapping[str, Any]) -> None:
        self.out, self.path = out, out.with_name(f"{out.name}.partial")
        self.answers, self.errors = Rows(), Rows()
        self.cut_off: set[int] = set()
        self.dropped = 0
        self.spent = Spent()
        self._used = False
        if out.is_dir():
            raise JournalError(f"{out}: Is a directory")
        if out.exists() and not self.path.exists():
            raise JournalError(f"{out} is there already; remove it to ask anew, or name another")
        self._file = _locked(self.path)
        try:
            self._end = self._recover(options)
            self.resumed = self._end > 0
            self._append({"batch": _VERSION, "options": dict(options)})
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._used:
            self.path.unlink(missing_ok=True)
        self._file.close()

    def start(self, line: int, key: int) -> None:
        """Note that ``line`` is about to be asked; ``key`` is the digest of its text."""
        self._append({"line": line, "digest": f"{key:016x}", "row": None})
        self._used = True

    def put_back(self, line: int) -> None:
        """Note that ``line`` was not answered after all, and that nothing is on its way."""
        self._append({"line": line})

    def finish(self, line: int, key: int, row: Mapping[str, Any]) -> int:
        """Keep what came of ``line``; returns where it stands."""
        place = self._end
        self._append({"line": line, "digest": f"{key:016x}", "row": row})
        self._used = True
        self.spent.add(row)
        return place

    def forget(self) -> None:
        """Let go of what finds rows, once their places are known."""
        self.answers, self.errors = Rows(), Rows()

    def sync(self) -> None:
        """See to it that what was kept outlives the machine, too."""
        os.fsync(self._file.fileno())

    def publish(self, places: array[int]) -> None:
        """Write ``out``, a row for each line whose place is not negative. The journal goes with
        the last error, which it is needed to mend."""
        failed = 0
        with self.path.open("rb") as kept, appearing(self.out) as file:
            for line, place in enumerate(places, 1):
                if place < 0:
                    continue
                kept.seek(place)
                row = json.loads(kept.readline())["row"]
                failed += "error" in row
                file.write(json.dumps({"line": line, **row}, ensure_ascii=False) + "\n")
        if not failed:
            self.path.unlink()

    def _append(self, entry: Mapping[str, Any]) -> None:
        text = json.dumps(entry, ensure_ascii=False) + "\n"
        data = memoryview(text.encode(errors="backslashreplace"))
        while data:
            written = self._file.write(data)
            self._end += written
            data = data[written:]

    def _recover(self, options: Mapping[str, Any]) -> int:
        """Read what earlier runs kept, without a last line that was torn; returns its length."""
        end = 0
        with self.path.open("rb") as file:
            for data in file:
                if not data.endswith(b"\n"):
                    break
                entry = _parsed(data)
                if end:
                    self._take(entry, end)
                else:
                    self._check(entry, options)
                end += len(data)
        self._file.truncate(end)
        return end

    def _check(self, header: Mapping[str, Any], options: Mapping[str, Any]) -> None:
        if header.get("batch") != _VERSION:
            raise JournalError(f"{self.path} is no journal of this command; remove or rename it")
        old: dict[str, Any] = header.get("options") or {}
        names = {name for name in old.keys() | options.keys() if old.get(name) != options.get(name)}
        if names:
            raise JournalError(
                f"{self.path} was begun with other options ({', '.join(sorted(names))}); give the "
                "same again, or remove it to ask everything anew"
            )

    def _take(self, entry: Mapping[str, Any], place: int) -> None:
        match entry:
            case {"batch": _}:
                self.cut_off.clear()
                return
            case {"line": int(line), "row": None}:
                self.cut_off.add(line)
            case {"line": int(line), "digest": str(key), "row": dict(row)}:
                self.cut_off.discard(line)
                self.spent.add(row)
                (self.errors if "error" in row else self.answers).add(int(key, 16), place)
            case {"line": int(line)}:
                self.cut_off.discard(line)
            case _:
                self.dropped += 1
        self._used = True


class Rows:
    """Where rows stand in a journal, by the digest of their line's text; about 150 bytes each."""

    def __init__(self) -> None:
        self._last: dict[int, int] = {}
        self._places = array("q")
        self._before = array("q")  # of the same digest
        self.left = 0

    def add(self, key: int, place: int) -> None:
        self._before.append(self._last.get(key, -1))
        self._last[key] = len(self._places)
        self._places.append(place)
        self.left += 1

    def take(self, key: int) -> int | None:
        """The place of the latest row that nobody has taken; each is taken once."""
        row = self._last.get(key, -1)
        if row < 0:
            return None
        self._last[key] = self._before[row]
        self.left -= 1
        return self._places[row]


def _parsed(data: bytes) -> dict[str, Any]:
    with contextlib.suppress(ValueError):
        entry = json.loads(data)
        if isinstance(entry, dict):
            return entry
    return {}


def _locked(path: Path) -> FileIO:
    """``path`` to append to; the lock goes with the process, however it ends."""
    if sys.platform == "win32":
        raise JournalError("a batch of answers needs the file locks of Linux or macOS")
    import fcntl

    file = path.open("ab", buffering=0)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(file.fileno()).st_ino != path.stat().st_ino:  # it has just been finished
            raise BlockingIOError
    except (BlockingIOError, FileNotFoundError):
        file.close()
        raise JournalError(f"another run is at work on {path}; wait for it, or end it") from None
    except OSError as error:
        file.close()
        raise JournalError(f"{path} cannot be locked: {error.strerror}") from error
    return file
