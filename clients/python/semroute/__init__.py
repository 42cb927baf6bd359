"""The semroute client: route a query, or have it answered, from any Python service.

    from semroute import RouterClient

    async with RouterClient("127.0.0.1:50051") as client:
        decision = await client.decide("Write a Snakemake rule that trims adapters")
        async with client.complete("Explain Bonferroni's correction") as answer:
            async for delta in answer:
                print(delta.text, end="")

``SyncRouterClient`` is the same without ``await``. Results are the contract's own messages, typed
by the stubs in ``semroute.v1``. Every failure is a ``RouterError``.
"""

from semroute._aio import Completion, RouterClient
from semroute._errors import RouterError, Violation
from semroute._sync import SyncCompletion, SyncRouterClient

__all__ = [
    "Completion",
    "RouterClient",
    "RouterError",
    "SyncCompletion",
    "SyncRouterClient",
    "Violation",
]
