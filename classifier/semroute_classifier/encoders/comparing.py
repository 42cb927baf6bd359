"""How like its original an engine is, and on what sentences it is compared and timed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from semroute_classifier.encoders.engine import LEAST_ALIKE, PROBE
from semroute_classifier.encoders.sentence_transformer import MIDDLE

if TYPE_CHECKING:
    from semroute_classifier.encoders.base import Encoder, States
    from semroute_classifier.encoders.engine import Precision

Figures: TypeAlias = dict[str, float]

_LEAST_MEAN = 0.99


def one_by_one(encoder: Encoder) -> States:
    """The states of the sentences, each in a pass of its own."""
    return np.concatenate([encoder.encode([text]) for text in SENTENCES])


def alikeness(states: States, expected: States, encoder: Encoder) -> Figures:
    """The cosines of ``states`` to the original's: of the vectors, and of each block of states."""
    vectors = _cosines(states[:, -encoder.dimension :], expected[:, -encoder.dimension :])
    count = (encoder.width - encoder.dimension) // len(MIDDLE)
    blocks = [
        _cosines(states[:, i * count : (i + 1) * count], expected[:, i * count : (i + 1) * count])
        for i in range(len(MIDDLE) if count else 0)
    ]
    every = np.concatenate([vectors, *blocks])
    return {
        "vector_mean": round(float(vectors.mean()), 6),
        "vector_min": round(float(vectors.min()), 6),
        "blocks_mean": round(float(every.mean()), 6),
        "blocks_min": round(float(every.min()), 6),
    }


def is_alike(precision: Precision, figures: Figures) -> bool:
    """Whether an engine of ``precision`` may stand for the original; not where a figure is NaN."""
    if precision == "float32":
        return figures["blocks_min"] >= LEAST_ALIKE[precision]
    return figures["vector_mean"] >= _LEAST_MEAN and figures["vector_min"] >= LEAST_ALIKE[precision]


def _cosines(one: States, other: States) -> Any:
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return (one * other).sum(axis=1) / lengths


SENTENCES = (
    "Write a function that merges two sorted lists.",
    "hi",
    PROBE,
    "Traceback (most recent call last):\n  File 'run.py', line 3, in main\nKeyError: 'sample'",
    "Which of these variants is likely to be pathogenic, given the family's history of arrhythmia?",
    "SELECT name, count(*) FROM visits GROUP BY name HAVING count(*) > 3;",
    "Könntest du mir bitte die Ergebnisse der letzten drei Läufe zusammenfassen?",
    "¿Qué prueba estadística conviene para dos grupos pequeños sin normalidad?",
    "Rédige une notice d'installation pour un débutant.",
    "帮我把这段代码改成异步的",
    "PLEASE CHECK THIS TEXT FOR NAMES AND PHONE NUMBERS BEFORE WE PUBLISH IT",
    "The committee postponed its vote until Tuesday, which nobody had expected, least of all the "
    "chair, who had already drafted the announcement and sent it to the printers.",
    '{"sample": "A17", "reads": 18234511, "q30": 0.93}',
    "What is the weather like in Lisbon tomorrow?",
    "Plan the migration: first the schema, then the back-fill, then the switch, with a way back.",
    "p = 0.049, n = 12: should I believe it?",
    # As long as most windows: what a mask leaves out shows only in a long text.
    "Step one: trim the reads, align them, mark duplicates, call variants and write a table. " * 40,
)
"""What an engine is verified on."""
SHORT = tuple(text for text in SENTENCES if len(text) < 60)
"""What engines are timed on: about 12 tokens each."""
MEDIUM = tuple(f"{one} {other}" for one in SENTENCES[2:5] for other in SENTENCES[10:13])
"""The same of about 50."""
