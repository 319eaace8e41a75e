"""The certificates and keys of one cluster, and kubeconfigs with them.

Everything is created anew for each cluster and thrown away with it, so validity is short and nothing is renewed. `control_plane.py` and
`node.py` create them.
"""

import base64
import datetime
import ipaddress
import json
import os
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

VALID_DAYS = 365
CLOCK_SKEW = datetime.timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate and its private key, as files."""

    certificate: Path
    key: Path


class Authority:
    """The cluster's certificate authority; writes what it signs below one folder."""

    def __init__(self, folder: Path) -> None:
        """Make the authority's own key and certificate."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "alise-test-cluster")])
        key_usage = x509.KeyUsage(
            digital_signature=True,
            key_cert_sign=True,
            crl_sign=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        )
        certificate = (
            self._builder(self._name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(key_usage, critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.pair = self._write("ca", certificate, self._key)

    def client(self, file_name: str, common_name: str, organization: str | None = None) -> KeyPair:
        """A client certificate: Kubernetes reads the user from the common name and the group from the organization."""
        return self._issue(file_name, common_name, organization, ExtendedKeyUsageOID.CLIENT_AUTH, ())

    def server(self, file_name: str, common_name: str, names: Sequence[str]) -> KeyPair:
        """A serving certificate for DNS names and addresses."""
        return self._issue(file_name, common_name, None, ExtendedKeyUsageOID.SERVER_AUTH, names)

    def trust(self, identity: KeyPair) -> ssl.SSLContext:
        """TLS settings of a client that trusts this authority and shows this certificate."""
        context = ssl.create_default_context(cafile=str(self.pair.certificate))
        context.load_cert_chain(identity.certificate, identity.key)
        return context

    def signing_keys(self, file_name: str) -> tuple[Path, Path]:
        """A bare key pair (private, public), as service-account tokens are signed with."""
        key = ec.generate_private_key(ec.SECP256R1())
        private, public = self._folder / f"{file_name}.key", self._folder / f"{file_name}.pub"
        write_private(private, _private_bytes(key))
        public.write_bytes(key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
        return private, public

    def _issue(
        self, file_name: str, common_name: str, organization: str | None, usage: x509.ObjectIdentifier, names: Sequence[str]
    ) -> KeyPair:
        key = ec.generate_private_key(ec.SECP256R1())
        attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
        if organization is not None:
            attributes.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
        builder = self._builder(x509.Name(attributes), key.public_key()).add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        return self._write(file_name, builder.sign(self._key, hashes.SHA256()), key)

    def _builder(self, subject: x509.Name, public_key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - CLOCK_SKEW)
            .not_valid_after(now + datetime.timedelta(days=VALID_DAYS))
            # Python's own TLS checks refuse a chain without key identifiers.
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )

    def _write(self, file_name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> KeyPair:
        pair = KeyPair(self._folder / f"{file_name}.crt", self._folder / f"{file_name}.key")
        pair.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        write_private(pair.key, _private_bytes(key))
        return pair


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _private_bytes(key: ec.EllipticCurvePrivateKey) -> bytes:
    # The traditional form: kube-apiserver 1.20 does not read PKCS8 keys for service accounts.
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner may read, never readable to others in between."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as handle:
        handle.write(content)


def write_kubeconfig(path: Path, server: str, authority: bytes, user: dict[str, str]) -> Path:
    """Write a kubeconfig with one cluster, user and context. `user` holds the fields of a kubeconfig user (`token`, or client files)."""

    cluster = {"server": server, "certificate-authority-data": base64.b64encode(authority).decode()}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "alise", "cluster": cluster}],
        "users": [{"name": "alise", "user": user}],
        "contexts": [{"name": "alise", "context": {"cluster": "alise", "user": "alise", "namespace": "default"}}],
        "current-context": "alise",
    }
    write_private(path, json.dumps(config, indent=2).encode())  # JSON is YAML
    return path


def certificate_user(pair: KeyPair) -> dict[str, str]:
    """The user entry of a kubeconfig for a client certificate, its content inside, so that the file can be copied elsewhere."""

    return {
        "client-certificate-data": base64.b64encode(pair.certificate.read_bytes()).decode(),
        "client-key-data": base64.b64encode(pair.key.read_bytes()).decode(),
    }
