"""Mail servers as they are configured, with their secrets from Vault."""

import shlex
from collections.abc import Callable, Mapping
from email.utils import format_datetime
from typing import Final

from broker.addresses import new_mail
from broker.config import Config
from broker.errors import InputError
from broker.model.clock import Clock
from broker.model.secret import Secret
from broker.people.eml import new_message_id
from broker.people.imap import imap_session
from broker.people.login import Auth, Login
from broker.people.oauth import TokenCommand, TokenEndpoint
from broker.people.server import MailServer, Tls
from broker.people.smtp import Mailer
from broker.settings import IMAP, OAUTH, SMTP
from broker.vault.mail_secrets import VaultMailSecrets

PASSED: Final = ("PATH", "HOME", "LANG", "TZ")  # of the environment, to programs of this host


class Mail:
    """The mail servers of `[mail]`. `secrets` gives what Vault holds for them."""

    def __init__(
        self,
        config: Config,
        environment: Mapping[str, str],
        secrets: Callable[[], VaultMailSecrets],
        clock: Clock,
    ) -> None:
        self._clock = clock
        self._config = config
        self._environment = environment
        self._secrets = secrets

    def has(self, name: str) -> bool:
        """Return whether the server is configured."""
        return bool(self._config[f"mail.{name}.host"])

    def server(self, name: str) -> MailServer:
        """Return a server; raise `InputError` if it is not configured."""
        host, port = self._config[f"mail.{name}.host"], int(self._config[f"mail.{name}.port"])
        if not host:
            raise InputError(f"no {name.upper()} server is configured", hint=f"set host under [mail.{name}]")
        return MailServer(name, host, port, Tls(self._config[f"mail.{name}.tls"]), self._config[f"mail.{name}.ca_file"])

    def login(self, name: str) -> Login | None:
        """Return the login at a server, None if it has no user. Its secret is read when it is used."""
        user, auth = self._config[f"mail.{name}.user"], Auth(self._config[f"mail.{name}.auth"])
        if not user:
            return None
        return Login(user, auth, self._token if auth is not Auth.PASSWORD else lambda: self._secrets().newest(name))

    def mailer(self) -> Mailer:
        """Return what sends mails; raise `InputError` if it is not configured."""
        server, sender = self.server(SMTP), self._config["mail.smtp.from"]
        if not sender:
            raise InputError("the broker's mails have no sender", hint="set from under [mail.smtp]")
        return Mailer(server, sender, self.login(SMTP))

    def require_usable(self) -> None:
        """Raise `InputError` for settings that contradict one another."""
        for name in filter(self.has, (SMTP, IMAP)):
            self.server(name)
        if self.has(SMTP):
            self.mailer()

    def user(self, name: str) -> str:
        """Return the user name at a server."""
        return self._config[f"mail.{name}.user"] or "nobody"

    def check(self, name: str) -> None:
        """Log in at a server, and do nothing there."""
        if name == SMTP:
            self.mailer().check()
            return
        with imap_session(self.server(name), self.login(name)):
            pass

    def send_test(self, to: str) -> None:
        """Send a mail that says that it works."""
        mailer = self.mailer()
        message = new_mail(mailer.sender, to)
        message["Subject"] = "broker mail test"
        message["Date"] = format_datetime(self._clock())
        message["Message-ID"] = new_message_id()
        message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no answer by a machine, please
        message.set_content("This mail was sent by: broker mail test\n")
        mailer.send(message)

    def _token(self) -> Secret[str]:
        arguments, url = self._config["mail.oauth.token_command"], self._config["mail.oauth.token_url"]
        if arguments:
            passed = {key: value for key, value in self._environment.items() if key in PASSED}
            return TokenCommand(shlex.split(arguments), passed).token()
        if not url:
            raise InputError("nothing gives a token", hint="set token_url or token_command under [mail.oauth]")
        client, scope = self._config["mail.oauth.client_id"], self._config["mail.oauth.scope"]
        secret = self._secrets().newest(OAUTH)
        return TokenEndpoint(url, client, secret, scope, self._config["mail.oauth.ca_file"]).token()
