"""The reference page, the JSON Schema for editors, and the example that people learn from."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator
from pydantic import BaseModel, ValidationError

from semroute_classifier.documents import ConfigError, read_yaml
from semroute_classifier.utterances import Tier, load_utterances
from semroute_service.cli import main, parser
from semroute_service.governance import rules
from semroute_service.profile import load_profile, load_profiles, load_providers
from semroute_service.profile.reference import json_schema, markdown
from semroute_service.profile.schema import ProfileSpec

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "profile-reference.md"
SCHEMA = ROOT / "profiles" / "profile.schema.json"
GUIDE = (ROOT / "docs" / "profiles.md").read_text(encoding="utf-8")
VALIDATOR = Draft7Validator(json_schema())
GOOD = """\
name: p
classifier: {encoder: {model: bge-m3, fallback: bundled}, cascade: off}
backends:
  gpu: {provider: vllm, url: "http://gpu:8000/v1", gpu: {type: T4, count: 2}}
  embedder: {provider: vllm, url: "${EMBEDDER_URL:-http://embedder:8000/v1}"}
models:
  big: {backend: gpu, id: big-1, context: 8192, capabilities: [tools]}
  sky: {provider: openai, id: sky-1, price: {input: 1, output: 2.5}}
  bge-m3: {backend: embedder, id: BAAI/bge-m3, kind: embedding}
routes:
  biomedical: {model: big, allow_cloud: false, temperature: 0}
  default: {tiers: {low: [big], high: [sky, big]}}
fallback_chain: [sky]
behavior: {max_retries: 2, timeout_seconds: 30, enable_caching: false}
cost: {monthly_limit: 50}
governance: {allow_cloud: true, default_sensitivity: public}
"""


def parts() -> list[type[BaseModel]]:
    """Every model that a profile's file is read with."""
    found: list[type[BaseModel]] = []

    def look(annotation: Any) -> None:
        for argument in getattr(annotation, "__args__", ()):
            look(argument)
        is_part = isinstance(annotation, type) and issubclass(annotation, BaseModel)
        if is_part and annotation not in found:
            found.append(annotation)
            for field in annotation.model_fields.values():
                look(field.annotation)

    look(ProfileSpec)
    return found


KEYS = [(part, key) for part in parts() for key in part.model_fields]


def definition(part: type[BaseModel]) -> dict[str, Any]:
    """What the JSON Schema says of a part."""
    schema = json_schema()
    found: dict[str, Any] = schema if part is ProfileSpec else schema["$defs"][part.__name__]
    return found


@pytest.mark.parametrize(("part", "key"), KEYS, ids=[f"{p.__name__}.{k}" for p, k in KEYS])
def test_every_key_is_explained(part: type[BaseModel], key: str) -> None:
    """Each has a sentence, and an example that loads, unless it only holds further keys."""
    field, schema = part.model_fields[key], definition(part)["properties"][key]
    assert field.description, "write a docstring below the field"
    assert field.description.endswith(".")
    only_holds_keys = {variant.get("$ref") for variant in schema.get("anyOf", [schema])} - {None}
    if not field.examples:
        assert only_holds_keys, "give Field(examples=[...])"
    inner = VALIDATOR.evolve(schema={**schema, "$defs": json_schema()["$defs"]})
    for example in field.examples or ():
        assert not wrong_with(part, key, example)
        assert not list(inner.iter_errors(example))


def wrong_with(part: type[BaseModel], key: str, value: Any) -> list[Any]:
    """What the model that loads ``key`` says against ``value``."""
    try:
        part.model_validate({key: value})
    except ValidationError as error:
        return [detail for detail in error.errors() if detail["loc"][0] == key]
    return []


