"""Profiles: the built-in one holds the published facts, and custom ones are read strictly."""

from __future__ import annotations

import json
import tomllib
from datetime import timedelta
from pathlib import Path

import pytest

from broker.copies import replace
from broker.errors import InputError, UnknownNameError
from broker.model.authentication import Authentication, Basic, ClientId
from broker.partners import catalogue
from broker.partners.document import NewerProfileError, from_document, parse, to_document

MINE = """
schema = 1
name = "my-partner"
title = "My partner"
[environments.production]
base_url = "https://api.example.com/v1"
"""


def assert_refused(text: str, *words: str) -> InputError:
    with pytest.raises(InputError) as caught:
        parse(text, "mine.toml")
    shown = f"{caught.value.message} | {caught.value.hint}"
    assert caught.value.message.startswith("mine.toml: "), shown
    assert caught.value.hint
    for word in words:
        assert word in shown
    return caught.value


def test_built_in_profile_holds_the_facts() -> None:
    profile = catalogue.builtin("stellantis")
    assert profile.environment("production").base_url == "https://api-cert.groupe-psa.com/connectedcar/v3"
    assert profile.environment("stand-in").base_url is None
    assert profile.subject.fixed == {"OU": "Programs Partners"}
    assert profile.subject.order == ("C", "ST", "L", "O", "OU", "CN", "emailAddress")
    assert profile.subject.common_name_is_login
    assert (profile.key.bits, profile.key.digest) == (2048, "sha256")
    assert profile.authentication == Authentication((Basic(), ClientId(query="client_id")))
    assert (profile.probe.method, profile.probe.path, profile.probe.query) == ("GET", "/fleets", {"pageSize": "1"})


def test_unpublished_settings_are_unknown() -> None:
    profile = catalogue.builtin("stellantis")
    assert profile.unknowns == ("submission.to", "renewal.lifetime", "renewal.overlap", "renewal.lead_time")


def test_operations_hold_the_facts() -> None:
    """Pausing notifications and remote commands are writes; lastPosition answers GeoJSON only."""
    rows = {(o.method, o.path): o for o in catalogue.builtin("stellantis").operations}
    assert len(rows) == 47
    vehicle = "/fleets/{fid}/vehicles/{vid}"
    assert str(rows["POST", f"{vehicle}/callbacks/{{cbid}}/remotes"]).endswith("/remotes: 202")
    assert rows["PUT", "/fleets/{fid}/monitors/{mid}/status"].writes
    assert rows["PUT", "/fleets/{fid}/remote/callbacks/{cbid}/status"].writes
    assert rows["DELETE", "/fleets/{fid}/monitors/{mid}"].status == 204
    assert [o.path for o in rows.values() if o.accept] == [f"{vehicle}/lastPosition"]
    old = ["status", "maintenances", "alerts", "alerts/{aid}", "trips", "collisions", "collisions/{cid}"]
    assert {o.path for o in rows.values() if o.deprecated} == {
        f"{vehicle}/lastPosition",
        *(f"/fleets/{{fid}}/{name}" for name in old),
    }


def test_profile_holds_quotas_and_refusals() -> None:
    profile = catalogue.builtin("stellantis")
    assert [quota.window for quota in profile.quotas] == [timedelta(days=1), timedelta(seconds=1)]
    assert "Not registered to plan" in [refusal.text for refusal in profile.refusals if refusal.status == 401]


def test_space_after_a_media_type_is_removed() -> None:
    """The published OpenAPI has some; a client that compares with them finds no answer that fits."""
    own = "[[operations]]\nmethod = 'GET'\npath = '/x'\naccept = 'application/vnd.geo+json '\n"
    profile = parse("media_type = 'application/hal+json '\n" + MINE + own, "m")
    assert (profile.media_type, profile.operations[0].accept) == ("application/hal+json", "application/vnd.geo+json")


def test_stored_profile_may_exceed_limits() -> None:
    document = to_document(catalogue.builtin("stellantis"))
    stored = document | {"renewal": {"safety": "999999d", "lead_time": "999999d"}}
    assert from_document(stored, "vault").renewal.safety == timedelta(days=999999)


@pytest.mark.parametrize("name", catalogue.names())
def test_built_in_profiles_survive_storing(name: str) -> None:
    profile = catalogue.builtin(name)
    assert from_document(json.loads(json.dumps(to_document(profile))), "vault") == profile


def test_short_profile_survives_storing() -> None:
    profile = parse(MINE, "mine.toml")
    assert profile.authentication.parts == (Basic(), ClientId(query="client_id"))
    assert from_document(json.loads(json.dumps(to_document(profile))), "vault") == profile
    bare = parse(
        MINE + '[authentication]\nbasic = false\nclient_id = {}\n[renewal]\nshare = 0.5\nlifetime = "365d"\n', "m"
    )
    assert bare.authentication.parts == ()
    assert bare.renewal.lifetime == timedelta(days=365)
    assert from_document(to_document(bare), "vault") == bare


