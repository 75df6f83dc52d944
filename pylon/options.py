"""Every option of the configuration: key, type, default, its sentence, and what it may be.

The generated config.toml, the manual's list and the reader in `config` all come from this table.
Secrets are no options: those that end in `_file` name a 0600 file that holds one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from pylon.units import MAX_MSATS

MAX_SECS = 10 * 365 * 86400
NETWORKS = ("mainnet", "testnet", "signet", "regtest")
WALLETS = ("ledger", "nwc", "lnbits", "phoenixd")
BACKEND_TYPES = ("ollama", "llamacpp", "openai")
DEFAULT_RELAYS = ["wss://nexus.openagents.com", "wss://relay.damus.io", "wss://nos.lol"]

Check = Callable[[Any], "str | None"]      # what is wrong with a value (each item of a list)


# ---- checks -------------------------------------------------------------------------------------

def _between(low: int, high: int) -> Check:
    def check(value: int) -> str | None:
        return None if low <= value <= high else f"must be from {low} to {high}"
    return check


def _one_of(*words: str) -> Check:
    def check(value: str) -> str | None:
        return None if value in words else "must be one of: " + ", ".join(words)
    return check


def _matches(pattern: str, wish: str) -> Check:
    compiled = re.compile(pattern, re.ASCII)

    def check(value: str) -> str | None:
        return None if compiled.fullmatch(value) else f"must be {wish}"
    return check


def check_relay_url(url: str) -> str | None:
    """What is wrong with a relay's address, or None."""
    return _check_url(url, ("wss", "ws"), "wss://relay.example")


def _check_http_url(url: str) -> str | None:
    return None if url == "" else _check_url(url, ("http", "https"), "http://127.0.0.1:8080")


def _check_url(url: str, schemes: tuple[str, ...], example: str) -> str | None:
    if len(url) > 512 or re.search(r"[\s\x00-\x1f\x7f]", url):
        return f"is not an address like {example}"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return f"is not an address like {example}"
    if parts.scheme not in schemes or not parts.hostname or port == 0:
        return f"is not an address like {example} ({' or '.join(schemes)})"
    if parts.username is not None or parts.password is not None:
        return "must not hold a user name or password; put credentials into a file"
    return None


