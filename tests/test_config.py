"""Settings: which source wins, and every file that is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.config import Config, resolve
from broker.errors import InputError
from broker.settings import SETTINGS

GOOD = 'version = 1\n[vault]\naddress = "https://vault.example"\n'


def read(tmp_path: Path, text: str | bytes = GOOD, /, **environment: str) -> Config:
    file = tmp_path / "broker.toml"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return resolve(flags={}, environment=environment, file=file)


def assert_refused(tmp_path: Path, text: str | bytes, *words: str) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, text)
    error = f"{caught.value.message} | {caught.value.hint}"
    assert str(tmp_path / "broker.toml") in caught.value.message
    for word in words:
        assert word in error


def test_flag_environment_file_default(tmp_path: Path) -> None:
    file = tmp_path / "broker.toml"
    file.write_text('version = 1\n[vault]\npatience = "3s"\n')
    name, environment, defaults = "vault.patience", {"BROKER_TIMEOUT": "2s"}, {"vault.patience": "4s"}

    def won(flags: dict[str, str], environment: dict[str, str], file: Path | None) -> tuple[str, str]:
        value = resolve(flags=flags, environment=environment, file=file, defaults=defaults).values[name]
        return value.text, value.source

    assert won({name: "1s"}, environment, file) == ("1s", "flag")
    assert won({}, environment, file) == ("2s", "$BROKER_TIMEOUT")
    assert won({}, {}, file) == ("3s", str(file))
    assert won({}, {"BROKER_CONFIG": str(file)}, None) == ("3s", str(file))
    assert won({}, {"BROKER_CONFIG": str(file), "BROKER_TIMEOUT": ""}, None) == ("3s", str(file))


def test_default_is_the_last_resort(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "is_file", lambda place: False)  # a broker of this machine may have one in /etc
    config = resolve(flags={}, environment={}, file=None)
    assert config["vault.mount"] == "credential-broker"
    assert config.values["vault.mount"].source == "default"
    assert config.file is None


def test_file_in_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broker.toml").write_text(GOOD)
    monkeypatch.chdir(tmp_path)
    assert resolve(flags={}, environment={}, file=None)["vault.address"] == "https://vault.example"


def test_openbaos_variable_wins(tmp_path: Path) -> None:
    config = read(tmp_path, GOOD, BAO_ADDR="https://bao.example", VAULT_ADDR="https://other.example")
    assert (config["vault.address"], config.values["vault.address"].source) == ("https://bao.example", "$BAO_ADDR")


def test_path_is_relative_to_its_file(tmp_path: Path) -> None:
    text = 'version = 1\n[vault]\nca_file = "ca.pem"\n[roles.auditor]\nrole_id_file = "roles/id"\n'
    config = read(tmp_path, text)
    assert config["vault.ca_file"] == str(tmp_path / "ca.pem")
    assert config.logins["auditor"]["role_id_file"] == str(tmp_path / "roles/id")


def test_path_may_begin_with_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somewhere")
    assert read(tmp_path, 'version = 1\n[vault]\nca_file = "~/ca.pem"\n')["vault.ca_file"] == "/somewhere/ca.pem"
    config = read(tmp_path, 'version = 1\n[vault]\nca_file = "~no-such-user/ca.pem"\n')
    assert config["vault.ca_file"] == str(tmp_path / "~no-such-user/ca.pem")


def test_default_login_serves_other_roles(tmp_path: Path) -> None:
    config = read(tmp_path, GOOD + '[login]\nmethod = "token"\n[roles.anchor]\nmethod = "approle"\n')
    assert config.logins["default"] == {"method": "token"}
    assert config.logins["anchor"] == {"method": "approle"}


ISSUER = '[issuers.ci]\nissuer = "https://ci.example"\naudience = "broker"\n'


def test_an_issuers_mount_derives_from_ours(tmp_path: Path) -> None:
    text = (
        GOOD + ISSUER + 'keys_file = "ci.pem"\n[issuers.pods]\nissuer = "https://k8s"\naudience = "b"\nmount = "jwt"\n'
    )
    issuers = read(tmp_path, text, BROKER_MOUNT="team/a").issuers
    assert (issuers["ci"].mount, issuers["ci"].keys_file) == ("team/a-jwt/ci", str(tmp_path / "ci.pem"))
    assert [name for name, issuer in issuers.items() if issuer.is_ours] == ["ci"]
    assert issuers["pods"].mount == "jwt"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("issuers = 5\n", ("issuers must be tables",)),
        ("[issuers]\nci = 5\n", ("[issuers.ci] must be a table of texts",)),
        ('[issuers.ci]\nissuer = "https://ci.example"\nkeys_file = "k"\n', ("audience are required",)),
        ('[issuers.ci]\naudience = "broker"\nkeys_file = "k"\n', ("issuer and audience are required",)),
        (ISSUER, ("needs one of jwks_url", "mount must name a JWT mount that exists")),
        (f'{ISSUER}role = "x"\n', ("there is no setting issuers.ci.role",)),
        (f'{ISSUER}keys_file = "k"\njwks_url = "https://k"\n', ("needs one of jwks_url",)),
        (f'{ISSUER}jwks_url = "http://k"\n', ("does not begin with https://",)),
        (f'{ISSUER}keys_file = "k"\nca_file = "k"\n', ("ca_file verifies",)),
        (f'{ISSUER}keys_file = "k"\nmount = "../x"\n', ("is not a mount of Vault",)),
        (f'{ISSUER}keys_file = "k"\n{ISSUER.replace("ci]", "c]")}keys_file = "k"\n', ("have the same issuer",)),
        ('[issuers.CI]\nissuer = "x"\naudience = "b"\nmount = "m"\n', ("[issuers.CI]: issuer 'CI' is not a name",)),
    ],
)
def test_a_wrong_issuer_is_named(tmp_path: Path, text: str, words: tuple[str, ...]) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, f"version = 1\n{text}")
    for word in words:
        assert word in f"{caught.value.message} {caught.value.hint}"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ("version", "version = 1")),
        ("[vault]\n", ("version",)),
        ("version = 2\n", ("version",)),
        ('version = "1"\n', ("version",)),
        ("version = true\n", ("version",)),
        ("version = 1\nversion = 1\n", ("is not TOML",)),
        ("version = 1\n[vault\n", ("is not TOML", "line 2")),
        ("version = 1\nvault = 5\n", ("there is no setting vault",)),
        ('version = 1\n[vault]\nadress = "x"\n', ("vault.adress", "did you mean vault.address?")),
        ('version = 1\n[vault]\nqqqq = "x"\n', ("vault.qqqq", "broker config show")),
        ("version = 1\n[vault]\naddress = 5\n", ("vault.address must be text",)),
        ('version = 1\n[vault]\naddress = ["x"]\n', ("vault.address must be text",)),
        ("version = 1\n[vualt]\n", ("there is no setting vualt",)),
        ('version = 1\n[vault.address]\nx = "y"\n', ("vault.address",)),
        ("version = 1\nroles = 5\n", ("roles must be tables",)),
        ("version = 1\nlogin = 5\n", ("[login] must be a table",)),
        ("version = 1\n[roles.auditr]\n", ("roles.auditr", "did you mean roles.auditor?")),
        ('version = 1\n[roles.auditor]\nrole_id = "x"\n', ("roles.auditor.role_id", "did you mean")),
        ("version = 1\n[roles.auditor]\nmethod = 5\n", ("[roles.auditor] must be a table of texts",)),
        ('version = 1\nactor = "a\\u001bb"\n', ("actor", "control character")),
        ('version = 1\n[bundle]\nttl = "soon"\n', ("bundle.ttl", "'soon' is not a duration")),
        ('version = 1\n[bundle]\nttl = "0s"\n', ("bundle.ttl", "is not a duration")),
        (b"version = 1\n\xff\n", ("is not UTF-8 text (line 2)",)),
        ("version = " + "9" * 5000, ("is not TOML",)),
        ("version = 1\nx = " + "[" * 3000, ("nested too deeply",)),
        ("#" * 2**20 + "\n", ("more than 1048576 bytes",)),
        (f'version = 1\n[embedded]\ndirectory = "{"x" * 5000}"\n', ("embedded.directory", "too long for a path")),
        (f'version = 1\n[embedded]\ndirectory = "{"x/" * 2500}"\n', ("embedded.directory", "too long for a path")),
        (f'version = 1\n[roles.auditor]\nrole_id_file = "{"x" * 300}"\n', ("roles.auditor.role_id_file",)),
        ('version = 1\n[roles.auditor]\nrole_id_file = "a\\u0000b"\n', ("roles.auditor.role_id_file",)),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_bad_file_is_refused(tmp_path: Path, text: str | bytes, words: tuple[str, ...]) -> None:
    assert_refused(tmp_path, text, *words)


def test_a_byte_order_mark_is_no_error(tmp_path: Path) -> None:
    """Editors of Windows write one."""
    file = tmp_path / "broker.toml"
    file.write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    assert resolve(flags={}, environment={}, file=file).values


@pytest.mark.parametrize("place", ["nowhere.toml", "", "broker.toml/x"])
def test_unreadable_file_is_named(tmp_path: Path, place: str) -> None:
    (tmp_path / "broker.toml").write_text(GOOD)
    with pytest.raises(InputError, match="cannot read") as caught:
        resolve(flags={}, environment={"BROKER_CONFIG": str(tmp_path / place)}, file=None)
    named = f"broker init --out {tmp_path / place} writes one"
    assert caught.value.hint == (named if place == "nowhere.toml" else "check its owner and mode")


@pytest.mark.parametrize("variable", ["BROKER_TIMEOUT", "BROKER_TTL"])
def test_bad_duration_names_its_source(tmp_path: Path, variable: str) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, GOOD, **{variable: "never"})
    assert f"${variable}" in caught.value.message


@pytest.mark.parametrize(
    "address",
    [
        "https://user:planted@vault.example",
        "https://planted@vault.example:8200/path",
        "user:planted@vault.example",
        "https://user:planted@[vault.example",
        "https://vault.example?token=planted",
        "https://vault.example#planted",
        "unix://user:planted@/run/vault.sock",
    ],
)
def test_address_with_secret_is_not_shown(tmp_path: Path, address: str) -> None:
    with pytest.raises(InputError, match="carries more than host") as caught:
        read(tmp_path, GOOD, VAULT_ADDR=address)
    assert "$VAULT_ADDR" in caught.value.message
    assert "planted" not in f"{caught.value.message}{caught.value.hint}"
    assert_refused(tmp_path, f'version = 1\n[vault]\naddress = "{address}"\n', "carries more than host")


@pytest.mark.parametrize(
    ("address", "hint"),
    [
        ("127.0.0.1:8200", "http:// or https:// in front"),
        ("localhost:8200", "http:// or https:// in front"),
        ("vault.example", "http:// or https:// in front"),
        ("ftp://vault.example", "http(s)://host:port"),
        ("http://[::1", "http(s)://host:port"),
        ("http://vault.example:port", "http(s)://host:port"),
        ("http://vault.example:99999", "http(s)://host:port"),
        ("https://", "http(s)://host:port"),
        ("unix://", "http(s)://host:port"),
        ("https://vault.example/v1", "remove /v1"),
        ("https://vault.example/behind/v1/", "remove /v1"),
    ],
)
def test_bad_address_names_its_source(tmp_path: Path, address: str, hint: str) -> None:
    for variable in ("BAO_ADDR", "VAULT_ADDR"):
        with pytest.raises(InputError) as caught:
            read(tmp_path, GOOD, **{variable: address})
        assert f"(${variable}): {address!r}" in caught.value.message
        assert hint in caught.value.hint
    assert_refused(tmp_path, f'version = 1\n[vault]\naddress = "{address}"\n', address, "broker.toml", hint)


@pytest.mark.parametrize("mount", ["/x", "x/", "a b", "a//b", "../sys", "${mount}", '"', "x'; rm -rf y; '"])
def test_bad_mount_is_refused(tmp_path: Path, mount: str) -> None:
    """It stands in policies, URLs and the printed shell script."""
    with pytest.raises(InputError, match="mount") as caught:
        read(tmp_path, GOOD, BROKER_MOUNT=mount)
    assert "$BROKER_MOUNT" in caught.value.message


@pytest.mark.parametrize("url", ["https://p:1", "p:3128", "http://u:planted@p:1", "http://p:1/x", "http://p:99999"])
def test_unusable_proxy_names_its_source(tmp_path: Path, url: str) -> None:
    with pytest.raises(InputError, match="proxy is not a usable URL") as caught:
        read(tmp_path, GOOD, BROKER_PROXY=url)
    assert "$BROKER_PROXY" in caught.value.message
    assert "planted" not in f"{caught.value.message}{caught.value.hint}"
    assert_refused(tmp_path, f'version = 1\n[accounts.acme]\nproxy = "{url}"\n', "accounts.acme.proxy")


def test_account_can_have_a_proxy(tmp_path: Path) -> None:
    text = 'version = 1\n[accounts.acme]\nproxy = "http://p:1"\nproxy_login_file = "login"\n'
    assert read(tmp_path, text).accounts["acme"] == {
        "proxy": "http://p:1",
        "proxy_login_file": str(tmp_path / "login"),
    }
    assert_refused(tmp_path, 'version = 1\n[accounts.acme]\nproxi = ""\n', "accounts.acme.proxi", "proxy")
    assert_refused(tmp_path, "version = 1\naccounts = 1\n", "accounts must be tables", "[accounts.acme]")
    assert_refused(tmp_path, "version = 1\n[accounts]\nacme = 1\n", "[accounts.acme] must be a table of texts")


def test_socket_path_may_hold_any_letter(tmp_path: Path) -> None:
    address = "unix:///run/vault@1/socket"
    assert read(tmp_path, GOOD, VAULT_ADDR=address)["vault.address"] == address


def test_no_setting_is_set_by_kubernetes() -> None:
    """A service called `broker` puts BROKER_PORT and BROKER_SERVICE_HOST into every pod."""
    variables = [variable for setting in SETTINGS for variable in setting.variables]
    assert not [v for v in variables if v.endswith("_PORT") or "_SERVICE_" in v]
    assert len(variables) == len(set(variables))


def test_every_setting_is_used() -> None:
    code = "".join(
        p.read_text() for p in Path(__file__).parents[1].joinpath("broker").rglob("*.py") if p.name != "settings.py"
    )
    code += Path(__file__).parents[1].joinpath("broker/cli/config.py").read_text()
    for setting in SETTINGS:
        by_server = setting.name.replace(".smtp.", ".{name}.").replace(".imap.", ".{name}.")
        assert f'"{setting.name}"' in code or f'"{by_server}"' in code, setting.name


@pytest.mark.parametrize(
    ("auth", "meant"),
    [
        ("token-file:token", "token-file:{here}/token"),
        ("jwt-file:/run/jwt", "jwt-file:/run/jwt"),
        ("jwt-env:CI_TOKEN", "jwt-env:CI_TOKEN"),
        ("kubernetes", "jwt-file:/var/run/secrets/broker/token"),
    ],
)
def test_identities_for_the_service(tmp_path: Path, auth: str, meant: str) -> None:
    config = read(tmp_path, f'version = 1\n[service]\nauth = "{auth}"\n')
    assert config["service.auth"] == meant.format(here=tmp_path)


@pytest.mark.parametrize(
    "auth", ["s.planted", "token-file:", "jwt-env:a.b.planted", "jwt-env:", "cert", "approle:x", "planted:x", ":"]
)
def test_other_texts_are_no_identity(tmp_path: Path, auth: str) -> None:
    """And are not quoted: somebody may have put the token itself there."""
    with pytest.raises(InputError, match=r"service\.auth \(\$BROKER_AUTH\)") as raised:
        read(tmp_path, BROKER_AUTH=auth)
    assert "planted" not in f"{raised.value.message}{raised.value.hint}"
