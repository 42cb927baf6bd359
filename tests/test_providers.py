"""The catalogue of providers: what it ships, what a site adds, and where keys may go."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semroute.v1 import router_pb2 as pb
from semroute_classifier.documents import ConfigError, Problem
from semroute_service.backends.checking import may_be_asked
from semroute_service.profile import (
    Backend,
    Model,
    Price,
    Profile,
    Provider,
    load_profile,
    load_profiles,
    load_providers,
)
from semroute_service.profile.addresses import address_of, is_host_of
from semroute_service.query import Parameter, Sensitivity
from upstream import ask, profile, routed, upstream

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

CANARY = "sk-canary-0123456789"
NANO = 10**9
SHIPPED = load_providers({})
PROVIDERS_OF_THE_ISSUE = {
    *("vllm", "ollama", "sglang", "tgi", "llama_cpp", "lm_studio", "openai", "anthropic"),
    *("gemini", "vertex", "deepseek", "groq", "cerebras", "together", "sambanova", "lightning"),
    *("lambda", "huggingface", "modal", "blaxel", "cloudflare", "azure", "bedrock", "snowflake"),
    *("mistral", "fireworks", "openrouter", "xai", "litellm", "openai_compatible", "echo"),
}


def site(folder: Path, text: str) -> dict[str, str]:
    """An environment that names a file with this text as the site's own providers."""
    path = folder / "ours.yaml"
    path.write_text(text, encoding="utf-8")
    return {"SEMROUTE_PROVIDERS": str(path)}


def entry(**keys: Any) -> dict[str, str]:
    return {"name": "Ours", "protocol": "openai_chat", "locality": "cloud", **keys}


def written(keys: Mapping[str, Any], name: str = "ours") -> str:
    """A file with one provider, each key on a line of its own from the third on."""
    lines = [f"    {key}: {value}" for key, value in keys.items()]
    return "\n".join(["providers:", f"  {name}:", *lines, ""])


def problems(environment: Mapping[str, str]) -> tuple[Problem, ...]:
    with pytest.raises(ConfigError) as raised:
        load_providers(environment)
    return raised.value.problems


def loaded(
    folder: Path, provider: str, environment: Mapping[str, str] | None = None, **model: Any
) -> Profile:
    """A profile whose only cloud model is this provider's."""
    keys = ", ".join(f"{key}: {value}" for key, value in {"id": "m", **model}.items())
    path = folder / "p.yaml"
    path.write_text(
        f"models: {{home: {{provider: echo}}, sky: {{provider: {provider}, {keys}}}}}\n"
        "routes: {default: {tiers: {low: [sky, home]}}}\n"
        "governance: {allow_cloud: true}\n",
        encoding="utf-8",
    )
    return load_profile(path, environment=environment or {})


def sky(folder: Path, provider: str, environment: Mapping[str, str], **model: Any) -> Backend:
    return loaded(folder, provider, environment, **model).models["sky"].backend


# ---- what is shipped


def test_every_provider_is_there() -> None:
    """The catalogue has every provider that was asked for, and each knows how it is spoken to."""
    assert set(SHIPPED) == PROVIDERS_OF_THE_ISSUE
    for provider in SHIPPED.values():
        assert provider.docs.startswith("https://") or provider.local
        assert provider.local or provider.protocol == "litellm" or provider.url.startswith("https:")


def test_prices_have_a_day_and_a_source() -> None:
    """No price is written without where and when it was found."""
    prices = [price for provider in SHIPPED.values() for price in provider.prices.values()]
    assert len(prices) >= 10
    assert all(price.date.year >= 2026 and price.source for price in prices)


@pytest.mark.parametrize(
    ("provider", "model", "refused"),
    [
        ("openai", "gpt-4o", set()),
        ("openai", "o3-mini", {"temperature", "top_p", "stop"}),
        ("openai", "gpt-5-mini", {"temperature", "top_p", "stop"}),
        ("anthropic", "claude-sonnet-4-6", {"seed", "json_object"}),
        ("anthropic", "claude-opus-4-7", {"seed", "json_object", "temperature", "top_p"}),
        ("deepseek", "deepseek-reasoner", {"temperature", "top_p"}),
        ("vllm", "o3", set()),
    ],
)
def test_what_is_refused(provider: str, model: str, refused: set[str]) -> None:
    """What all models of a provider refuse and what one of them does add up."""
    assert SHIPPED[provider].quirks_of(model).refuse == refused


