"""Utterance files: what a team may write, what is refused, and what is only a warning."""

from __future__ import annotations

from pathlib import Path

import pytest

from semroute_classifier.documents import ConfigError
from semroute_classifier.utterances import (
    NONE,
    TASK_NAME,
    THIN,
    Tier,
    Utterance,
    UtteranceSet,
    load_utterances,
)

ROOT = Path(__file__).parents[1]
TEN = [f"sentence number {i}" for i in range(THIN)]


def load(folder: Path, **files: str) -> UtteranceSet:
    """The set of a folder that holds ``files`` by task."""
    for task, content in files.items():
        (folder / f"{task}.yaml").write_text(content, encoding="utf-8")
    return load_utterances(folder)


def test_shipped() -> None:
    """The shipped files load, each task is described, and no sentence stands in two tasks."""
    shipped = load_utterances(ROOT / "utterances")
    assert set(shipped.tasks) == set(shipped.descriptions)
    assert all(shipped.descriptions.values())
    assert all(TASK_NAME.fullmatch(task) for task in shipped.tasks)
    assert NONE in {utterance.task for utterance in shipped.utterances}
    assert NONE not in shipped.tasks
    assert shipped.warnings == ()


def test_tiers_and_one_list(tmp_path: Path) -> None:
    """A task has tiers or one list; texts are trimmed and come in a fixed order."""
    found = load(
        tmp_path,
        code="description: Write code.\nhigh: [' design it ']\nlow: [print, add]\n",
        bio="utterances: [what is a gene]\n",
    )
    assert found.utterances == (
        Utterance("what is a gene", "bio"),
        Utterance("print", "code", Tier.LOW),
        Utterance("add", "code", Tier.LOW),
        Utterance("design it", "code", Tier.HIGH),
    )
    assert found.tasks == ("bio", "code")
    assert found.descriptions == {"bio": "", "code": "Write code."}
    assert Tier.LOW.word == "low"


def test_a_task_may_ask_for_confidence(tmp_path: Path) -> None:
    """The least confidence of a task is read from its file; a task that sets none has none."""
    found = load(
        tmp_path,
        code="min_confidence: 0.75\nlow: [print]\n",
        safety="min_confidence: 1\nutterances: [is this safe]\n",
        bio="utterances: [what is a gene]\n",
    )
    assert found.min_confidence == {"code": 0.75, "safety": 1.0}


def test_out_of_scope_examples_are_no_task(tmp_path: Path) -> None:
    """``none`` adds its sentences and is never among the tasks."""
    found = load(tmp_path, none="utterances: [tell me a joke]\n", code="low: [print]\n")
    assert found.tasks == ("code",)
    assert "none" not in found.descriptions
    assert Utterance("tell me a joke", NONE) in found.utterances


@pytest.mark.parametrize(
    ("task", "content", "line", "says"),
    [
        ("code", "low: [a]\nlwo: [b]\n", 2, 'lwo: unknown key; did you mean "low"?'),
        ("code", "low: a\n", 1, "low: must be a list, not 'a'"),
        ("code", "low:\n  - a\n  - 42\n", 3, "low[1]: must be text, not 42; put it in quotes"),
        ("code", "low:\n  - a\n  - no\n", 3, "low[1]: must be text, not False"),
        ("code", "low:\n  - a\n  - ' '\n", 3, "low[1]: is empty"),
        ("code", "low: [a]\nutterances: [b]\n", 2, "utterances: a task has tiers or one list"),
        ("code", "description: Nothing.\n", 1, "holds no utterance"),
        ("code", "low: []\n", 1, "holds no utterance"),
        ("code", "low: [a]\nmin_confidence: 1.5\n", 2, "min_confidence: "),
        ("code", "low: [a]\nmin_confidence: -0.1\n", 2, "min_confidence: "),
        ("code", "low: [a]\nmin_confidence: high\n", 2, "min_confidence: "),
        ("none", "utterances: [a]\nmin_confidence: 0.5\n", 2, "min_confidence: none is no task"),
        ("none", "low: [a]\n", 1, "none has no tiers; use one list: utterances"),
        ("default", "low: [a]\n", 1, '"default" is reserved'),
        ("Code", "low: [a]\n", 1, '"Code" is no task name; use lower-case letters'),
        ("code-review", "low: [a]\n", 1, '"code-review" is no task name'),
        ("2nd", "low: [a]\n", 1, '"2nd" is no task name'),
    ],
)
def test_refused(tmp_path: Path, task: str, content: str, line: int, says: str) -> None:
    """A wrong file is refused with its line, its key and what would be right."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, other="low: [fine]\n", **{task: content})
    (problem,) = caught.value.problems
    assert str(problem).startswith(f"{tmp_path / task}.yaml:{line}: {says}")


def test_every_file_is_told(tmp_path: Path) -> None:
    """Problems of several files come together."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, a="low: b\n", b="low: [x]\nhihg: []\n", c="low: ['']\n")
    assert [Path(problem.file).stem for problem in caught.value.problems] == ["a", "b", "c"]


def test_nothing_to_learn_from(tmp_path: Path) -> None:
    """An empty folder, and one that holds nothing but ``none``, are refused."""
    with pytest.raises(ConfigError, match="holds no utterance file"):
        load(tmp_path)
    with pytest.raises(ConfigError, match="holds no task beside none"):
        load(tmp_path, none="utterances: [tell me a joke]\n")


def test_thin_tasks_are_a_warning(tmp_path: Path) -> None:
    """One task with three sentences is a legal set, with a warning; ten give none."""
    assert load(tmp_path, code=f"low: {TEN}\n").warnings == ()
    (warning,) = load(tmp_path, code="low: [a, b, c]\n").warnings
    assert "code has only 3 utterances" in warning


def test_a_sentence_in_two_tasks_is_a_warning(tmp_path: Path) -> None:
    """The same sentence in two tasks is told, whatever its capitals."""
    more = [text.upper() for text in TEN[:1]] + [f"another {i}" for i in range(THIN)]
    (warning,) = load(tmp_path, a=f"low: {TEN}\n", b=f"utterances: {more}\n").warnings
    assert warning == '"SENTENCE NUMBER 0" stands in a and in b'


def test_revision_names_the_content(tmp_path: Path) -> None:
    """The revision changes with a text, a tier or a task, and not with a description."""
    base = load(tmp_path, code="low: [a, b]\n").revision
    assert load(tmp_path, code="description: Code.\nlow: [a, b]\n").revision == base
    changed = [
        load(tmp_path, code="low: [a, c]\n").revision,
        load(tmp_path, code="low: [a]\nhigh: [b]\n").revision,
        load(tmp_path, code="low: [a, b]\n", more="low: [c]\n").revision,
    ]
    assert len({base, *changed}) == 4