def test_profile_may_forbid_the_email() -> None:
    profile = parse(MINE + '[subject]\nforbidden = ["emailAddress"]\n[key]\nbits = 4096\n', "m")
    assert profile.subject.forbidden == {"emailAddress"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ("name", "missing")),
        ("x = [", ("not TOML",)),
        ('\0name = "x"', ("not TOML",)),
        ("a = " + "[" * 5000, ("not TOML",)),
        (MINE + "[subject]\nfixed = { OU = 7 }\n", ("subject.fixed", "plain text")),
        (MINE + "[key]\nbits = 2048.0\n", ("key.bits", "whole number")),
        (MINE + "[environments.other]\nnotes = 7\n", ("environments.other.notes", "text")),
        (MINE + "[authentication]\nbasic = 1\n", ("authentication.basic", "table")),
        (MINE + "[authentication]\nbasc = true\n", ("did you mean basic?",)),
        ("authentication = 1\n" + MINE, ("authentication", "table")),
        ("title = 1979-05-27\n" + MINE.replace("title =", "notes ="), ("title", "text")),
        (MINE + "[probe]\nexpect = [1979-05-27]\n", ("probe.expect", "whole number")),
        ("# " + "x" * 70000, ("too large",)),
        (MINE.replace("my-partner", "My Partner"), ("name", "not a name")),
        (MINE.replace("my-partner", "../etc"), ("name",)),
        (MINE.replace("schema = 1", "schema = 2"), ("schema", "upgrade")),
        (MINE.replace("schema = 1", 'schema = "1"'), ("schema", "whole number")),
        (MINE.replace("schema = 1", "schema = true"), ("schema", "whole number")),
        (MINE.replace('"My partner"', "7"), ("title", "text")),
        (MINE.replace("My partner", "My\\u0000partner"), ("title", "control")),
        (MINE.replace("My partner", "My\\u001b[31mpartner"), ("title", "control")),
        (MINE.replace("My partner", "x" * 5000), ("title", "characters")),
        (MINE.replace("title", "titel"), ("title is missing",)),
        ('name = "x"\ntitle = "x"\n', ("environments", "missing")),
        (MINE.replace("environments.production", "environments.Production"), ("environments.Production",)),
        (MINE.replace("base_url", "base_ulr"), ("environments.production.base_ulr", "did you mean base_url?")),
        (MINE.replace("https:", "http:"), ("base_url", "not https")),
        (MINE.replace("https://api", "https://u:p@api"), ("base_url", "no user")),
        (MINE.replace("/v1", "/v1?x=1"), ("base_url", "no query")),
        (MINE.replace("/v1", "/../v1"), ("base_url", "dot segments")),
        (MINE.replace("api.example.com", "api..example_com"), ("base_url", "host")),
        (MINE + "comand = 1\n[probe]\n", ("environments.production.comand",)),
        (MINE + '[hooks]\nrun = "rm -rf /"\n', ("hooks is not a setting",)),
        (MINE + "[subject]\norder = 7\n", ("subject.order", "list")),
        (MINE + '[subject]\norder = ["C", "C"]\n', ("subject.order", "twice")),
        (MINE + '[subject]\norder = ["E"]\n', ("subject.order", "'E'")),
        (MINE + '[subject]\nrequired = ["email"]\n', ("subject.required", "emailAddress")),
        (MINE + "[subject]\nrequired = [1]\n", ("subject.required", "plain text")),
        (MINE + '[subject]\nrequired = ["CN"]\nforbidden = ["CN"]\n', ("subject.forbidden", "CN")),
        (MINE + '[subject]\norder = ["CN"]\nfixed = { OU = "x" }\n', ("subject.fixed.OU", "order")),
        (MINE + f'[subject]\nfixed = {{ OU = "{"x" * 65}" }}\n', ("subject.fixed.OU", "65")),
        (MINE + '[subject]\ncommon_name_is_login = "yes"\n', ("common_name_is_login", "true or false")),
        (MINE + "[key]\nbits = 1024\n", ("key.bits", "2048")),
        (MINE + "[key]\nbits = true\n", ("key.bits", "whole number")),
        (MINE + '[key]\nalgorithm = "rsaa"\n', ("key.algorithm", "did you mean rsa?")),
        (MINE + '[key]\ndigest = "sha1"\n', ("key.digest",)),
        (MINE + '[authentication]\nclient_id = { query = "a", header = "b" }\n', ("client_id", "keep one")),
        (MINE + '[authentication]\nclient_id = { header = "Authorization" }\n', ("Authorization",)),
        (MINE + '[authentication]\nclient_id = { header = "X: y" }\n', ("client_id.header",)),
        (MINE + '[authentication]\nclient_id = { qeury = "a" }\n', ("did you mean query?",)),
        (MINE + '[authentication]\nclient_id = "a"\n', ("client_id", "table")),
        (MINE + '[authentication]\naccept = "a\\r\\nX: y"\n', ("accept", "control")),
        (MINE + '[authentication]\naccept = ""\n', ("accept", "media type")),
        (MINE + '[submission]\nhow = "pigeon"\n', ("submission.how",)),
        (MINE + '[submission]\nto = "nobody"\n', ("submission.to", "mail address")),
        (MINE + '[submission]\nto = "a@b.c, d@e.f"\n', ("submission.to",)),
        (MINE + '[submission]\nto = "a@b.c\\nBcc: x@y.z"\n', ("submission.to",)),
        (MINE + '[submission]\nsubject = "a\\nBcc: x"\n', ("submission.subject", "control")),
        (MINE + '[submission]\nbody = "costs $5"\n', ("submission.body", "$$")),
        (MINE + '[submission]\nbody = "$password"\n', ("submission.body", "$password", "$login")),
        (MINE + '[renewal]\nsafety = "soon"\n', ("renewal.safety", "duration")),
        (MINE + "[renewal]\nsafety = 14\n", ("renewal.safety", "text")),
        (MINE + '[renewal]\nsafety = "-1d"\n', ("renewal.safety",)),
        (MINE + '[renewal]\nlifetime = "99999999d"\n', ("renewal.lifetime",)),
        (MINE + '[renewal]\nsafety = "999999d"\n', ("renewal.safety", "ten years")),
        (MINE + f"[key]\nbits = {'9' * 5000}\n", ("not TOML",)),
        (MINE + f"[key]\nbits = 0x{'f' * 5000}\n", ("key.bits", "2048")),
        (MINE + "[renewal]\nshare = 2\n", ("renewal.share",)),
        (MINE + '[renewal]\nshare = "100%"\n', ("renewal.share", "percentage")),
        (MINE + '[renewal]\nshare = "-5%"\n', ("renewal.share",)),
        (MINE + '[renewal]\nleadtime = "1d"\n', ("did you mean lead_time?",)),
        (MINE + '[probe]\nmethod = "POST"\n', ("probe.method",)),
        (MINE + '[probe]\npath = "https://elsewhere.example/"\n', ("probe.path",)),
        (MINE + '[probe]\npath = "/../x"\n', ("probe.path",)),
        (MINE + '[probe]\npath = "/x?y=1"\n', ("probe.path", "query")),
        (MINE + '[probe]\nquery = { client_id = "x" }\n', ("probe.query", "client_id")),
        (MINE + "[probe]\nexpect = [401]\n", ("probe.expect",)),
        (MINE + "[probe]\nexpect = []\n", ("probe.expect",)),
        (MINE + "[probe]\nexpect = [true]\n", ("probe.expect", "whole number")),
        (MINE + "[[operations]]\n", ("operations[0].method",)),
        (MINE + '[[operations]]\nmethod = "GET"\npath = "fleets"\n', ("operations[0].path",)),
        (MINE + '[[operations]]\nmethod = "GET"\npath = "/x"\nregex = ".*"\n', ("operations[0].regex",)),
        ("operations = [1]\n" + MINE, ("operations[0]", "table")),
        ("operations = 1\n" + MINE, ("operations", "list")),
        (MINE + '[[operations]]\nmethod = "GET"\npath = "/x"\nstatus = 404\n', ("operations[0].status", "200 to 299")),
        (MINE + '[[operations]]\nmethod = "GET"\npath = "/x"\naccept = 7\n', ("operations[0].accept", "text")),
        (MINE + '[[operations]]\nmethod = "GET"\npath = "/x"\ndeprecated = "3.17"\n', ("operations[0].deprecated",)),
        ("media_type = ' '\n" + MINE, ("media_type", "media type")),
        (MINE + '[[quotas]]\nwindow = "day"\nlimit = "X"\nremaining = "Y"\n', ("quotas[0].window", "duration")),
        (MINE + '[[quotas]]\nwindow = "1d"\n', ("quotas[0].limit", "missing")),
        (MINE + '[[refusals]]\nstatus = 200\nmeaning = "x"\n', ("refusals[0].status", "400 to 599")),
        (MINE + "[[refusals]]\nstatus = 401\n", ("refusals[0].meaning", "missing")),
    ],
)
def test_mistakes_name_file_key_and_hint(text: str, words: tuple[str, ...]) -> None:
    assert_refused(text, *words)


