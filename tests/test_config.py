"""Reading and writing the configuration (RELIABILITY H 98)."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pylon import config
from pylon.errors import ConfigError
from pylon.home import Home
from pylon.options import OPTIONS, SECTION_TEXTS


@pytest.fixture
def write(home):
    def write(text, **kwargs):
        data = text if isinstance(text, bytes) else text.encode()
        home.config.write_bytes(data)
    return write


def problems_of(home):
    return [str(problem) for problem in config.read(home)[1]]


def test_without_a_file_every_option_has_its_default(home):
    loaded = config.load(home)
    assert loaded.provider.max_concurrent_jobs == 1
    assert loaded.relays[0].startswith("wss://") and loaded.require_payment is True
    assert loaded.backends == {} and loaded.pricing.models == {} and loaded.provider.aliases == {}


def test_values_are_read(home, write):
    write("""
        relays = ["wss://relay.example"]
        [provider]
        kinds = [5050]
        [provider.aliases]
        "gpt-3.5" = "small"
        [backends.vllm]
        type = "openai"
        url = "http://10.0.0.2:8000"
        weight = 3
        [pricing.models."llama3.2"]
        base_msats = 5
        """)
    loaded = config.load(home)
    assert loaded.relays == ["wss://relay.example"] and loaded.provider.kinds == [5050]
    assert loaded.provider.aliases == {"gpt-3.5": "small"}
    assert loaded.backends["vllm"].weight == 3 and loaded.backends["vllm"].enabled is True
    assert loaded.pricing.models["llama3.2"].base_msats == 5


def test_a_configuration_does_not_change(home):
    loaded = config.load(home)
    with pytest.raises(AttributeError):
        loaded.name = "x"
    with pytest.raises(AttributeError):
        loaded.provider.kinds = []
    loaded.relays.clear()
    assert config.load(home).relays, "defaults are not shared between configurations"


def test_the_first_pylons_file_is_taken_and_what_it_ignores_is_told(home, write):
    write("""name = "Pylon Provider"
description = "mine"
relays = ["wss://nexus.openagents.com"]
min_price_msats = 1000
require_payment = true
default_model = "llama3.2"
backend_preference = ["ollama", "llamacpp", "apple_fm"]
network = "regtest"
enable_payments = true
spark_url = "https://x"
spark_token = "canary-token"

