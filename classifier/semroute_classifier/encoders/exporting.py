"""From a model in torch to ONNX files."""

from __future__ import annotations

import contextlib
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

_PLAIN = "semroute_plain"
_EXAMPLE = (1, 7)
"""The shape of what is traced; the number of tokens is left open."""


def export(
    model: Any, path: Path, blocks_of: Callable[[Any], Sequence[Any]], *, plain: bool
) -> None:
    """Write a sentence-transformers model as ONNX: ``input_ids`` of one text in, states out.

    ``plain`` leaves every mask out of the attention, because a text that is alone has no padding;
    what is left are two products and a softmax. Models that build their attention otherwise, or
    that need their masks, are exported with it False. A model over 2 GB gets further files beside
    ``path``. Raises whatever the export raises.
    """
    import torch

    class Exported(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Any) -> Any:
            ones = torch.ones_like(input_ids)
            outputs = self.model({"input_ids": input_ids, "attention_mask": ones})
            unit = [block / block.norm(dim=1, keepdim=True) for block in blocks_of(outputs)]
            return torch.cat(unit, dim=1)

    device = model.device
    example = torch.arange(_EXAMPLE[1]).reshape(_EXAMPLE) + 5
    try:
        model.cpu()
        with torch.no_grad(), warnings.catch_warnings(), _attention(model, plain=plain):
            warnings.simplefilter("ignore")  # traced with this length, run with any
            torch.onnx.export(
                Exported().eval(),
                (example,),
                str(path),
                input_names=["input_ids"],
                output_names=["states"],
                dynamic_axes={"input_ids": {1: "tokens"}},
                opset_version=17,
                dynamo=False,
            )
    finally:
        model.to(device)


@contextlib.contextmanager
def _attention(model: Any, *, plain: bool) -> Iterator[None]:
    """The model attends plainly inside the block, and as before behind it."""
    if not plain:
        yield
        return
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(_PLAIN, _attend)
    AttentionMaskInterface.register(_PLAIN, _no_mask)
    transformer = model[0].auto_model
    before = transformer.config._attn_implementation
    transformer.set_attn_implementation(_PLAIN)
    try:
        yield
    finally:
        transformer.set_attn_implementation(before)


def _attend(
    module: Any, query: Any, key: Any, value: Any, attention_mask: Any, **options: Any
) -> tuple[Any, None]:
    """Shapes (1, heads, tokens, size); every token sees every other."""
    import torch

    scaling = options.get("scaling") or query.shape[-1] ** -0.5
    weights = torch.softmax((query * scaling) @ key.transpose(2, 3), dim=-1)
    return (weights @ value).transpose(1, 2), None


def _no_mask(*_: Any, **__: Any) -> None:
    return None