def test_every_row_of_the_page_is_whole() -> None:
    """Each key of each part has a row with its type, default, meaning and example."""
    page = markdown()
    rows = re.findall(r"^\| `(.+?)` \| (.+) \| (.+) \| (.+) \| (.+) \|$", page, flags=re.MULTILINE)
    assert {key for _, key in KEYS} | set(load_providers()) == {row[0] for row in rows}
    assert len([line for line in page.splitlines() if line.startswith("| `")]) == len(rows)
    assert all(cell.strip() and " | " not in cell for row in rows for cell in row)
    headings = {re.sub(r"[^\w-]", "", h) for h in re.findall("^## `(.+)`", page, re.MULTILINE)}
    assert set(re.findall(r"\(#([^)]+)\)", page)) == headings


@pytest.mark.parametrize(
    ("file", "form"), [(PAGE, "markdown"), (SCHEMA, "json-schema")], ids=["page", "schema"]
)
def test_what_is_committed_is_what_is_generated(
    file: Path, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["profile", "reference", "--format", form]) == 0
    written = file.read_text(encoding="utf-8")
    command = f"semroute profile reference --format {form} > {file.relative_to(ROOT)}"
    assert capsys.readouterr().out == written, f"run: {command}"


def test_the_schema_is_one() -> None:
    """It is a valid draft-07 schema, which is what editors know."""
    Draft7Validator.check_schema(json_schema())
    assert json_schema()["$schema"] == Draft7Validator.META_SCHEMA["$id"]


@pytest.mark.parametrize("file", sorted((ROOT / "profiles").glob("*.yaml")), ids=lambda f: f.stem)
def test_shipped_profiles_are_right_by_the_schema(file: Path) -> None:
    assert not list(VALIDATOR.iter_errors(read_yaml(file).data))


def judged(folder: Path, text: str) -> tuple[list[str], list[str]]:
    """What the loader and the JSON Schema have against a profile, at which key."""
    path = folder / "p.yaml"
    path.write_text(text, encoding="utf-8")
    told = [str(error.json_path) for error in VALIDATOR.iter_errors(read_yaml(path).data)]
    try:
        load_profile(path, environment={})
    except ConfigError as error:
        return [problem.key for problem in error.problems], told
    return [], told


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("", ""),
        ("cascade: off", "cascade: on"),
        ("cascade: off", 'cascade: "off"'),
        ("{model: bge-m3, fallback: bundled}", "/models/mine"),
        ("{model: bge-m3, fallback: bundled}", "{model: bge-m3}"),
        ("{low: [big], high: [sky, big]}", "{high: [big]}"),
        ("count: 2", "count: 2, memory_gb: 14.5"),
        ("id: big-1, ", ""),
        ("fallback_chain: [sky]", "fallback_chain: []"),
        ("max_retries: 2, ", ""),
        ("default_sensitivity: public", "default_sensitivity: null"),
        ("cost: {", "hardware: {rank: 0, required_cloud_apis: [any]}\ncost: {"),
    ],
)
def test_both_accept(tmp_path: Path, old: str, new: str) -> None:
    """What a person may write is right for the loader and for the editor."""
    assert old in GOOD
    assert judged(tmp_path, GOOD.replace(old, new, 1)) == ([], [])


