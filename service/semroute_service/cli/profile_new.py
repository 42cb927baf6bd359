"""``profile new``: a profile of one's own from a few answers."""

from __future__ import annotations

import asyncio
import math
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from semroute_classifier.documents import ConfigError, suggest, yaml_files
from semroute_service.cli import output
from semroute_service.cli.files import folder, starter
from semroute_service.cli.profile_text import Answers, CloudModel, LocalServer, text_of
from semroute_service.detection.probing import probe_backends
from semroute_service.profile import load_profile, load_profiles, load_providers
from semroute_service.profile.addresses import completed, fault_of
from semroute_service.query import Capability

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from semroute_service.profile import Model, Profile, Provider

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_QUESTIONS = (
    *("name", "local", "url", "models", "cloud", "cloud_model", "cloud_price"),
    *("stay", "reason", "monthly_limit"),
)
"""The options that answer a question."""
_NONE = "none"
_LIST_SECONDS = 2.0
_USUAL_URL = "http://127.0.0.1:8000/v1"
_USUALLY_STAY = ("biomedical", "safety")
_USUAL_REASON = "May hold personal or clinical data"
_Value = TypeVar("_Value")


class WrongAnswerError(Exception):
    """An option, or the lack of one, makes no profile."""


def new(options: argparse.Namespace) -> int:
    """Ask, check, and only then write."""
    place = Path(options.profiles or "profiles").expanduser()
    tasks = folder("utterances", options.utterances)
    try:
        known = [path.stem for path in yaml_files(tasks, "utterances (<task>.yaml)")]
        answers = _Interview(options, place, sorted({*known} - {_NONE})).answers()
        text = text_of(answers)
        warnings = _loaded(answers.name, text, known).warnings
        file = place / f"{answers.name}.yaml"
        place.mkdir(parents=True, exist_ok=True)
        with file.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except EOFError:
        return output.fail("the questions were not all answered; nothing was written")
    except WrongAnswerError as error:
        return output.fail(f"{error}; nothing was written", status=2)
    except ConfigError as error:
        return output.fail(f"nothing was written:\n{error}")
    except OSError as error:
        return output.fail(f"{error.filename or place}: {error.strerror}")
    if options.json:
        output.print_json({"made": str(file), "warnings": list(warnings)})
        return 0
    for warning in warnings:
        print(f"warning: {warning}")
    print(f"made {file}; next: semroute serve --profile {answers.name}")
    return 0


def _loaded(name: str, text: str, tasks: Sequence[str] | None = None) -> Profile:
    """The profile, as a server would read it; raises ``ConfigError`` where it would refuse it."""
    with tempfile.TemporaryDirectory(prefix="semroute-") as trial:
        file = Path(trial) / f"{name}.yaml"
        file.write_text(text, encoding="utf-8")
        return load_profile(file, tasks)


class _Interview:
    """The questions in their order. An answer comes from its option, else from a person where
    there is a terminal, else it is the default."""

    def __init__(self, options: argparse.Namespace, place: Path, tasks: Sequence[str]) -> None:
        self._options = options
        self._place = place
        self._tasks = tasks
        self._asks = output.on_terminal() and not options.json
        self._asked: set[str] = set()

    def answers(self) -> Answers:
        """All of them; raises ``WrongAnswerError``, and ``EOFError`` where the person goes away."""
        name = self._ask("name", "what shall it be called", None, self._name)
        local = self._local()
        cloud = self._cloud()
        if local is None and cloud is None:
            raise WrongAnswerError("nothing could answer: give --local, --cloud or both")
        stay: tuple[str, ...] = ()
        reason, limit = "", None
        if cloud and (local or self._options.stay is not None):
            usual = [task for task in _USUALLY_STAY if task in self._tasks]
            question = "which tasks' data must not leave the building"
            read = self._stay_reader(is_local=local is not None)
            stay = self._ask("stay", question, ",".join(usual) or _NONE, read)
        if stay:
            reason = self._ask("reason", "why must it stay", _USUAL_REASON, _some)
        if cloud:
            question = "how many USD may it cost in a month"
            limit = self._ask("monthly_limit", question, _NONE, _limit_reader(cloud))
        for option in _QUESTIONS:
            if option not in self._asked and getattr(self._options, option) is not None:
                raise WrongAnswerError(f"{_flag(option)} is of no use with the other answers")
        rank = self._options.rank
        return Answers(
            name=name,
            local=local,
            cloud=cloud,
            stay=stay,
            reason=reason,
            monthly_limit=limit,
            rank=rank,
        )

    def _local(self) -> LocalServer | None:
        kinds = [n for n, p in load_providers().items() if p.local and p.protocol != "echo"]
        question = f"is there a local model server ({', '.join(kinds)} or none)"
        has_more = self._options.url is not None or self._options.models is not None
        kind = self._ask("local", question, "vllm" if has_more else _NONE, _choice_reader(kinds))
        if kind is None:
            return None
        provider = load_providers()[kind]
        usual = provider.url or _USUAL_URL
        url = self._ask("url", "where does it answer", usual, _url_reader(provider, usual))
        listed = self._listed(kind, url) if self._options.models is None else ()
        question = "which of its models, the smallest first"
        default = "all" if listed else None
        ids = self._ask("models", question, default, _ids_reader(listed))
        return LocalServer(provider=kind, url=url, ids=ids)

    def _listed(self, kind: str, url: str) -> tuple[str, ...]:
        """What the server lists now, told to the person who is to choose."""
        local = LocalServer(provider=kind, url=url, ids=("",))
        profile = _loaded("trial", text_of(Answers(name="trial", local=local)))
        (probe,) = asyncio.run(probe_backends([profile], _LIST_SECONDS))
        if self._asks:
            if not probe.models:
                print(f"  it {probe.problem or 'lists no model'} now; name its models anyway")
            for number, model in enumerate(probe.models, 1):
                print(f"  {number}  {model}")
        return probe.models

    def _cloud(self) -> CloudModel | None:
        clouds = [name for name, provider in load_providers().items() if not provider.local]
        question = f"who may answer outside the building ({', '.join(clouds)} or none)"
        provider = self._ask("cloud", question, _NONE, _choice_reader(clouds))
        if provider is None:
            return None
        known = _shipped_model(provider)
        question = f"which model of {provider}"
        id = self._ask("cloud_model", question, known.id if known else None, _some)
        if known and known.id != id:
            known = None
        price = _NONE
        if known and known.price:
            price = f"{known.price.input / 1e9:g},{known.price.output / 1e9:g}"
        question = "its price in USD per million tokens, sent and answered"
        return CloudModel(
            provider=provider,
            id=id,
            price=self._ask("cloud_price", question, price, _price),
            context=known.context if known else None,
            capabilities=_written_capabilities(known),
        )

    def _ask(
        self, option: str, question: str, default: str | None, read: Callable[[str], _Value]
    ) -> _Value:
        """What ``read`` makes of the answer; its ``ValueError`` says what would be right."""
        self._asked.add(option)
        given: str | None = getattr(self._options, option)
        if given is None and self._asks:
            prompt = f"{question}{f' [{default}]' if default else ''}: "
            while True:
                try:
                    return read(_printable(input(prompt).strip() or default or ""))
                except ValueError as error:
                    print(f"  {error}")
        answer = default if given is None else given
        if answer is None:
            raise WrongAnswerError(f"give {_flag(option)}: {question}")
        try:
            return read(_printable(answer.strip()))
        except ValueError as error:
            raise WrongAnswerError(f"{_flag(option)}: {error}") from None

    def _name(self, answer: str) -> str:
        if not _NAME.fullmatch(answer):
            raise ValueError("must be letters, digits, - and _, such as lab")
        for file in (self._place / f"{answer}.yaml", self._place / f"{answer}.yml"):
            if file.exists():
                raise ValueError(f"{file} is there already; choose another name")
        return answer

    def _stay_reader(self, *, is_local: bool) -> Callable[[str], tuple[str, ...]]:
        def read(answer: str) -> tuple[str, ...]:
            tasks = () if answer == _NONE else _split(answer)
            for task in tasks:
                if task not in self._tasks:
                    raise ValueError(f'there is no task "{task}"{suggest(task, self._tasks)}')
            if tasks and not is_local:
                raise ValueError("nothing in the building could answer; say none, or give --local")
            return tasks

        return read