def test_older_stored_documents_are_read() -> None:
    """In stored.json: the built-in profile, one with all settings, and a short one."""
    stellantis, own, bare = json.loads(Path(__file__).with_name("stored.json").read_text(encoding="utf-8"))
    assert from_document(stellantis, "vault").subject == catalogue.builtin("stellantis").subject
    read = from_document(own, "vault")
    assert read.authentication == Authentication((ClientId(header="X-IBM-Client-Id"),), "application/hal+json")
    assert (read.renewal.safety, read.renewal.share) == (timedelta(days=30, hours=12), 0.5)
    assert (read.renewal.lifetime, read.renewal.overlap) == (timedelta(days=365), None)
    assert (read.subject.order, dict(read.subject.fixed)) == (("C", "O", "CN", "OU"), {"OU": "Fleet"})
    assert (dict(read.probe.query), set(read.probe.expect)) == ({"a": "1"}, {200, 204})
    assert [(o.method, o.writes) for o in read.operations] == [("GET", False), ("POST", True)]
    assert (read.environment("test").base_url, read.notes) == (None, "two\nlines")
    assert (read.submission.to, read.key.bits, read.key.digest) == ("csr@example.com", 4096, "sha384")
    assert from_document(bare, "vault").authentication.parts == ()
    for document in (stellantis, own, bare):
        assert without_new_keys(to_document(from_document(document, "vault"))) == document


