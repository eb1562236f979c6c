"""The reply to a CSR: certificate, CAs and client_id, as a zip, a mail, or one by one."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from email.message import EmailMessage
from email.utils import format_datetime

from cryptography import x509
from cryptography.hazmat.primitives import serialization


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply, with certificates in PEM. `intermediate` is empty if the issuing CA signed itself."""

    login: str
    client_id: str
    certificate: str
    issuing_ca: str
    server_ca: str
    signed_at: datetime
    intermediate: str = ""

    @property
    def der(self) -> bytes:
        """The certificate as DER."""
        return x509.load_pem_x509_certificate(self.certificate.encode()).public_bytes(serialization.Encoding.DER)

    def files(self) -> Mapping[str, bytes]:
        """Return name and content of each file in the zip."""
        parts = {
            "certificate.pem": self.certificate,
            "intermediate.pem": self.intermediate,
            "issuing-ca.pem": self.issuing_ca,
            "server-ca.pem": self.server_ca,
            "client_id.txt": self.client_id,  # no newline: curl would send it
        }
        return {name: text.encode() for name, text in parts.items() if text}

    def zip(self) -> bytes:
        """Return a zip of all files; the same bytes each time."""
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in self.files().items():
                info = zipfile.ZipInfo(name, self.signed_at.timetuple()[:6])
                info.external_attr = 0o600 << 16
                archive.writestr(info, content)
        return buffer.getvalue()

    def mail(self, link: str, *, to: str = "", in_reply_to: str = "") -> bytes:
        """Return a mail (RFC 5322) with link and client_id in its text, and the certificates attached."""
        message = EmailMessage()
        message["From"] = "Partner Programs <programs@partner.example>"
        message["To"] = to or "customer@customer.example"
        message["Subject"] = f"Your certificate for {self.login}"
        message["Date"] = format_datetime(self.signed_at)
        if in_reply_to:
            message["In-Reply-To"] = in_reply_to
        message.set_content(
            f"Hello,\n\nthe certificate for {self.login} is ready:\n{link}\n\n"
            f"client_id: {self.client_id}\n\nThe CA certificates are attached.\n"
        )
        for name, content in self.files().items():
            if name.endswith(".pem"):
                message.add_attachment(content, maintype="application", subtype="x-pem-file", filename=name)
        return message.as_bytes()
