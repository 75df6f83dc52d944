"""The endpoint over real sockets with pretended sources: bodies, callers, streams and refusals."""

from __future__ import annotations

import http.client
import json
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pylon.api import chat
from pylon.api.server import Endpoint, PortTaken
from pylon.api.sources import Local, Market
from pylon.backends.completion import Completion, Model
from pylon.errors import ConfigError, Refused


class Registry:
    def models(self):
        return [Model("tiny", 2048)]

    def choose(self, model):
        if model not in (None, "tiny"):
            raise Refused("model-unknown", f"{model} is not served here")
        return None, "tiny"

    def complete(self, prompt, model, on_text=None, cancel=None):
        for piece in ("one ", "two ", "drei ü"):
            on_text(piece)
        return Completion("one two drei ü", model, 3, 4, "stop", "pretended")


class Shelf:
    """A market that sells at `msats`, or refuses."""

    def __init__(self, msats: int = 7000, refusal: Refused | None = None) -> None:
        self.orders: list[dict] = []
        self.msats, self.refusal = msats, refusal

    def submit(self, order):
        if self.refusal:
            raise self.refusal
        self.orders.append(order)
        return {"id": "ab" * 32}

    def follow(self, args):
        yield {"event": "state", "state": "new"}
        yield None
        yield {"event": "paying", "amount_msats": self.msats}
        yield {"event": "partial", "text": "bought "}
        yield {"event": "completed", "result": "bought far away"}


@pytest.fixture
def make():
    made = []

    def build(token=None, shelf=None):
        market = Market(shelf.submit, shelf.follow, 60) if shelf else None
        endpoint = Endpoint("127.0.0.1:0", Local(Registry()), market, token)
        endpoint.start()
        made.append(endpoint)
        return endpoint
    yield build
    for endpoint in made:
        endpoint.stop()


def call(endpoint, method="POST", path="/v1/chat/completions", body=None, **headers):
    conn = http.client.HTTPConnection("127.0.0.1", endpoint.port, timeout=10)
    try:
        text = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        names.setdefault("Content-Type", "application/json")
        conn.request(method, path, text, names)
        answer = conn.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        conn.close()


def ask(model="tiny", **more):
    return {"model": model, "messages": [{"role": "user", "content": "hi"}], **more}


def test_health_and_models(make):
    endpoint = make()
    assert json.loads(call(endpoint, "GET", "/health")[2]) == {"status": "ok"}
    listed = json.loads(call(endpoint, "GET", "/v1/models")[2])
    assert listed["object"] == "list" and listed["data"][0]["context_length"] == 2048


def test_a_chat_a_completion_and_their_usage(make):
    endpoint = make()
    status, headers, body = call(endpoint, body=ask())
    answer = json.loads(body)
    assert status == 200 and headers["X-Pylon-Cost-Msats"] == "0"
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": "one two drei ü"}
    assert answer["usage"]["total_tokens"] == 7
    answer = json.loads(call(endpoint, path="/v1/completions",
                             body={"model": "tiny", "prompt": "hi"})[2])
    assert answer["choices"][0]["text"] == "one two drei ü"


