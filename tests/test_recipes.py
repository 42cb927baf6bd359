"""Launch recipes: which arguments, whether it fits, and every format read back."""

from __future__ import annotations

import json
import shlex
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from recipe_profiles import SEVEN, backend, loaded, serving, sharing
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


@pytest.fixture
def problems(tmp_path: Path) -> Callable[[dict[str, Any]], tuple[str, ...]]:
    """Why there is no plan of a profile."""

    def refused(profile: dict[str, Any]) -> tuple[str, ...]:
        with pytest.raises(RecipeError) as caught:
            plan(loaded(tmp_path, profile))
        return caught.value.problems

    return refused


BASE = ["org/coder", "--max-model-len", "32768", "--gpu-memory-utilization", "0.9"]
CACHING = ["--enable-prefix-caching"]


@pytest.mark.parametrize(
    ("gpu", "quantization", "expected"),
    [
        ("T4", "awq", ["--dtype", "float16", "--quantization", "awq"]),
        ("L4", "awq", ["--quantization", "awq_marlin"]),
        ("T4", "gptq", ["--dtype", "float16", "--quantization", "gptq"]),
        ("H100", "gptq", ["--quantization", "gptq_marlin"]),
        ("T4", "int8", ["--dtype", "float16", "--quantization", "compressed-tensors"]),
        ("L4", "fp8", ["--quantization", "fp8"]),
        ("H100", "fp16", ["--dtype", "float16"]),
        ("H100", "bf16", ["--dtype", "bfloat16"]),
        ("H100", "", []),
    ],
)
def test_arguments_by_gpu_and_quantisation(
    planned: Callable[[dict[str, Any]], Plan], gpu: str, quantization: str, expected: list[str]
) -> None:
    """vLLM is told the number format that the GPU has and the kernels that run on it."""
    (server,) = planned(serving(gpu=gpu, quantization=quantization)).servers
    assert list(server.arguments) == [BASE[0], *expected, *BASE[1:], *CACHING]


def test_arguments_of_everything_declared(planned: Callable[[dict[str, Any]], Plan]) -> None:
    """Split, cache, adapters, draft model and further arguments become vLLM's own."""
    serve = {
        "weights": "models/mine",
        "gpu_memory_utilization": 0.8,
        "kv_cache_dtype": "fp8",
        "prefix_caching": False,
        "lora": {"sql": "models/sql", "r": "org/r-lora"},
        "draft": {**SEVEN, "id": "org/draft", "tokens": 3, "parameters": 0.6, "unquantized": 0.2},
        "arguments": ["--max-num-seqs", "64"],
    }
    (server,) = planned(serving(serve, gpu="L4", count=2)).servers
    speculative = {"method": "draft_model", "model": "org/draft", "num_speculative_tokens": 3}
    assert server.arguments == (
        *("models/mine", "--served-model-name", "org/coder", "--quantization", "awq_marlin"),
        *("--tensor-parallel-size", "2", "--max-model-len", "32768"),
        *("--gpu-memory-utilization", "0.8", "--no-enable-prefix-caching"),
        *("--kv-cache-dtype", "fp8", "--enable-lora"),
        *("--lora-modules", "sql=models/sql", "r=org/r-lora"),
        *("--speculative-config", json.dumps(speculative), "--max-num-seqs", "64"),
    )


def test_arguments_of_an_embedding_model(planned: Callable[[dict[str, Any]], Plan]) -> None:
    """An embedding model is pooled, has no KV cache and needs no figures of one."""
    profile = serving(quantization="fp16", kind="embedding", context=8192)
    profile["models"]["coder"]["serve"] = {"parameters": 0.57}
    (server,) = planned(profile).servers
    assert server.arguments[-2:] == ("--runner", "pooling")
    assert server.need.cache_gb == 0


