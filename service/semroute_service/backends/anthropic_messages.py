"""Anthropic's Messages API, and whatever else speaks it: POST {url}/messages, streamed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from semroute_service.backends.anthropic_request import request_body
from semroute_service.backends.anthropic_stream import StreamReader
from semroute_service.backends.streaming import HttpChatBackend

if TYPE_CHECKING:
    from semroute_service.backends.http import HttpClient


class AnthropicMessagesBackend(HttpChatBackend):
    def __init__(self, http: HttpClient) -> None:
        super().__init__(http, "/messages", request_body, StreamReader)
