"""How often does a verdict change when only the wording's surface does?

    python benchmarks/robustness.py [--encoder bundled] [--queries Q.jsonl]

Each query of the validation and held-out sets is asked as it is and perturbed: by case,
punctuation, typos, politeness, padding, wrapping, a signature. A flip is another task, or a verdict
that goes from matched to defaulted or back. Labels are not used, and the seed is fixed. Prints the
share of flips with its 95 % interval and writes benchmarks/results/robustness.json.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import string
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semroute_classifier.classifier import Classifier
from semroute_classifier.encoders import load_encoder
from semroute_classifier.evaluation import load_examples
from semroute_classifier.utterances import load_utterances
from semroute_service.settings import default_home

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Perturbation = Callable[[str, random.Random], str]

ROOT = Path(__file__).parents[1]
SETS = (ROOT / "tests/data/validation.jsonl", ROOT / "tests/data/heldout.jsonl")
TYPO_TARGET, TARGET = 0.05, 0.02
_BATCH = 32
# Marks at the ends of words, as a hurried writer omits them; those within, as in 2.5, stay.
_SENTENCE_MARKS = re.compile(r"[.,;:!?…\"'()]+(?=\s|$)|(?<!\S)[\"'(]+")
_ALL_MARKS = str.maketrans("", "", string.punctuation)

OPENINGS = (
    "Hi, could you please help me with this? ",
    "Hello team, I hope you are well. ",
    "Good morning! Sorry to bother you. ",
    "Hey there, quick question: ",
    "Dear assistant, I would be very grateful for your help. ",
    "Please ",
    "Hallo zusammen, ich hoffe, es geht euch gut. ",
    "Bonjour, j'espère que vous allez bien. ",
)
ENDINGS = (
    " Thanks!",
    " Thank you so much in advance.",
    " Many thanks, and have a great day!",
    " please",
    " I appreciate your help.",
    " Vielen Dank im Voraus!",
    " Merci beaucoup !",
)
SIGNATURES = (
    "\n\nBest regards,\nAnna Schmidt",
    "\n\n-- \nDr. J. Okafor\nSenior Scientist | Building 4, Room 210\n+44 20 5550 1234",
    "\n\nCheers,\nTom\n\nSent from my phone",
    "\n\nMit freundlichen Grüßen\nPetra Weiß",
)
# Courtesies in words that reading's list does not hold: a list cures only what it knows.
UNFAMILIAR_OPENINGS = (
    "Top of the morning to you all! ",
    "Evening, hope the conference was a success. ",
    "I'm really stuck on this and my boss is getting nervous. ",
    "Terve, ",
    "Good to meet you. My name is Lena. ",
    "Apologies if this has been asked before. ",
    "As discussed on the phone, ",
    "I'd love it if you could do the following for me: ",
    "新年快乐！",
    "Bună ziua, ",
    "Namaste, ",
)
UNFAMILIAR_ENDINGS = (
    " Much obliged!",
    " You're a lifesaver.",
    " Let me know if anything is unclear.",
    " No rush at all.",
    " Kiitos!",
    " Have a lovely weekend, everyone.",
    " This is for my boss, so it matters.",
    " Hope that makes sense.",
)
UNFAMILIAR_SIGNATURES = (
    "\n\nAll the best,\nDr. Ingrid Sørensen\nDepartment of Physics",
    "\n\nTake care\nMo",
    "\n\nMed venlig hilsen\nKaren Holm",
    "\n\nWith gratitude,\nSister Agnes\nSt. Mary's Hospital, Ward 3",
    "\n\nDistinti saluti\nGiulia Rossi",
)
WRAPS = (
    ("> ", ""),
    ('"', '"'),
    ("**", "**"),
    ("```\n", "\n```"),
    ("# ", ""),
    ("- ", ""),
    ("“", "”"),
)
PADS = ("\n", "   ", "\n\n\n", "\t \n", "\u200b", "\u00a0 ", " " * 400)


def typos(count: int) -> Perturbation:
    """``count`` words of four letters or more each get a swap, a dropped or a doubled letter."""

    def perturb(text: str, rng: random.Random) -> str:
        words = [m.span() for m in re.finditer(r"[^\W\d_]{4,}", text)]
        for start, end in sorted(rng.sample(words, min(count, len(words))), reverse=True):
            text = text[:start] + _mistyped(text[start:end], rng) + text[end:]
        return text

    return perturb


def _mistyped(word: str, rng: random.Random) -> str:
    at = rng.randrange(len(word) - 1)
    kind = rng.choice(("swap", "drop", "double"))
    if kind == "swap":
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    return word[:at] + word[at + 1 :] if kind == "drop" else word[: at + 1] + word[at:]


def wrapped(text: str, rng: random.Random) -> str:
    before, after = rng.choice(WRAPS)
    return before + text + after


def padded(text: str, rng: random.Random) -> str:
    return rng.choice(PADS) + text + rng.choice(PADS)


PERTURBATIONS: dict[str, Perturbation] = {
    "upper case": lambda text, _: text.upper(),
    "lower case": lambda text, _: text.lower(),
    "no sentence marks": lambda text, _: _SENTENCE_MARKS.sub("", text),
    "no punctuation at all": lambda text, _: text.translate(_ALL_MARKS),
    "punctuation at the end": lambda text, rng: text + rng.choice(("?", "!", "...", "!!!", "??")),
    "one typo": typos(1),
    "two typos": typos(2),
    "polite opening": lambda text, rng: rng.choice(OPENINGS) + text,
    "polite ending": lambda text, rng: text + rng.choice(ENDINGS),
    "padding": padded,
    "wrapping": wrapped,
    "signature": lambda text, rng: text + rng.choice(SIGNATURES),
    "unfamiliar opening": lambda text, rng: rng.choice(UNFAMILIAR_OPENINGS) + text,
    "unfamiliar ending": lambda text, rng: text + rng.choice(UNFAMILIAR_ENDINGS),
    "unfamiliar signature": lambda text, rng: text + rng.choice(UNFAMILIAR_SIGNATURES),
}


def verdicts(classifier: Classifier, texts: Sequence[str]) -> list[str | None]:
    """The task of each of ``texts``, None where it was defaulted."""
    said: list[str | None] = []
    for start in range(0, len(texts), _BATCH):
        said += [v.task for v in classifier.classify(texts[start : start + _BATCH])]
    return said


def compare(before: Sequence[str | None], after: Sequence[str | None]) -> dict[str, Any]:
    """How many verdicts flipped, of these between tasks and by abstention, with the interval."""
    pairs = list(zip(before, after, strict=True))
    flips = sum(old != new for old, new in pairs)
    between = sum(None not in (old, new) and old != new for old, new in pairs)
    low, high = interval(flips, len(pairs))
    return {
        "n": len(pairs),
        "flips": flips,
        "task": between,
        "matched": flips - between,
        "rate": round(flips / len(pairs), 4),
        "low": round(low, 4),
        "high": round(high, 4),
    }


def interval(hits: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    z, share = 1.96, hits / n
    middle = share + z * z / (2 * n)
    reach = z * sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return (middle - reach) / (1 + z * z / n), (middle + reach) / (1 + z * z / n)


def measure(classifier: Classifier, queries: Sequence[str]) -> dict[str, dict[str, Any]]:
    before = verdicts(classifier, queries)
    figures = {}
    for name, perturb in PERTURBATIONS.items():
        rng = random.Random(name)
        after = verdicts(classifier, [perturb(query, rng) for query in queries])
        figures[name] = compare(before, after)
    return figures


def table(figures: dict[str, dict[str, Any]]) -> str:
    lines = [f"{'':<24} {'flips':>8} {'95 % interval':>15} {'task':>6} {'matched':>8}  target"]
    for name, f in figures.items():
        target = TYPO_TARGET if "typo" in name else TARGET
        span = f"{f['low']:.1%} - {f['high']:.1%}"
        met = "met" if f["rate"] < target else "missed"
        lines.append(
            f"{name:<24} {f['rate']:>8.1%} {span:>15} {f['task']:>6} {f['matched']:>8}  "
            f"under {target:.0%}: {met}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", default="bundled")
    parser.add_argument("--queries", type=Path, action="append", help="may be given several times")
    options = parser.parse_args()
    home = default_home()
    encoder = load_encoder(options.encoder, home)
    classifier = Classifier.build(load_utterances(ROOT / "utterances"), encoder, home)
    paths = options.queries or SETS
    queries = list(dict.fromkeys(e.query for path in paths for e in load_examples(path)))
    figures = measure(classifier, queries)
    print(table(figures))
    out = ROOT / "benchmarks/results/robustness.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps({"encoder": encoder.name, "perturbations": figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
