"""The registry: which backends work, what they have, and which of them gets a prompt.

Better ranks first, the less loaded first among equals, the next one where one fails. Any thread
may ask. Nothing is polled by the registry itself: `Prober` is the role that looks again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from pylon.backends import found, tokens
from pylon.backends.backend import TOO_LONG, Backend
from pylon.backends.completion import Completion, Model, OnText, Prompt
from pylon.backends.exposure import is_exposed
from pylon.backends.ollama import plain
from pylon.backends.place import Change, Place
from pylon.errors import BackendCancelled, BackendError, BackendUnavailable, Refused
from pylon.home import Home
from pylon.log import peer_text
from pylon.role import Role

log = logging.getLogger(__name__)


class Registry:
    """Every backend of the configuration, and the choice among them."""

    def __init__(self, config: Any, home: Home | None = None) -> None:
        self._lock = threading.Lock()
        self._home = home
        self._config = config
        self._places = self._build(config)      # replaced as a whole, under the lock
        self._registered = False                # `changes` has told which there are
        self.on_trouble: Callable[[], None] = lambda: None      # a place wants to be looked at

    def refresh(self, only_due: bool = False) -> None:
        """Ask every backend, all at the same time; takes as long as the slowest, bounded."""
        now = time.monotonic()
        with self._lock:
            due = [place for place in self._places if not only_due or place.look_at <= now]
        self._look_at(due)

    def reload(self, config: Any) -> None:
        """Take another configuration; work that runs ends where it is. Raises ConfigError."""
        places = self._build(config)
        self._look_at(places)
        with self._lock:
            told = {place.backend.id: place.told for place in self._places}
            old, self._places, self._config = self._places, places, config
            for place in places:
                place.told = told.get(place.backend.id, place.told)
            self._registered = False
        for place in old:
            place.backend.close()
        self.on_trouble()

    def close(self) -> None:
        """Hang up idle connections."""
        for place in self._places:
            place.backend.close()

    # -- what there is --

    def models(self) -> list[Model]:
        """Every model that may be asked for now, each once, in the order of preference."""
        with self._lock:
            return list(self._offered().values())

    def aliases(self) -> dict[str, str]:
        """The other names that may be asked for now, and the model that each stands for."""
        with self._lock:
            return {alias: name for alias, name in self._config.provider.aliases.items()
                    if self._allowed(alias, name) and self._with(plain(name))}

    def choose(self, model: str | None) -> tuple[Backend, str]:
        """The backend that would get the next prompt for this model or alias, and its name there;
        None means `default_model`, else the first there is.

        Raises Refused (`model-unknown`, `no-backend`).
        """
        with self._lock:
            name = self._resolve(model)
            return min(self._with(name), key=Place.order).backend, name

    def default(self) -> str | None:
        """The id of the backend of a prompt that names no model; None where there is none."""
        try:
            return self.choose(None)[0].id
        except Refused:
            return None

    def context_tokens(self, model: str) -> int:
        """The largest context that a prompt for this model can get; 0 where nobody has it now."""
        with self._lock:
            return max((p.models[model].context_tokens for p in self._with(model)), default=0)

    def check_room(self, messages: list[dict[str, str]], max_tokens: int, model: str) -> None:
        """Before anybody pays: prompt and answer must fit. Raises Refused (`prompt-too-long`)."""
        need, room = tokens.at_most_in(messages) + max_tokens, self.context_tokens(model)
        if room and need > room:
            raise Refused(TOO_LONG, f"prompt and answer may need {need} tokens; {model} takes "
                          f"{room}")

    def states(self) -> list[dict[str, Any]]:
        """What `pylon status` and `compute` show of each backend."""
        with self._lock:
            return [place.state() for place in self._places]

    # -- completing --

    def complete(self, prompt: Prompt, model: str | None = None, on_text: OnText | None = None,
                 cancel: threading.Event | None = None,
                 on_restart: Callable[[], None] | None = None,
                 deadline: float | None = None) -> Completion:
        """The answer of the best backend that gives one; all tries together within the limits.

        Where a backend fails after `on_text` has heard a part, the next one begins anew, and
        `on_restart` says so; without it the failure is the caller's. DEADLINE is monotonic.
        Raises Refused (`prompt-too-long`), BackendCancelled, BackendError; a model that nobody has
        now is a BackendUnavailable, for it may come back.
        """
        name, waiting = self._candidates(prompt, model)
        over_at = time.monotonic() + self._config.limits.total_secs
        deadline = over_at if deadline is None else min(deadline, over_at)
        hearing = _Hearing(on_text, on_restart)
        while True:
            place = self._take(waiting, prompt, name)
            try:
                completion = place.backend.complete(prompt, name, hearing.hear if on_text else None,
                                                    cancel, deadline)
                with self._lock:
                    place.succeeded()
                return completion
            except BackendCancelled:
                raise
            except BackendError as err:
                self._failed(place, err)
                if not waiting or time.monotonic() >= deadline or not hearing.may_restart():
                    raise _final(err)
            finally:
                with self._lock:
                    place.give_back()

    def _candidates(self, prompt: Prompt, model: str | None) -> tuple[str, list[Place]]:
        """The model's true name, and every place that has it with room for the prompt."""
        least = tokens.at_least(prompt.messages)
        with self._lock:
            try:
                name = model if model and self._with(model) else self._resolve(model)
            except Refused as err:
                raise BackendUnavailable(str(err)) from err
            places = [p for p in self._with(name) if least < p.models[name].context_tokens]
        if not places:
            raise Refused(TOO_LONG, f"the prompt has at least {least} tokens, more than the "
                          f"context of {name}")
        return name, places

    def _take(self, waiting: list[Place], prompt: Prompt, name: str) -> Place:
        """Remove the best place from WAITING, and count it as busy."""
        need = tokens.at_most_in(prompt.messages) + prompt.max_tokens

        def order(place: Place) -> tuple[Any, ...]:
            model = place.models.get(name)
            tight = model is None or need > model.context_tokens
            return (not place.available, tight, *place.order())

        with self._lock:
            place = min(waiting, key=order)
            waiting.remove(place)
            place.take()
        return place

    def _failed(self, place: Place, err: BackendError) -> None:
        with self._lock:
            place.failed(err)
        self.on_trouble()

    # -- looking --

    def next_look_secs(self) -> float | None:
        """Until the next place is due; None where there is none."""
        with self._lock:
            due = min((place.look_at for place in self._places), default=None)
        return None if due is None else max(0.0, due - time.monotonic())

    def changes(self) -> list[Change]:
        """What became different since the last call, as events of the journal."""
        with self._lock:
            found_changes = [] if self._registered else [_registered(self._places)]
            self._registered = True
            for place in self._places:
                found_changes += place.changes()
        return found_changes

    def _build(self, config: Any) -> list[Place]:
        return [Place(rank, backend) for rank, backend in found.build(config, self._home)]

    def _look_at(self, places: list[Place]) -> None:
        if len(places) == 1:
            self._look(places[0])
            return
        threads = [threading.Thread(target=self._look, args=(place,), daemon=True,
                                    name=f"probe-{place.backend.id}") for place in places]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _look(self, place: Place) -> None:
        try:
            models = place.backend.probe()
        except Exception as err:
            if not isinstance(err, BackendUnavailable):
                log.exception("backend %s: the probe failed", place.backend.id)
            with self._lock:
                place.is_away(str(err))
            return
        with self._lock:
            if not place.available:
                place.catch_up([peer for peer in self._places if peer.rank == place.rank])
            place.is_there(models)
        if place.backend.type == "ollama" and not place.warned and is_exposed(place.backend.url):
            place.warned = True
            log.warning("backend %s: Ollama listens beyond this machine, and asks nobody for a "
                        "key; set OLLAMA_HOST=127.0.0.1 for it", place.backend.id)

    # -- under the lock --

    def _with(self, model: str) -> list[Place]:
        return [place for place in self._places if place.has(model)]

    def _offered(self) -> dict[str, Model]:
        offered: dict[str, Model] = {}
        for place in self._places:
            for name, model in place.models.items() if place.available else ():
                if self._allowed(name):
                    offered.setdefault(name, model)
        return offered

    def _allowed(self, *names: str) -> bool:
        allowed = [plain(name) for name in self._config.provider.models]
        return not allowed or any(plain(name) in allowed for name in names)

    def _resolve(self, model: str | None) -> str:
        """The true name of a model that is there and may be used. Raises Refused."""
        if not any(place.available and place.models for place in self._places):
            raise Refused("no-backend", "no backend works at the moment")
        asked = model or self._config.default_model
        wanted = self._config.provider.aliases.get(asked, asked)
        for name in (wanted, plain(wanted)):
            if self._allowed(asked, name) and any(name in p.models for p in self._places):
                if self._with(name):
                    return name
                if model:
                    raise Refused("no-backend", f"the backend of {peer_text(name)} is away")
        offered = self._offered()
        if not model and offered:
            return next(iter(offered))
        raise Refused("model-unknown", f"there is no model {peer_text(asked)} here")