def without_new_keys(document: dict[str, object]) -> dict[str, object]:
    """Leave out what that commit did not write: an unknown address, and facts of operations and answers."""
    environments, operations = document["environments"], document["operations"]
    key, submission = document["key"], document["submission"]
    assert isinstance(environments, dict)
    assert isinstance(operations, list)
    assert isinstance(key, dict)
    assert isinstance(submission, dict)
    del key["reuse"]
    known = {n: {k: v for k, v in e.items() if (k, v) != ("base_url", "unknown")} for n, e in environments.items()}
    old = [{key: row[key] for key in ("method", "path", "writes")} for row in operations]
    kept = {key: value for key, value in document.items() if key not in ("media_type", "quotas", "refusals")}
    kept["submission"] = {key: submission[key] for key in ("how", "to", "subject", "body")} | {"how": "e-mail"}
    return kept | {"environments": known, "operations": old}


def test_deeply_nested_profile_is_refused() -> None:
    deep: list[object] = []
    for _ in range(2000):
        deep = [deep]
    with pytest.raises(InputError, match="vault: nested too deeply"):
        from_document({"name": "x", "title": "t", "notes": deep}, "vault")


@pytest.mark.parametrize("document", [{"name": None}, {"environments": []}, {"name": "x", "title": "t", "key": [1]}])
def test_damaged_stored_profile_is_refused(document: dict[str, object]) -> None:
    with pytest.raises(InputError):
        from_document(document, "vault")


def test_unknown_profile_has_a_suggestion() -> None:
    with pytest.raises(UnknownNameError) as caught:
        catalogue.load("stelantis", {})
    assert "did you mean stellantis?" in caught.value.hint


def test_unknown_environment_lists_the_known() -> None:
    with pytest.raises(UnknownNameError) as caught:
        catalogue.builtin("stellantis").environment("prod")
    assert "preproduction, production, stand-in" in caught.value.hint


def test_custom_profile_hides_no_built_in() -> None:
    mine = to_document(parse(MINE, "m"))
    assert catalogue.load("my-partner", {"my-partner": mine}).title == "My partner"
    assert catalogue.load("stellantis", {"stellantis": mine}) == catalogue.builtin("stellantis")
    with pytest.raises(InputError):
        catalogue.require_own(replace(parse(MINE, "m"), name="stellantis"))
    with pytest.raises(InputError, match="its name is my-partner"):
        catalogue.load("other", {"other": mine})


def test_bad_stored_profile_has_a_hint() -> None:
    mine = to_document(parse(MINE, "m"))
    with pytest.raises(InputError, match="profile my-partner: surprise") as caught:
        catalogue.load("my-partner", {"my-partner": mine | {"surprise": 1}})
    assert caught.value.hint.endswith("then broker partner add FILE")
    with pytest.raises(NewerProfileError) as newer:
        catalogue.load("my-partner", {"my-partner": mine | {"schema": 2}})
    assert "partner add" not in newer.value.hint


def test_source_of_a_built_in_is_toml() -> None:
    assert tomllib.loads(catalogue.builtin_source("stellantis"))["name"] == "stellantis"
    with pytest.raises(UnknownNameError):
        catalogue.builtin_source("../stellantis")
