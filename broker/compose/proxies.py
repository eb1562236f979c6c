"""The forward proxy on the way to a partner, by the configuration."""

from pathlib import Path

from broker.config import Config
from broker.errors import InputError
from broker.model.proxy import Proxy, proxy_of
from broker.paths import read_file


def proxy_for(config: Config, account: str) -> Proxy | None:
    """Return the account's proxy; else that of the broker, if there is one."""
    own = config.accounts.get(account, {})
    url, file = config["proxy.url"], config["proxy.login_file"]
    if "proxy" in own:
        url, file = own["proxy"], own.get("proxy_login_file", "")
    try:
        login = read_file(Path(file)).decode().strip() if url and file else ""
    except (OSError, ValueError):
        raise InputError(f"{file}, the login of the proxy, cannot be read", hint="broker config check") from None
    return proxy_of(url, login) if url else None
