"""The classifier block of a profile: which encoder it names, and every mistake in naming one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from semroute_classifier.documents import ConfigError
from semroute_classifier.encoders import RemoteModel
from semroute_service.profile import Profile, load_profile

if TYPE_CHECKING:
    from pathlib import Path

GOOD = """\
classifier:
  encoder: {model: bge-m3, fallback: bundled}
backends:
  here: {provider: vllm, url: "http://embedder:8000/v1/"}
  sky: {provider: vllm, url: "http://embedder:8000/v1", locality: cloud}
models:
  bge-m3: {backend: here, id: BAAI/bge-m3, kind: embedding}
  chat: {provider: echo}
routes:
  default: {model: chat}
"""


def load(folder: Path, text: str) -> Profile:
    path = folder / "p.yaml"
    path.write_text(text, encoding="utf-8")
    return load_profile(path, environment={})


def test_a_model_is_resolved_to_all_that_asking_it_needs(tmp_path: Path) -> None:
    """Address, id, where the key is found, and what stands in; never the key itself."""
    assert load(tmp_path, GOOD).encoder == RemoteModel(
        name="bge-m3",
        url="http://embedder:8000/v1",
        id="BAAI/bge-m3",
        key_env=("VLLM_API_KEY",),
        fallback="bundled",
    )


def test_without_a_fallback_nothing_stands_in(tmp_path: Path) -> None:
    encoder = load(tmp_path, GOOD.replace(", fallback: bundled", "")).encoder
    assert isinstance(encoder, RemoteModel)
    assert encoder.fallback == ""


@pytest.mark.parametrize("spec", ["auto", "bundled", "hashing", "BAAI/bge-m3", "/models/mine"])
def test_text_is_a_local_encoder_as_written(tmp_path: Path, spec: str) -> None:
    written = GOOD.replace("{model: bge-m3, fallback: bundled}", spec)
    assert load(tmp_path, written).encoder == spec


def test_without_a_classifier_block_the_encoder_is_auto(tmp_path: Path) -> None:
    lines = GOOD.splitlines(keepends=True)
    assert load(tmp_path, "".join(lines[2:])).encoder == "auto"


@pytest.mark.parametrize("region", ["", "region: eu, "])
def test_a_server_in_the_profiles_region_is_admitted(tmp_path: Path, region: str) -> None:
    """Whether it says so, or is taken to stand where local backends do."""
    written = GOOD.replace("here: {", "here: {" + region) + "governance: {region: eu}\n"
    assert isinstance(load(tmp_path, written).encoder, RemoteModel)


def test_a_server_that_names_a_region_needs_the_profiles(tmp_path: Path) -> None:
    """Where nobody says where the router stands, an encoder elsewhere is no neighbour."""
    with pytest.raises(ConfigError, match='stands in region "us"; an encoder must stand in gov'):
        load(tmp_path, GOOD.replace("here: {", "here: {region: us, "))


MISTAKES = [
    # what is written, instead of what, the line, the key below classifier.encoder, what is said
    ("model: bge-m3,", "model: bge-m4,", 2, ".model", 'no model "bge-m4"; did you mean "bge-m3"?'),
    (
        "model: bge-m3,",
        "model: bge-m3, modle: x,",
        2,
        ".modle",
        'unknown key; did you mean "model"?',
    ),
    ("model: bge-m3,", "", 2, ".model", "is required"),
    ("model: bge-m3,", "model: 3,", 2, ".model", "must be text, not 3; put it in quotes"),
    ("model: bge-m3,", "model: chat,", 2, ".model", '"chat" is a chat model; an encoder needs one'),
    ("fallback:", "falback:", 2, ".falback", 'unknown key; did you mean "fallback"?'),
    ("fallback: bundled", "fallback: [bundled]", 2, ".fallback", "must be text, not ['bundled']"),
    ("fallback: bundled", "fallback: bge-m3", 2, ".fallback", '"bge-m3" is a model; give a local'),
    ("{model: bge-m3, fallback: bundled}", "7", 2, "", "must be text, or hold model and fallback"),
    ("{model: bge-m3, fallback: bundled}", "", 2, "", "hold model and fallback, not nothing"),
    ("{model: bge-m3, fallback: bundled}", "[a]", 2, "", "must be text, or hold"),
    ("kind: embedding", "kind: guard", 2, ".model", "is a guard model"),
    (", id: BAAI/bge-m3", "", 2, ".model", "has no id"),
    ("{backend: here", "{backend: sky", 2, ".model", "would leave the building"),
    ("{backend: here", "{provider: openai", 2, ".model", "before governance is asked"),
    ("{backend: here", "{provider: echo", 2, ".model", "which embeds nothing"),
    ("here: {", "here: {clearance: internal, ", 2, ".model", "may not see restricted data"),
    ("here: {", "here: {region: us, ", 2, ".model", 'stands in region "us"; an encoder must'),
]


@pytest.mark.parametrize(("old", "new", "line", "key", "what"), MISTAKES)
def test_a_mistake_is_told_once_where_it_stands(
    tmp_path: Path, old: str, new: str, line: int, key: str, what: str
) -> None:
    text = GOOD + "governance: {region: eu}\n"
    assert text.count(old) == 1
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text.replace(old, new))
    (problem,) = caught.value.problems
    assert (problem.line, problem.key) == (line, f"classifier.encoder{key}")
    assert what in problem.message


def test_a_fault_of_the_model_itself_is_told_at_the_model_alone(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, GOOD.replace("backend: here", "backend: hear"))
    assert [problem.key for problem in caught.value.problems] == ["models.bge-m3.backend"]
