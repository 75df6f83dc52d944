"""From a job to the messages that a model gets: one documented prompt for each kind.

Pure. 5050 passes the inputs as they are; 5000, 5001 and 5002 wrap them. What strangers wrote
stands only in user messages.
"""

from __future__ import annotations

from pylon.errors import Refused
from pylon.nostr.nip90 import Job

GENERATE, EXTRACT, SUMMARISE, TRANSLATE = 5050, 5000, 5001, 5002

_EXTRACT = ("Extract the text of the document the user sends. Answer with that text alone, "
            "without comments, in the language it is written in.")
_SUMMARISE = ("Summarise the text the user sends in a few sentences, in its own language. "
              "Answer with the summary alone.")
_TRANSLATE = "Translate the text the user sends into {language}. Answer with the translation alone."
_LENGTHS = {"words": "words", "paragraphs": "paragraphs", "length": "words"}


def messages(job: Job, fetched: list[str] | None = None) -> list[dict[str, str]]:
    """Chat messages for a job; `fetched` are the texts of its event and job inputs, in order.

    Raises Refused (`no-input`, `bad-param`).
    """
    text = prompt_text(job, fetched)
    if job.kind == GENERATE:
        return [{"role": "user", "content": text}]
    system = {EXTRACT: lambda: _EXTRACT, SUMMARISE: lambda: _summarise(job),
              TRANSLATE: lambda: _translate(job)}[job.kind]()
    return [{"role": "system", "content": system}, {"role": "user", "content": text}]


def prompt_text(job: Job, fetched: list[str] | None = None) -> str:
    """The customer's own words: every input in order, else the event's content."""
    waiting = iter(fetched or [])
    parts = []
    for data, type_, _relay, _marker in job.inputs:
        parts.append(next(waiting, "") if type_ in ("event", "job") else data)
    text = "\n\n".join(part for part in parts if part.strip())
    if not text.strip():
        raise Refused("no-input", "the job has no text input")
    return text


def _summarise(job: Job) -> str:
    number = job.params.get("length") or job.params.get("words")
    if number and number.isascii() and number.isdigit() and len(number) < 5:
        return _SUMMARISE + f" Use about {int(number)} words."
    return _SUMMARISE


def _translate(job: Job) -> str:
    language = job.params.get("language") or job.params.get("lang") or "English"
    if len(language) > 32 or not all(c.isalpha() or c in " -_()" for c in language):
        raise Refused("bad-param", "the parameter `language` must be a language's name or code")
    return _TRANSLATE.format(language=language)
