"""Every format of launch recipes, read back by what reads it, and the command that writes them."""

from __future__ import annotations

import shlex
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from recipe_profiles import loaded, serving, sharing
from semroute_service.cli import main
from semroute_service.cli.servers_options import FORMATS as OFFERED
from semroute_service.recipes import FORMATS, RecipeError, plan
from semroute_service.recipes.facts import COMPUTE_CAPABILITY, QUANTIZATIONS
from semroute_service.testing import write_files

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from semroute_service.recipes import Plan

NASTY = 'it\'s $(touch made) `touch made` "two words" $HOME; touch made #'


@pytest.fixture
def planned(tmp_path: Path) -> Callable[[dict[str, Any]], Plan]:
    """The plan of a profile."""
    return lambda profile: plan(loaded(tmp_path, profile))


def nasty() -> dict[str, Any]:
    """A profile that tries to run something wherever a shell might read it."""
    made = serving({"arguments": ["--chat-template", NASTY], "lora": {NASTY: NASTY}}, id=NASTY)
    made["backends"] = {f"my-coder {NASTY}": made["backends"].pop("my-coder")}
    made["models"]["coder"]["backend"] = f"my-coder {NASTY}"
    return {**made, "description": f"x\n{NASTY}"}


@pytest.mark.parametrize("form", ["shell", "sbatch"])
@pytest.mark.parametrize("profile", [sharing(0.5, 0.4), nasty()], ids=["shared", "nasty"])
def test_scripts_are_right_bash(
    planned: Callable[[dict[str, Any]], Plan], tmp_path: Path, form: str, profile: dict[str, Any]
) -> None:
    """bash reads them, and finds each argument as one word."""
    made = planned(profile)
    (text,) = FORMATS[form](made).values()
    checked = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")
    calls = [shlex.split(line) for line in text.splitlines() if line.startswith("serve ")]
    assert [call[4:] for call in calls] == [list(server.arguments) for server in made.servers]


def test_what_slurm_is_asked_for(planned: Callable[[dict[str, Any]], Plan]) -> None:
    """Partition, GPU type and count, time limit, account and options; and a signal in time."""
    profile = serving(gpu="T4", count=2)
    profile["backends"]["my-coder"]["slurm"] = {
        "partition": "gpu",
        "time_limit": "1-00:00:00",
        "account": "lab",
        "options": ["--mem=32G", "--exclusive"],
    }
    (text,) = FORMATS["sbatch"](planned(profile)).values()
    assert [line for line in text.splitlines() if line.startswith("#SBATCH")] == [
        "#SBATCH --job-name=my-coder",
        "#SBATCH --partition=gpu",
        "#SBATCH --account=lab",
        "#SBATCH --nodes=1",
        "#SBATCH --ntasks=1",
        "#SBATCH --gres=gpu:t4:2",
        "#SBATCH --time=1-00:00:00",
        "#SBATCH --output=%x-%j.log",
        "#SBATCH --signal=B:TERM@60",
        "#SBATCH --mem=32G",
        "#SBATCH --exclusive",
    ]
    profile["backends"]["my-coder"]["slurm"] = {"gpu": "tesla_t4"}
    (text,) = FORMATS["sbatch"](planned(profile)).values()
    assert "#SBATCH --gres=gpu:tesla_t4:2\n" in text


@pytest.mark.parametrize("word", ["gpu\n#SBATCH --uid=0", "a b", "$(id)", "'"])
def test_a_batch_script_has_no_lines_of_others(tmp_path: Path, word: str) -> None:
    """A value that would end its line, or begin another word, never gets into a profile."""
    for key, value in (("partition", word), ("options", [f"--mem={word}"])):
        profile = serving()
        profile["backends"]["my-coder"]["slurm"] = {key: value}
        with pytest.raises(Exception, match=f"slurm.{key}"):
            loaded(tmp_path, profile)


@pytest.mark.parametrize("form", ["shell", "sbatch"])
def test_a_server_that_nobody_would_find_is_refused(
    planned: Callable[[dict[str, Any]], Plan], form: str
) -> None:
    """A script registers its place; a fixed url would never read it, and the way out is told."""
    profile = serving()
    profile["backends"]["my-coder"]["url"] = "http://node:8000/v1"
    made = planned(profile)
    with pytest.raises(RecipeError, match=r"\$\{SEMROUTE_MY_CODER_URL:-http://node:8000/v1\}"):
        FORMATS[form](made)
    assert FORMATS["compose"](made)


def test_compose(planned: Callable[[dict[str, Any]], Plan]) -> None:
    """Each server is a service by its backend's name; those on one GPU wait for each other."""
    made = planned(sharing(0.5, 0.4))
    (text,) = FORMATS["compose"](made).values()
    assert "#   A_URL=http://on-a:8000/v1\n" in text
    services = yaml.safe_load(text)["services"]
    assert list(services) == ["on-a", "on-b"]
    assert services["on-b"]["depends_on"] == {"on-a": {"condition": "service_healthy"}}
    for server, service in zip(made.servers, services.values(), strict=True):
        told = ["--host", "0.0.0.0", "--port", "8000"]
        assert service["command"] == [*server.arguments, *told]
        (device,) = service["deploy"]["resources"]["reservations"]["devices"]
        assert device == {"driver": "nvidia", "device_ids": ["0"], "capabilities": ["gpu"]}
        assert service["environment"]["HF_TOKEN"] is None
    (text,) = FORMATS["compose"](planned(nasty())).values()
    (service,) = yaml.safe_load(text)["services"].values()
    assert service["command"][0] == NASTY.replace("$", "$$")


