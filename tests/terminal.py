"""A program on a pseudo-terminal, and a person who reads before typing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from processes import LIMIT_SECONDS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

END_OF_INPUT = "\x04"


@dataclass
class Terminal:
    """What a program shows is gathered in ``shown``."""

    process: asyncio.subprocess.Process
    screen: int
    shown: str = ""
    _read: int = field(default=0, repr=False)

    async def sees(self, text: str) -> None:
        """Return once ``text`` is shown after what was seen before."""
        async with asyncio.timeout(LIMIT_SECONDS):
            while text not in self.shown[self._read :]:
                assert await self._more(), f"{text!r} is not in {self.shown}"
        self._read = self.shown.index(text, self._read) + len(text)

    def types(self, text: str) -> None:
        """Type ``text``, and press Enter unless it ends the input."""
        os.write(self.screen, text.encode() + (b"" if text == END_OF_INPUT else b"\n"))

    async def answers(self, question: str, text: str) -> None:
        """Wait for a question, then answer it."""
        await self.sees(question)
        self.types(text)

    async def end(self) -> int:
        """Read to the program's end; returns its status."""
        async with asyncio.timeout(LIMIT_SECONDS):
            while await self._more():
                pass
            return await self.process.wait()

    async def _more(self) -> bool:
        """Read what is there, or wait a little; false once nobody will write any more."""
        try:
            got = os.read(self.screen, 65536)
        except BlockingIOError:
            await asyncio.sleep(0.01)
            return True
        except OSError:  # how Linux says that the other side is closed
            return False
        self.shown += got.decode().replace("\r\n", "\n")
        return bool(got)


@contextlib.asynccontextmanager
async def on_terminal(
    *command: str | Path, cwd: Path, env: Mapping[str, str] | None = None
) -> AsyncIterator[Terminal]:
    """Run ``command`` on a terminal of its own; it is surely gone afterwards."""
    screen, inside = pty.openpty()
    os.set_blocking(screen, False)
    try:
        process = await asyncio.create_subprocess_exec(
            *map(str, command),
            cwd=cwd,
            env={**os.environ, "TERM": "dumb", **(env or {})},
            stdin=inside,
            stdout=inside,
            stderr=inside,
        )
    finally:
        os.close(inside)
    try:
        yield Terminal(process, screen)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        os.close(screen)
