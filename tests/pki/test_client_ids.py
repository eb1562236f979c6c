"""Only values that a reply calls a client_id are found, and no other identifiers."""

from __future__ import annotations

import io
import zipfile

import pytest

from broker.pki.client_ids import client_ids_in
from broker.pki.reply import read_reply
from tests.support import pki

ID = "1eebc2d5-5df3-459b-a624-20abfcf82530"
OTHER = "8f3b2c1d-1111-2222-3333-444455556666"
CERTIFICATE = pki.pem(pki.a_leaf(pki.a_ca()))
MAIL = (
    f"From: ca@partner.example\r\nMessage-ID: <{OTHER}@partner.example>\r\nX-Client-ID: {OTHER}\r\n"
    f'Content-Type: multipart/mixed;\r\n boundary="{OTHER}"\r\n\r\n--{OTHER}\r\nContent-ID: {OTHER}\r\n\r\n'
)


def named(text: str) -> tuple[str, ...]:
    return client_ids_in([text])


def in_zip(files: dict[str, bytes]) -> tuple[str, ...]:
    """The client_ids of a zip that has a certificate too."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, content in {"certificate.pem": CERTIFICATE.encode(), **files}.items():
            archive.writestr(name, content)
    return read_reply(made.getvalue()).client_ids


@pytest.mark.parametrize(
    "text",
    [
        f"client_id: {ID}",
        f"Your Client ID = {ID}.",
        f"CLIENT-ID:\r\n  {ID}\r\nBest regards",
        f'{{"clientId": "{ID}", "x": 1}}',
        f'{{"client_id":"{ID}"}}',
        f"**Client ID:** `{ID}`",
        f"client_id: \u201c{ID}\u201d, as agreed",
        f"(client_id={ID})",
        MAIL + f"Hello,\r\nclient_id: {ID}\r\n",
        f"Login: MZP1\nclient_id: {ID}\nDate: 2026-03-01\n",
    ],
)
def test_a_labelled_value_is_found(text: str) -> None:
    assert named(text) == (ID,)


@pytest.mark.parametrize(
    "text",
    [
        f"Use {ID} in every request.",
        ID,
        MAIL,
        f"--{OTHER}\nContent-Type: text/plain\nclient_id: {ID}\n",
        f"client_id: {ID}@partner.example",
        f"https://login.example/authorize?client_id={ID}&state=1",
        f"https://login.example/authorize?a=1&amp;client_id={ID}",
        f"session_client_id: {ID}",
        f"client_id_issued_at: {ID}",
        f"client_id: {ID[:20]}=\n{ID[20:]}",
        f"client_id=3D{ID}",
        f"client_id: {ID[:8]}\u2026",
        f"client_id: {ID[:8]}...",
        f"client_id: {ID}+/x",
        "client_id: " + "a1" * 65,
        "client_id: attached",
        f"client_id:\n\nSubject: x\nDate: y\n\n{ID}",
        f"client_id: {ID}\n\0\x01",
    ],
)
def test_anything_else_is_no_client_id(text: str) -> None:
    assert named(text) == ()


def test_few_are_kept() -> None:
    assert len(named("\n".join(f"client_id: {n:08x}-1" for n in range(20)))) == 8


def test_headers_of_a_mail_name_none() -> None:
    assert read_reply((MAIL + CERTIFICATE).encode()).client_ids == ()


def test_a_login_page_names_none() -> None:
    page = f'<!DOCTYPE html><html><script>{{"clientId": "{ID}"}}</script></html>'
    assert in_zip({"page.html": page.encode()}) == ()


@pytest.mark.parametrize("name", ["__MACOSX/._reply.txt", "x/._reply.txt", ".DS_Store", "a/.DS_Store", "Thumbs.db"])
def test_files_of_the_system_name_none(name: str) -> None:
    assert in_zip({name: f"client_id: {ID}".encode()}) == ()


def test_a_binary_file_names_none() -> None:
    assert in_zip({"logo.png": b"\x89PNG\r\n\x1a\n\0\0" + f"client_id: {ID}\n".encode()}) == ()


@pytest.mark.parametrize("name", ["client_id.txt", "for you/Client-ID.txt", "clientid"])
def test_a_file_called_client_id_is_labelled(name: str) -> None:
    assert in_zip({name: f"{ID}\n".encode()}) == (ID,)
    assert in_zip({name: f"the client_id: {ID}\n".encode()}) == (ID,)
    assert in_zip({"other.txt": ID.encode()}) == ()
