"""Reading: what is looked at instead of the raw text, whatever is pasted."""

from __future__ import annotations

import base64
import random
import re
import unicodedata
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semroute_classifier.encoders import Encoder, HashingEncoder, load_encoder
from semroute_classifier.reading import (
    MOST_CHARACTERS,
    MOST_TOKENS,
    NOTHING,
    Reader,
    Reading,
    cleaned,
)

if TYPE_CHECKING:
    from semroute_classifier.encoders import Vectors

MEGABYTE = 1_000_000
_RANDOM = random.Random(0)
HUGE = {
    "one character": "a" * MEGABYTE,
    "spaces around a word": " " * MEGABYTE + "word" + "\t" * MEGABYTE,
    "base64": base64.b64encode(_RANDOM.randbytes(MEGABYTE)).decode(),
    "hex": _RANDOM.randbytes(MEGABYTE // 2).hex(),
    "no spaces": "".join(_RANDOM.choices("abc.,;(", k=MEGABYTE)),
    "lines": "a line of a log\n" * 200_000,
    "deep brackets": "([{" * 400_000,
    "emoji": "🧬👩\u200d🔬🇩🇪" * 200_000,
    "mixed direction": "שלום abc \u202eעולם\u202c مرحبا " * 50_000,
    "almost a closing": "x\n\nab\n" + "Aa'" * 300_000 + "!",
    "marks upon marks": "a" + "\u0301\u0323" * MEGABYTE,
    "marks of all classes": "\u05b0\u0301\u05b1\u0323" * 300_000,
    "syllables in parts": "\u1100\u1161" * 400_000,
    "no spaces between words": "帮我把这段代码改成异步的" * 80_000,
    "almost a blob": ("x1" * 32 + " ") * 16_000,
    "zero bytes": "\x00" * MEGABYTE,
    "halves of pairs": "\ud83d" * MEGABYTE,
}


class CountingEncoder(HashingEncoder):
    """Keeps how many characters it was asked to cut into tokens."""

    def __init__(self, window: int) -> None:
        super().__init__(64, window)
        self.cut: list[int] = []

    def spans(self, text: str) -> list[tuple[int, int]]:
        self.cut.append(len(text))
        return super().spans(text)


@pytest.fixture(scope="module")
def bundled() -> Encoder:
    """The bundled encoder, loaded once for the file; the network is off."""
    return load_encoder("bundled")


def words(count: int) -> str:
    """So many words, each another: w0 w1 w2."""
    return " ".join(f"w{i}" for i in range(count))


# ---- cleaning


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("  fix\tthis \n\n code\r\n", "fix this\ncode"),
        ("fix\u00a0this\u2028code", "fix this\ncode"),
        ("\ufefffix th\u200bis co\u00adde", "fix this code"),
        ("\u202efix\u202c \u2066this\u2069 code\u200f", "fix this code"),
        ("f\u200di\u200cx this code", "fix this code"),
        ("fix \x00this\x1b code\x7f", "fix this code"),
        ("fix this \ud83d code\udc00", "fix this code"),
        ("cafe\u0301", "café"),
        ("why" + "!" * 40 + "because", "why!!!because"),
        ("fix this code...", "fix this code"),
        ("'fix this code'.", "fix this code"),
        ("is it “fixed”?!?", "is it “fixed?"),
        ("写一个函数。", "写一个函数"),
        ("nooooooooooooo way", "nooo way"),
        ("=" * 80 + "\nTotal\n" + "=" * 80, "Total"),
        ("> fix this code", "fix this code"),
        ("```\nfix this code\n```", "fix this code"),
        ("**fix** this `code`", "fix** this `code"),
        ("“fix this code”", "fix this code"),
    ],
)
def test_what_does_not_show_or_says_nothing_is_left_out(raw: str, expected: str) -> None:
    """Padding, invisible characters, repetition and wrapping leave no trace."""
    assert cleaned(raw) == expected


