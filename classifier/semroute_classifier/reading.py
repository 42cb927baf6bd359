"""What is looked at instead of the raw text: cleaned, and of a length that the encoder reads whole.

A router must bear whatever is pasted into it. A text is freed of what does not show, of what says
nothing twice, and of greetings, thanks and signatures around the request, so that texts which ask
the same are read the same. A long one is read at its head and its tail, because a request stands
before or behind what is pasted, and no further than a line or two, because what is pasted drowns
it. Every step is linear in the text, and only stripping it and taking its two ends see more than
``MOST_CHARACTERS``.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from semroute_classifier.encoders import Encoder

MOST_CHARACTERS = 16_384
"""Characters of a text that are looked at; what lies between its two ends costs nothing."""
MOST_TOKENS = 128
"""Tokens that are read even where the encoder's window is larger: benchmarks/long_queries.py."""
ENOUGH = 6
"""Tokens at either end of a long text behind which its reading ends with a line."""
NOTHING = "."
"""What is read where there is nothing to read; an encoder is never given an empty text."""

_SPECIAL_TOKENS = 2
_JOINTS = 6
"""Tokens kept free, because a word that is cut may become other tokens than it was part of."""
_WORD = 32
"""Characters that a cut may move to reach the end of a word."""

# Controls, soft hyphens, marks of direction, byte-order marks, halves of surrogate pairs; joiners
# only behind Latin letters, because emoji, Persian and Indic scripts are written with them.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e"
    "\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]+|(?<=[!-\u024f])[\u200c\u200d]+"
)
_REPEATED = re.compile(r"(\S)\1{8,}")
_BLOB = re.compile(r"(?<![A-Za-z0-9+/=_-])([A-Za-z0-9+/=_-]{32})[A-Za-z0-9+/=_-]{33,}+")
_SIGNS = re.compile(r"([^\w\s]{64})[^\w\s]++")
_WRAPPING = " \n\"'`*_~#>|=“”„«»‹›‘’"

