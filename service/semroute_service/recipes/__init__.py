"""How a profile's own vLLM servers are launched: as scripts, batch jobs, containers, functions.

plan      which servers there are, on which GPUs, with which arguments; refuses what cannot run
memory    whether a model fits its GPU, and what would
facts     what vLLM and GPUs are known to do
script    the launch script that ``batch`` and ``kubernetes`` build on
batch, compose, kubernetes, modal
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from semroute_service.recipes import batch, compose, kubernetes, modal, script
from semroute_service.recipes.plan import Plan, RecipeError, plan

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

FORMATS: Mapping[str, Callable[[Plan], dict[str, str]]] = {
    "shell": script.files,
    "sbatch": batch.files,
    "compose": compose.files,
    "k8s": kubernetes.files,
    "modal": modal.files,
}
"""Each makes its files, by name, of a plan."""

__all__ = ["FORMATS", "Plan", "RecipeError", "plan"]