def test_what_has_another_name() -> None:
    """OpenAI's length and Mistral's seed have names of their own."""
    assert SHIPPED["openai"].quirks_of("o1").rename == {
        Parameter.MAX_TOKENS: "max_completion_tokens"
    }
    assert SHIPPED["mistral"].quirks_of("any").rename == {Parameter.SEED: "random_seed"}


def test_styles_of_keys() -> None:
    """Each provider's header is its own; the native protocol of Anthropic wants a version."""
    anthropic, azure, modal = (SHIPPED[name] for name in ("anthropic", "azure", "modal"))
    assert (anthropic.key_header, anthropic.key_prefix) == ("x-api-key", "")
    assert anthropic.headers == {"anthropic-version": "2023-06-01"}
    assert (azure.key_header, azure.key_prefix) == ("api-key", "")
    assert modal.secret_headers == {"Modal-Key": "MODAL_KEY", "Modal-Secret": "MODAL_SECRET"}
    assert (SHIPPED["groq"].key_header, SHIPPED["groq"].key_prefix) == ("authorization", "Bearer ")


# ---- addresses


MODAL = {"MODAL_WORKSPACE": "lab", "MODAL_APP": "my_app", "MODAL_FUNCTION": "serve"}
VERTEX = {"GOOGLE_CLOUD_LOCATION": "europe-west4", "GOOGLE_CLOUD_PROJECT": "lab-1"}
HOST = "https://europe-west4-aiplatform.googleapis.com/v1"


@pytest.mark.parametrize(
    ("provider", "environment", "url"),
    [
        (
            "cloudflare",
            {"CLOUDFLARE_ACCOUNT_ID": "0ab"},
            "https://api.cloudflare.com/client/v4/accounts/0ab/ai/v1",
        ),
        ("modal", MODAL, "https://lab--my-app-serve.modal.run/v1"),
        ("vertex", VERTEX, f"{HOST}/projects/lab-1/locations/europe-west4/endpoints/openapi"),
        (
            "snowflake",
            {"SNOWFLAKE_ACCOUNT": "MYORG-MY_ACCOUNT"},
            "https://myorg-my-account.snowflakecomputing.com/api/v2/cortex/v1",
        ),
        (
            "bedrock",
            {"AWS_REGION": "eu-west-1"},
            "https://bedrock-runtime.eu-west-1.amazonaws.com/openai/v1",
        ),
        (
            "azure",
            {"AZURE_OPENAI_ENDPOINT": "https://lab.openai.azure.com/"},
            "https://lab.openai.azure.com/openai/v1",
        ),
        (
            "azure",
            {"AZURE_OPENAI_ENDPOINT": "https://lab.services.ai.azure.com/openai/v1/"},
            "https://lab.services.ai.azure.com/openai/v1",
        ),
        ("azure", {"AZURE_RESOURCE_NAME": "lab"}, "https://lab.openai.azure.com/openai/v1"),
        ("blaxel", {"BL_WORKSPACE": "lab"}, "https://run.blaxel.ai/lab/models/m/v1"),
        ("openai", {}, "https://api.openai.com/v1"),
        ("litellm", {}, ""),
    ],
)
def test_addresses(tmp_path: Path, provider: str, environment: dict[str, str], url: str) -> None:
    """A profile that names a provider and a model needs nothing else but the environment."""
    backend = sky(tmp_path, provider, environment)
    missing = provider == "litellm" and find_spec("litellm") is None
    assert backend.url == url
    assert backend.lacks.startswith("the package litellm is not installed" if missing else "")
    assert bool(backend.lacks) == missing


@pytest.mark.parametrize(
    ("provider", "environment", "lacks"),
    [
        ("cloudflare", {}, "CLOUDFLARE_ACCOUNT_ID is not set"),
        ("cloudflare", {"CLOUDFLARE_ACCOUNT_ID": ""}, "CLOUDFLARE_ACCOUNT_ID is not set"),
        ("modal", {"MODAL_APP": "a"}, "MODAL_WORKSPACE and MODAL_FUNCTION are not set"),
        ("azure", {}, "AZURE_OPENAI_ENDPOINT or AZURE_RESOURCE_NAME is not set"),
    ],
)
def test_what_an_address_lacks(
    tmp_path: Path, provider: str, environment: dict[str, str], lacks: str
) -> None:
    """A profile loads wherever it is, without a warning; the backend has no address then."""
    found = loaded(tmp_path, provider, environment)
    assert found.warnings == ()
    backend = found.models["sky"].backend
    assert (backend.url, backend.lacks) == ("", lacks)
    assert not may_be_asked(backend)