class _Hearing:
    """Passes on the pieces of an answer, and knows whether any were heard."""

    def __init__(self, on_text: OnText | None, on_restart: Callable[[], None] | None) -> None:
        self._on_text, self._on_restart = on_text, on_restart
        self._heard = False

    def hear(self, piece: str) -> None:
        self._heard = True
        if self._on_text is not None:
            self._on_text(piece)

    def may_restart(self) -> bool:
        """Whether another backend may begin anew; tells whoever has heard a part already."""
        if self._heard:
            if self._on_restart is None:
                return False
            self._on_restart()
            self._heard = False
        return True


class Prober(Role):
    """Looks at backends again when they are due, and tells what changed.

    Runs in the thread `prober`. Waits until the next look, or until a failed completion rings.
    """

    def __init__(self, registry: Registry,
                 on_change: Callable[[str, dict[str, Any]], None] = lambda type_, data: None
                 ) -> None:
        super().__init__("prober")
        self._registry = registry
        self._on_change = on_change             # called in this thread, with (type, data)
        registry.on_trouble = self.wake

    def step(self, now: int) -> None:
        self._registry.refresh(only_due=True)
        for type_, data in self._registry.changes():
            self._on_change(type_, data)
        self.wait(self._registry.next_look_secs())


def _final(err: BackendError) -> Exception:
    """A prompt that no backend can take is refused for good, not a failure to try again."""
    return Refused(TOO_LONG, str(err)) if err.code == TOO_LONG else err


def _registered(places: list[Place]) -> Change:
    return "BackendsRegistered", {"backend_ids": [place.backend.id for place in places]}
