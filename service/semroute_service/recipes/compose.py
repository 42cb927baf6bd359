"""One file for Docker Compose: a service for each server, reached by the backend's name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from semroute_service.recipes.containers import (
    MODELS,
    WORKDIR,
    environment,
    keys,
    written,
)
from semroute_service.recipes.facts import IMAGE
from semroute_service.recipes.plan import PORT

if TYPE_CHECKING:
    from semroute_service.recipes.plan import Job, Plan, Server

_HEALTH = f"import urllib.request as u; u.urlopen('http://127.0.0.1:{PORT}/health', timeout=5)"


def files(plan: Plan) -> dict[str, str]:
    """Where semroute is in the same Compose network, the addresses in the head are right."""
    services: dict[str, Any] = {}
    for job in plan.jobs:
        before = ""
        for server in job.servers:
            services[server.name] = _service(job, server, before)
            before = server.name
    document = {"services": services, "volumes": {"models": {}}}
    return {"compose.yaml": written(plan, [document])}


def _service(job: Job, server: Server, before: str) -> dict[str, Any]:
    arguments = [*server.arguments, "--host", "0.0.0.0", "--port", str(PORT)]  # noqa: S104
    service: dict[str, Any] = {
        "image": IMAGE,
        "entrypoint": ["vllm", "serve"],
        "command": [argument.replace("$", "$$") for argument in arguments],  # $ is Compose's own
        "working_dir": WORKDIR,
        "environment": environment() | dict.fromkeys(keys()),  # from whoever starts it
        "volumes": [f"models:{WORKDIR}/{MODELS}"],
        "ipc": "host",
        "restart": "unless-stopped",
        "healthcheck": {
            "test": ["CMD", "python3", "-c", _HEALTH],
            "interval": "10s",
            "timeout": "10s",
            "retries": 6,
            "start_period": "30m",
        },
        "deploy": {
            "resources": {
                "reservations": {
                    "devices": [
                        {
                            "driver": "nvidia",
                            "device_ids": [str(number) for number in job.devices],
                            "capabilities": ["gpu"],
                        }
                    ]
                }
            }
        },
    }
    if before:  # each measures what memory is free, so they start one after the other
        service["depends_on"] = {before: {"condition": "service_healthy"}}
    return service