async def test_a_model_whose_account_is_not_set_is_denied(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server starts, passes that model over by the rule of credentials, and says what to set."""
    monkeypatch.setenv("CLOUDFLARE_API_TOKEN", CANARY)
    monkeypatch.delenv("CLOUDFLARE_ACCOUNT_ID", raising=False)
    async with upstream() as home:
        both = profile(home)
        both["models"]["sky"] = {"provider": "cloudflare", "id": "@cf/any"}
        both["routes"]["default"] = {"tiers": {"low": ["sky", "first"]}}
        both["governance"] = {"allow_cloud": True}
        async with routed(both) as client:
            told = await ask(client)
    assert told.answer.decision
    denied = told.answer.decision.candidates[0]
    assert (denied.rule, denied.reason) == ("no_credentials", "CLOUDFLARE_ACCOUNT_ID is not set")
    assert told.finish.model == "first"
    assert CANARY not in told.everything


@pytest.mark.parametrize(
    ("provider", "environment"),
    [
        ("cloudflare", {"CLOUDFLARE_ACCOUNT_ID": "../../evil"}),
        ("cloudflare", {"CLOUDFLARE_ACCOUNT_ID": ".."}),
        ("cloudflare", {"CLOUDFLARE_ACCOUNT_ID": "a/b"}),
        ("cloudflare", {"CLOUDFLARE_ACCOUNT_ID": "a?b"}),
        ("snowflake", {"SNOWFLAKE_ACCOUNT": "evil.example/"}),
        ("snowflake", {"SNOWFLAKE_ACCOUNT": "evil.example#"}),
        ("snowflake", {"SNOWFLAKE_ACCOUNT": "me@evil"}),
        ("bedrock", {"AWS_REGION": "x.evil.example/?"}),
        ("bedrock", {"AWS_REGION": "-x"}),
        ("azure", {"AZURE_OPENAI_ENDPOINT": "https://evil.example/"}),
        ("azure", {"AZURE_OPENAI_ENDPOINT": "https://openai.azure.com.evil.example/"}),
        ("azure", {"AZURE_OPENAI_ENDPOINT": "http://127.0.0.1:80/"}),
        ("azure", {"AZURE_OPENAI_ENDPOINT": "http://lab.openai.azure.com/"}),
    ],
)
def test_no_value_makes_another_host(
    tmp_path: Path, provider: str, environment: dict[str, str]
) -> None:
    """What cannot be part of an address is a mistake of the environment, named and not repeated."""
    with pytest.raises(ConfigError) as raised:
        loaded(tmp_path, provider, environment)
    ((name, value),) = environment.items()
    assert name in str(raised.value)
    assert value not in str(raised.value)


TEMPLATES = [provider for provider in SHIPPED.values() if provider.variables]


@given(st.sampled_from(TEMPLATES), st.text(min_size=1))
def test_a_key_stays_with_its_provider(provider: Provider, value: str) -> None:
    """Whatever is in the environment, the address is the provider's own, or there is none."""
    environment = dict.fromkeys(provider.variables, value)
    try:
        url, _ = address_of(provider, environment)
    except ValueError:
        return
    authority, _, path = url.removeprefix("https://").partition("/")
    assert is_host_of(authority, provider)
    assert path.count("/") == provider.url.removeprefix("https://").partition("/")[2].count("/")
    assert not set(path) & set("?#@\\ ")


def test_a_model_that_no_address_can_hold(tmp_path: Path) -> None:
    """Where the id stands in the address it is a name, and no path."""
    with pytest.raises(ConfigError, match=r"models\.sky\.id: the id must hold letters"):
        loaded(tmp_path, "blaxel", {"BL_WORKSPACE": "lab"}, id="../../others")


def test_regions(tmp_path: Path) -> None:
    """A region comes from the environment where the address does; a profile's own goes before."""
    aws = {"AWS_REGION": "eu-west-1"}
    assert sky(tmp_path, "bedrock", aws, id="openai.gpt-oss-20b-1:0").region == "eu-west-1"
    assert sky(tmp_path, "bedrock", aws, id="eu.anthropic.x").region == "eu"
    assert sky(tmp_path, "bedrock", aws, id="global.anthropic.x").region == ""
    assert sky(tmp_path, "vertex", VERTEX).region == "europe-west4"
    assert sky(tmp_path, "mistral", {}).region == "eu"


def at(url: str, provider: str = "openai_compatible") -> Backend:
    return Backend("b", SHIPPED[provider], url, True, "", Sensitivity.PUBLIC)


@pytest.mark.parametrize(
    ("host", "asked"),
    [
        ("api.openai.com", False),
        ("eu.api.openai.com", False),
        ("API.OPENAI.COM.", False),
        ("lab.openai.azure.com", False),
        ("lab.services.ai.azure.com", False),
        ("any--thing-serve.modal.run", False),
        ("bedrock-runtime.eu-west-1.amazonaws.com", False),
        ("europe-west4-aiplatform.googleapis.com", False),
        ("ec2-1-2-3-4.eu-west-1.compute.amazonaws.com", True),
        ("api.openai.com.example.org", True),
        ("gpu-01", True),
    ],
)
def test_public_hosts_are_never_probed(host: str, asked: bool) -> None:
    """With a part of the host in the environment, too; servers of one's own in a cloud are."""
    assert may_be_asked(at(f"https://{host}/v1")) is asked


# ---- prices and warnings of a profile


def test_prices_of_the_catalogue(tmp_path: Path) -> None:
    """A model without a price takes that of its id; the profile's own goes before it."""

    def price(provider: str, **model: Any) -> Price | None:
        return loaded(tmp_path, provider, **model).models["sky"].price

    assert price("openai", id="gpt-4o") == Price(2_500_000_000, 10 * NANO)
    assert price("openai", id="gpt-4o", price="{input: 1, output: 2}") == Price(NANO, 2 * NANO)
    assert price("openai", id="gpt-4o", price="{input: 0, output: 0}") == Price(0, 0)
    assert price("openai", id="gpt-4o-mini") is None


def test_a_deprecated_provider_is_a_warning(tmp_path: Path) -> None:
    """With file, line and key, in the catalogue's words."""
    (warning,) = loaded(tmp_path, "lambda").warnings
    assert warning.startswith(f"{tmp_path / 'p.yaml'}:1: models.sky")
    assert SHIPPED["lambda"].deprecated in warning


def test_a_default_that_a_model_refuses_is_a_warning(tmp_path: Path) -> None:
    """A row's temperature is the row's, so it denies nobody; who does not take it is told."""
    path = tmp_path / "p.yaml"
    path.write_text(
        "models: {o3: {provider: openai, id: o3}, gpt: {provider: openai, id: gpt-4o}}\n"
        "routes: {default: {model: gpt, fallback_chain: [o3], temperature: 0}}\n"
        "governance: {allow_cloud: true}\n"
    )
    (warning,) = load_profile(path, environment={}).warnings
    told = "routes.default.temperature: o3 takes no temperature; it is asked without"
    assert warning == f"{path}:2: {told}"


async def test_a_parameter_that_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The request is denied before any call, and told which; without it the model answers."""
    monkeypatch.setenv("DEEPSEEK_API_KEY", "k")
    async with upstream() as cloud:
        only = profile(
            cloud,
            backends={"first": {"provider": "deepseek"}},
            models={"first": {"id": "deepseek-reasoner"}},
            governance={"allow_cloud": True},
        )
        async with routed(only) as client:
            told = await ask(client, sampling=pb.Sampling(top_p=0.5, temperature=0))
            assert told.error
            (violation,) = told.error.violations
            assert violation.rule == "parameters"
            assert violation.description == "first does not take temperature, top_p"
            assert not cloud.requests
            assert (await ask(client, sampling=pb.Sampling(max_tokens=5))).error is None


# ---- a site's own file


def test_a_site_adds_its_own(tmp_path: Path) -> None:
    """An entry of a site's file is a provider like every other, beside those of the package."""
    ours = entry(
        url="https://llm.example.org/v1",
        key_env="[OURS_KEY]",
        prices="{m: {input: 1, output: 2, date: 2026-11-01, source: our list}}",
    )
    environment = site(tmp_path, written(ours))
    assert set(load_providers(environment)) == {*SHIPPED, "ours"}
    found = loaded(tmp_path, "ours", environment)
    assert found.models["sky"].backend.url == "https://llm.example.org/v1"
    assert found.models["sky"].price == Price(NANO, 2 * NANO)
    assert not found.models["sky"].local
    assert set(load_providers({})) == set(SHIPPED)


@pytest.mark.parametrize("protocol", ["openai_chat", "anthropic_messages"])
async def test_further_fields_of_a_provider(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: str
) -> None:
    """They come with every request; the model's own go before them, mapping by mapping, and what
    the request sets before all."""
    body = "{pick: {strict: true, sort: price}, top_k: 3, thorough: 1, temperature: 0.1}"
    ours = entry(protocol=protocol, locality="local", key_env="[]", body=body)
    monkeypatch.setenv("SEMROUTE_PROVIDERS", site(tmp_path, written(ours))["SEMROUTE_PROVIDERS"])
    models = {"first": {"extra_body": {"pick": {"sort": "speed", "only": ["x"]}, "top_k": 7}}}
    backends = {"first": {"provider": "ours"}}
    async with (
        upstream() as server,
        routed(profile(server, models=models, backends=backends)) as client,
    ):
        await ask(client, sampling=pb.Sampling(temperature=0.7))
    sent = server.requests[0].body
    assert sent["pick"] == {"strict": True, "sort": "speed", "only": ["x"]}
    assert (sent["top_k"], sent["thorough"], sent["temperature"]) == (7, 1, 0.7)


def test_the_models_word_goes_before_the_catalogues() -> None:
    """Whoever wants a provider's own ways back writes so for the model, and keeps the rest."""
    loose = {"provider": {"require_parameters": False, "order": ["x"]}}
    assert SHIPPED["openrouter"].body_with(loose) == {**SHIPPED["openrouter"].body, **loose}
    ordered = SHIPPED["openrouter"].body_with({"provider": {"order": ["x"]}})
    assert ordered["provider"] == {"require_parameters": True, "order": ["x"]}
    cut = {"context_length_exceeded_behavior": "truncate"}
    assert SHIPPED["fireworks"].body_with(cut) == cut


def test_locality_is_what_the_file_says(tmp_path: Path) -> None:
    """A server in the building may be spoken to over http."""
    ours = entry(url="http://llm.lan:8000/v1", locality="local", key_env="[OURS_KEY]")
    backend = sky(tmp_path, "ours", site(tmp_path, written(ours)))
    assert (backend.local, backend.url) == (True, "http://llm.lan:8000/v1")


@pytest.mark.parametrize(
    ("keys", "line", "key", "says"),
    [
        (entry(urll="x"), 6, "urll", 'unknown key; did you mean "url"?'),
        (entry(key_required="maybe"), 6, "key_required", "must be true or false, not 'maybe'"),
        (entry(key_env="OURS_KEY"), 6, "key_env", "must be a list"),
        (entry(key_prefix="'Bearer x-1'"), 6, "key_prefix", "is no single word"),
        (entry(protocol="smtp"), 4, "protocol", "'openai_chat'"),
        (entry(locality="moon"), 5, "locality", "'local' or 'cloud'"),
        (entry(usage="maybe"), 6, "usage", "'asked' or 'unasked'"),
        (entry(verified="soon"), 6, "verified", "date"),
        (entry(quirks="{refuse: [mood]}"), 6, "quirks.refuse[0]", "'temperature'"),
        (entry(quirks="{refuze: []}"), 6, "quirks.refuze", 'did you mean "refuse"?'),
        (
            entry(prices="{m: {input: 1, date: 2026-11-01, source: x}}"),
            6,
            "prices.m.output",
            "is required",
        ),
        (entry(speed="{first_token_seconds: 0}"), 6, "speed.first_token_seconds", "greater than 0"),
        (entry(url="ftp://x.example.org"), 6, "url", "is no http or https address"),
        (entry(url="https://x.example.org/v1?key=1"), 6, "url", "must end with its path"),
        (entry(url="http://x.example.org/v1"), 6, "url", "over https or loopback only"),
        (entry(url="https://me:pw@x.example.org"), 6, "url", "must not hold a user or a password"),
        (entry(url="https://${HOST}/v1"), 6, "url", "must end its host with a written domain"),
        (entry(url="https://x.${TOP}/v1"), 6, "url", "must end its host with a written domain"),
        (entry(url="https://x.example.${TOP}/v1"), 6, "url", "written domain"),
        (entry(url="https://${A}.org/v1"), 6, "url", "written domain"),
        (entry(url="https://$HOST.example.org"), 6, "url", "write ${NAME}"),
        (entry(url="https://{model}.example.org"), 6, "url", "{model} in the path"),
        (entry(url="https://x.example.org/{mode}/v1"), 6, "url", "{model} in the path"),
        (entry(id="ours"), 6, "id", "is the key above"),
        (entry(key_header="'x y'"), 6, "key_header", "no name that a header can have"),
        (
            entry(headers="{Authorization: Bearer x}"),
            6,
            "headers",
            "keys come from the environment",
        ),
        (entry(headers="{'x y': z}"), 6, "headers", "no header can have"),
        (entry(body="{model: x}"), 6, "body", "has model, which must not be set: the model's id"),
        (entry(body="{max_tokens: 9}"), 6, "body", "give max_tokens in the row"),
        (entry(protocol="litellm", body="{api_key: x}"), 6, "body", "come from the environment"),
        (entry(body="[x]"), 6, "body", "must hold keys and values"),
        (entry(body="{at: 2026-11-01}"), 6, "body.at", ""),
    ],
)
def test_what_is_wrong_in_a_site_file(
    tmp_path: Path, keys: dict[str, str], line: int, key: str, says: str
) -> None:
    """Each mistake is told with file, line, key and what would be right."""
    environment = site(tmp_path, written(keys))
    (problem,) = problems(environment)
    assert problem.file == environment["SEMROUTE_PROVIDERS"]
    assert (problem.line, problem.key) == (line, f"providers.ours.{key}")
    assert says in problem.message


@pytest.mark.parametrize("name", ["openai", "vllm", "echo"])
def test_a_name_of_the_package_is_refused(tmp_path: Path, name: str) -> None:
    """The package's entry would send its key elsewhere, were it written over."""
    (problem,) = problems(site(tmp_path, written(entry(url="https://x.example.org/v1"), name)))
    assert (problem.line, problem.key) == (2, f"providers.{name}")
    assert "is a provider of the package" in problem.message
    assert "give yours another name" in problem.message


@pytest.mark.parametrize(
    "keys",
    [
        entry(key_env="[OPENAI_API_KEY]"),
        entry(secret_headers="{x-ours: MODAL_SECRET}"),
        entry(url="https://x.example.org/${OPENAI_API_KEY}/v1"),
        entry(url_env="GROQ_API_KEY"),
        entry(region="${HF_TOKEN}"),
    ],
)
def test_a_key_of_the_package_goes_nowhere_else(tmp_path: Path, keys: dict[str, str]) -> None:
    """No entry of a site reads a variable that holds another provider's key."""
    (problem,) = problems(site(tmp_path, written(keys)))
    assert "goes to its host only; name a variable of your own" in problem.message


@pytest.mark.parametrize(
    "keys",
    [
        entry(key_env=f"[{CANARY}]"),
        entry(key_env=CANARY),
        entry(key_env=f"{{{CANARY}: x}}"),
        entry(key_prefix=f"Bearer {CANARY}"),
        entry(secret_headers=CANARY),
        entry(secret_headers=f"{{x-ours: {CANARY}}}"),
        entry(headers=f"{{authorization: Bearer {CANARY}}}"),
        entry(body=CANARY),
        entry(url=f"https://me:{CANARY}@x.example.org/v1"),
        entry(key=CANARY),
    ],
)
def test_a_key_in_the_wrong_place_is_not_repeated(tmp_path: Path, keys: dict[str, str]) -> None:
    """A person who writes the key itself into the file is told so, and reads it nowhere."""
    assert CANARY not in "".join(map(str, problems(site(tmp_path, written(keys)))))


def test_a_mistake_is_told_once(tmp_path: Path) -> None:
    """However many profiles there are; and a file that is not there is one mistake, too."""
    for name in ("a", "b"):
        (tmp_path / f"{name}.yaml").write_text("models: {m: {provider: echo}}\n")
    environment = {"SEMROUTE_PROVIDERS": str(tmp_path / "none.yaml")}
    with pytest.raises(ConfigError) as raised:
        load_profiles(tmp_path, environment=environment)
    (problem,) = raised.value.problems
    says = "is no file, and SEMROUTE_PROVIDERS names it"
    assert str(problem) == f"{tmp_path / 'none.yaml'}: {says}"


def test_a_provider_shows_no_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither a provider nor what is made of it holds the value of a key."""
    for provider in SHIPPED.values():
        for name in (*provider.key_env, *provider.secret_headers.values()):
            monkeypatch.setenv(name, CANARY)
    assert all(provider.has_credentials() for provider in SHIPPED.values())
    model: Model = loaded(tmp_path, "modal", {**MODAL, "MODAL_API_KEY": CANARY}).models["sky"]
    assert model.backend.has_credentials()
    for shown in (*SHIPPED.values(), model, model.backend):
        assert CANARY not in f"{shown!r}{shown!s}"
