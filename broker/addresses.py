"""Mail addresses with letters of any script (RFC 6531): how mails have them, and what that asks of servers."""

from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP

import idna

from broker.errors import InputError
from broker.model.names import mail_address


def on_wire(text: str) -> str:
    """Return a mail address with its domain in ASCII (RFC 5891), which every server takes; raise `InputError`.

    A name before the @ has no such form: if it is not ASCII, the server must offer SMTPUTF8.
    """
    name, _, domain = mail_address(text).rpartition("@")
    try:
        return f"{name}@{domain if domain.isascii() else idna.encode(domain, uts46=True).decode()}"
    except UnicodeError:
        raise InputError(f"{text[:80]!r} has no valid domain", hint="write it as name@company.example") from None


def sendable(text: str) -> str:
    """Return a mail address as a person writes it, if a mail can be sent there; raise `InputError`."""
    on_wire(text)
    return mail_address(text)


def new_mail(sender: str, *to: str) -> EmailMessage:
    """Return a mail with From and To. Its header is in UTF-8 only if an address needs it (RFC 6532)."""
    addresses = list(map(on_wire, (sender, *to)))
    message = EmailMessage(policy=SMTP.clone(utf8=not all(map(str.isascii, addresses))))
    parts = [address.rpartition("@") for address in addresses]
    first, *others = (Address(username=name, domain=domain) for name, _, domain in parts)
    message["From"], message["To"] = first, tuple(others)
    return message