_secs = _between(1, MAX_SECS)
_secs0 = _between(0, MAX_SECS)
_msats = _between(0, MAX_MSATS)
_sats = _between(0, MAX_MSATS // 1000)
_count = _between(1, 1_000_000)
_count0 = _between(0, 1_000_000)
_bytes = _between(1, 100_000_000)
_kind = _between(5000, 5999)
_pubkey = _matches(r"npub1[02-9ac-hj-np-z]{58}|[0-9a-f]{64}", "an npub or 64 lower-case hex digits")
_LEVEL = r"(?:off|error|warn|warning|info|debug|trace)"
_LEVELS = rf"(?:{_LEVEL}|[a-z_.:]+={_LEVEL})"


# ---- the table ----------------------------------------------------------------------------------

class Option(NamedTuple):       # not a dataclass: importing those costs every command 5 ms
    """One key. A `*` in the key stands for a name that the owner chooses."""

    key: str
    type: Any                       # bool, int, str, list[str], list[int] or dict[str, str]
    default: Any
    text: str
    check: Check | None = None


def _text(key: str, default: str, text: str, check: Check | None = None) -> Option:
    return Option(key, str, default, text, check)


def _flag(key: str, default: bool, text: str) -> Option:
    return Option(key, bool, default, text)


def _number(key: str, default: int, text: str, check: Check) -> Option:
    return Option(key, int, default, text, check)


def _texts(key: str, default: list[str], text: str, check: Check | None = None) -> Option:
    return Option(key, list[str], default, text, check)


OPTIONS: tuple[Option, ...] = (
    _text("name", "Pylon Provider", "Name of this node in its public announcement."),
    _text("description", "", "One sentence about this node, published with its name."),
    _texts("relays", DEFAULT_RELAYS, "Nostr relays to serve on; none means no relay at all.",
           check_relay_url),
    _number("min_price_msats", 1000, "Least price of a job in millisatoshi; rounded up to whole "
            "satoshi where one is charged.", _msats),
    _flag("require_payment", True, "Charge before working. Without a usable wallet, jobs are "
          "refused, never done for nothing."),
    _text("default_model", "llama3.2", "Model for a job that names none; where no backend has it, "
          "the first model found."),
    _texts("backend_preference", ["ollama", "llamacpp", "openai"], "Backends in the order in "
           "which they are tried.", _matches(r"[a-z0-9_-]{1,40}", "the name of a backend")),
    _text("network", "regtest", "Bitcoin network: mainnet, testnet, signet or regtest.",
          _one_of(*NETWORKS)),
    _flag("enable_payments", True, "Open a wallet. false refuses paid work, it does not make it "
          "free."),
    _text("data_dir", "", "Directory of identity.mnemonic; empty means the home."),

    _number("provider.max_concurrent_jobs", 1, "Jobs worked on at the same time.",
            _between(1, 64)),
    Option("provider.kinds", list[int], [5050, 5000, 5001, 5002], "Job kinds that are announced, "
           "subscribed and served.", _kind),
    _number("provider.max_queue", 20, "Jobs that may wait for a worker; more are refused.",
            _count),
    _number("provider.job_timeout_secs", 600, "Longest that one job may take.", _secs),
    _number("provider.max_job_age_secs", 900, "Older jobs are left alone.", _secs),
    _texts("provider.feedback", ["processing", "partial", "error", "success"],
           "Feedback that customers get while their job runs (payment-required and errors after "
           "payment are always sent).", _one_of("processing", "partial", "error", "success")),
    _number("provider.partial_interval_secs", 2, "Least time between two partial answers.",
            _between(0, 3600)),
    _texts("provider.models", [], "Models that may be asked for; empty means all that the "
           "backends have."),
    _flag("provider.announce", True, "Publish what this node serves (NIP-89)."),
    _number("provider.heartbeat_secs", 300, "Time between two signs of life on the relays; 0 "
            "sends none.", _secs0),
    _number("provider.max_prompt_bytes", 12288, "Longest prompt that is taken.",
            _between(1, 60_000)),
    _number("provider.max_output_tokens", 2048, "Most tokens that a customer may ask for.",
            _count),
    _number("provider.default_max_tokens", 512, "Tokens for a job that does not say.", _count),
    _number("provider.max_attempts", 3, "Times that an interrupted job is begun.",
            _between(1, 20)),
    _flag("provider.fetch_inputs", True, "Fetch inputs that are events or results of other jobs."),
    Option("provider.aliases", dict[str, str], {}, "Names that customers may use, and the model "
           "that each stands for."),

    _texts("admission.trusted", [], "Customers served without payment and before others.", _pubkey),
    _texts("admission.allow", [], "When not empty, only these customers are served.", _pubkey),
    _texts("admission.block", [], "Customers that are never served.", _pubkey),
    _number("admission.free_jobs_per_day", 0, "Jobs a day and customer that cost nothing.",
            _count0),
    _number("admission.jobs_per_minute", 10, "Jobs a minute that one customer may send.", _count),
    _number("admission.jobs_per_minute_total", 120, "Jobs a minute from everybody together.",
            _count),
    _number("admission.quotes_per_customer", 3, "Unpaid quotes that one customer may have.",
            _count),
    _number("admission.max_open_quotes", 50, "Unpaid quotes in all.", _count),
    _number("admission.min_pow_bits", 0, "Proof of work that a job must carry (NIP-13).",
            _between(0, 64)),

    _number("pricing.base_msats", 0, "Part of the price that every job pays.", _msats),
    _number("pricing.input_msats_per_1k", 0, "Price of 1000 tokens of prompt.", _msats),
    _number("pricing.output_msats_per_1k", 0, "Price of 1000 tokens of answer.", _msats),
    _number("pricing.invoice_expiry_secs", 600, "Life of an invoice.", _between(30, 86400)),
    _text("pricing.escrow", "auto", "Hold the customer's money until the answer is delivered: "
          "auto (where the wallet is the ledger), on, off.", _one_of("auto", "on", "off")),
    _number("pricing.max_hold_secs", 300, "Longest that money is held.", _between(10, 86400)),
    _number("pricing.watch_secs", 604800, "How long an expired invoice is still watched for late "
            "money.", _secs),
    _number("pricing.models.*.base_msats", 0, "Base price for this model.", _msats),
    _number("pricing.models.*.input_msats_per_1k", 0, "Prompt price for this model.", _msats),
    _number("pricing.models.*.output_msats_per_1k", 0, "Answer price for this model.", _msats),

    _text("backends.*.type", "", "What it speaks: ollama, llamacpp or openai; empty means its "
          "name says so.", _one_of("", *BACKEND_TYPES)),
    _text("backends.*.url", "", "Its address; empty means the usual one of its type.",
          _check_http_url),
    _flag("backends.*.enabled", True, "Use it."),
    _text("backends.*.key_file", "", "File that holds its API key, mode 0600."),
    _number("backends.*.weight", 1, "Share of the work among backends with the same model.",
            _between(1, 1000)),
    _texts("backends.*.models", [], "Models to use of it; empty means all."),
    _number("backends.*.context_tokens", 0, "Context of its models; 0 means what it says itself, "
            "with ollama 8192 at most.", _between(0, 10_000_000)),

    _number("limits.first_token_secs", 120, "Longest wait for the first token.", _secs),
    _number("limits.between_tokens_secs", 60, "Longest wait between two tokens.", _secs),
    _number("limits.total_secs", 600, "Longest time of one completion.", _secs),
    _number("limits.output_bytes", 65536, "Longest output of a backend.", _bytes),

    _number("relay.connect_secs", 10, "Longest time to connect.", _between(1, 300)),
    _number("relay.ping_secs", 30, "A relay that is silent for twice as long, also after a ping, "
            "is taken for dead.", _between(5, 3600)),
    _number("relay.frame_bytes", 262144, "Longest frame that a relay may send.", _bytes),
    _number("relay.message_bytes", 524288, "Longest message that a relay may send.", _bytes),
    _number("relay.message_secs", 30, "Longest time that one message may take.",
            _between(1, 3600)),
    _number("relay.max_relays", 32, "Most relays that are connected at once.",
            _between(1, 1000)),
    _flag("relay.allow_private", False, "Also use relays with private addresses that others "
          "name."),
    _text("relay.ca_file", "", "Certificates to trust for relays besides the system's."),
    _number("relay.backoff_max_secs", 300, "Longest pause before connecting again.",
            _between(1, 86400)),

    _text("wallet.backend", "ledger", "The wallet: ledger (play money, regtest only), nwc, lnbits "
          "or phoenixd.", _one_of(*WALLETS)),
    _text("wallet.ledger.file", "", "The ledger that homes on this machine share; empty means "
          "ledger.db beside the homes."),
    _text("wallet.nwc.uri_file", "", "File that holds the nostr+walletconnect:// string, "
          "mode 0600."),
    _text("wallet.lnbits.url", "", "Address of LNbits.", _check_http_url),
    _text("wallet.lnbits.key_file", "", "File that holds its admin key, mode 0600."),
    _text("wallet.lnbits.ca_file", "", "Certificate to trust for it, instead of the system's."),
    _text("wallet.phoenixd.url", "", "Address of phoenixd.", _check_http_url),
    _text("wallet.phoenixd.password_file", "", "File that holds its full-access password, "
          "mode 0600."),
    _text("wallet.phoenixd.limited_password_file", "", "File that holds its limited password; "
          "with this alone nothing can be paid."),

    _number("customer.max_sats_per_job", 100, "Most that an order of ours may cost.", _sats),
    _number("customer.daily_limit_sats", 1000, "Most that orders of ours may cost in 24 hours.",
            _sats),
    _number("customer.quote_secs", 5, "Time for providers to send their quotes.", _secs),
    _number("customer.timeout_secs", 120, "Longest wait for an answer.", _secs),
    _text("customer.policy", "cheap", "Which quote to take: free, cheap, fast or trusted.",
          _one_of("free", "cheap", "fast", "trusted")),

    _flag("api.enabled", False, "Serve the OpenAI-compatible HTTP endpoint."),
    _text("api.bind", "127.0.0.1:9899", "Where it listens.",
          _matches(r"(?:\[[0-9a-f:.]+\]|[A-Za-z0-9.-]+):[0-9]{1,5}", "like 127.0.0.1:9899")),
    _flag("api.buy", False, "Buy from the market what the local backends cannot do."),
    _number("api.max_sats_per_call", 50, "Most that one call may cost.", _sats),
    _number("api.daily_limit_sats", 500, "Most that calls may cost in 24 hours.", _sats),
    _text("api.token_file", "", "File that holds the bearer token, mode 0600. Empty: api.token "
          "among the home's secrets, made when a token is needed (to buy, or to listen beyond "
          "this machine)."),

    _flag("host.auto_start_agents", True, "Wake agents on their heartbeat and triggers."),
    _number("host.max_concurrent_ticks", 2, "Ticks at the same time.", _between(1, 64)),
    _flag("host.unconfined_ok", False, "Run agents with a real wallet although bubblewrap cannot "
          "confine them."),
    _text("host.agent_log_dir", "", "Where agents' logs go; empty means each agent's directory."),

    _text("owner.npub", "", "Your own key: told of what matters, and allowed to command.",
          lambda value: None if value == "" else _pubkey(value)),
    _flag("owner.commands", False, "Take commands from that key by direct message."),

    _text("log.level", "info", "error, warn, info or debug, also by part: "
          "'info,pylon.relays=debug'.", _matches(rf"{_LEVELS}(?:,{_LEVELS})*", "like "
                                                 "'info,pylon.relays=debug'")),
    _number("log.max_bytes", 5_000_000, "Size at which pylon.log is rotated.",
            _between(10_000, 1_000_000_000)),
    _number("log.keep", 3, "Rotated logs that are kept.", _between(0, 100)),

    _number("store.retention_days", 90, "Days that finished jobs and events are kept; rows that "
            "money hangs on stay.", _between(1, 36500)),
    _number("store.content_days", 7, "Days that prompts and answers are kept.",
            _between(0, 36500)),
    _number("store.quote_free_mb", 200, "With less free disk no new paid work is taken.",
            _count0),
    _number("store.pay_free_mb", 50, "With less free disk nothing is paid.", _count0),
)

SECTION_TEXTS = {
    "": "",
    "provider": "Selling inference.",
    "admission": "Who is served, and how much.",
    "pricing": "What a job costs, in millisatoshi.",
    "pricing.models.*": "A price for one model.",
    "backends.*": "A backend; the name is yours. ollama and llamacpp are found without this.",
    "limits": "What a backend may take.",
    "relay": "How relays are talked to.",
    "wallet": "Where the money is.",
    "wallet.ledger": "Play money on this machine.",
    "wallet.nwc": "Nostr Wallet Connect (Alby Hub, coinos, ...).",
    "wallet.lnbits": "LNbits.",
    "wallet.phoenixd": "phoenixd.",
    "customer": "Buying inference.",
    "api": "The HTTP endpoint for programs on this machine.",
    "host": "Hosting agents.",
    "owner": "You.",
    "log": "The daemon's log.",
    "store": "The database.",
}

IGNORED = {                          # keys of the first Pylon that mean nothing here, and why
    "spark_url": "the Spark wallet is not part of this Pylon; choose one with [wallet]",
    "spark_token": "the Spark wallet is not part of this Pylon; delete this secret from the file",
    "codex": "coding agents by tunnel are not part of this Pylon",
    "claude": "coding agents by tunnel are not part of this Pylon",
    "provider.default_model": "the key is default_model, above all tables",
    "pricing.base_rate_msats_per_token": "prices are set per 1000 tokens now",
    "pricing.model_multipliers": "prices of single models stand in [pricing.models.NAME]",
}


# ---- the table as a tree ------------------------------------------------------------------------

def _schema() -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for option in OPTIONS:
        *tables, name = option.key.split(".")
        node = tree
        for table in tables:
            node = node.setdefault(table, {})
        node[name] = option
    return tree


SCHEMA = _schema()


def defaults(schema: dict[str, Any]) -> dict[str, Any]:
    """Nested dictionaries with every default."""
    values: dict[str, Any] = {}
    for name, node in schema.items():
        if name == "*":
            continue
        if isinstance(node, dict):
            values[name] = defaults(node)
        else:
            values[name] = node.default.copy() if hasattr(node.default, "copy") else node.default
    return values


def dotted(path: tuple[str, ...]) -> str:
    """A key as it is written in a file."""
    return ".".join(part if re.fullmatch(r"[A-Za-z0-9_-]+", part) else json.dumps(part)
                    for part in path)
