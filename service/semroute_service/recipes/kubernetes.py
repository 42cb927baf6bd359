"""One file for Kubernetes: a pod for each job, and a service for each server by its name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from semroute_service.recipes import script
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

_CLAIM = "semroute-models"
_SECRET = "semroute-keys"  # noqa: S105
_STARTING = {"periodSeconds": 10, "failureThreshold": 180}  # half an hour to fetch and load


def files(plan: Plan) -> dict[str, str]:
    """Where semroute is in the same namespace, the addresses in the head are right."""
    documents = [_claim(), *map(_deployment, plan.jobs)]
    documents += [_service(job, server) for job in plan.jobs for server in job.servers]
    return {"kubernetes.yaml": written(plan, documents)}


def _claim() -> dict[str, Any]:
    """Weights of one's own, and those that are fetched from the hub."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": _CLAIM},
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "resources": {"requests": {"storage": "200Gi"}},
        },
    }


def _deployment(job: Job) -> dict[str, Any]:
    labels = {"app": job.name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": job.name},
        "spec": {
            "replicas": 1,
            "strategy": {"type": "Recreate"},  # the new pod needs the GPUs of the old one
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": _pod(job)},
        },
    }


def _pod(job: Job) -> dict[str, Any]:
    capability = job.servers[0].need.capability
    return {
        "terminationGracePeriodSeconds": 60,
        # Labels of NVIDIA's GPU feature discovery: the compute capability.
        "nodeSelector": {
            "nvidia.com/gpu.compute.major": str(capability // 10),
            "nvidia.com/gpu.compute.minor": str(capability % 10),
        },
        "containers": [_container(job)],
        "volumes": [
            {"name": "models", "persistentVolumeClaim": {"claimName": _CLAIM}},
            {"name": "shm", "emptyDir": {"medium": "Memory"}},
        ],
    }


def _container(job: Job) -> dict[str, Any]:
    # Containers cannot share a GPU, so one of them runs all servers of the job. The last one
    # that starts is healthy when all are.
    health = {"httpGet": {"path": "/health", "port": job.servers[-1].port}}
    return {
        "name": "vllm",
        "image": IMAGE,
        "command": ["bash", "-c", script.body(job)],
        "workingDir": WORKDIR,
        "env": [{"name": n, "value": v} for n, v in environment().items()]
        + [
            {
                "name": n,
                "valueFrom": {"secretKeyRef": {"name": _SECRET, "key": n, "optional": True}},
            }
            for n in keys()
        ],
        "ports": [{"containerPort": server.port} for server in job.servers],
        "startupProbe": health | _STARTING,
        "readinessProbe": health,
        "resources": {"limits": {"nvidia.com/gpu": job.gpu.count}},
        "volumeMounts": [
            {"name": "models", "mountPath": f"{WORKDIR}/{MODELS}"},
            {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108
        ],
    }


def _service(job: Job, server: Server) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": server.name},
        "spec": {
            "selector": {"app": job.name},
            "ports": [{"port": PORT, "targetPort": server.port}],
        },
    }
