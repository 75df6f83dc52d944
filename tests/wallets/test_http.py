import ssl
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
import threading

import pytest
from requests.auth import AuthBase

from pylon.errors import WalletUnreachable
from pylon.wallets.http import Answer, Api
from tests.parts import certificates


class NoAuth(AuthBase):

    def __call__(self, call):
        return call


class Server:
    """Answers every GET with its request line and headers."""

    def __init__(self, context=None):
        class Handler(BaseHTTPRequestHandler):

            def log_message(self, *args):
                """Say nothing."""

            def do_GET(self):
                body = str(self.headers).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Set-Cookie", "a=b")
                self.end_headers()
                self.wfile.write(body)
        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        if context is not None:
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def test_nothing_of_the_environment_is_used(monkeypatch, tmp_path):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password mine\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("all_proxy", "http://127.0.0.1:1")
    with closing(Server()) as server:
        api = Api(f"http://127.0.0.1:{server.port}/")
        api.get("/one", NoAuth())
        headers = api.get("/two", NoAuth()).text.lower()
    assert "authorization" not in headers and "cookie" not in headers
    assert "accept-encoding: identity" in headers


def test_a_certificate_is_checked(tmp_path):
    made = certificates.make(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.cert, made.key)
    with closing(Server(context)) as server:
        url = f"https://localhost:{server.port}"
        assert Api(url, str(made.authority)).get("/", NoAuth()).status == 200
        with pytest.raises(WalletUnreachable):
            Api(url).get("/", NoAuth())
        with pytest.raises(WalletUnreachable):      # the right authority, another host
            Api(f"https://127.0.0.2:{server.port}", str(made.authority)).get("/", NoAuth())


@pytest.mark.parametrize("text", ["", "NaN", '{"a":1,"a":2}', "[" * 5000, "1e999x", "{}x"])
def test_json_that_is_none(text):
    with pytest.raises(WalletUnreachable):
        Answer(200, text).object()


def test_the_reason_of_an_error_is_cut_and_escaped():
    with pytest.raises(WalletUnreachable) as caught:
        Answer(502, "\x1b[31m" + "x" * 10_000).wanted(200)
    assert len(str(caught.value)) < 400 and "\x1b" not in str(caught.value)
