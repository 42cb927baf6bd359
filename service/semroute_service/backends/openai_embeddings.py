"""Embedding models behind an OpenAI-compatible server: POST {url}/embeddings.

vLLM, Text Embeddings Inference, infinity, llama.cpp and several clouds speak it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from semroute_service.backends.base import BackendError, Embedded
from semroute_service.backends.values import count_of
from semroute_service.decision import ErrorClass, Usage

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from semroute_classifier.encoders import Vectors
    from semroute_service.backends.base import Clocks
    from semroute_service.backends.http import HttpClient
    from semroute_service.profile import Model

BATCH = 32
"""Texts of one request; Text Embeddings Inference refuses more unless it is told otherwise."""

_SENSELESS = (ValueError, ArithmeticError, LookupError, TypeError, AttributeError, RecursionError)


class OpenAIEmbeddings:
    """The key is read from the environment at every call and kept nowhere."""

    def __init__(self, http: HttpClient) -> None:
        self._http = http

    async def embed(
        self, model: Model, texts: Sequence[str], clocks: Clocks
    ) -> AsyncGenerator[Embedded, None]:
        """One vector of unit length for each text, in as many parts as it takes; raises
        ``BackendError``."""
        for start in range(0, len(texts), BATCH):
            yield await self._ask(model, texts[start : start + BATCH], clocks)

    async def _ask(self, model: Model, texts: Sequence[str], clocks: Clocks) -> Embedded:
        body = {**model.extra_body, "model": model.id, "input": list(texts)}
        answer = await self._http.fetch(model.backend, "/embeddings", body, clocks)
        try:
            told = json.loads(answer)
            return Embedded(_vectors(told["data"], len(texts)), _usage(told.get("usage")))
        except _SENSELESS as error:
            raise _unintelligible(type(error).__name__) from None


def _vectors(data: list[dict[str, Any]], count: int) -> Vectors:
    """Rows of unit length in the order of the texts; raises ``ValueError`` where they are none."""
    rows = sorted(data, key=lambda row: int(row["index"]))
    if [int(row["index"]) for row in rows] != list(range(count)):
        raise ValueError
    with np.errstate(over="ignore"):  # what does not fit is seen below
        vectors = np.array([row["embedding"] for row in rows], dtype=np.float32)
    if vectors.ndim != 2:
        raise ValueError
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.isfinite(lengths).all() or not lengths.all():
        raise ValueError
    return np.asarray(vectors / lengths, dtype=np.float32)


def _usage(told: Any) -> Usage | None:
    """None where there is no figure, or one that cannot be true; it is estimated then."""
    try:
        tokens = count_of(told.get("prompt_tokens"))
    except (AttributeError, ValueError):
        return None
    return Usage(prompt_tokens=tokens) if tokens else None


def _unintelligible(why: str) -> BackendError:
    return BackendError(ErrorClass.PROVIDER_PROTOCOL, f"no list of vectors ({why})")
