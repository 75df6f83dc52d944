"""pylon infer: one prompt for a local backend, chosen as the provider would choose it.

Needs no daemon. The answer goes to stdout, everything else to stderr.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from typing import Any

from pylon import config as configuration
from pylon.backends.completion import Completion, Prompt
from pylon.backends.registry import Registry
from pylon.cli import terminal
from pylon.cli.terminal import printable
from pylon.errors import EXIT_OK, PylonError, Refused, UsageError

MAX_INPUT_BYTES = 1_000_000
MAX_TOKENS = 1_000_000
DEFAULT_MAX_TOKENS = 128

# Options of the first Pylon that mean nothing to any backend there is.
_IGNORED = (("layers", 1), ("max-kv", 1), ("moe-fallback", 1), ("no-harmony", 0))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("text", metavar="PROMPT|-", nargs="?", help="the prompt; - reads it from stdin")
    add("-p", "--prompt", metavar="PROMPT|-", help="the same")
    add("-f", "--file", metavar="FILE", action="append", default=[],
        help="put this file's text behind the prompt (again for more)")
    add("-m", "--model", metavar="MODEL", help="the model (default: default_model)")
    add("--system", metavar="TEXT", help="what the model should know first")
    add("--max-tokens", metavar="N", type=_count(1, MAX_TOKENS), default=DEFAULT_MAX_TOKENS,
        help=f"longest answer (default {DEFAULT_MAX_TOKENS})")
    add("--temperature", metavar="X", type=_fraction(0, 2), help="0 to 2")
    add("--top-p", metavar="X", type=_fraction(0.01, 1), help="0.01 to 1")
    add("--top-k", metavar="N", type=_count(1, 1000), help="1 to 1000")
    add("--seed", metavar="N", type=_count(0, 2**31 - 1), help="the same answer each time")
    add("--stop", metavar="TEXT", action="append", default=[],
        help="end before this text (again for more)")
    add("--stream", action=argparse.BooleanOptionalAction, default=True,
        help="print the answer as it comes (the default), or only when it is complete")
    add("--json", action="store_true", help="print one JSON object")
    for name, count in _IGNORED:
        if count:
            add(f"--{name}", help=argparse.SUPPRESS)
        else:
            add(f"--{name}", action="store_true", help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    prompt = _prompt(args)
    for name, _ in _IGNORED:
        if getattr(args, name.replace("-", "_")):
            terminal.tell(f"pylon: --{name} means nothing to the backends there are; ignored")
    registry = Registry(configuration.load(args.home), args.home)
    registry.refresh()
    try:
        _complete(registry, prompt, args)
    finally:
        registry.close()
    return EXIT_OK


def _complete(registry: Registry, prompt: Prompt, args: argparse.Namespace) -> None:
    try:
        backend, model = registry.choose(args.model)
    except Refused as err:
        raise PylonError(f"{err}{_what_there_is(registry, err.code)}") from err
    if not args.json:
        terminal.tell(f"{model} on {backend.id} ({backend.url})")
    printer = _Printer()
    streams = args.stream and not args.json
    started = time.monotonic()
    completion = registry.complete(prompt, model, printer.text if streams else None,
                                   on_restart=printer.restart)
    secs = time.monotonic() - started
    if args.json:
        terminal.print_json(_facts(completion, secs))
        return
    terminal.say("" if streams else printable(completion.text))
    terminal.tell(f"[finish_reason={completion.finish_reason}] "
                  f"{completion.completion_tokens} tokens in {secs:.1f} s"
                  + (f" on {completion.backend}" if completion.backend != backend.id else ""))


class _Printer:
    """Puts the pieces of an answer on stdout as they come."""

    def text(self, piece: str) -> None:
        if sys.stdout is not None:
            sys.stdout.write(printable(piece))
            sys.stdout.flush()

    def restart(self) -> None:
        self.text("\n")
        terminal.tell("[the backend failed; another one begins anew]")


def _facts(completion: Completion, secs: float) -> dict[str, Any]:
    return {"text": completion.text, "model": completion.model, "backend": completion.backend,
            "finish_reason": completion.finish_reason,
            "prompt_tokens": completion.prompt_tokens,
            "completion_tokens": completion.completion_tokens,
            "duration_ms": round(secs * 1000)}


def _what_there_is(registry: Registry, code: str) -> str:
    """The end of the sentence that says why no model was found."""
    if code == "model-unknown":
        return "; there are: " + ", ".join(
            [*(model.name for model in registry.models()), *registry.aliases()])
    tried = "; ".join(state["error"] for state in registry.states() if not state["available"])
    return (f" ({tried})" if tried else "") + "; start one, or name one in [backends.NAME]"


def _prompt(args: argparse.Namespace) -> Prompt:
    """Raises UsageError."""
    if args.text is not None and args.prompt is not None:
        raise UsageError("give the prompt once: as PROMPT or with --prompt")
    text = _text(args.text if args.text is not None else args.prompt, args.file)
    messages = [{"role": "user", "content": text}]
    if args.system:
        messages.insert(0, {"role": "system", "content": _decode(os.fsencode(args.system),
                                                                 "--system")})
    return Prompt(messages, args.max_tokens, args.temperature, args.top_p, args.top_k, args.seed,
                  stop=args.stop)


def _text(given: str | None, files: list[str]) -> str:
    parts = []
    if given == "-":
        parts.append(_decode(sys.stdin.buffer.read(MAX_INPUT_BYTES + 1), "stdin"))
    elif given is not None:
        parts.append(_decode(os.fsencode(given), "the prompt"))
    for name in files:
        try:
            with open(name, "rb") as file:
                parts.append(_decode(file.read(MAX_INPUT_BYTES + 1), name))
        except OSError as err:
            raise UsageError(f"{name}: {err.strerror}") from err
    text = "\n\n".join(parts)
    if not text.strip():
        raise UsageError("there is no prompt; give --prompt TEXT, - for stdin, or --file FILE")
    return text


def _decode(data: bytes, name: str) -> str:
    if len(data) > MAX_INPUT_BYTES:
        raise UsageError(f"{name} is longer than {MAX_INPUT_BYTES} bytes")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as err:
        raise UsageError(f"{name} is not text: byte {err.start} is not UTF-8") from None


def _count(low: int, high: int) -> Any:
    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,18}", text, re.ASCII) or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"must be a whole number from {low} to {high}")
        return int(text)
    return parse


def _fraction(low: float, high: float) -> Any:
    def parse(text: str) -> float:
        if not re.fullmatch(r"[0-9]{0,4}\.?[0-9]{1,12}", text, re.ASCII) \
                or not low <= float(text) <= high:
            raise argparse.ArgumentTypeError(f"must be a number from {low} to {high}")
        return float(text)
    return parse
