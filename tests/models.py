"""Models that tests make, because none can be downloaded."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

from semroute_classifier.encoders.sentence_transformer import bundled_folder

if TYPE_CHECKING:
    from pathlib import Path

LAYERS = 4
HIDDEN = 32


def make_tiny_model(root: Path, spread: float = 0.02) -> Path:
    """The folder of a random model that is built as BGE-M3 is: XLM-RoBERTa, CLS, normalised.

    ``spread`` is that of its weights; what is 2 wide does not survive int8.
    """
    from transformers import XLMRobertaConfig, XLMRobertaModel

    config = XLMRobertaConfig(**_SIZES, pad_token_id=0, initializer_range=spread)
    return _make(root, XLMRobertaModel, config, "cls")


def make_masking_model(root: Path) -> Path:
    """The folder of a random model in most of whose layers a token sees its neighbours only."""
    from transformers import ModernBertConfig, ModernBertModel

    config = ModernBertConfig(
        **_SIZES,
        pad_token_id=0,
        cls_token_id=101,
        sep_token_id=102,
        bos_token_id=101,
        eos_token_id=102,
        local_attention=8,
        initializer_range=0.5,
    )
    return _make(root, ModernBertModel, config, "mean")


def make_causal_model(root: Path) -> Path:
    """The folder of a random model whose tokens see those before them; heads share their keys."""
    from transformers import Qwen3Config, Qwen3Model

    config = Qwen3Config(**_SIZES, num_key_value_heads=2, head_dim=8, initializer_range=0.1)
    return _make(root, Qwen3Model, config, "mean")


_SIZES: dict[str, Any] = {
    "vocab_size": 30522,  # the bundled encoder's tokenizer is used
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 130,
}


def _make(root: Path, kind: Any, config: Any, pooling: str) -> Path:
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    torch.manual_seed(0)
    kind(config).save_pretrained(root / "transformer")
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        shutil.copy(bundled_folder() / name, root / "transformer" / name)
    transformer = Transformer(str(root / "transformer"), max_seq_length=128)
    modules = [transformer, Pooling(HIDDEN, pooling_mode=pooling), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save(str(root / "model"))
    return root / "model"