_MARKS = ".,;:!?…。，！？：；"
_OPENING = re.compile(rf"[^{_MARKS}\n]{{1,120}}[{_MARKS}\n]+\s*")
_ENDING = re.compile(rf"[^{_MARKS}\n]+[{_MARKS}\n]*\s*")
_WORDS = re.compile(r"\w+")
_SENTENCES = re.compile(rf"[\w\s'’¡¿–—{_MARKS}-]*")
_FIRST_WORDS = re.compile(
    r"(?:(?:please|pls|plz|kindly|hi|hello|hey|bitte|hallo|bonjour|svp|hola|ciao|olá|oi)\b[,\s]+)+"
    r"(?=\S)",
    re.IGNORECASE,
)
_LAST_WORDS = re.compile(
    r"(?:(?<=\s)|(?<=[。，]))(?:please|pls|plz|thanks?|thx|ty|many thanks|i appreciate|cheers|"
    r"bitte|danke|vielen dank|merci|s'il (?:vous|te) pla[iî]t|svp|gracias|muchas gracias|por favor|"
    r"grazie|per favore|obrigad[oa]|bedankt|спасибо|谢谢)\b",
    re.IGNORECASE,
)
_FAREWELL = re.compile(
    r"\b(?:regards|wishes|sincerely|yours|best|thanks?|thx|cheers|gr(?:ü|u|ue)(?:ß|ss)en?|gruß|[lvm]f?g|"
    r"danke?|cordialement|merci|saludos?|gracias|saluti|grazie|atenciosamente|cumprimentos|"
    r"obrigad[oa]|groet(?:en)?|pozdrawiam|hälsningar|уважением|спасибо)\b",
    re.IGNORECASE,
)
_EDGE = 240
"""Characters from the end in which courtesy is looked for."""
_SIGNATURE_LINES, _SIGNATURE_WIDTH = 7, 60
_CLOSING_LINES, _CLOSING_WORDS, _NAME_WORDS = 6, 5, 4
_NAME = re.compile(r"[^\W\d_][\w'’-]*\.?")
_COURTEOUS_WORDS = """
    hi hello hey dear all team everyone everybody there folks guys colleague colleagues sir madam
    friend friends assistant good morning afternoon evening day greetings please pls plz kindly
    thanks thank thx ty cheers many so very much lot lots in advance for your you help helping time
    support assistance appreciate appreciated would be great grateful thankful kind could can may i
    m d we am is are was wondering if hope hoping this that finds well doing fine ok okay week
    weekend going quick question one request small short favour favor a an my me with us sorry to
    bother bothering the trouble disturb interrupt excuse have need some following looking forward
    answer reply response hearing from best regards warm warmest sincerely yours truly faithfully
    respectfully wishes nice sent phone mobile device asap moment when get chance it of and any
    really again just
    hallo guten tag moin servus liebe lieber liebes zusammen sehr geehrte geehrter damen und herren
    bitte danke vielen dank herzlichen im voraus schöne schön schönen grüße grüßen gruß lg mfg vg
    mit freundlichen freundliche beste besten viele ich wir hoffe hoffen es geht euch ihnen dir gut
    eine einen kurze frage könntest könnten könnte kannst können du sie ihr mir uns helfen hilfe
    bonjour bonsoir salut à tous toutes cher chère chers madame monsieur merci beaucoup d avance s
    il vous te plaît plait svp stp j espère que allez va vas bien tu je pourriez pourrais peux
    pouvez aider une petite cordialement bonne journée votre ton aide
    hola buenos buenas días tardes noches gracias muchas de antemano por favor su ayuda espero estés
    esté estén un pregunta saludos saludo cordial estimado estimada estimados podrías podría puedes
    puede ayudarme
    ciao buongiorno buonasera salve grazie mille per favore anticipo spero che stia stai bene
    domanda cordiali saluti potresti potrebbe puoi può aiutarmi scusate scusa il disturbo
    olá oi bom boa dia tarde noite obrigado obrigada tudo bem atenciosamente cumprimentos poderia
    pode ajudar
    goedemorgen dag alvast bedankt dank je wel u groet groeten met vriendelijke alsjeblieft
    alstublieft
    cześć dzień dobry dziękuję dzięki proszę pozdrawiam hej tack snälla vänliga hälsningar merhaba
    teşekkürler lütfen здравствуйте привет добрый день спасибо пожалуйста заранее с уважением
    你好 您好 谢谢 多谢 谢谢你 谢谢您 请 请帮忙 こんにちは お願いします ありがとうございます
    よろしくお願いします 안녕하세요 감사합니다
"""
_COURTESY = frozenset(_COURTEOUS_WORDS.split())
"""Words of which greetings, pleas, thanks and farewells consist. A sentence at an edge that has no
other word is left out; with any other word it stays whole."""


@dataclass(frozen=True, slots=True)
class Reading:
    """The text that is judged; ``cut`` where it is less than the whole."""

    text: str
    cut: bool


