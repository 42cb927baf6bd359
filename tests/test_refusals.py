"""What a refusal is called, and that no caller can choose it for others by what they write."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semroute.v1 import router_pb2 as pb
from semroute_service.backends.refusals import classify, refusal_inside
from semroute_service.decision import ErrorClass
from upstream import Status, answer, ask, chain

INVALID = ErrorClass.CALLER_INVALID_REQUEST
CREDENTIALS = ErrorClass.PROVIDER_CREDENTIALS
NO_MODEL = ErrorClass.PROVIDER_MODEL_NOT_FOUND
TOO_LONG = ErrorClass.CALLER_CONTEXT_LENGTH
FILTERED = ErrorClass.POLICY_CONTENT_FILTER
BLAMES_OTHERS = {CREDENTIALS, NO_MODEL}

TELLING = [
    "insufficient_quota",
    "insufficient balance",
    "api_key_invalid",
    "invalid api key",
    "your credit balance is too low to access the anthropic api",
    "no_db_connection",
    "model_not_found",
    "model not exist",
    "deploymentnotfound",
    "the model x does not exist",
    "unknown model x",
    "content_filter",
    "content policy",
    "maximum context length",
    "context_length_exceeded",
    "prompt is too long",
]
"""Words that mean something where an upstream says them itself."""
QUOTES = ["''", '""', "``", "“”", "„“", "«»", "‘’"]
WRITTEN = st.text(st.characters(exclude_characters="'\"`“”„«»‘’", exclude_categories=["C"]))


def about(name: str) -> dict[str, Any]:
    """OpenAI's answer to a tool with this name and a schema that it refuses."""
    message = f"Invalid schema for function '{name}': 'additionalProperties' is required."
    code = "invalid_function_parameters"
    return {"error": {"message": message, "type": "invalid_request_error", "code": code}}


@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize("written", TELLING)
@pytest.mark.parametrize("quotes", QUOTES)
def test_what_is_quoted_says_nothing(status: int, written: str, quotes: str) -> None:
    """Words of the caller that a message repeats in quotes of any kind do not classify it."""
    message = f"Invalid value {quotes[0]}{written}{quotes[1]}, see the model's description."
    assert classify(status, json.dumps({"error": {"message": message}})) is INVALID


@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize("written", TELLING)
@pytest.mark.parametrize("field", ["message", "detail", "msg", "error", "reason", "code"])
def test_a_message_that_repeats_the_request_blames_nobody_else(
    status: int, written: str, field: str
) -> None:
    """Even unquoted in a message, also one in a field of codes, such words say nothing of the key
    or the model."""
    body = {"error": {field: f"The request holds {written} where a number belongs."}}
    assert classify(status, json.dumps(body)) not in BLAMES_OTHERS
    assert classify(status, f"The request holds {written}.") not in BLAMES_OTHERS


@given(st.sampled_from([400, 422]), WRITTEN, st.sampled_from(TELLING), WRITTEN)
def test_no_name_of_a_tool_blames_others(status: int, one: str, telling: str, two: str) -> None:
    """Whatever a tool is called, its refusal stays the caller's own."""
    assert classify(status, json.dumps(about(one + telling + two))) not in BLAMES_OTHERS


@pytest.mark.parametrize(
    "message",
    [
        "Unknown field 'context length",  # cut off before its end
        "Unknown field b'context length'",
        "Unknown field 'it's the context length'",
        'Unknown field "the user\'s context length"',
    ],
)
def test_quotes_that_are_not_plain(message: str) -> None:
    """A quote that nothing closes, Python's bytes, and apostrophes within quotes are quotes too."""
    assert classify(400, json.dumps({"error": {"message": message}})) is INVALID


def test_an_apostrophe_quotes_nothing() -> None:
    """What stands between two of them is the upstream's own word."""
    message = "This model's context length is 8, which your request's tokens exceed."
    assert classify(400, json.dumps({"error": {"message": message}})) is TOO_LONG