def test_memory_by_hand(planned: Callable[[dict[str, Any]], Plan]) -> None:
    """Weights, cache and overhead of one GPU are what one computes from the model's page."""
    need = next(planned(serving()).servers).need
    # (7.62 - 1.09) billion of 4 + 20/128 bits, 1.09 billion of 16: the files have 5.57 GB.
    assert need.weights_gb == pytest.approx(3.3926 + 2.18, abs=1e-3)
    # Keys and values, 28 layers, 4 heads of 128 numbers of 2 bytes: 57,344 bytes a token.
    assert need.cache_gb == pytest.approx(57344 * 32768 / 1e9)
    assert need.available_gb == pytest.approx(14.4)
    assert need.total_gb == pytest.approx(5.5726 + 1.8790 + 1.5, abs=1e-3)


def test_memory_over_several_gpus(planned: Callable[[dict[str, Any]], Plan]) -> None:
    """Weights and heads are split, but no GPU has less than one head; fp8 halves the cache."""
    two = next(planned(serving(gpu="L4", count=2)).servers).need
    eight = next(planned(serving({"kv_cache_dtype": "fp8"}, gpu="L4", count=8)).servers).need
    assert two.weights_gb == pytest.approx(5.5726 / 2, abs=1e-3)
    assert two.cache_gb == pytest.approx(57344 / 2 * 32768 / 1e9)
    assert eight.cache_gb == pytest.approx(57344 / 4 / 2 * 32768 / 1e9)


def test_memory_of_a_draft_model(planned: Callable[[dict[str, Any]], Plan]) -> None:
    """A draft model is there at 16 bits, with a cache of its own."""
    draft = {**SEVEN, "id": "org/draft", "parameters": 1.0, "unquantized": 0}
    alone = next(planned(serving(gpu="L4")).servers).need
    drafted = next(planned(serving({"draft": draft}, gpu="L4")).servers).need
    assert drafted.weights_gb - alone.weights_gb == pytest.approx(2.0)
    assert drafted.cache_gb == pytest.approx(2 * alone.cache_gb)


def test_too_large_is_refused_with_what_would_fit(
    problems: Callable[[dict[str, Any]], tuple[str, ...]],
) -> None:
    """What does not fit is told with its figures and every single change that would do."""
    (told,) = problems(serving(quantization="fp16", gpu="L4", context=131072))
    # 7.62 * 2 = 15.24 GB, 57344 * 131072 = 7.52 GB; 24 * 0.9 = 21.6 GB.
    assert told.startswith(
        "models.coder: does not fit 1 L4: 15.2 GB weights + 7.5 GB KV cache for 131072 tokens "
        "+ 1.5 GB overhead = 24.3 GB a GPU, of 21.6 GB; would fit: "
    )
    # (21.6 - 15.24 - 1.5) * 10**9 / 57344 = 84,751 tokens, in steps of 256.
    assert told.endswith(
        "a context of 84736 or kv_cache_dtype: fp8 or 2 GPUs with tensor_parallel: 2 or "
        "a checkpoint with quantization: int8"
    )
    (told,) = problems(serving({"parameters": 7000}, quantization="fp16"))
    assert told.endswith("; take a smaller model or larger GPUs")


def test_what_is_advised_does_fit(planned: Callable[[dict[str, Any]], Plan]) -> None:
    """Each remedy of the case above, applied, makes a plan."""
    full: dict[str, Any] = {"gpu": "L4", "quantization": "fp16", "context": 131072}
    for profile in (
        serving(**{**full, "context": 84736}),
        serving({"kv_cache_dtype": "fp8"}, **full),
        serving({"tensor_parallel": 2}, count=2, **full),
        serving(**{**full, "quantization": "int8"}),
    ):
        assert list(planned(profile).servers)