class Reader:
    """Reads texts for one encoder. Immutable; as safe to share as its encoder."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._room = max(1, min(encoder.window, MOST_TOKENS) - _SPECIAL_TOKENS)

    def read(self, text: str) -> Reading:
        """The same for the same text; never empty, and within the encoder's window."""
        bounded = _bounded(text.strip())
        whole = cleaned(bounded)
        fitting = self._fitting(whole)
        return Reading(fitting, cut=len(bounded) < len(text.strip()) or fitting != whole)

    def _fitting(self, text: str) -> str:
        """Head and tail of ``text``, or all of it where there is room for all of it."""
        if len(text) <= self._room:  # a token has a character at least
            return text
        spans = self._encoder.spans(text)
        if len(spans) <= self._room:
            return text
        share = max(1, (self._room - _JOINTS) // 2)
        enough = min(ENOUGH, share)
        head, tail = spans[share - 1][1], spans[-share][0]
        first = text.find("\n", spans[enough - 1][1], head)
        last = text.rfind("\n", tail, spans[-enough][0])
        return _ends(text, head if first < 0 else first, tail if last < 0 else last + 1)


def cleaned(text: str) -> str:
    """What shows, in NFC, bare of courtesy and wrapping, in lines; else ``NOTHING``."""
    text = _bare(_INVISIBLE.sub("", text).strip())
    text = _REPEATED.sub(r"\1\1\1", text)
    text = _BLOB.sub(r"\1", text)
    text = _SIGNS.sub(r"\1", text)  # before NFC, which is quadratic in a run of combining marks
    lines = unicodedata.normalize("NFC", text).splitlines()
    text = "\n".join(words for line in lines if (words := " ".join(line.split())))
    return _unwrapped(text) or text or NOTHING


def _unwrapped(text: str) -> str:
    """Without quotes and mark-up around it or marks behind it, except that it is a question."""
    core = text.strip(_WRAPPING).rstrip(_WRAPPING + _MARKS)
    asks = any(mark in text[text.rfind(core) + len(core) :] for mark in "?？")
    return f"{core}?" if core and asks else core


def _bare(text: str) -> str:
    """``text`` without a signature and the courtesies before and behind what it says.

    One that is nothing but courtesy keeps a piece of it.
    """
    return _without_ending(_without_signature(_without_opening(text)))


def _without_signature(text: str) -> str:
    """Up to a farewell, the line of two dashes, or what has the form of a closing, that only a few
    short lines follow."""
    lines = text.split("\n")
    for number in range(max(1, len(lines) - _SIGNATURE_LINES), len(lines)):
        line = lines[number].strip()
        is_short = max(map(len, lines[number:])) <= _SIGNATURE_WIDTH
        if is_short and (line == "--" or (_FAREWELL.search(line) and _is_courteous(line))):
            return "\n".join(lines[:number]).rstrip()
    head, _, last = text.rpartition("\n\n")
    if head and not head.endswith((":", "：")) and _is_closing(last.split("\n")):
        return head.rstrip()
    return text


def _is_closing(lines: list[str]) -> bool:
    """Whether ``lines`` are a few words and a name, as letters end in every language."""
    if not 2 <= len(lines) <= _CLOSING_LINES or max(map(len, lines)) > _SIGNATURE_WIDTH:
        return False
    words, name = lines[0].rstrip(", ").split(), lines[1].split()
    return (
        1 <= len(words) <= _CLOSING_WORDS
        and all(word.isalpha() for word in words)
        and 1 <= len(name) <= _NAME_WORDS
        and all(_NAME.fullmatch(word) and word[:2].istitle() for word in name)
    )


def _without_opening(text: str) -> str:
    at = 0
    while (found := _OPENING.match(text, at)) and found.end() < len(text):
        if not _is_courteous(found[0]):
            break
        at = found.end()
    words = _FIRST_WORDS.match(text, at)
    return text[words.end() if words else at :]


def _without_ending(text: str) -> str:
    edge = max(0, len(text) - _EDGE)
    for part in reversed(list(_ENDING.finditer(text, edge))[1:]):
        if not _is_courteous(part[0]):
            break
        text = text[: part.start()]
    for found in _LAST_WORDS.finditer(text, max(edge, 1)):
        if _is_courteous(text[found.start() :]):
            return text[: found.start()].rstrip()
    return text


def _is_courteous(text: str) -> bool:
    """Whether ``text`` has words, all of them of courtesy, and no signs of code or quoting."""
    words = _WORDS.findall(text.lower())
    return bool(words) and all(w in _COURTESY for w in words) and bool(_SENTENCES.fullmatch(text))


def _bounded(text: str) -> str:
    """Both ends of a text of more than ``MOST_CHARACTERS``."""
    if len(text) <= MOST_CHARACTERS:
        return text
    return _ends(text, MOST_CHARACTERS // 2, len(text) - MOST_CHARACTERS // 2)


def _ends(text: str, head: int, tail: int) -> str:
    """``text`` up to ``head`` and from ``tail`` on, in whole words."""
    return f"{text[: _back(text, head)]}\n{text[_on(text, tail) :]}"


def _back(text: str, end: int) -> int:
    """The end of the last word that ends at ``end`` or a little before."""
    if text[end : end + 1].isspace():
        return end
    found = text.rfind(" ", max(0, end - _WORD), end)
    return end if found < 0 else found


def _on(text: str, start: int) -> int:
    """The start of the first word that starts at ``start`` or a little behind."""
    if text[start - 1 : start].isspace():
        return start
    found = text.find(" ", start, start + _WORD)
    return start if found < 0 else found + 1
