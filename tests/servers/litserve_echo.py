"""An echo behind LitServe's OpenAI endpoint, run by LitServe's own environment.

    python litserve_echo.py PORT

It answers with the words it was told, a piece each. The model ``slow`` takes its time over them,
``broken`` fails after two, and told of a tool ``echo`` calls it.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import litserve  # type: ignore[import-not-found, unused-ignore]

if TYPE_CHECKING:
    from collections.abc import Iterator


class Echo(litserve.LitAPI):  # type: ignore[misc, unused-ignore]
    def setup(self, device: str) -> None:
        del device

    def predict(self, request: Any) -> Iterator[dict[str, Any]]:
        said = request.messages[-1].content
        if request.tools:
            yield _call(request.tools[0].function.name, said)
            return
        words = said.split()[: request.max_tokens]
        for i, word in enumerate(words):
            if request.model == "slow":
                time.sleep(0.2)
            if request.model == "broken" and i == 2:
                raise RuntimeError("the model is broken")
            yield {"role": "assistant", "content": f"{word} ", **_usage(request, i + 1)}


def _call(name: str, said: str) -> dict[str, Any]:
    function = {"name": name, "arguments": f'{{"said": "{said}"}}'}
    call = {"index": 0, "id": "call_1", "type": "function", "function": function}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


def _usage(request: Any, count: int) -> dict[str, int]:
    """LitServe reports what the last piece says."""
    if request.model == "uncounted":
        return {}
    prompt = sum(len(message.content.split()) for message in request.messages)
    return {"prompt_tokens": prompt, "completion_tokens": count, "total_tokens": prompt + count}


if __name__ == "__main__":
    server = litserve.LitServer(Echo(spec=litserve.OpenAISpec()), accelerator="cpu")
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False)