@pytest.mark.parametrize(
    "text",
    [
        "🧬 what is this?",
        "👩\u200d🔬 and 🇩🇪 and 👍🏽",
        "שלום, מה זה?",
        "می\u200cخواهم",
        "क्\u200dष",
        "帮我把这段代码改成异步的",
        "ภาษาไทย",
        "if (a[0] && b) { return x != 3; }",
        "10000000 reads",
        "a\ufffdb",
    ],
)
def test_what_is_written_on_purpose_survives(text: str) -> None:
    """Emoji with their joiners, every script and direction, and code are read as they are."""
    assert cleaned(text) == text


def test_an_unbroken_blob_is_read_by_its_beginning() -> None:
    """A key of 2,000 characters leaves its first 32; what stands around it is whole."""
    blob = base64.b64encode(random.Random(1).randbytes(1500)).decode()
    assert cleaned(f"decode {blob} for her") == f"decode {blob[:32]} for her"


def test_a_blob_in_lines_is_shortened_line_by_line() -> None:
    """The 76 characters of each line of an attachment leave 32."""
    lines = base64.encodebytes(random.Random(2).randbytes(570)).decode().split()
    assert cleaned("\n".join(lines)) == "\n".join(line[:32] for line in lines)


def test_a_long_word_or_sentence_without_spaces_is_no_blob() -> None:
    """64 letters, and a Chinese sentence of 120 characters, stay whole."""
    word, sentence = "ab" * 32, "帮我把这段代码改成异步的" * 10
    assert (cleaned(word), cleaned(sentence)) == (word, sentence)


@pytest.mark.parametrize("text", ["", " \n\t", "\x00\x07", "\u200b\ufeff", "\ud83d", "\u2066"])
def test_nothing_is_read_as_something(text: str) -> None:
    """A text in which nothing shows is read as one fixed sign, never as an empty string."""
    assert Reader(HashingEncoder()).read(text) == Reading(NOTHING, cut=False)


@pytest.mark.parametrize("text", ["***", ">>>", '""', "# # #"])
def test_a_text_of_wrapping_alone_is_read_as_it_is(text: str) -> None:
    """Where stripping would leave nothing, nothing is stripped."""
    assert cleaned(text) == text


@given(st.text(st.characters(), max_size=300))
@settings(max_examples=300, deadline=None)
def test_cleaning_ends_and_settles(text: str) -> None:
    """Any text gives lines in NFC without padding, that can be written as UTF-8."""
    clean = cleaned(text)
    assert clean
    assert clean.encode()
    assert unicodedata.is_normalized("NFC", clean)
    assert [" ".join(line.split()) for line in clean.split("\n")] == clean.split("\n")


# ---- courtesy


@pytest.mark.parametrize(
    "dressed",
    [
        "Hi, {}",
        "Hello team, I hope you are well. Could you please help me? {}",
        "Guten Tag, ich hoffe, es geht Ihnen gut. {}",
        "Bonjour à tous, {}",
        "please {}",
        "{} Thanks a lot in advance!",
        "{}, s'il vous plaît",
        "{}. Vielen Dank!",
        "{} 谢谢",
        "{}\n\nBest regards,\nMaria Lopez\nRoom 12, +49 30 123",
        "{}\n-- \nJ. Okafor\nSent from my phone",
        "Dear colleagues,\n\n{}\n\nMit freundlichen Grüßen\nPetra Weiß",
    ],
)
@pytest.mark.parametrize(
    "request_text",
    ["fix this function: def f(x): return x", "grant 8817 ends in May, plan it", "写一个函数"],
)
def test_courtesy_around_a_request_is_not_read(dressed: str, request_text: str) -> None:
    """Greetings, pleas, thanks and signatures leave the request as if it stood alone."""
    assert cleaned(dressed.format(request_text)).rstrip(".,") == request_text


