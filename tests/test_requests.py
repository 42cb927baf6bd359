"""What a caller may send, what is refused with which field, and what the small RPCs answer."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest
import pytest_asyncio

from semroute import RouterClient, RouterError
from semroute.v1 import profile_pb2, profile_pb2_grpc, router_pb2_grpc
from semroute.v1 import router_pb2 as pb
from semroute_service.testing import running_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable

pytestmark = pytest.mark.asyncio(loop_scope="module")

TEXT = "write a python script"
USER = pb.Message(role=pb.ROLE_USER, text=TEXT)
TOOL = pb.Tool(name="search")
LONG = "x" * 129
PROFILES: dict[str, dict[str, Any]] = {
    name: {
        "description": f"The profile {name}",
        "version": "1.0",
        "models": {f"{name}_model": {"provider": "echo"}},
        "routes": {
            "default": {"model": f"{name}_model"},
            "biomedical": {"model": f"{name}_model"},
        },
    }
    for name in ("north", "south")
}


class Stubs:
    """The generated stubs, so that a test can send whatever the contract can hold."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.router: Any = router_pb2_grpc.RouterServiceStub(channel)
        self.profiles: Any = profile_pb2_grpc.ProfileServiceStub(channel)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stubs() -> AsyncIterator[Stubs]:
    """One server for all that does not change it."""
    async with (
        running_server(profiles=PROFILES, active="north") as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        yield Stubs(channel)


async def failure(call: Awaitable[Any]) -> RouterError:
    """The error that ``call`` ends in."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return RouterError.from_rpc(caught.value)


async def everything(stream: Any) -> list[pb.CompleteResponse]:
    return [response async for response in stream]


def unknown(number: int) -> Any:
    """A value that no enum of the contract has."""
    return number


def asked(*messages: pb.Message, **more: Any) -> pb.Query:
    """A query with a user message before ``messages``."""
    return pb.Query(messages=[USER, *messages], **more)


def call(id_: str = "1", name: str = "search", arguments: str = "") -> pb.Part:
    return pb.Part(tool_call=pb.ToolCall(id=id_, name=name, arguments=arguments))


def picture(**image: Any) -> pb.Part:
    return pb.Part(image=pb.Image(**image))


SYSTEM, ASKS, ANSWERS, RUNS = pb.ROLE_SYSTEM, pb.ROLE_USER, pb.ROLE_ASSISTANT, pb.ROLE_TOOL
RESULT = pb.Part(tool_result=pb.ToolResult(tool_call_id="1", text="found"))
PICTURE = picture(url="https://example.org/a.png")
SECOND = "query.messages[1]"

WRONG_PARTS: dict[str, tuple[pb.Role, pb.Part, str]] = {
    "empty": (ANSWERS, pb.Part(), ""),
    "result from the user": (ASKS, RESULT, ".tool_result"),
    "result from the assistant": (ANSWERS, RESULT, ".tool_result"),
    "result from the system": (SYSTEM, RESULT, ".tool_result"),
    "result of nothing": (RUNS, pb.Part(tool_result={}), ".tool_result.tool_call_id"),
    "call from the user": (ASKS, call(), ".tool_call"),
    "call without id": (ANSWERS, call(id_=""), ".tool_call"),
    "call of nothing": (ANSWERS, call(name=""), ".tool_call"),
    "arguments not JSON": (ANSWERS, call(arguments="{"), ".tool_call.arguments"),
    "arguments in a list": (ANSWERS, call(arguments="[1]"), ".tool_call.arguments"),
    "image from the assistant": (ANSWERS, PICTURE, ".image"),
    "image without source": (ASKS, picture(), ".image"),
    "image without data": (ASKS, picture(data=b"", media_type="image/png"), ".image"),
    "image from a file": (ASKS, picture(url="file:///etc/hostname"), ".image"),
    "image without media type": (ASKS, picture(data=b"PNG"), ".image.media_type"),
    "image of text": (ASKS, picture(data=b"<p>", media_type="text/html"), ".image.media_type"),
}
WRONG_QUERIES: dict[str, tuple[pb.Query, str]] = {
    "no messages": (pb.Query(), "query.messages"),
    "no user message": (
        pb.Query(messages=[pb.Message(role=SYSTEM, text="Be brief.")]),
        "query.messages",
    ),
    "nothing to route by": (
        pb.Query(messages=[pb.Message(role=ASKS, parts=[PICTURE])]),
        "query.messages",
    ),
    "empty text": (asked(pb.Message(role=ASKS)), f"{SECOND}.text"),
    "blank text": (asked(pb.Message(role=ASKS, text=" \n")), f"{SECOND}.text"),
    "no role": (asked(pb.Message(text="hello")), f"{SECOND}.role"),
    "unknown role": (asked(pb.Message(role=unknown(99), text="hello")), f"{SECOND}.role"),
    "tool says text": (asked(pb.Message(role=RUNS, text="found")), SECOND),
    "tool says nothing": (asked(pb.Message(role=RUNS)), SECOND),
    "long tenant": (asked(caller=pb.Caller(tenant=LONG)), "query.caller.tenant"),
    "long region": (asked(caller=pb.Caller(region=LONG)), "query.caller.region"),
    "long session": (asked(session_id=LONG), "query.session_id"),
    "unknown sensitivity": (
        asked(caller=pb.Caller(sensitivity=unknown(9))),
        "query.caller.sensitivity",
    ),
} | {
    name: (asked(pb.Message(role=role, parts=[part])), f"{SECOND}.parts[0]{suffix}")
    for name, (role, part, suffix) in WRONG_PARTS.items()
}
WRONG_PREFERENCES: list[tuple[str, Any, str]] = [
    ("objective", unknown(99), ""),
    ("max_cost_nano_usd", -1, ""),
    ("required_capabilities", [pb.CAPABILITY_UNSPECIFIED], "[0]"),
    ("required_capabilities", [pb.CAPABILITY_TOOLS, unknown(99)], "[1]"),
]
WRONG_SAMPLING: list[tuple[str, Any]] = [
    ("temperature", -0.1),
    ("temperature", 2.1),
    ("temperature", math.nan),
    ("top_p", 0),
    ("top_p", 1.1),
    ("top_p", math.inf),
    ("max_tokens", 0),
    ("stop", ["END", ""]),
]
WRONG_FORMATS: list[tuple[str, Any, str]] = [
    ("type", unknown(99), ""),
    ("type", pb.RESPONSE_FORMAT_TYPE_TEXT, "{}"),
    ("type", pb.RESPONSE_FORMAT_TYPE_JSON_OBJECT, "{}"),
    ("schema", pb.RESPONSE_FORMAT_TYPE_JSON_SCHEMA, ""),
    ("schema", pb.RESPONSE_FORMAT_TYPE_JSON_SCHEMA, "{"),
]
WRONG_SCHEMAS = [
    "{type: object}",
    "[]",
    '{"maximum": NaN}',
    '{"title": "\\ud800"}',
    '{"not": ' * 50_000 + "{}" + "}" * 50_000,
]
WRONG_OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("tools[0].name", {"tools": [pb.Tool()]}),
    ("tools[0].name", {"tools": [pb.Tool(name="a b")]}),
    ("tools[1].name", {"tools": [TOOL, pb.Tool(name="x" * 65)]}),
    ("tools", {"tools": [TOOL, TOOL]}),
    ("tool_choice.tool", {"tools": [TOOL], "tool_choice": pb.ToolChoice(tool="find")}),
    ("tool_choice.mode", {"tool_choice": pb.ToolChoice(mode=pb.TOOL_CHOICE_MODE_REQUIRED)}),
    ("tool_choice.mode", {"tool_choice": pb.ToolChoice(mode=unknown(99))}),
    *(
        ("tools[0].parameters_schema", {"tools": [pb.Tool(name="a", parameters_schema=schema)]})
        for schema in WRONG_SCHEMAS
    ),
    *((f"sampling.{key}", {"sampling": pb.Sampling(**{key: v})}) for key, v in WRONG_SAMPLING),
    *(
        (f"response_format.{key}", {"response_format": pb.ResponseFormat(type=kind, schema=schema)})
        for key, kind, schema in WRONG_FORMATS
    ),
]


def assert_refused(error: RouterError, *fields: str) -> None:
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert error.reason == "INVALID_REQUEST"
    assert [violation.subject for violation in error.violations] == list(fields)
    assert all(violation.description for violation in error.violations)


@pytest.mark.parametrize(("query", "field"), WRONG_QUERIES.values(), ids=WRONG_QUERIES)
async def test_wrong_query(stubs: Stubs, query: pb.Query, field: str) -> None:
    """A query that cannot be meant is refused by both RPCs, with the one field that is wrong."""
    assert_refused(await failure(stubs.router.Decide(pb.DecideRequest(query=query))), field)
    stream = stubs.router.Complete(pb.CompleteRequest(query=query))
    assert_refused(await failure(everything(stream)), field)


@pytest.mark.parametrize(("key", "value", "suffix"), WRONG_PREFERENCES)
async def test_wrong_preferences(stubs: Stubs, key: str, value: Any, suffix: str) -> None:
    """A wish that is unknown, or that this version cannot grant, is refused, not ignored."""
    wishes = pb.Preferences(**{key: value})
    request = pb.DecideRequest(query=asked(), preferences=wishes)
    error = await failure(stubs.router.Decide(request))
    assert_refused(error, f"preferences.{key}{suffix}")


@pytest.mark.parametrize(("field", "options"), WRONG_OPTIONS, ids=[o[0] for o in WRONG_OPTIONS])
async def test_wrong_options(stubs: Stubs, field: str, options: dict[str, Any]) -> None:
    """Sampling, tools and formats that cannot be meant are refused with their field."""
    stream = stubs.router.Complete(pb.CompleteRequest(query=asked(), **options))
    assert_refused(await failure(everything(stream)), field)


async def test_all_that_is_wrong_is_told_at_once(stubs: Stubs) -> None:
    """One answer names every field that is wrong, in the order of the request."""
    query = asked(pb.Message(role=pb.ROLE_USER), session_id=LONG)
    wishes = pb.Preferences(max_cost_nano_usd=-1)
    request = pb.CompleteRequest(
        query=query, preferences=wishes, sampling=pb.Sampling(max_tokens=-3, top_p=2)
    )
    assert_refused(
        await failure(everything(stubs.router.Complete(request))),
        f"{SECOND}.text",
        "query.session_id",
        "preferences.max_cost_nano_usd",
        "sampling.max_tokens",
        "sampling.top_p",
    )


async def test_the_limits_themselves_are_allowed(stubs: Stubs) -> None:
    """What stands exactly at a limit passes, with every kind of part in its right place."""
    messages = [
        pb.Message(role=pb.ROLE_SYSTEM, text="Be brief."),
        pb.Message(role=pb.ROLE_USER, text=TEXT, parts=[PICTURE]),
        pb.Message(role=pb.ROLE_ASSISTANT, parts=[call(arguments='{"a": 1}')]),
        pb.Message(role=pb.ROLE_TOOL, parts=[RESULT]),
        pb.Message(role=pb.ROLE_USER, parts=[pb.Part(text=TEXT)]),
    ]
    request = pb.CompleteRequest(
        query=pb.Query(messages=messages, session_id=LONG[:128]),
        sampling=pb.Sampling(temperature=2, top_p=1, max_tokens=1, stop=["END"], seed=-1),
        tools=[pb.Tool(name="x" * 64)],
        tool_choice=pb.ToolChoice(mode=pb.TOOL_CHOICE_MODE_AUTO),
    )
    events = await everything(stubs.router.Complete(request))
    assert events[-1].finish.reason == pb.FINISH_REASON_LENGTH


async def test_an_error_is_never_too_long_to_arrive(stubs: Stubs) -> None:
    """Thousands of violations and endless names still arrive under their own status."""
    many = pb.Query(messages=[pb.Message(role=pb.ROLE_USER)] * 5000)
    error = await failure(stubs.router.Decide(pb.DecideRequest(query=many)))
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert len(error.violations) > 10
    request = pb.DecideRequest(query=asked(), profile="ü" * 20_000)
    assert (await failure(stubs.router.Decide(request))).reason == "UNKNOWN_PROFILE"


async def test_unknown_profile(stubs: Stubs) -> None:
    """A profile that is not loaded is NOT_FOUND in every RPC that names one."""
    name = "west"
    calls = [
        stubs.router.Decide(pb.DecideRequest(query=asked(), profile=name)),
        everything(stubs.router.Complete(pb.CompleteRequest(query=asked(), profile=name))),
        stubs.router.Embed(pb.EmbedRequest(texts=["a"], profile=name)),
        stubs.profiles.GetProfile(profile_pb2.GetProfileRequest(name=name)),
        stubs.profiles.ActivateProfile(profile_pb2.ActivateProfileRequest(name=name)),
    ]
    for one in calls:
        error = await failure(one)
        assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "UNKNOWN_PROFILE")
        assert "north, south" in error.message


async def test_unknown_model(stubs: Stubs) -> None:
    """A model that the profile does not have is NOT_FOUND, with those that it has."""
    wishes = pb.Preferences(model="south_model")
    error = await failure(stubs.router.Decide(pb.DecideRequest(query=asked(), preferences=wishes)))
    assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "UNKNOWN_MODEL")
    assert "north_model" in error.message


@pytest.mark.asyncio(loop_scope="function")
async def test_oversized_message() -> None:
    """A message above the server's limit is RESOURCE_EXHAUSTED, and one below it passes."""
    async with (
        running_server(max_message_bytes=10_000) as server,
        RouterClient(server.address) as client,
    ):
        await client.decide("write " * 1000)
        with pytest.raises(RouterError) as caught:
            await client.decide("write " * 2000)
    assert caught.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_batch_keeps_the_order(stubs: Stubs) -> None:
    """Each result stands where its request stood, errors in their place."""
    queries = [
        asked(),
        pb.Query(),
        pb.Query(messages=[pb.Message(role=pb.ROLE_USER, text="what does this gene do")]),
        asked(),
        asked(),
    ]
    requests = [pb.DecideRequest(query=query) for query in queries]
    requests[3].profile = "west"
    requests[4].profile = "south"
    response = await stubs.router.BatchDecide(pb.BatchDecideRequest(requests=requests))
    first, empty, gene, west, south = response.results
    assert first.decision.classification.task == "code_generation"
    assert empty.error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert "query.messages" in empty.error.message
    assert gene.decision.classification.task == "biomedical"
    assert west.error.code == grpc.StatusCode.NOT_FOUND.value[0]
    assert south.decision.model == "south_model"


async def test_batch_size(stubs: Stubs) -> None:
    """A thousand requests are a batch, none are an empty one, and one more is refused."""
    one = pb.DecideRequest(query=asked())
    full = await stubs.router.BatchDecide(pb.BatchDecideRequest(requests=[one] * 1000))
    assert len(full.results) == 1000
    assert all(result.HasField("decision") for result in full.results)
    assert not (await stubs.router.BatchDecide(pb.BatchDecideRequest())).results
    more = stubs.router.BatchDecide(pb.BatchDecideRequest(requests=[one] * 1001))
    assert_refused(await failure(more), "requests")


async def test_embed(stubs: Stubs) -> None:
    """Vectors have unit length and the stated dimension, and none depends on its company."""
    texts = [TEXT, "what does this gene do", TEXT]
    response = await stubs.router.Embed(pb.EmbedRequest(texts=texts))
    vectors = [list(embedding.values) for embedding in response.embeddings]
    assert response.model == "hashing"
    assert [len(vector) for vector in vectors] == [response.dimension] * 3
    assert [math.hypot(*vector) for vector in vectors] == pytest.approx([1, 1, 1], abs=1e-6)
    assert vectors[0] == vectors[2] != vectors[1]
    alone = await stubs.router.Embed(pb.EmbedRequest(texts=[TEXT]))
    assert list(alone.embeddings[0].values) == vectors[0]


@pytest.mark.parametrize(
    ("request_", "fields"),
    [
        (pb.EmbedRequest(), ["texts"]),
        (pb.EmbedRequest(texts=["a", "", "b", " \t"]), ["texts[1]", "texts[3]"]),
        (pb.EmbedRequest(texts=["a"] * 1001), ["texts"]),
        (
            pb.EmbedRequest(texts=["a"], caller=pb.Caller(sensitivity=unknown(9))),
            ["caller.sensitivity"],
        ),
    ],
    ids=["no text", "empty texts", "too many", "caller"],
)
async def test_wrong_embed(stubs: Stubs, request_: pb.EmbedRequest, fields: list[str]) -> None:
    """Embed refuses what has no text, more than it takes, and callers it does not understand."""
    assert_refused(await failure(stubs.router.Embed(request_)), *fields)


async def test_list_and_get_profiles(stubs: Stubs) -> None:
    """Profiles come in the order of their names, one is active, and a default row comes last."""
    listed = await stubs.profiles.ListProfiles(profile_pb2.ListProfilesRequest())
    assert [(p.name, p.active) for p in listed.profiles] == [("north", True), ("south", False)]
    assert listed.profiles[1].description == "The profile south"
    assert listed.profiles[1].version == "1.0"
    south = await stubs.profiles.GetProfile(profile_pb2.GetProfileRequest(name="south"))
    assert south.profile.summary == listed.profiles[1]
    assert [route.task for route in south.profile.routes] == ["biomedical", "default"]
    assert south.profile.routes[0].high == ["south_model"]
    assert [(m.name, m.provider, m.local) for m in south.profile.models] == [
        ("south_model", "echo", True)
    ]
    unnamed = await stubs.profiles.GetProfile(profile_pb2.GetProfileRequest())
    assert unnamed.profile.summary == listed.profiles[0]


async def test_activate_nothing(stubs: Stubs) -> None:
    """To activate, one must say what."""
    nothing = profile_pb2.ActivateProfileRequest()
    assert_refused(await failure(stubs.profiles.ActivateProfile(nothing)), "name")


@pytest.mark.asyncio(loop_scope="function")
async def test_activate_while_requests_run() -> None:
    """Switching loses no request, and every decision carries one profile, whole."""
    async with (
        running_server(profiles=PROFILES, active="north") as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        stubs = Stubs(channel)
        listed = await stubs.profiles.ListProfiles(profile_pb2.ListProfilesRequest())
        whole = {(p.name, p.revision, f"{p.name}_model") for p in listed.profiles}
        request = pb.DecideRequest(query=asked())
        pending = []
        for previous, name in [("north", "south"), ("south", "north")] * 5:
            pending += [stubs.router.Decide(request) for _ in range(10)]
            switch = profile_pb2.ActivateProfileRequest(name=name)
            switched = await stubs.profiles.ActivateProfile(switch)
            assert (switched.previous, switched.active.name) == (previous, name)
            assert switched.active.active
            after = (await stubs.router.Decide(request)).decision
            assert after.profile == name
        answers = await asyncio.gather(*pending)
    seen = {(a.decision.profile, a.decision.profile_revision, a.decision.model) for a in answers}
    assert len(answers) == 100
    assert seen <= whole
