"""What Compose and Kubernetes have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from semroute_service.recipes.plan import PORT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from semroute_service.recipes.plan import Plan

WORKDIR = "/srv"
"""Where the servers run, so that weights in a folder such as models/mine are found there."""
MODELS = "models"
"""The volume below it, which keeps what is fetched from the hub, too."""


def environment() -> dict[str, str]:
    return {"HF_HOME": f"{WORKDIR}/{MODELS}/huggingface"}


def keys() -> tuple[str, ...]:
    """What is secret, by name only: to fetch gated weights, and to ask the servers."""
    return ("HF_TOKEN", "VLLM_API_KEY")


def written(plan: Plan, documents: Sequence[dict[str, Any]]) -> str:
    """YAML, below the variables that tell semroute where the servers are."""
    head = [f"# {plan.name}: written by semroute servers; change the profile, not this."]
    head += [f"#   {s.variable}=http://{s.name}:{PORT}/v1" for s in plan.servers if s.variable]
    return "\n".join(head) + "\n" + yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False)


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as they are; nothing is an alias."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)
