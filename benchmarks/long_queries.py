"""How much of a long query should be read, and should its reading end with a line?

    python benchmarks/long_queries.py [--encoder bundled] [--sample 200]

Half of the shipped utterances are learned from; of the other half some are asked in the company of
pasted text: logs, code, a table, a mail thread, prose. The request stands before it, behind it, on
both sides of it, or between two pieces of it. The figure is how often the best task is the
utterance's own, by the tokens read at most and the tokens after which a line's end is the reading's
(0: never). Writes benchmarks/results/long_queries.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from semroute_classifier import reading
from semroute_classifier.classifier import Classifier
from semroute_classifier.encoders import load_encoder
from semroute_classifier.reading import Reader
from semroute_classifier.utterances import NONE, UtteranceSet, load_utterances
from semroute_service.settings import default_home

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from semroute_classifier.encoders import Encoder
    from semroute_classifier.utterances import Utterance

ROOT = Path(__file__).parents[1]
TOKENS = (64, 128, 256)
ENOUGH = (0, 1, 6, 16)


def log(rng: random.Random, size: int) -> str:
    """Lines of a service's log."""
    verbs = ("started", "finished", "retried", "dropped", "accepted", "flushed", "timed out on")
    lines = []
    for n in range(size // 60):
        level = rng.choice(("INFO", "INFO", "INFO", "WARN", "ERROR", "DEBUG"))
        lines.append(
            f"2024-03-{1 + n % 28:02} 12:{rng.randrange(60):02}:{rng.randrange(60):02} {level} "
            f"worker-{rng.randrange(16)} {rng.choice(verbs)} batch {rng.randrange(9000)} "
            f"in {rng.randrange(900)} ms"
        )
    return "\n".join(lines)


def code(rng: random.Random, size: int) -> str:
    """Functions of a small program."""
    nouns = ("order", "sample", "parcel", "ticket", "reading", "account", "sensor", "booking")
    parts = []
    for n in range(size // 190):
        noun, other = rng.sample(nouns, 2)
        parts.append(
            f"def update_{noun}_{n}(self, {noun}, limit={rng.randrange(100)}):\n"
            f"    if {noun}.{other}_id is None:\n        raise ValueError('no {other}')\n"
            f"    for item in {noun}.items[:limit]:\n        self.{other}s.append(item.copy())\n"
            f"    return len(self.{other}s)\n"
        )
    return "\n".join(parts)


def table(rng: random.Random, size: int) -> str:
    """Rows of comma-separated values."""
    names = ("north", "south", "east", "west", "central")
    rows = (
        f"{n},{rng.choice(names)},2024-{rng.randrange(1, 13):02}-{rng.randrange(1, 29):02},"
        f"{rng.randrange(500)},{rng.random() * 90:.2f},{rng.choice(('yes', 'no'))}"
        for n in range(size // 36)
    )
    return "id,region,date,units,price,returned\n" + "\n".join(rows)


def mail(rng: random.Random, size: int) -> str:
    """A thread of short mails."""
    people = ("Maria", "Jens", "Aiko", "Paul", "Olu", "Sofia")
    bodies = (
        "the room is booked from ten to twelve, and the projector has been repaired.",
        "I have moved our lunch to Thursday because the caterer could not come on Wednesday.",
        "the keys are with the porter, who is there until six. Bring your badge.",
        "we are three people short for the summer party; whoever has time is welcome.",
        "the new chairs arrived this morning. Two of them are damaged and go back.",
    )
    mails = []
    for _ in range(size // 150):
        writer, reader = rng.sample(people, 2)
        mails.append(f"> On Monday {writer} wrote:\n> Dear {reader},\n> {rng.choice(bodies)}\n>")
    return "\n".join(mails)


def prose(rng: random.Random, size: int) -> str:
    """Sentences of a story."""
    sentences = (
        "The harbour lay quiet under a sky of dull silver.",
        "Nobody had painted the boats since the old man left for the islands.",
        "A dog slept in the shade of the customs house, and two children counted gulls.",
        "In the evening the ferry came in late, as it did whenever the wind turned.",
        "She carried the basket up the steps and sat down to rest at the chapel.",
        "The baker's lamp was the only light in the street until five.",
    )
    return " ".join(rng.choice(sentences) for _ in range(size // 62))


FILLERS: dict[str, Callable[[random.Random, int], str]] = {
    "log": log, "code": code, "table": table, "mail": mail, "prose": prose,
}  # fmt: skip
PLACES: dict[str, Callable[[str, str, str], str]] = {
    "before": lambda request, filler, gap: f"{request}{gap}{filler}",
    "behind": lambda request, filler, gap: f"{filler}{gap}{request}",
    "both": lambda request, filler, gap: f"{request}{gap}{filler}{gap}{request}",
    "between": lambda request, filler, gap: (
        f"{filler[: len(filler) // 2]}{gap}{request}{gap}{filler[len(filler) // 2 :]}"
    ),
}
GAPS = ("\n\n", "\n")


def halves(utterances: UtteranceSet) -> tuple[UtteranceSet, list[Utterance]]:
    """Every second utterance to learn from, the others in scope to ask."""
    every = utterances.utterances
    return UtteranceSet(every[::2]), [u for u in every[1::2] if u.task != NONE]


def accuracy(
    classifier: Classifier, encoder: Encoder, asked: Sequence[Utterance], place: str
) -> float:
    """The share of ``asked`` whose best task stays right in pasted company at ``place``."""
    rng, reader = random.Random(place), Reader(encoder)
    fillers = list(FILLERS.values())
    texts = []
    for number, utterance in enumerate(asked):
        filler = fillers[number % len(fillers)](rng, rng.choice((2_000, 6_000, 20_000)))
        texts.append(reader.read(PLACES[place](utterance.text, filler, rng.choice(GAPS))).text)
    said = [v.best_task for text in texts for v in classifier.classify([text])]
    return float(np.mean([s == u.task for s, u in zip(said, asked, strict=True)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", default="bundled")
    parser.add_argument("--sample", type=int, default=200, help="utterances asked")
    options = parser.parse_args()
    encoder = load_encoder(options.encoder, default_home())
    learned, rest = halves(load_utterances(ROOT / "utterances"))
    asked = random.Random(0).sample(rest, options.sample)
    classifier = Classifier.build(learned, encoder, default_home())
    bare = [v.best_task for u in asked for v in classifier.classify([u.text])]
    right = float(np.mean([s == u.task for s, u in zip(bare, asked, strict=True)]))
    print(f"bare {right:.1%}")
    print("tokens enough " + " ".join(f"{place:>8}" for place in PLACES))
    rows = []
    for tokens, enough in itertools.product(TOKENS, ENOUGH):
        reading.MOST_TOKENS, reading.ENOUGH = tokens, enough or tokens
        found = {place: accuracy(classifier, encoder, asked, place) for place in PLACES}
        rows.append({"tokens": tokens, "enough": enough, **found})
        cells = " ".join(f"{value:>8.1%}" for value in found.values())
        print(f"{tokens:>6} {enough:>6} {cells}", flush=True)
    out = ROOT / "benchmarks/results/long_queries.json"
    out.write_text(json.dumps({"bare": right, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
