"""``semroute profile new``: a valid file from options, or from a person's answers."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from processes import run
from semroute_classifier.utterances import Tier
from semroute_service.cli import main
from semroute_service.cli.profile_text import Answers, CloudModel, LocalServer, text_of
from semroute_service.profile import Price, load_profile
from semroute_service.testing import UTTERANCES, write_files
from terminal import END_OF_INPUT, on_terminal
from upstream import upstream

if TYPE_CHECKING:
    from collections.abc import Callable

    Command = Callable[..., tuple[int, str, str]]

NEW = (sys.executable, "-m", "semroute_service.cli", "profile", "new")
IDS = ("org/Small-7B", "org/Large-72B")
CLOUD = ("--cloud", "deepseek", "--cloud-model", "deepseek-x", "--cloud-price", "0.5,1.25")
LOCAL = ("--local", "vllm", "--url", "gpu-01:8000", "--models", ",".join(IDS))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with tasks and no profiles yet."""
    write_files(tmp_path / "utterances", UTTERANCES)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def new(folder: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs ``profile new`` without a terminal; returns its status, output and errors."""

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main(["profile", "new", *arguments])
        return (status, *capsys.readouterr())

    return run


def test_both_by_options(new: Command) -> None:
    """Small models first for easy queries, large ones for hard, the cloud behind them, and what
    must stay stays."""
    more = ("--reason", "Patients: all", "--monthly-limit", "20", "--rank", "25")
    status, out, err = new("lab", *LOCAL, *CLOUD, *more)
    assert (status, err) == (0, "")
    assert out == "made profiles/lab.yaml; next: semroute serve --profile lab\n"
    profile = load_profile(Path("profiles/lab.yaml"))
    assert profile.backends["local"].url == "http://gpu-01:8000/v1"
    assert [profile.models[n].id for n in ("small-7b", "large-72b", "deepseek-x")] == [
        *IDS,
        "deepseek-x",
    ]
    assert profile.models["deepseek-x"].price == Price(500_000_000, 1_250_000_000)
    default, stay = profile.routes["default"], profile.routes["biomedical"]
    assert default.primaries(Tier.LOW) == ("small-7b", "large-72b")
    assert default.primaries(None) == default.primaries(Tier.HIGH) == ("large-72b", "small-7b")
    assert default.fallback_chain == ("deepseek-x",)
    assert (stay.allow_cloud, stay.local_only_reason) == (False, "Patients: all")
    assert profile.routes.keys() == {"default", "biomedical"}  # there is no task "safety" here
    assert profile.limits.monthly == 20 * 10**9
    assert (profile.hardware.rank, profile.hardware.cloud_keys) == (25, ())


def test_local_alone(new: Command) -> None:
    """Without a cloud nothing may leave, and nothing need be said about what stays."""
    status, out, _ = new("lab", "--local", "ollama", "--models", "llama3.1:8b", "--json")
    assert (status, json.loads(out)) == (0, {"made": "profiles/lab.yaml", "warnings": []})
    profile = load_profile(Path("profiles/lab.yaml"), environment={})
    assert (profile.allow_cloud, list(profile.routes)) == (False, ["default"])
    assert profile.backends["local"].url == "http://127.0.0.1:11434/v1"
    assert profile.models["llama3.1-8b"].id == "llama3.1:8b"
    assert profile.hardware.rank is None


def test_cloud_alone(new: Command) -> None:
    """It asks for the key that it needs, where it may be chosen by itself; price and context are
    those that the starter profiles know."""
    assert new("lab", "--cloud", "deepseek", "--rank", "50")[0] == 0
    profile = load_profile(Path("profiles/lab.yaml"))
    assert (profile.hardware.rank, profile.hardware.cloud_keys) == (50, ("deepseek",))
    (model,) = profile.models.values()
    assert model.price
    assert model.context
    assert (profile.allow_cloud, list(profile.routes)) == (True, ["default"])


def test_what_it_writes_stays_as_it_is(new: Command) -> None:
    """It overwrites nothing, under neither ending."""
    assert new("lab", *LOCAL)[0] == 0
    before = Path("profiles/lab.yaml").read_bytes()
    status, out, err = new("lab", *CLOUD)
    assert (status, out) == (2, "")
    assert "NAME: profiles/lab.yaml is there already" in err
    Path("profiles/lab.yaml").rename("profiles/lab.yml")
    assert new("lab", *CLOUD)[0] == 2
    assert Path("profiles/lab.yml").read_bytes() == before
    assert len(list(Path("profiles").iterdir())) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give NAME: what shall it be called"),
        (["../lab", *LOCAL], "NAME: must be letters, digits, - and _"),
        (["lab"], "nothing could answer: give --local, --cloud or both"),
        (["lab", "--local", "llamacpp"], "llama_cpp, lm_studio, openai_compatible or none"),
        (
            ["lab", "--local", "vllm", "--url", "http://127.0.0.1:9/v1"],
            "give --models: which of its models",
        ),
        (["lab", *LOCAL, "--url", "ftp://gpu"], "--url: is no http or https address"),
        (["lab", *LOCAL, "--url", "http://me:pw@gpu/v1"], "must not hold a user or a password"),
        (["lab", *LOCAL, "--url", "me:pw@gpu"], "must not hold a user or a password"),
        (["lab", *LOCAL, "--models", "a,,b"], "--models: must be names with commas between"),
        (["lab", *LOCAL, "--models", "a\nb"], "--models: must be plain text in one line"),
        (["lab", "--cloud", "vllm"], "--cloud: must be openai, "),
        (["lab", *CLOUD, "--cloud-price", "1"], "--cloud-price: must be two numbers"),
        (["lab", *CLOUD, "--cloud-price", "nan,1"], "--cloud-price: must be two numbers"),
        (["lab", *CLOUD, "--monthly-limit", "-1"], "--monthly-limit: must be a number of USD"),
        (
            ["lab", *CLOUD, "--cloud-price", "none", "--monthly-limit", "5"],
            "--monthly-limit: the price of deepseek-x is not known",
        ),
        (["lab", *LOCAL, *CLOUD, "--stay", "biomedcal"], 'did you mean "biomedical"?'),
        (["lab", *CLOUD, "--stay", "biomedical"], "--stay: nothing in the building could answer"),
        (["lab", *LOCAL, "--monthly-limit", "5"], "--monthly-limit is of no use"),
        (["lab", *CLOUD, "--local", "none", "--url", "x"], "--url is of no use"),
        (["lab", *LOCAL, *CLOUD, "--stay", "none", "--reason", "x"], "--reason is of no use"),
        (["lab", *CLOUD, "--rank", "-1"], "hardware.rank: "),
    ],
    ids=lambda value: " ".join(value[-2:]) if isinstance(value, list) else "",
)
def test_wrong_answers_write_nothing(new: Command, arguments: list[str], message: str) -> None:
    """Each is told with its option and what would be right; not even a folder is made."""
    status, out, err = new(*arguments)
    assert status in {1, 2}
    assert out == ""
    assert message in err
    assert "nothing was written" in err
    assert not Path("profiles").exists()


@pytest.mark.parametrize("text", ['a "quoted" : # thing', "null", "1e3", "- x", "ü é 🧬", "{x}"])
def test_whatever_is_answered_is_only_text(tmp_path: Path, text: str) -> None:
    """Nothing in an answer is read as YAML, and each model has a name of its own."""
    answers = Answers(
        name="lab",
        local=LocalServer(provider="vllm", url="http://h:1/v1", ids=(text, f"x/{text}", "b/lab")),
        cloud=CloudModel(provider="deepseek", id=text, price=(0.00000125, 3)),
        stay=("biomedical",),
        reason=text,
        monthly_limit=0.1,
    )
    file = tmp_path / "lab.yaml"
    file.write_text(text_of(answers), encoding="utf-8")
    profile = load_profile(file)
    assert [model.id for model in profile.models.values()] == [text, f"x/{text}", "b/lab", text]
    assert profile.routes["biomedical"].local_only_reason == text
    assert list(profile.models.values())[-1].price == Price(1250, 3 * 10**9)


async def test_a_server_is_asked_what_it_serves(folder: Path) -> None:
    """Without a terminal, and without models given, it takes all that the server lists."""
    async with upstream(models=IDS) as server:
        made = await run(*NEW, "lab", "--local", "vllm", "--url", server.url, cwd=folder)
    assert (made.status, made.err) == (0, "")
    profile = load_profile(folder / "profiles" / "lab.yaml")
    assert [model.id for model in profile.models.values()] == list(IDS)
    assert not server.requests


async def test_a_person_answers(folder: Path) -> None:
    """What is offered is taken with Enter, a wrong answer is asked for again, and the rest is as
    typed."""
    async with upstream(models=IDS) as server, on_terminal(*NEW, cwd=folder) as terminal:
        await terminal.answers("what shall it be called: ", "no good")
        await terminal.sees("must be letters, digits, - and _")
        await terminal.answers("what shall it be called: ", "lab")
        await terminal.answers("a local model server (vllm, ollama, ", "vllm")
        await terminal.answers("where does it answer [http://127.0.0.1:8000/v1]: ", server.url)
        await terminal.sees(f"  2  {IDS[1]}")
        await terminal.answers("the smallest first [all]: ", "2")
        await terminal.answers("who may answer outside the building (", "deepseek")
        await terminal.answers("which model of deepseek [", "deepseek-x")
        await terminal.answers("sent and answered [none]: ", "1,2")
        await terminal.answers("must not leave the building [biomedical]: ", "")
        await terminal.answers("why must it stay [May hold personal or clinical data]: ", "")
        await terminal.answers("how many USD may it cost in a month [none]: ", "15")
        await terminal.sees("made profiles/lab.yaml")
        assert await terminal.end() == 0
    profile = load_profile(folder / "profiles" / "lab.yaml")
    assert [model.id for model in profile.models.values()] == [IDS[1], "deepseek-x"]
    assert profile.routes["default"].primaries(Tier.LOW) == ("large-72b",)
    assert profile.routes["biomedical"].local_only_reason == "May hold personal or clinical data"
    assert profile.limits.monthly == 15 * 10**9


async def test_an_option_is_not_asked_for(folder: Path) -> None:
    """On a terminal, too, only what no option says is a question."""
    arguments = ("lab", "--local", "none", *CLOUD)
    async with on_terminal(*NEW, *arguments, cwd=folder) as terminal:
        await terminal.answers("how many USD may it cost in a month [none]: ", "")
        assert await terminal.end() == 0
    assert terminal.shown.count("]: ") == 1


@pytest.mark.parametrize("how", ["end of input", "interrupted"])
async def test_a_person_goes_away(folder: Path, how: str) -> None:
    """Before the last answer nothing is written, however the person leaves."""
    async with on_terminal(*NEW, "lab", cwd=folder) as terminal:
        await terminal.sees("or none) [none]: ")
        if how == "interrupted":
            terminal.process.send_signal(signal.SIGINT)
        else:
            terminal.types(END_OF_INPUT)
        assert await terminal.end() == (130 if how == "interrupted" else 1)
    assert "Traceback" not in terminal.shown
    assert not (folder / "profiles").exists()
