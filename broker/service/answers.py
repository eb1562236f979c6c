"""Bundles as JSON. What all bundles of one generation and application have in common is encoded once."""

from functools import cached_property
from pathlib import Path

import msgspec

from broker.delivery.formats import render
from broker.issuing.batch_issuer import Issued
from broker.model.bundle import Bundle
from broker.model.secret import Secret
from broker.partners.authentication import document_of
from broker.service.messages import BundleAnswer, BundleTerm


class Contents:
    """The contents of a bundle, in both forms of an answer. They name no lease."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle

    @cached_property
    def answer(self) -> Secret[bytes]:
        """The fields of `BundleAnswer` that are not of `BundleTerm`, as JSON."""
        bundle = self.bundle
        answer = BundleAnswer(
            kind="",
            lease="",
            lease_id="",
            issued=bundle.expires,
            expires=bundle.expires,
            account=bundle.account,
            application=bundle.application,
            generation=bundle.generation,
            not_after=bundle.not_after,
            base_url=bundle.base_url,
            login=bundle.login,
            client_id=bundle.client_id,
            key=bundle.key.reveal().decode(),
            certificate=bundle.certificate,
            trust=bundle.trust,
            secrets={name: secret.reveal() for name, secret in bundle.secrets.items()},
            authentication=document_of(bundle.authentication),
        )
        fields = msgspec.to_builtins(answer)
        return Secret(msgspec.json.encode({n: v for n, v in fields.items() if n not in BundleTerm.__struct_fields__}))

    @cached_property
    def files(self) -> Secret[bytes]:
        """Each file's content, `base_url` and `generation`, as JSON."""
        files = render(self.bundle, (), Path("/"))
        values = {file.value: content.reveal().decode() for file, content in files.items()}
        facts = {"base_url": self.bundle.base_url, "generation": str(self.bundle.generation)}
        return Secret(msgspec.json.encode({**values, **facts}))


def bundle_answer(issued: Issued[Contents]) -> bytes:
    """Return a `BundleAnswer` as JSON."""
    lease = issued.lease
    term = BundleTerm(
        kind=lease.kind.value,
        lease=issued.lease_text.reveal(),
        lease_id=lease.id,
        issued=lease.first_issued,
        expires=lease.expires,
    )
    return _joined(issued.contents.answer, term)


def files_answer(issued: Issued[Contents]) -> bytes:
    """Return one flat object with the content of each file."""
    return _joined(issued.contents.files, {"expires": issued.lease.expires, "lease_id": issued.lease.id})


def _joined(contents: Secret[bytes], term: object) -> bytes:
    """Return one JSON object with the fields of two."""
    return contents.reveal()[:-1] + b"," + msgspec.json.encode(term)[1:]