@pytest.mark.parametrize(
    "closing",
    [
        "Kaikkea hyvää\nAino Virtanen",
        "Kind thoughts,\nProf. Hamid Rezai\nInstitute of Chemistry\nRoom 4",
        "Med vänlig hälsning,\nSven",
        "So long\nD. O'Neil",
    ],
)
def test_a_closing_is_known_by_its_form(closing: str) -> None:
    """A few words and a name behind an empty line end a letter, whatever the words."""
    assert cleaned(f"fix this function\n\n{closing}") == "fix this function"


@pytest.mark.parametrize(
    "text",
    [
        "Plan this\n\nBuy paint\nSand the wall\nLet it dry",
        "Which pathway is it\n\nBRCA\nEGFR\nKRAS",
        "Who is older:\n\nAnna\nBert",
        "Fix this\n\nfor x in y\nPrint(x)",
        "Count these\n\npaint\nTwo 12 inch nails",
        "First of all\nAnna wrote to Bert",
    ],
)
def test_lines_that_are_no_closing_are_read(text: str) -> None:
    """Lists, code, and what a colon announces stay, though they are short lines at the end."""
    assert cleaned(text).splitlines()[-1] == text.splitlines()[-1].strip("*_")


@pytest.mark.parametrize(
    "text",
    [
        "Write a greeting: Dear Sir or Madam, thank you for your letter.",
        "translate 'good morning, dear friends'",
        'Is this text polite? "Hi, thanks."',
        "Hi5 is a network, describe it",
        "x = y\nthanks = None\nfor a in b: pass",
    ],
)
def test_courtesy_that_is_asked_about_is_read(text: str) -> None:
    """Words of courtesy stay where other words, quotes or code hold them."""
    assert {"Dear", "good", "polite", "Hi5", "thanks"} & set(re.findall(r"\w+", cleaned(text)))
    assert len(cleaned(text)) >= 0.6 * len(text)


@pytest.mark.parametrize(
    "text",
    [
        "Hello\nI have a quick question\nwhy is the sky blue",
        "my build fails\nI have a question\nwhy is the sky blue",
        "good morning all\nthanks for your time\nwhy is the sky blue",
    ],
)
def test_what_short_lines_ask_is_no_signature(text: str) -> None:
    """A request in short lines among courtesies is read to its end."""
    assert cleaned(text).endswith("why is the sky blue")


@pytest.mark.parametrize("text", ["hi", "Hello, how are you", "thanks!", "Danke.", "please"])
def test_courtesy_alone_is_read(text: str) -> None:
    """A text that is nothing but courtesy keeps words of it."""
    assert re.search(r"\w", cleaned(text))


@pytest.mark.parametrize("text", ["hi, " * 100_000, "thanks. " * 100_000, "dear\n" * 100_000])
def test_endless_courtesy_is_read_once(text: str) -> None:
    """What remains of a megabyte of it is short."""
    assert 1 <= len(Reader(HashingEncoder()).read(text).text) <= MOST_CHARACTERS


# ---- cutting


def test_a_short_text_is_not_cut_into_tokens() -> None:
    """A text with no more characters than the window has tokens costs no tokenising."""
    encoder = CountingEncoder(window=20)
    assert Reader(encoder).read("eighteen letters a") == Reading("eighteen letters a", cut=False)
    assert encoder.cut == []


def test_a_text_that_fits_is_read_whole() -> None:
    """Many characters in few tokens are read as they are, after one look at the tokens."""
    encoder = CountingEncoder(window=20)
    assert Reader(encoder).read(words(18)) == Reading(words(18), cut=False)
    assert len(encoder.cut) == 1


def test_a_long_text_is_read_at_head_and_tail() -> None:
    """What is read begins and ends as the text does, in whole words, and fits the window."""
    encoder = HashingEncoder(window=50)
    reading = Reader(encoder).read(words(1001))
    assert reading.cut
    assert reading.text == f"{words(21)}\n{' '.join(words(1001).split()[-21:])}"
    assert len(encoder.spans(reading.text)) <= 48