@pytest.mark.parametrize(
    ("error", "error_class"),
    [
        ({"code": "insufficient_quota"}, CREDENTIALS),
        ({"type": "insufficient_quota"}, CREDENTIALS),
        ({"details": [{"reason": "API_KEY_INVALID"}]}, CREDENTIALS),
        ({"message": "No connected db.", "type": "no_db_connection"}, CREDENTIALS),
        ({"code": "billing_hard_limit_reached"}, CREDENTIALS),
        ({"code": "model_not_found"}, NO_MODEL),
        ({"status": "model_not_supported"}, NO_MODEL),
        ({"innererror": {"code": "ResponsibleAIPolicyViolation"}}, FILTERED),
        ({"code": "context_length_exceeded"}, TOO_LONG),
        ({"type": "exceed_context_size_error"}, TOO_LONG),
    ],
)
@pytest.mark.parametrize("status", [400, 422])
def test_codes_count(status: int, error: dict[str, Any], error_class: ErrorClass) -> None:
    """In the fields that only the upstream writes, its words mean what they say."""
    assert classify(status, json.dumps({"error": {"message": "Refused.", **error}})) is error_class


@pytest.mark.parametrize(
    ("message", "error_class"),
    [
        (
            "Your credit balance is too low to access the Anthropic API. Please go to Plans & "
            "Billing to upgrade or purchase credits.",
            CREDENTIALS,
        ),
        (
            "Incorrect API key provided: xa***1. You can obtain an API key from "
            "https://console.x.ai.",
            CREDENTIALS,
        ),
        ("API key not valid. Please pass a valid API key.", CREDENTIALS),
        ("Model Not Exist", NO_MODEL),
        ("Server is pinned to 'a/b'; requested 'c'.", NO_MODEL),
        (
            "{'error': '/chat/completions: Invalid model name passed in model=m. Call "
            "`/v1/models` to view available models for your key.'}",
            NO_MODEL,
        ),
    ],
)
def test_whole_sentences_of_providers_count(message: str, error_class: ErrorClass) -> None:
    """Providers that have no code for a wrong key or model say it in a sentence of their own; with
    anything beside it, it is no such sentence."""
    assert classify(400, json.dumps({"error": {"message": message}})) is error_class
    for longer in (f"Invalid name: {message}", f"{message} is no name"):
        assert classify(400, json.dumps({"error": {"message": longer}})) is INVALID


def test_parameters_that_no_host_takes_take_no_model_away() -> None:
    """OpenRouter says 404 where a model is there, but nobody serves it with all that was asked."""
    routing = "No endpoints found that can handle the requested parameters. To learn more, visit x"
    assert classify(404, json.dumps({"error": {"message": routing, "code": 404}})) is INVALID
    gone = {"error": {"message": "No endpoints found for vendor/model.", "code": 404}}
    assert classify(404, json.dumps(gone)) is NO_MODEL


def test_an_error_inside_a_stream_that_quotes() -> None:
    """The same holds for errors that come under status 200."""
    assert refusal_inside(about("insufficient_quota")["error"]).error_class not in BLAMES_OTHERS
    assert refusal_inside({"code": "insufficient_quota"}).error_class is CREDENTIALS


@pytest.mark.parametrize("name", ["insufficient_quota", "model_not_found", "api_key_invalid"])
async def test_one_callers_tool_takes_nothing_from_the_next(name: str) -> None:
    """After a request that the upstream refused by quoting its tool, the next caller is served."""
    tool = pb.Tool(name=name, description="d", parameters_schema='{"type": "object"}')
    models = {"first": {"capabilities": ["tools"]}}
    async with chain((Status(400, about(name)), answer("fine")), models=models) as (client, served):
        refused = await ask(client, tools=[tool])
        assert refused.failures == [("first", "CALLER_INVALID_REQUEST")]
        assert (await ask(client)).text == "fine"
        assert len(served[0].requests) == 2