[codex]
enabled = true
model = "m"
autonomy = "supervised"
approval_required_tools = ["Write"]
""")
    loaded = config.load(home)
    assert loaded.backend_preference == ["ollama", "llamacpp"]
    notes = "\n".join(loaded.notes)
    for word in ("spark_url", "spark_token", "codex", "apple_fm", f"{home.config}:7"):
        assert word in notes
    assert "canary" not in notes


@pytest.mark.parametrize("text, line, told", [
    ("nme = 'x'\n", 1, "did you mean name?"),
    ("name = 'x'\n[provider]\nmax_concurent_jobs = 2\n", 3,
     "did you mean provider.max_concurrent_jobs?"),
    ("max_concurrent_jobs = 2\n", 1, "did you mean provider.max_concurrent_jobs?"),
    ("[provder]\nkinds = [5050]\n", 1, "did you mean provider?"),
    ("[pricing.models.\"x.y\"]\nbase_msat = 1\n", 2, "did you mean"),
    ("\n\nprovider.kindz = [5050]\n", 3, "did you mean provider.kinds?")])
def test_h98_an_unknown_key_is_told_with_line_and_nearest_known(home, write, text, line, told):
    write(text)
    [problem] = problems_of(home)
    assert problem.startswith(f"{home.config}:{line}: ") and told in problem
    with pytest.raises(ConfigError, match=re.escape(told)):
        config.load(home)


@pytest.mark.parametrize("text, line, told", [
    ("name = 3\n", 1, "a text in quotes"),
    ("require_payment = 1\n", 1, "true or false"),
    ("#\nmin_price_msats = true\n", 2, "a whole number"),
    ("min_price_msats = 1.0\n", 1, "a whole number"),
    ("min_price_msats = '1000'\n", 1, "a whole number"),
    ("min_price_msats = -1\n", 1, "from 0 to"),
    ("min_price_msats = 99999999999999999999999\n", 1, "from 0 to"),
    ("relays = 'wss://x'\n", 1, "a list of texts"),
    ("relays = [1]\n", 1, "a list of texts"),
    ("provider = 3\n", 1, "must be a table"),
    ("[provider]\nkinds = [true]\n", 2, "a list of whole numbers"),
    ("[provider]\nkinds = [4999]\n", 2, "from 5000"),
    ("[provider.aliases]\na = 1\n", 1, "a table of texts"),
    ("network = 'mainet'\n", 1, "one of: mainnet"),
    ("[backends.mine]\nurl = 'http://x'\n", 1, "needs a type"),
    ("backend_preference = ['olama']\n", 1, "neither one of"),
    ("[admission]\nblock = ['nsec1abc']\n", 2, "an npub"),
    ("[log]\nlevel = 'loud'\n", 2, "like")])
def test_h98_a_wrong_type_or_value_is_told_with_line(home, write, text, line, told):
    write(text)
    [problem] = problems_of(home)
    assert problem.startswith(f"{home.config}:{line}: ") and told in problem


@pytest.mark.parametrize("url", [
    "http://relay.example", "relay.example", "wss://", "wss:///path", "", "wss://a b",
    "wss://user:pw@relay.example", "wss://relay.example:99999", "wss://relay.example:0",
    "wss://x\\u0000y", "wss://" + "x" * 600, "javascript:alert(1)", "wss://[::1"])
def test_bad_relay_urls_are_told_with_file_and_line(home, write, url):
    write(f'relays = [\n  "wss://good.example",\n  "{url}",\n]\n')
    [problem] = problems_of(home)
    assert problem.startswith(f"{home.config}:") and "relays" in problem
    if url and "\\u" not in url:
        assert problem.startswith(f"{home.config}:{2 if url == 'wss://' else 3}: ")


def test_h98_a_duplicate_key_is_told_with_line(home, write):
    write("name = 'a'\nmin_price_msats = 1\nname = 'b'\n")
    assert problems_of(home) == [f"{home.config}:3: this key or table stands here for the second "
                                 "time"]
    write("[provider]\nkinds = [5050]\n[log]\n[provider]\n")
    assert problems_of(home)[0].startswith(f"{home.config}:4: ")


def test_h98_ten_megabytes_are_refused_at_once(home, write):
    write(b"# nothing\n" * 1_000_000)
    [problem] = problems_of(home)
    assert re.match(rf"{home.config}:\d+: longer than", problem)


@pytest.mark.parametrize("mark", [b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff"])
def test_h98_a_byte_order_mark_is_told(home, write, mark):
    write(mark + b"name = 'x'\n")
    [problem] = problems_of(home)
    assert problem.startswith(f"{home.config}:1: ") and "byte order mark" in problem


def test_h98_crlf_is_read_and_lines_still_count(home, write):
    write("name = 'x'\r\n\r\nfoo_bar = 3\r\n")
    [problem] = problems_of(home)
    assert problem.startswith(f"{home.config}:3: ")
    write("name = 'windows'\r\n[provider]\r\nmax_queue = 7\r\n")
    loaded = config.load(home)
    assert (loaded.name, loaded.provider.max_queue) == ("windows", 7)


@pytest.mark.parametrize("data", [b"\xff\xfe\x00", b"name = '\xc3\x28'\n", b"\x00\n"])
def test_h98_what_is_not_utf8_is_told(home, write, data):
    write(data)
    assert problems_of(home)


def test_h98_deep_nesting_is_told(home, write):
    write("x = " + "[" * 100_000)
    assert "nested too deep" in problems_of(home)[0]


@settings(max_examples=200)
@given(st.binary(max_size=200))
def test_h98_no_bytes_raise_anything_but_problems(tmp_path_factory, data):
    home = Home(tmp_path_factory.getbasetemp() / "fuzz" / "pylon")
    home.create()
    home.config.write_bytes(data)
    config.read(home)


@pytest.mark.parametrize("text, file_key", [
    ("[wallet.nwc]\nuri = 'nostr+walletconnect://canary'\n", "uri_file"),
    ("[wallet.lnbits]\nkey = 'canary'\n", "key_file"),
    ("[wallet.phoenixd]\npassword = 'canary'\n", "password_file"),
    ("[api]\ntoken = 'canary'\n", "token_file"),
    ("[backends.openai]\nkey = 'canary'\n", "key_file")])
def test_a_secret_in_the_file_is_refused_and_never_repeated(home, write, text, file_key):
    write(text)
    [problem] = problems_of(home)
    assert file_key in problem and "canary" not in problem


@pytest.mark.parametrize("text", ["[wallet.lnbits]\nurl = 'https://u:canary@h'\n",
                                  "[backends.ollama]\nurl = 'http://canary@h'\n"])
def test_credentials_in_an_address_are_refused_and_never_repeated(home, write, text):
    write(text)
    [problem] = problems_of(home)
    assert "canary" not in problem and "put credentials into a file" in problem


def test_another_file_takes_the_place_of_the_homes(home, write, tmp_path):
    write("name = 'home'\n[log]\nkeep = 9\n")
    other = tmp_path / "other.toml"
    other.write_text("name = 'other'\n")
    loaded = config.load(home, other)
    assert (loaded.name, loaded.log.keep) == ("other", 3)
    with pytest.raises(ConfigError, match="there is no such file"):
        config.load(home, tmp_path / "missing.toml")


def test_the_systems_file_lies_below_the_homes(home, write, tmp_path, monkeypatch):
    system = tmp_path / "etc.toml"
    system.write_text("name = 'system'\n[log]\nkeep = 9\n")
    monkeypatch.setattr(config, "SYSTEM_CONFIG", system)
    write("name = 'home'\n")
    assert config.load(home).log.keep == 3, "only the system's home reads the system's file"
    monkeypatch.setattr(config, "SYSTEM_OPENAGENTS", home.root.parent)
    loaded = config.load(home)
    assert (loaded.name, loaded.log.keep) == ("home", 9)


def test_every_problem_is_counted(home, write):
    write("foo = 1\nbar = 2\nname = 3\n")
    assert len(problems_of(home)) == 3
    with pytest.raises(ConfigError, match="2 more; see: pylon config check"):
        config.load(home)


def test_the_generated_file_has_every_key_with_its_sentence_and_changes_nothing(home, write):
    text = config.render()
    for option in OPTIONS:
        key = option.key.rsplit(".", 1)[-1]
        if key != "aliases":
            assert f"# {option.text}\n#{key} = " in text
    for section, sentence in SECTION_TEXTS.items():
        assert sentence in text
    write(text)
    loaded = config.load(home)
    home.config.unlink()
    assert loaded == config.load(home)


def test_the_generated_file_is_right_with_every_comment_taken_away(home, write):
    text = config.render()
    write(re.sub(r"^#((?:\[|[\"a-z0-9_.-]+ = ))", r"\1", text, flags=re.MULTILINE)
          .replace('type = ""', 'type = "openai"'))
    config.load(home)


def test_what_is_rendered_is_read_back(home, write):
    source = {"name": "it's \"quoted\" \\ ünï", "relays": [], "provider": {"kinds": [5050],
              "aliases": {"a.b": "c"}}, "backends": {"v-1": {"type": "openai", "weight": 2}},
              "pricing": {"models": {"llama3.2:1b": {"base_msats": 9}}}}
    made = config.from_values(source)
    write(config.render(made))
    assert config.load(home) == made


def test_from_values_is_as_strict_as_a_file():
    with pytest.raises(ConfigError):
        config.from_values({"provider": {"kindz": []}})
    assert config.from_values({"provider": {"max_queue": 3}}).provider.max_queue == 3
