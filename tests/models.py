"""Models that tests make, because none can be downloaded."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from semroute_classifier.encoders.sentence_transformer import bundled_folder

if TYPE_CHECKING:
    from pathlib import Path

LAYERS = 4
HIDDEN = 32


def make_tiny_model(root: Path) -> Path:
    """The folder of a random model that is built as BGE-M3 is: XLM-RoBERTa, CLS, normalised."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from transformers import XLMRobertaConfig, XLMRobertaModel

    torch.manual_seed(0)
    config = XLMRobertaConfig(
        vocab_size=30522,  # the bundled encoder's tokenizer is used
        hidden_size=HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=130,
        pad_token_id=0,
    )
    XLMRobertaModel(config).save_pretrained(root / "transformer")
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        shutil.copy(bundled_folder() / name, root / "transformer" / name)
    transformer = Transformer(str(root / "transformer"), max_seq_length=128)
    modules = [transformer, Pooling(HIDDEN, pooling_mode="cls"), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save(str(root / "model"))
    return root / "model"