def events(body: bytes) -> list:
    lines = [line[6:] for line in body.decode().split("\n\n") if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def test_a_stream_carries_every_piece_and_its_usage(make):
    sent = events(call(make(), body=ask(stream=True, stream_options={"include_usage": True}))[2])
    assert sent[0]["choices"][0]["delta"] == {"role": "assistant", "content": "one "}
    text = "".join(e["choices"][0]["delta"].get("content", "") for e in sent if e["choices"])
    assert text == "one two drei ü"
    assert sent[-2]["choices"][0]["finish_reason"] == "stop"
    assert sent[-1]["usage"]["completion_tokens"] == 4


def test_what_is_not_here_is_bought_with_a_token_and_its_cost_is_told(make):
    shelf = Shelf()
    endpoint = make("secret", shelf)
    bearer = {"Authorization": "Bearer secret"}
    status, headers, body = call(endpoint, body=ask("nostr:llama3.2"), **bearer)
    assert status == 200 and headers["X-Pylon-Cost-Msats"] == "7000"
    assert json.loads(body)["usage"]["cost_msats"] == 7000
    assert shelf.orders[0]["model"] == "llama3.2" and shelf.orders[0]["scope"] == "api"
    sent = events(call(endpoint, body=ask("elsewhere", stream=True), **bearer)[2])
    text = "".join(e["choices"][0]["delta"].get("content", "") for e in sent if e["choices"])
    assert text == "bought far away" and shelf.orders[1]["model"] == "elsewhere"


def test_a_limit_is_told_as_payment_required(make):
    shelf = Shelf(refusal=Refused("over-api-limit", "too much today"))
    status, _, body = call(make("secret", shelf), body=ask("nostr:x"),
                           Authorization="Bearer secret")
    assert status == 402 and json.loads(body)["error"]["code"] == "over_api_limit"


def test_buying_or_a_public_address_without_a_token_is_refused():
    with pytest.raises(ConfigError):
        Endpoint("127.0.0.1:0", Local(Registry()), Market(None, None, 60), None)
    with pytest.raises(ConfigError):
        Endpoint("0.0.0.0:0", Local(Registry()), None, None)


@pytest.mark.parametrize("headers, status", [
    ({"Host": "evil.example:9899"}, 403),
    ({"Origin": "https://evil.example"}, 403),
    ({"Origin": "null"}, 403),
    ({"Content_Type": "text/plain"}, 415),
    ({"Content_Type": "application/x-www-form-urlencoded"}, 415),
])
def test_a_web_page_cannot_use_it(make, headers, status):
    answered, sent, _ = call(make(), body=ask(), **headers)
    assert answered == status
    assert not [name for name in sent if name.lower().startswith("access-control-")]


def test_a_wrong_or_missing_token_is_refused_and_health_is_not(make):
    endpoint = make("secret")
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "secret"}):
        assert call(endpoint, body=ask(), **headers)[0] == 401
    assert call(endpoint, "GET", "/health")[0] == 200


@pytest.mark.parametrize("body, status", [
    (b"", 400), (b"[]", 400), (b"{", 400), (b"[" * 100_000, 400),
    ({"model": "tiny"}, 400), ({"model": "tiny", "messages": []}, 400),
    ({"model": "tiny", "messages": [{"role": "robot", "content": "x"}]}, 400),
    ({"model": "tiny", "messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400),
    (ask(n=2), 400), (ask(tools=[{}]), 400), (ask(max_tokens=-1), 400),
    (ask(max_tokens=True), 400), (ask(temperature="hot"), 400), (ask(stop=[1]), 400),
    (ask(stream="yes"), 400), (ask("nope"), 404), (ask("nostr:x"), 403),
    (b'{"model":"tiny","messages":[{"role":"user","content":"\\ud800"}]}', 400),
])
def test_bad_calls_get_openais_error_body(make, body, status):
    answered, _, text = call(make(), body=body)
    assert answered == status and json.loads(text)["error"]["message"]


def test_a_body_that_is_too_large_or_cut_off_is_refused(make):
    endpoint = make()
    assert call(endpoint, body=b" " * (1024 * 1024 + 1))[0] == 413
    assert call(endpoint, "GET", "/nothing")[0] == 404
    with socket.create_connection(("127.0.0.1", endpoint.port), 5) as conn:
        conn.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: "
                     b"application/json\r\nContent-Length: 100\r\n\r\n{")
        conn.shutdown(socket.SHUT_WR)
        assert b" 400 " in conn.recv(65536).split(b"\r\n")[0]


def test_a_taken_port_is_named(make):
    taken = make()
    other = Endpoint(f"127.0.0.1:{taken.port}", Local(Registry()), None, None)
    other_class = PortTaken
    with socket.socket() as blocker:
        blocker.bind(("127.0.0.1", 0))
        blocker.listen()
        other.port = blocker.getsockname()[1]
        with pytest.raises(other_class, match="--bind"):
            other.start()


@given(st.binary(max_size=200))
def test_no_body_is_a_surprise(body):
    try:
        chat.parse(body, True)
    except chat.BadCall:
        pass


def test_several_messages_become_one_prompt_for_the_market():
    assert chat.as_one_text([{"role": "system", "content": "Be brief."},
                             {"role": "user", "content": "Hi"}]) == "System: Be brief.\n\nUser: Hi"
