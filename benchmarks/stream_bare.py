"""The least that Python's gRPC can take: what semroute sends, from a server that does nothing else.

    python benchmarks/stream_bare.py     # prints where it listens

It sends prepared bytes in as many messages as the router would: a decision, the words, a finish.
The models are those of stream_upstream.py, without floods, whose words leave together.
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING, Any

import grpc
import uvloop

from semroute.v1 import router_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

DECISION = pb.CompleteResponse(decision=pb.Decision(id="0" * 32, reason="none " * 40))
FINISH = pb.CompleteResponse(finish=pb.Finish(reason=pb.FINISH_REASON_STOP))


def word(text: str) -> bytes:
    return pb.CompleteResponse(delta=pb.Delta(text=text)).SerializeToString()


async def complete(request: bytes, _: Any) -> AsyncIterator[bytes]:
    model = pb.CompleteRequest.FromString(request).preferences.model
    kind, *numbers = model.split("-")
    yield DECISION.SerializeToString()
    if kind == "paced":
        count, period = int(numbers[0]), int(numbers[1]) / 1000
        start = time.monotonic() + random.random() * period * (count > 100)
        for i in range(count):
            await asyncio.sleep(start + i * period - time.monotonic())
            yield word(f"{i}:{time.monotonic_ns()} ")
    else:
        yield word("0 ")
        await asyncio.sleep(3600 if kind == "idle" else 0)
    yield FINISH.SerializeToString()


async def main() -> None:
    server = grpc.aio.server()
    handler: Any = grpc.unary_stream_rpc_method_handler(complete)
    methods = {"Complete": handler}
    service = grpc.method_handlers_generic_handler("semroute.v1.RouterService", methods)
    server.add_generic_rpc_handlers((service,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"serving on 127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(main())
