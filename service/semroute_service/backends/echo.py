"""The built-in backend: answers with what was asked. For demonstrations, tests and dry runs."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from semroute_service.backends.base import End
from semroute_service.decision import Delta, FinishReason, ToolCallDelta, Usage
from semroute_service.query import NamedTool, Role, ToolChoice

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from semroute_service.backends.base import ChatRequest, Event

_PIECE = re.compile(r"\s*\S+|\s+$")


class EchoBackend:
    """Streams ``You said: ...`` word by word, or calls the tool that must be called."""

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Event, None]:
        said = next(m.text for m in reversed(request.messages) if m.role is Role.USER)
        prompt_tokens = sum(len(m.text.split()) for m in request.messages)
        tool = _required_tool(request)
        if tool:
            arguments = json.dumps({"input": said}, ensure_ascii=False)
            yield Delta(tool_calls=(ToolCallDelta(0, "call_echo", tool, arguments),))
            yield End(FinishReason.TOOL_CALLS, Usage(prompt_tokens, 1))
            return
        pieces = _PIECE.findall(f"You said: {said}")
        limit = request.options.sampling.max_tokens
        for piece in pieces[:limit]:
            yield Delta(text=piece)
        cut = limit is not None and limit < len(pieces)
        reason = FinishReason.LENGTH if cut else FinishReason.STOP
        yield End(reason, Usage(prompt_tokens, len(pieces[:limit])))


def _required_tool(request: ChatRequest) -> str:
    match request.options.tool_choice:
        case NamedTool(name):
            return name
        case ToolChoice.REQUIRED:
            return request.options.tools[0].name
        case _:
            return ""
