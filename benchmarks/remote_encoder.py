"""Does the remote encoder give what the local one does, from a real server, and at what price?

    python benchmarks/remote_encoder.py [--environment FOLDER]
    python benchmarks/remote_encoder.py --url http://host:8000/v1 --model ID   # a server that runs

Without --url it installs infinity into an environment of its own, serves the bundled all-MiniLM
model with it on loopback, and also ends and restarts the server. With --url the cosines are to the
bundled model all the same, and mean something only where the server has that model. Server and
encoder share the machine. Writes benchmarks/results/remote_encoder.json.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from semroute_classifier.encoders import (
    EncoderUnavailableError,
    RemoteEncoder,
    load_encoder,
    vectors_of,
)
from semroute_classifier.encoders.sentence_transformer import bundled_folder
from semroute_service.settings import default_home

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from semroute_classifier.encoders import Encoder

ROOT = Path(__file__).parents[1]
PINS = (
    "infinity-emb[torch,server]==0.0.78",
    "torch==2.13.0",
    "transformers==4.57.6",
    "sentence-transformers==3.4.1",
    "numpy==1.26.4",
    "click==8.1.8",
)
"""What works together; infinity's own bounds let through more."""
MODEL = "minilm"
START_SECONDS = 120.0
ODD = (
    "",
    " \n\t",
    "half \ud800 a pair",
    "a\x00b",
    "日本語 🧬",
    "é" * 400,
    "x" * 5000,
    "word " * 3000,
)


def installed(folder: Path) -> Path:
    """The folder of the environment's programs, made where it is not there."""
    programs = folder / "bin"
    if not (programs / "infinity_emb").exists():
        print(f"installing infinity into {folder} ...")
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        pip = [str(programs / "pip"), "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *PINS], check=True)
    return programs


@contextlib.contextmanager
def serving(programs: Path, port: int) -> Iterator[str]:
    """The bundled model behind infinity; gives its base URL once it answers."""
    options = {
        "--model-id": str(bundled_folder()),
        "--served-model-name": MODEL,
        "--host": "127.0.0.1",
        "--port": str(port),
        "--url-prefix": "/v1",
        "--engine": "torch",
        "--device": "cpu",
        "--dtype": "float32",
    }
    words = [word for pair in options.items() for word in pair]
    command = [str(programs / "infinity_emb"), "v2", *words]
    command += ["--no-bettertransformer", "--no-model-warmup"]
    quiet = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "INFINITY_ANONYMOUS_USAGE_STATS": "0"}
    process = subprocess.Popen(
        command,
        env=os.environ | quiet,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(port, process)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.kill()
        process.wait()


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    """Until something listens there; raises ``SystemExit`` where nothing ever will."""
    ends = time.monotonic() + START_SECONDS
    while time.monotonic() < ends and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.2)
    raise SystemExit("infinity does not start; run it by hand to see why")


def free_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return int(unused.getsockname()[1])


def queries() -> list[str]:
    lines = (ROOT / "tests/data/validation.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["query"] for line in lines]


def timed(encoders: dict[str, Encoder], texts: Sequence[str]) -> dict[str, dict[str, float]]:
    """Milliseconds for one text at a time, in turns, so that all meet the same load."""
    times: dict[str, list[float]] = {name: [] for name in encoders}
    for text in texts:
        for name, encoder in encoders.items():
            start = time.perf_counter()
            encoder.encode([text])
            times[name].append((time.perf_counter() - start) * 1000)
    return {
        name: {
            "p50_ms": round(statistics.median(found), 2),
            "p95_ms": round(sorted(found)[int(len(found) * 0.95)], 2),
        }
        for name, found in times.items()
    }


def per_second(encoder: Encoder, texts: Sequence[str]) -> float:
    start = time.perf_counter()
    encoder.encode(texts)
    return round(len(texts) / (time.perf_counter() - start), 1)


def agreement(remote: RemoteEncoder, local: Encoder, texts: Sequence[str]) -> dict[str, float]:
    """Cosines to the original's vectors at full precision, and of a text alone to it in company."""
    here = vectors_of(local.encode(texts), local)
    there = remote.encode(texts)
    alone = np.concatenate([remote.encode([text]) for text in texts[:100]])
    cosines = (here * there).sum(axis=1)
    return {
        "least_cosine": round(float(cosines.min()), 6),
        "mean_cosine": round(float(cosines.mean()), 6),
        "least_cosine_alone": round(float((alone * there[:100]).sum(axis=1).min()), 6),
        "odd_inputs": len(remote.encode(ODD)),
    }


def measure(url: str, model: str) -> dict[str, Any]:
    texts = queries()
    exact, engine = load_encoder("bundled"), load_encoder("bundled", default_home())
    remote = RemoteEncoder("remote", url, model)
    with contextlib.closing(remote):
        same = exact.dimension == remote.dimension
        one: dict[str, Encoder] = {"engine": engine, "remote": remote}
        return {
            "model": model,
            "dimension": remote.dimension,
            "window": remote.window,
            "fingerprint": remote.fingerprint,
            "agreement": agreement(remote, exact, texts) if same else None,
            "one_text": timed(one, texts[:150]),
            "engine_per_second": per_second(engine, texts),
            "remote_per_second": per_second(remote, texts),
        }


def restarted(programs: Path) -> dict[str, Any]:
    """What happens when the server ends under a loaded encoder, and comes back."""
    port = free_port()
    with serving(programs, port) as url:
        remote = RemoteEncoder("remote", url, MODEL)
        before = remote.encode(["hello"])
    start = time.perf_counter()
    try:
        remote.encode(["hello"])
    except EncoderUnavailableError as error:
        said = str(error).replace(url, "URL")
    found = round((time.perf_counter() - start) * 1000)
    with contextlib.closing(remote), serving(programs, port) as url:
        again = remote.encode(["hello"])
        with contextlib.closing(RemoteEncoder("remote", url, MODEL)) as reloaded:
            same = reloaded.fingerprint == remote.fingerprint
    cosine = round(float((before @ again.T).item()), 6)
    return {"said": said, "after_ms": found, "cosine_after": cosine, "same_fingerprint": same}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--environment", type=Path, default=ROOT / ".venv-infinity")
    parser.add_argument("--url", help="a server that runs already")
    parser.add_argument("--model", default=MODEL, help="the id of its model")
    options = parser.parse_args()
    if options.url:
        figures = measure(options.url, options.model)
    else:
        programs = installed(options.environment)
        with serving(programs, free_port()) as url:
            figures = measure(url, MODEL)
        figures["restart"] = restarted(programs)
    figures["machine"] = f"{platform.machine()}, Python {platform.python_version()}"
    out = ROOT / "benchmarks/results/remote_encoder.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(figures, indent=2) + "\n")
    for name, value in figures.items():
        print(f"{name:<30} {value}")


if __name__ == "__main__":
    main()