def test_kubernetes(planned: Callable[[dict[str, Any]], Plan]) -> None:
    """One pod holds the GPU and runs all its servers; each has a service by its own name."""
    made = planned(sharing(0.5, 0.4))
    (text,) = FORMATS["k8s"](made).values()
    claim, deployment, *services = yaml.safe_load_all(text)
    assert claim["kind"] == "PersistentVolumeClaim"
    pod = deployment["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    assert container["resources"] == {"limits": {"nvidia.com/gpu": 1}}
    assert pod["spec"]["nodeSelector"]["nvidia.com/gpu.compute.major"] == "9"
    shell, option, script = container["command"]
    assert (shell, option) == ("bash", "-c")
    assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0
    found = {s["metadata"]["name"]: (s["spec"]["selector"], s["spec"]["ports"]) for s in services}
    labels = pod["metadata"]["labels"]
    assert found == {
        "on-a": (labels, [{"port": 8000, "targetPort": 8000}]),
        "on-b": (labels, [{"port": 8000, "targetPort": 8001}]),
    }
    assert container["readinessProbe"]["httpGet"]["port"] == 8001


@pytest.mark.parametrize("profile", [sharing(0.5, 0.4), nasty()], ids=["shared", "nasty"])
def test_modal(planned: Callable[[dict[str, Any]], Plan], profile: dict[str, Any]) -> None:
    """The file is Python whose functions start each server with its own arguments."""
    made = planned(profile)
    (item,) = FORMATS["modal"](made).items()
    started: list[list[str]] = []
    functions = compile_modal(*item, started)
    assert len(functions) == len(list(made.servers))
    for server, function in zip(made.servers, functions, strict=True):
        function()
        told = ["--host", "0.0.0.0", "--port", "8000"]
        assert started.pop() == ["vllm", "serve", *server.arguments, *told]


def compile_modal(name: str, text: str, started: list[list[str]]) -> list[Any]:
    """The functions of a Modal file, with a stand-in for the library that is not installed."""

    class Anything:
        def __getattr__(self, name: str) -> Any:
            return Anything()

        def __call__(self, *arguments: Any, **options: Any) -> Any:
            return arguments[0] if arguments and callable(arguments[0]) else Anything()

    class Subprocess:
        @staticmethod
        def Popen(command: list[str], cwd: str) -> None:
            started.append(command)

    text = text.replace("import subprocess\n", "").replace("import modal\n", "")
    place: dict[str, Any] = {"modal": Anything(), "subprocess": Subprocess}
    exec(compile(text, name, "exec"), place)
    return [value for name, value in place.items() if name.startswith("serve_")]


@pytest.mark.parametrize("form", list(FORMATS))
def test_nothing_secret_is_written(
    planned: Callable[[dict[str, Any]], Plan], monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    """Keys of the environment in which a recipe is made are in none."""
    for name in ("VLLM_API_KEY", "HF_TOKEN", "DEEPSEEK_API_KEY"):
        monkeypatch.setenv(name, "s3cr3t")
    assert "s3cr3t" not in "".join(FORMATS[form](planned(serving())).values())


def test_the_facts_are_whole() -> None:
    """Whatever is offered on the command line is there; every method has a GPU that runs it."""
    assert tuple(FORMATS) == OFFERED
    most = max(COMPUTE_CAPABILITY.values())
    assert all(q.bits <= 16 and q.capability <= most for q in QUANTIZATIONS.values())


def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Files are written, scripts can be run, figures go to standard error."""
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path / "profiles", {"mine": sharing(0.5, 0.4)})
    assert main(["servers", "--profile", "mine", "--format", "shell", "--out", "new/place"]) == 0
    out, err = capsys.readouterr()
    assert out == "new/place/the-one.sh\n"
    assert "on-a: a on 1 H100: 5.6 GB weights + " in err
    assert (tmp_path / "new/place/the-one.sh").stat().st_mode & 0o111
    assert main(["servers", "--profile", "mine", "--format", "k8s"]) == 0
    assert len(list(yaml.safe_load_all(capsys.readouterr().out))) == 4
    assert main(["servers", "--profile", "mine", "--check"]) == 0
    assert capsys.readouterr().out == ""
    assert main(["servers", "--profile", "mine", "--format", "modal"]) == 0
    assert "warning: Modal is outside the building, and on-a counts as inside" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("arguments", "status", "expected"),
    [
        (["--format", "shell"], 2, "name a profile"),
        (["--profile", "mine"], 2, "name a format: --format NAME; or ask for --check"),
        (["--profile", "min", "--check"], 1, 'no profile "min"; did you mean "mine"?'),
        (["--profile", "mine", "--format", "shell", "--out", "out"], 1, "does not fit 1 T4"),
        (["--profile", "good", "--format", "shell", "--out", "file"], 1, "file: File exists"),
    ],
)
def test_the_command_where_it_cannot(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    status: int,
    expected: str,
) -> None:
    """What is wrong is told in words, and nothing is written."""
    monkeypatch.chdir(tmp_path)
    profiles = {"mine": serving(quantization="fp16"), "good": serving()}
    write_files(tmp_path / "profiles", profiles)
    (tmp_path / "file").write_text("")
    assert main(["servers", *arguments]) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert expected in err
    assert {path.name for path in tmp_path.iterdir()} == {"profiles", "file"}