@pytest.mark.parametrize(
    ("old", "new", "key", "place"),
    [
        ("cost:", "costs:", "costs", "$"),
        ("gpu: {type", "gpu: {typ: 1, type", "backends.gpu.gpu.typ", "$.backends.gpu.gpu"),
        (
            "{model: big,",
            "{modle: big, model: big,",
            "routes.biomedical.modle",
            "$.routes.biomedical",
        ),
        (
            "{model: bge-m3,",
            "{modell: x, model: bge-m3,",
            "classifier.encoder.modell",
            "$.classifier.encoder",
        ),
        ("name: p", "name: p\nversion: 1.0", "version", ""),
        ("[sky]\n", "sky\n", "fallback_chain", ""),
        ("8192", "8k", "models.big.context", ""),
        ("8192", "0", "models.big.context", ""),
        ("[tools]", "[fly]", "models.big.capabilities[0]", ""),
        ("input: 1, ", "", "models.sky.price.input", "$.models.sky.price"),
        ("input: 1", "input: -1", "models.sky.price.input", "$.models.sky.price"),
        ("cascade: off", "cascade: 7", "classifier.cascade", ""),
        ("bge-m3, fallback: bundled}", "[x]}", "classifier.encoder.model", "$.classifier.encoder"),
        ("temperature: 0", "temperature: 3", "routes.biomedical.temperature", ""),
        ("max_retries: 2", "max_retries: 11", "behavior.max_retries", ""),
        ("caching: false", "caching: true", "behavior.enable_caching", ""),
        ("allow_cloud: true", "allow_cloud: yeah", "governance.allow_cloud", ""),
        ("sensitivity: public", "sensitivity: secret", "governance.default_sensitivity", ""),
        ("provider: openai", "provider: opnai", "models.sky.provider", ""),
        ("provider: vllm", "provider: vlm", "backends.gpu.provider", ""),
        (
            "cost: {",
            "hardware: {required_cloud_apis: [vllm]}\ncost: {",
            "hardware.required_cloud_apis[0]",
            "",
        ),
        ("{backend: gpu", "{backend: gpu, provider: vllm", "models.big", ""),
        ("backend: gpu, ", "", "models.big", ""),
        ("{model: big,", "{model: big, tiers: {},", "routes.biomedical", ""),
        ("  default:", "  defaults:", "routes", ""),
        ("biomedical", "Bio-medical", "routes.Bio-medical", "$.routes"),
        ("biomedical", "none", "routes.none", "$.routes"),
    ],
)
def test_both_refuse(tmp_path: Path, old: str, new: str, key: str, place: str) -> None:
    """A mistake is found by the loader, and already by the editor, which may name the part that
    holds the key (``place``) in its stead."""
    assert old in GOOD
    problems, errors = judged(tmp_path, GOOD.replace(old, new, 1))
    assert key in problems
    assert (place or f"$.{key}") in errors


def rows_of(head: str) -> list[list[str]]:
    """The cells of the guide's table under ``head``, without the marks of code."""
    (table,) = re.findall(rf"^{re.escape(head)}\n.*\n((?:\|.*\n)+)", GUIDE, flags=re.MULTILINE)
    rows = [line.strip("|").replace("`", "").split("|") for line in table.splitlines()]
    return [[cell.strip() for cell in row] for row in rows]


def test_the_example_of_the_guide_loads(tmp_path: Path) -> None:
    """It is right as it stands, by the schema too, and its clinical data stays."""
    (text,) = re.findall(
        r"^```yaml\n(# yaml-language-server.*?)^```", GUIDE, re.MULTILINE | re.DOTALL
    )
    path = tmp_path / "lab.yaml"
    path.write_text(text, encoding="utf-8")
    profile = load_profile(path, load_utterances(ROOT / "utterances").tasks, environment={})
    assert profile.warnings == ()
    assert not list(VALIDATOR.iter_errors(read_yaml(path).data))
    assert not profile.route("biomedical").allow_cloud
    assert profile.route("code_generation").primaries(Tier.HIGH) == ("deepseek-v3", "qwen")
    assert profile.models["qwen"].backend.url == "http://gpu-01:8000/v1"


def test_the_rules_of_the_guide_are_all_there_are() -> None:
    """Its table names every rule of governance in the order in which they are asked."""
    names = [name for cells in rows_of("| rule | denies |") for name in cells[0].split(", ")]
    assert names == list(rules())


def test_the_tree_of_the_guide_is_the_shipped_one() -> None:
    """Its table names the shipped profiles in the order of choice."""
    shipped = load_profiles(ROOT / "profiles", environment={}).values()
    ranked = sorted((p.hardware.rank, p.name) for p in shipped if p.hardware.rank is not None)
    told = [(int(cells[0]), cells[1]) for cells in rows_of("| rank | profile | requires |")]
    assert told == ranked


def test_every_command_of_the_guide_is_one() -> None:
    """Each parses as written."""
    commands = {" ".join(text.split()) for text in re.findall(r"`(semroute [^`]+)`", GUIDE)}
    for command in commands:
        for words in command.partition(" > ")[0].split(" && "):
            if words.startswith("semroute "):
                assert parser().parse_args(shlex.split(words)[1:])
