"""What upstreams say where they refuse, and what each of it means.

A refused request (400, 422) blames a key or a model, and so concerns every caller, only where a
code says so or where a message is a provider's own sentence from beginning to end: messages repeat
what a caller wrote.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto

from semroute_service.decision import ErrorClass


@dataclass(frozen=True, slots=True)
class Said:
    """What a body says of an error, in lower case, each field by itself."""

    codes: list[str]
    """Short words for programs: error codes, types, reasons."""
    whole: list[str]
    """Messages for people."""
    prose: list[str]
    """The messages without what stands in quotes."""


class Where(Enum):
    """In which part of what an upstream says a rule looks."""

    CODES = auto()
    """Short words for programs: error codes, types, reasons."""
    PROSE = auto()
    """Messages for people, without what stands in quotes."""
    WHOLE = auto()
    """Messages for people that are nothing but this, from beginning to end."""


@dataclass(frozen=True, slots=True)
class Rule:
    """With one of these statuses, one of these phrases there means this."""

    error_class: ErrorClass
    statuses: frozenset[int]
    where: Where
    phrases: re.Pattern[str]

    def fits(self, status: int, said: Said) -> bool:
        if status not in self.statuses:
            return False
        match self.where:
            case Where.CODES:
                return any(map(self.phrases.search, said.codes))
            case Where.PROSE:
                return any(map(self.phrases.search, said.prose))
            case Where.WHOLE:
                return any(map(self.phrases.fullmatch, said.whole))


def _rule(error_class: ErrorClass, statuses: set[int], where: Where, *phrases: str) -> Rule:
    return Rule(error_class, frozenset(statuses), where, re.compile("|".join(phrases)))


_REFUSED = {400, 422}
_FILTERS = {400, 403, 422, 451}
_TOO_LONG = {400, 413, 422, 500}  # llama.cpp has answered 500

RULES = (
    _rule(
        ErrorClass.PROVIDER_CREDENTIALS,
        {*_REFUSED, 403, 429},
        Where.CODES,
        "insufficient.?(?:quota|balance|credits)",  # OpenAI: a 429 that no waiting heals
        "billing_hard_limit",
        "(?:invalid|incorrect)_api_key",
        "api_key_invalid",  # Gemini: a 400
        "no_db_connection",  # LiteLLM's proxy: a 400 for a key that is not its own
    ),
    _rule(
        ErrorClass.PROVIDER_CREDENTIALS,
        _REFUSED,
        Where.WHOLE,
        "(?:your )?credit balance is too low(?: to access the (?:\\w+ )?api)?\\.?"  # Anthropic
        "(?: please go to plans & billing to upgrade or purchase credits\\.?)?",
        "incorrect api key provided: \\S+?\\.?"  # xAI
        "(?: you can obtain an api key from \\S+)?",
        "api key not valid\\. please pass a valid api key\\.",  # Gemini
        "(?:invalid|incorrect) api key\\.?",
        "insufficient (?:balance|credits)\\.?",
    ),
    _rule(
        ErrorClass.PROVIDER_CREDENTIALS,
        {403, 429},
        Where.PROSE,
        "insufficient.?(?:quota|balance|credits)",
        "(?:invalid|incorrect) api key",
    ),
    _rule(
        ErrorClass.POLICY_CONTENT_FILTER,
        _FILTERS,
        Where.CODES,
        "content.?(?:filter|policy)",  # Azure
        "responsibleaipolicyviolation",
        "guardrail.?intervened",  # Bedrock
    ),
    _rule(
        ErrorClass.POLICY_CONTENT_FILTER,
        _FILTERS,
        Where.PROSE,
        "content.?filter",  # Anthropic: "blocked by content filtering policy"
        "content.?policy",
        "content exists risk",  # DeepSeek
        "requires moderation",  # OpenRouter: a 403
        "input was flagged",
        "violates usage guidelines",  # xAI: a 403
        "guardrail.?intervened",
    ),
    _rule(
        ErrorClass.CALLER_CONTEXT_LENGTH,
        _TOO_LONG,
        Where.CODES,
        "context.?(?:length|window|size)",  # OpenAI, llama.cpp
        "token_limit_exceeded",
    ),
    _rule(
        ErrorClass.CALLER_CONTEXT_LENGTH,
        _TOO_LONG,
        Where.PROSE,
        "context.?length",  # OpenAI, vLLM, DeepSeek, SGLang, LM Studio, Snowflake
        "context.?window",  # OpenAI, llama-cpp-python
        "context.?limit",  # Anthropic: "exceed context limit"
        "context.?size",  # llama.cpp
        "prompt is too long",  # Anthropic, Fireworks
        "prompt too long",  # Ollama, where it does not truncate
        "input is too long",  # Bedrock
        "input is longer than",
        "input token count",  # Gemini
        "maximum prompt length",  # xAI
        "too large for model",  # Mistral: "Prompt contains N tokens ..., too large for model"
        "tokens \\+ +must be <=",  # TGI, Together: two names in quotes, and their sum
        "max_new_tokens must be",
        "must have less than \\d+ tokens",  # TGI
        "reduce the length of",  # Groq
        "too many tokens",
        "maximum number of tokens",
        "token limit exceeded",
    ),
    _rule(
        ErrorClass.PROVIDER_MODEL_NOT_FOUND,
        {*_REFUSED, 403, 404},
        Where.CODES,
        "model_not_(?:found|exist|supported|available)",  # Hugging Face, Together
        "model_decommissioned",  # Groq
        "invalid_model",  # Mistral
        "deploymentnotfound",  # Azure
    ),
    _rule(
        ErrorClass.PROVIDER_MODEL_NOT_FOUND,
        _REFUSED,
        Where.WHOLE,
        "model not (?:exist|found|supported|available)\\.?",  # DeepSeek
        "(?:the )?model:? \\S+ (?:does not exist|(?:was |is )?not found)"
        "(?: or you do not have access to it)?\\.?",
        "server is pinned to '\\S+'; requested '\\S+'\\.?",  # transformers serve
        "invalid model: \\S+",  # Mistral
        "(?:\\{'error': ['\"])?\\S+: invalid model name passed in model=\\S+"  # LiteLLM's proxy
        "(?: call `/v1/models` to view available models for your key\\.)?(?:['\"]\\})?",
        "\\S+ is not a valid model id",  # OpenRouter
        "(?:aierror: )?no such model \\S+(?: or task)?",  # Cloudflare
        "unknown model \\S+",  # Snowflake
        "the provided model identifier is invalid\\.?",  # Bedrock
    ),
    _rule(
        ErrorClass.CALLER_INVALID_REQUEST,
        {404},
        Where.PROSE,
        "no endpoints found that",  # OpenRouter: hosts there are, and none that can do all this
    ),
    _rule(
        ErrorClass.PROVIDER_MODEL_NOT_FOUND,
        {403, 404},
        Where.PROSE,
        "model.?not.?(?:found|exist|supported|available)",
        "model.{0,200}(?:does not exist|not found)",  # OpenAI, vLLM, Groq, Ollama
        "no such model",
        "unknown model",
    ),
    _rule(
        ErrorClass.PROVIDER_PROTOCOL,
        {404},
        Where.PROSE,
        "^not found$",  # FastAPI's and others' word for a path that they do not have
        "page not found",
        "invalid url",
        "<html",
        "<!doctype",
    ),
)
"""The first that fits goes before what the status means by itself."""
