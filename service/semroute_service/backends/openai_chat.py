"""Any OpenAI-compatible server: POST {url}/chat/completions, streamed.

vLLM, Ollama, SGLang, llama.cpp and most clouds speak it. What differs between them stands in the
catalogue, not here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from semroute_service.backends.openai_request import request_body
from semroute_service.backends.openai_stream import StreamReader
from semroute_service.backends.streaming import HttpChatBackend

if TYPE_CHECKING:
    from semroute_service.backends.http import HttpClient


class OpenAIChatBackend(HttpChatBackend):
    def __init__(self, http: HttpClient) -> None:
        super().__init__(http, "/chat/completions", request_body, StreamReader)
