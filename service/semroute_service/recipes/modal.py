"""One file for Modal: a function for each server, with GPUs of its own."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from semroute_service.recipes.containers import MODELS, WORKDIR, environment
from semroute_service.recipes.facts import VLLM_VERSION
from semroute_service.recipes.plan import PORT

if TYPE_CHECKING:
    from semroute_service.recipes.plan import Plan, Server

_HEAD = '''\
"""{name}: written by semroute servers; change the profile, not this.

    modal secret create semroute-keys HF_TOKEN=... VLLM_API_KEY=...
    modal deploy {file}

Modal is outside the building: a backend that is served from here needs "locality: cloud" in the
profile, or what must stay would leave. The addresses that modal deploy prints go, with /v1 behind
them, into these variables of semroute:
{variables}
"""

import subprocess

import modal

app = modal.App({app})
image = (
    modal.Image.from_registry("nvidia/cuda:12.8.1-devel-ubuntu22.04", add_python="3.12")
    .entrypoint([])
    .uv_pip_install({vllm})
    .env({environment})
)
volumes = {{{mount}: modal.Volume.from_name("semroute-models", create_if_missing=True)}}
secrets = [modal.Secret.from_name("semroute-keys")]
'''

_FUNCTION = """

@app.function(
    image=image,
    gpu={gpu},
    volumes=volumes,
    secrets=secrets,
    timeout=3600,
    scaledown_window=900,
)
@modal.concurrent(max_inputs=32)
@modal.web_server(port={port}, startup_timeout=1800)
def {name}() -> None:
    subprocess.Popen({command}, cwd={workdir})
"""


def files(plan: Plan) -> dict[str, str]:
    """A Python file for ``modal deploy``."""
    file = f"{plan.name.replace('-', '_')}_modal.py"
    head = _HEAD.format(
        name=plan.name,
        file=file,
        variables="\n".join(f"    {s.variable or s.name}" for s in plan.servers),
        app=json.dumps(f"semroute-{plan.name}"),
        vllm=json.dumps(f"vllm=={VLLM_VERSION}"),
        environment=environment(),
        mount=json.dumps(f"{WORKDIR}/{MODELS}"),
    )
    return {file: head + "".join(_function(server) for server in plan.servers)}


def _function(server: Server) -> str:
    arguments = [*server.arguments, "--host", "0.0.0.0", "--port", str(PORT)]  # noqa: S104
    return _FUNCTION.format(
        gpu=repr(f"{server.gpu.type}:{server.gpu.count}"),
        port=PORT,
        name=f"serve_{server.name.replace('-', '_')}",
        command=["vllm", "serve", *arguments],
        workdir=repr(WORKDIR),
    )
