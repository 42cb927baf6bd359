"""``semroute providers``: what it shows of the catalogue, and that no key is among it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from desk import SEMROUTE
from semroute_service.cli import main
from semroute_service.profile import load_providers
from terminal import on_terminal

if TYPE_CHECKING:
    from pathlib import Path

CANARY = "sk-canary-0123456789"
SHIPPED = load_providers({})


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No provider's variable is set, and the terminal is wide."""
    for provider in SHIPPED.values():
        for name in (*provider.key_env, *provider.variables, *provider.secret_headers.values()):
            monkeypatch.delenv(name, raising=False)
        if provider.url_env:
            monkeypatch.delenv(provider.url_env, raising=False)
    monkeypatch.delenv("SEMROUTE_PROVIDERS", raising=False)
    monkeypatch.setenv("COLUMNS", "300")


def shown(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> str:
    capsys.readouterr()
    assert main(["providers", *arguments]) == status
    out, err = capsys.readouterr()
    assert bool(err) == bool(status)
    return out + err


def row(text: str, name: str) -> str:
    (line,) = [line for line in text.splitlines() if line.split()[0] == name]
    return " ".join(line.split())


def prices(name: str) -> str:
    """What the table says of those of a shipped provider."""
    known = SHIPPED[name].prices.values()
    return f"{len(known)} of {max(price.date for price in known):%Y-%m}"


def test_all_of_them(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A row for each: how it is spoken to, where it stands, how many prices are known and how new
    they are, and whether its key is set."""
    monkeypatch.setenv("GROQ_API_KEY", CANARY)
    monkeypatch.setenv("GOOGLE_API_KEY", CANARY)
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    text = shown(capsys)
    assert [line.split()[0] for line in text.splitlines()[2:]] == list(SHIPPED)
    assert row(text, "groq") == f"groq openai_chat cloud - {prices('groq')} yes GROQ_API_KEY"
    assert row(text, "anthropic").endswith(f" cloud - {prices('anthropic')} no ANTHROPIC_API_KEY")
    assert " yes GEMINI_API_KEY or GOOGLE_API_KEY" in row(text, "gemini")
    assert " eu-west-1 - no AWS_BEARER_TOKEN_BEDROCK" in row(text, "bedrock")
    assert row(text, "cloudflare").endswith(
        "CLOUDFLARE_API_TOKEN; CLOUDFLARE_ACCOUNT_ID is not set"
    )
    assert row(text, "vllm").endswith("no VLLM_API_KEY, where it needs one")
    assert row(text, "ollama").endswith("local - - - -")


async def test_the_table_fits_a_terminal(tmp_path: Path) -> None:
    """In 110 columns only the last one wraps, and no line is longer."""
    command, narrow = (*SEMROUTE, "providers"), {"COLUMNS": "110"}
    async with on_terminal(*command, cwd=tmp_path, env=narrow) as terminal:
        assert await terminal.end() == 0
    assert max(map(len, terminal.shown.splitlines())) <= 110


def test_the_newest_price_counts(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The table says how many models have a price, and the month of the newest."""
    price = "input: 1, output: 2, source: a page"
    path = tmp_path / "ours.yaml"
    path.write_text(
        "providers:\n  ours: {name: Ours, protocol: openai_chat, locality: cloud,\n"
        "    url: https://llm.example.org/v1, key_env: [OURS_KEY], prices: {\n"
        f"    a: {{{price}, date: 2026-06-30}}, b: {{{price}, date: 2025-12-01}}}}}}\n"
    )
    monkeypatch.setenv("SEMROUTE_PROVIDERS", str(path))
    assert row(shown(capsys), "ours") == "ours openai_chat cloud - 2 of 2026-06 no OURS_KEY"


def test_one_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    """Its address, what it refuses and renames, its prices with day and source, its notes."""
    text = shown(capsys, "openai")
    lines = {" ".join(line.split()) for line in text.splitlines()}
    assert "address https://api.openai.com/v1" in lines
    assert "key OPENAI_API_KEY is not set" in lines
    assert "refuses o3*: stop, temperature, top_p" in lines
    assert "renames max_tokens is max_completion_tokens" in lines
    price = SHIPPED["openai"].prices["gpt-4o"]
    assert f"gpt-4o 2.5 10 {price.date} {price.source}" in lines
    assert SHIPPED["openai"].notes[0] in text


@pytest.mark.parametrize("name", SHIPPED)
def test_each_can_be_shown(capsys: pytest.CaptureFixture[str], name: str) -> None:
    """For people and for programs, with nothing left out that a person should know."""
    provider = SHIPPED[name]
    text = shown(capsys, name)
    assert all(note in text for note in provider.notes)
    assert provider.deprecated in text
    told = json.loads(shown(capsys, name, "--json"))
    assert (told["id"], told["key_set"]) == (name, False)
    lines = {" ".join(line.split()) for line in text.splitlines()}
    for model, price in provider.prices.items():
        line = f"{model} {price.input:g} {price.output:g} {price.date} {price.source}"
        assert " ".join(line.split()) in lines
        assert told["prices"][model] == {
            "input": price.input,
            "output": price.output,
            "date": str(price.date),
            "source": price.source,
        }
    assert told["prices"].keys() == provider.prices.keys()


def test_for_programs(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """One object with all of them; the command names what an address lacks."""
    monkeypatch.setenv("GROQ_API_KEY", CANARY)
    told = {one["id"]: one for one in json.loads(shown(capsys, "--json"))["providers"]}
    assert list(told) == list(SHIPPED)
    assert (told["groq"]["key_set"], told["openai"]["key_set"]) == (True, False)
    assert told["snowflake"]["lacks"] == "SNOWFLAKE_ACCOUNT is not set"
    assert told["openai"]["prices"]["gpt-4o"]["output"] == 10


def test_an_unknown_name(capsys: pytest.CaptureFixture[str]) -> None:
    """The status is 1, and a near name is given."""
    text = shown(capsys, "opnai", status=1)
    assert text == 'semroute: there is no provider "opnai"; did you mean "openai"?\n'


def test_those_of_a_site(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """They stand below the package's; a mistake in their file is told with its line."""
    path = tmp_path / "ours.yaml"
    path.write_text(
        "providers:\n  ours: {name: Ours, protocol: openai_chat, locality: cloud,\n"
        "    url: https://llm.example.org/v1, key_env: [OURS_KEY]}\n"
    )
    monkeypatch.setenv("SEMROUTE_PROVIDERS", str(path))
    assert row(shown(capsys), "ours") == "ours openai_chat cloud - - no OURS_KEY"
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("providers:\n  ours: {nam: Ours}\n")
    monkeypatch.setenv("SEMROUTE_PROVIDERS", str(wrong))
    assert f"{wrong}:2: providers.ours.nam: unknown key" in shown(capsys, status=1)


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    """It has examples, and says that no key is shown."""
    with pytest.raises(SystemExit):
        main(["providers", "--help"])
    text = capsys.readouterr().out
    assert "semroute providers groq" in text
    assert "never shown" in text


def test_no_key_is_ever_shown(
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """With every key set to a canary: not by this command, not by a profile's errors, not by
    detection, and not in any log."""
    caplog.set_level("DEBUG")
    for provider in SHIPPED.values():
        for name in (*provider.key_env, *provider.secret_headers.values()):
            if name not in provider.variables:
                monkeypatch.setenv(name, CANARY)
    printed = [shown(capsys), shown(capsys, "--json")]
    printed += [shown(capsys, name, *more) for name in SHIPPED for more in ((), ("--json",))]
    profiles: dict[str, Any] = {
        "leak": "backends: {b: {provider: openai, url: 'https://me:${OPENAI_API_KEY}@x.org'}}\n",
        "plain": "backends: {b: {provider: openai, url: 'http://x.org/${OPENAI_API_KEY}'}}\n",
    }
    for name, text in profiles.items():
        (tmp_path / f"{name}.yaml").write_text(f"{text}models: {{m: {{backend: b, id: m}}}}\n")
    for command in ("check", "detect"):
        assert main([command, "--profiles", str(tmp_path)]) == 1
        printed.append("".join(capsys.readouterr()))
    for path in tmp_path.iterdir():
        path.unlink()
    (tmp_path / "good.yaml").write_text(
        "backends: {b: {provider: vllm, url: 'http://127.0.0.1:1/v1'}}\n"
        "models: {m: {backend: b, id: m}, o: {provider: openai, id: o3}}\n"
        "routes: {default: {model: m}}\ngovernance: {allow_cloud: true}\n"
    )
    for more in ((), ("--json",)):
        assert main(["detect", "--profiles", str(tmp_path), *more]) == 0
        printed.append("".join(capsys.readouterr()))
    assert "openai" in printed[-1]
    assert CANARY not in "".join(printed) + caplog.text
