"""The server's life: warm-up, health, reflection, decisions and answers over a real channel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from semroute.v1 import router_pb2 as pb

if TYPE_CHECKING:
    from semroute import RouterClient


async def test_decide_names_task_tier_and_model(client: RouterClient) -> None:
    """A query near an utterance gets its task, and the row's model."""
    decision = await client.decide("write a python script")
    assert decision.classification.task == "code_generation"
    assert decision.classification.basis == pb.BASIS_MATCHED
    assert decision.model == "echo"
    assert decision.candidates[0].ruling == pb.RULING_ADMITTED


async def test_complete_streams_decision_deltas_finish(client: RouterClient) -> None:
    """The decision is first, the text comes in pieces, and one finish ends it."""
    async with client.complete("write a python script") as answer:
        pieces = [delta.text async for delta in answer]
    assert len(pieces) > 1
    assert "".join(pieces) == "You said: write a python script"
    assert answer.decision is not None
    assert answer.finish is not None
    assert answer.finish.reason == pb.FINISH_REASON_STOP
    assert answer.finish.model == "echo"
