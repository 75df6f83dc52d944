"""Certificates for servers of the tests: an authority made on the spot, and what it signs."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class Certificates(NamedTuple):
    authority: Path         # what a client must trust: `[relay] ca_file`
    cert: Path
    key: Path


def make(directory: Path, hosts: tuple[str, ...] = ("localhost",), days: int = 2) -> Certificates:
    """A fresh authority and a server certificate for `hosts` and 127.0.0.1.

    With negative `days` the certificate has already expired.
    """
    now = datetime.datetime.now(datetime.timezone.utc)
    authority_key, server_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority_name = _name("tests of pylon")
    authority = (_builder(authority_name, authority_name, authority_key, now, 2)
                 .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
                 .sign(authority_key, hashes.SHA256()))
    names: list[x509.GeneralName] = [x509.DNSName(host) for host in hosts]
    names.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    server = (_builder(_name(hosts[0]), authority_name, server_key, now, days)
              .add_extension(x509.SubjectAlternativeName(names), critical=False)
              .sign(authority_key, hashes.SHA256()))
    made = Certificates(directory / "authority.pem", directory / "cert.pem", directory / "key.pem")
    made.authority.write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    made.cert.write_bytes(server.public_bytes(serialization.Encoding.PEM))
    made.key.write_bytes(server_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption()))
    return made


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey,
             now: datetime.datetime, days: int) -> x509.CertificateBuilder:
    start = now - datetime.timedelta(days=10)
    return (x509.CertificateBuilder().subject_name(subject).issuer_name(issuer)
            .public_key(key.public_key()).serial_number(x509.random_serial_number())
            .not_valid_before(start).not_valid_after(now + datetime.timedelta(days=days)))