def _shipped_model(provider: str) -> Model | None:
    """What the starter profiles know of a provider: a model with its price and capabilities."""
    try:
        profiles = load_profiles(starter("profiles")).values()
    except ConfigError:  # an address in the environment may be wrong; it is no help then
        return None
    models = [model for profile in profiles for model in profile.models.values()]
    return next((model for model in models if model.backend.provider.id == provider), None)


def _written_capabilities(model: Model | None) -> tuple[str, ...]:
    """Those of a model that its provider does not have anyway."""
    if model is None:
        return ()
    return tuple(
        sorted(model.capabilities - model.backend.provider.capabilities - {Capability.CHAT})
    )


def _choice_reader(names: Sequence[str]) -> Callable[[str], str | None]:
    def read(answer: str) -> str | None:
        if answer != _NONE and answer not in names:
            raise ValueError(f"must be {', '.join(names)} or none")
        return None if answer == _NONE else answer

    return read


def _url_reader(provider: Provider, usual: str) -> Callable[[str], str]:
    def read(answer: str) -> str:
        if fault := fault_of(answer if "://" in answer else f"http://{answer}", provider):
            raise ValueError(fault)
        return completed(answer, usual)

    return read


def _ids_reader(listed: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    """Ids, numbers of the list, or all of it."""

    def read(answer: str) -> tuple[str, ...]:
        if answer == "all" and listed:
            return tuple(listed)
        numbers = {str(number): model for number, model in enumerate(listed, 1)}
        return tuple(numbers.get(word, word) for word in _split(answer))

    return read


def _price(answer: str) -> tuple[float, float] | None:
    if answer == _NONE:
        return None
    try:
        sent, answered = map(_usd, answer.split(","))
    except ValueError:
        raise ValueError("must be two numbers, such as 0.14,0.28, or none") from None
    return sent, answered


def _limit_reader(cloud: CloudModel) -> Callable[[str], float | None]:
    def read(answer: str) -> float | None:
        if answer == _NONE:
            return None
        if cloud.price is None:
            raise ValueError(f"the price of {cloud.id} is not known, so its cost cannot be limited")
        return _usd(answer)

    return read


def _usd(answer: str) -> float:
    try:
        number = float(answer)
    except ValueError:
        number = -1.0
    if not 0 <= number < math.inf:
        raise ValueError("must be a number of USD, such as 50, or none")
    return number


def _some(answer: str) -> str:
    if not answer:
        raise ValueError("must not be empty")
    return answer


def _split(answer: str) -> tuple[str, ...]:
    words = tuple(dict.fromkeys(word.strip() for word in _some(answer).split(",")))
    if not all(words):
        raise ValueError("must be names with commas between them")
    return words


def _printable(answer: str) -> str:
    if not answer.isprintable():
        raise ValueError("must be plain text in one line")
    return answer


def _flag(option: str) -> str:
    return "NAME" if option == "name" else f"--{option.replace('_', '-')}"
