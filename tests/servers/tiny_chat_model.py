"""Make a tiny, untrained chat model, run by the environment that serves it.

    python tiny_chat_model.py FOLDER TOKENIZER_FOLDER

Its words mean nothing, and it never ends by itself, so that every answer is cut by its limit.
"""

from __future__ import annotations

import sys


def make(folder: str, tokenizer_folder: str) -> None:
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    inputs = ["input_ids", "attention_mask"]
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder, model_input_names=inputs)
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }} {% endfor %}"
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=8192,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


if __name__ == "__main__":
    make(*sys.argv[1:])
