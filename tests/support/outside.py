"""A credential set that a team made by hand and holds outside the vault."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import rsa
from partner_standin import Standin

from tests.support.partner import LOGIN, PASSWORD, a_csr, key_pem

__all__ = ["OutsideSet", "made_outside", "zipped"]


@dataclass(frozen=True, slots=True)
class OutsideSet:
    """PEM texts, and the client_id that the partner gave with the certificate."""

    key: bytes
    csr: bytes
    certificate: bytes
    cas: bytes
    client_id: str

    @property
    def files(self) -> Mapping[str, bytes]:
        """The set as files, named as those of a bundle."""
        return {
            "tls.key": self.key,
            "tls.crt": self.certificate,
            "ca.crt": self.cas,
            "username": f"{LOGIN}\n".encode(),
            "password": PASSWORD.encode(),
            "client_id": self.client_id.encode(),
        }


def made_outside(partner: Standin, **terms: str) -> OutsideSet:
    """Return a set with a key made here and a certificate that the desk signed on these terms."""
    key = rsa.generate_private_key(65537, 2048)
    csr = a_csr(key)
    reply = partner.sign(csr, **terms)
    cas = f"{partner.authorities.issuing[-1].pem}{partner.authorities.server.pem}"
    return OutsideSet(key_pem(key), csr, reply.certificate.encode(), cas.encode(), reply.client_id)


def zipped(files: Mapping[str, bytes]) -> bytes:
    """Return a zip of `files`."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return made.getvalue()