def test_a_request_in_lines_of_its_own_is_read_without_what_is_pasted() -> None:
    """Where a line ends behind the first words, or begins before the last, the reading does."""
    request = "read these lines of a log and tell me at once which of the workers is the slowest"
    log = "12:31:07 INFO worker 3 finished\n" * 100
    reader = Reader(HashingEncoder(window=100))
    for text in (f"{request}\n{log}", f"{request}\n\n{log}"):
        assert reader.read(text).text.count("worker 3") <= 4
        assert reader.read(text).text.startswith(request + "\n12:31")
    assert reader.read(f"{log}\n{request}").text.endswith("finished\n" + request)


def test_a_larger_window_is_not_filled() -> None:
    """Of 1,500 words an encoder of 8,192 tokens is given the most that is read."""
    encoder = HashingEncoder(window=8192)
    reading = Reader(encoder).read(words(1500))
    assert reading.cut
    assert len(encoder.spans(reading.text)) <= MOST_TOKENS - 2


@pytest.mark.parametrize("window", [1, 3, 5, 10])
def test_the_smallest_windows_are_read(window: int) -> None:
    """Even a window with hardly a token to read gives a text, and no error."""
    reading = Reader(HashingEncoder(window=window)).read(words(100))
    assert reading.cut
    assert 2 <= len(reading.text.split()) <= 8


def test_the_request_is_read_wherever_it_stands(bundled: Encoder) -> None:
    """A sentence before or behind 20,000 characters of log is in what is read."""
    request = "Write a function that merges two sorted lists."
    log = "12:31:07 INFO worker 3 finished batch 812 in 91 ms\n" * 400
    reader = Reader(bundled)
    for text in (request + "\n" + log, request + " " + log, log + "\n" + request, log + request):
        assert "function that merges two" in reader.read(text).text


@pytest.mark.parametrize("name", HUGE)
def test_a_megabyte_costs_a_bounded_look(name: str) -> None:
    """Whatever it consists of, one bounded piece is cut into tokens once, and little is read."""
    encoder = CountingEncoder(window=256)
    reading = Reader(encoder).read(HUGE[name])
    assert sum(encoder.cut) <= MOST_CHARACTERS + 2
    assert len(encoder.cut) <= 1
    assert 1 <= len(reading.text) <= MOST_CHARACTERS + 2
    assert reading == Reader(encoder).read(HUGE[name])


@pytest.mark.parametrize("name", HUGE)
def test_what_is_read_fits_the_bundled_window(name: str, bundled: Encoder) -> None:
    """The encoder itself cuts nothing off, whatever a megabyte consists of."""
    reading = Reader(bundled).read(HUGE[name])
    assert len(bundled.spans(reading.text)) <= bundled.window - 2


@given(st.text(st.characters(), min_size=50, max_size=3000))
@settings(max_examples=100, deadline=None)
def test_any_text_fits_the_bundled_window(bundled: Encoder, text: str) -> None:
    """No mixture of characters makes what is read longer than the window."""
    reading = Reader(bundled).read(text)
    assert len(bundled.spans(reading.text)) <= bundled.window - 2


@pytest.mark.parametrize("text", ["fix this code", "why is p = 0.049?", "写一个函数"])
@pytest.mark.parametrize(
    "change", ["  {}\n\n", "> {}", "**{}**", "\ufeff{}", '"{}"', "```\n{}\n```"]
)
def test_surface_does_not_move_the_vector(text: str, change: str) -> None:
    """A padded or wrapped text has exactly the vector of the bare one."""
    encoder = HashingEncoder()
    reader = Reader(encoder)

    def vector(raw: str) -> Vectors:
        return encoder.encode([reader.read(raw).text])

    assert (vector(change.format(text)) == vector(text)).all()