@pytest.mark.parametrize(
    ("profile", "expected"),
    [
        (serving({"kv_cache_dtype": "fp8"}), "fp8 needs a GPU of compute capability 8.9; T4 has"),
        (
            serving({"parameters": 3.0}, quantization="bf16"),
            "bf16 needs a GPU of compute capability 8.0",
        ),
        (serving(quantization="awk"), '"awk" is not known; did you mean "awq"?'),
        (serving(gpu="T5"), 'my-coder.gpu.type: "T5" is not known'),
        (serving(gpu="A100"), "gpu.memory_gb: is required, since A100 is sold with various"),
        (serving(context=None), "models.coder.context: is required"),
        (serving(id=""), "models.coder.id: is required"),
        (serving({"tensor_parallel": 2}), "is more than the 1 GPUs of its backend"),
        (serving({"head_dim": None}), "coder.serve: needs head_dim, which tell the size"),
        (serving({"arguments": ["--port=1"]}), "arguments: --port is set from the profile's"),
        (serving({"arguments": ["--max_model_len"]}), "arguments: --max-model-len is set"),
        (serving({"arguments": ["--api-key", "secret"]}), "a key is no argument; set VLLM_API_KEY"),
        (serving({"weights": "--x"}), 'vLLM would read "--x" as an option'),
        (sharing(0.5, 0.3, 0.2), "0.5 (a) + 0.3 (b) + 0.2 (c) = 1; together at most 0.95"),
    ],
)
def test_refused(
    problems: Callable[[dict[str, Any]], tuple[str, ...]], profile: dict[str, Any], expected: str
) -> None:
    """What cannot run is refused with where it stands and what would be right."""
    (told,) = problems(profile)
    assert expected in told
    assert "secret" not in told


def test_refused_backends(problems: Callable[[dict[str, Any]], tuple[str, ...]]) -> None:
    """A backend serves one model, knows its GPU, is vLLM, and shares a GPU as declared."""
    twice = serving()
    twice["models"]["other"] = twice["models"]["coder"]
    assert problems(twice) == (
        'backends: coder and other would both have a server called "my-coder"; rename one',
    )
    bare = serving()
    del bare["backends"]["my-coder"]["gpu"]
    assert problems(bare) == (
        "backends.my-coder.gpu: is required to launch coder: its type and count",
    )
    ollama = serving()
    ollama["backends"]["my-coder"]["provider"] = "ollama"
    assert problems(ollama) == ("models.coder.serve: my-coder is no vLLM server",)
    unlike = sharing(0.4, 0.4)
    unlike["backends"]["on-b"]["gpu"]["count"] = 2
    assert problems(unlike) == ("backends: the GPU the-one is not declared alike everywhere",)
    nothing = serving()
    del nothing["models"]["coder"]["serve"]
    assert problems(nothing) == ("mine: no model has a serve part, so there is nothing to launch",)


def test_servers_on_one_gpu_are_one_job(planned: Callable[[dict[str, Any]], Plan]) -> None:
    """They are started by one script on the same device, each with a port of its own."""
    (job,) = planned(sharing(0.5, 0.4)).jobs
    assert (job.name, job.devices) == ("the-one", (0,))
    assert [(s.name, s.port) for s in job.servers] == [("on-a", 8000), ("on-b", 8001)]


def test_devices_are_counted_by_type(planned: Callable[[dict[str, Any]], Plan]) -> None:
    """Jobs on one machine do not get the same GPUs."""
    profile = serving(gpu="L4", count=2)
    for name, kind in (("second", "L4"), ("third", "T4")):
        profile["backends"][name] = backend(f"{name}_URL", type=kind)
        profile["models"][name] = {**profile["models"]["coder"], "backend": name}
    assert [job.devices for job in planned(profile).jobs] == [(0, 1), (2,), (0,)]


def test_a_backend_without_a_launch_is_told(planned: Callable[[dict[str, Any]], Plan]) -> None:
    """A vLLM server that the profile only asks is not launched, and that is said."""
    profile = serving()
    profile["backends"]["theirs"] = {"provider": "vllm", "url": "http://theirs:8000/v1"}
    profile["models"]["more"] = {"backend": "theirs"}
    assert planned(profile).unserved == ("theirs",)


def test_an_adapter_is_a_model_of_the_same_backend(
    planned: Callable[[dict[str, Any]], Plan],
) -> None:
    """A LoRA adapter that is routed to needs no launch of its own."""
    profile = serving({"lora": {"sql": "models/sql"}})
    profile["models"]["sql"] = {"backend": "my-coder", "id": "sql", "context": 32768}
    assert [server.model for server in planned(profile).servers] == ["coder"]


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
