"""The API wants certificate, Basic and client_id, in that order, and answers plausible HAL."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import pytest
from partner_standin import Standin
from partner_standin.operations import OPERATIONS
from partner_standin.responses import GEO_JSON, HAL

from broker.partners import catalogue
from tests.support.partner import LOGIN, PASSWORD, Customer, Response, a_csr, desk

BAD_BASIC = "Cannot pass the security checks that are required by the target API or operation"
BAD_CLIENT = "Invalid client id or secret."
OTHER = "MZP0000002"


def assert_gateway_401(answer: Response, says: str) -> None:
    assert answer.status == 401
    assert answer.json["httpCode"] == "401"
    assert answer.json["moreInformation"].startswith(says)


def assert_error(answer: Response, code: int) -> None:
    assert answer.status == code // 100
    assert answer.json["code"] == code
    assert set(answer.json) == {"code", "uuid", "message", "timestamp"}
    assert answer.headers["Content-Type"] == "application/hal+json"


def pages(customer: Customer, path: str) -> list[dict[str, Any]]:
    """Follow `next` to the end."""
    seen = []
    while path:
        page = customer.call(path).json
        seen.append(page)
        following = page["_links"].get("next", {}).get("href", "")
        path = following.removeprefix(customer.partner.api_url)
    return seen


def first_fleet(customer: Customer) -> str:
    return f"/fleets/{customer.call('/fleets').json['_embedded']['fleets'][0]['id']}"


def first_vehicle(customer: Customer) -> str:
    fleet = first_fleet(customer)
    return f"{fleet}/vehicles/{customer.call(f'{fleet}/vehicles').json['_embedded']['vehicles'][0]['id']}"


# the gate


@pytest.mark.parametrize(
    "changes",
    [{"password": "wrong"}, {"password": ""}, {"login": "nobody"}, {"login": ""}, {"password": PASSWORD + " "}],
)
def test_a_bad_login_or_password_is_refused(customer: Customer, changes: dict[str, str]) -> None:
    assert_gateway_401(customer.but(**changes).call("/fleets"), BAD_BASIC)


@pytest.mark.parametrize("value", ["", "Bearer abc", "Basic", "Basic !!!!", "Basic bm9jb2xvbg=="])
def test_other_authorization_is_refused(customer: Customer, value: str) -> None:
    assert_gateway_401(customer.call("/fleets", headers={"Authorization": value}), BAD_BASIC)


def test_basic_is_checked_before_client_id(customer: Customer) -> None:
    assert_gateway_401(customer.but(password="wrong", client_id="").call("/fleets"), BAD_BASIC)


@pytest.mark.parametrize("client_id", ["", "00000000-0000-4000-8000-000000000000"])
def test_an_unknown_client_id_is_refused(customer: Customer, client_id: str) -> None:
    assert_gateway_401(customer.but(client_id=client_id).call("/fleets"), BAD_CLIENT)


def test_another_logins_client_id_is_refused(customer: Customer) -> None:
    customer.partner.registry.add_account(OTHER, "other")
    foreign = customer.partner.registry.client_id(OTHER, "default")
    assert_gateway_401(customer.but(client_id=foreign).call("/fleets"), BAD_CLIENT)


@pytest.mark.peer("curl")
def test_a_client_id_in_the_body_is_missing(customer: Customer) -> None:
    bare = customer.but(client_id="")
    form = ("--data-urlencode", f"client_id={customer.client_id}")
    assert BAD_CLIENT in bare.curl("/fleets", "--request", "GET", *form).stdout
    assert '"fleets"' in bare.curl("/fleets", "-G", *form).stdout


def test_encoded_parameter_names_are_decoded(customer: Customer) -> None:
    assert customer.but(client_id="").call(f"/fleets?client%5fid={customer.client_id}").status == 200


def test_two_client_ids_are_refused(customer: Customer) -> None:
    assert_gateway_401(customer.call("/fleets?client_id=other"), BAD_CLIENT)


@pytest.mark.parametrize(("how", "status"), [(None, 403), ("off", 200), ("401", 401), ("403", 403)])
def test_another_logins_cert_is_answered(customer: Customer, how: str | None, status: int) -> None:
    customer.partner.registry.add_account(OTHER, "other")
    client_id = customer.partner.registry.client_id(OTHER, "default")
    if how:
        customer.partner.faults.set("cn-mismatch", how)
    answer = customer.but(login=OTHER, password="other", client_id=client_id).call("/fleets")
    assert answer.status == status


def test_a_new_password_may_overlap_the_old(customer: Customer) -> None:
    for overlap, old in ((True, 200), (False, 401)):
        desk(customer.partner, "PUT", f"/desk/accounts/{LOGIN}/password", {"password": "new", "overlap": overlap})
        assert customer.but(password="new").call("/fleets").status == 200
        assert customer.call("/fleets").status == old
        customer.partner.registry.set_password(LOGIN, PASSWORD)


def test_revocation_reaches_open_connections(customer: Customer) -> None:
    connection = customer.connect()
    statuses = []
    for _ in range(2):
        connection.request(
            "GET",
            urlsplit(customer.url("/fleets")).path + "?client_id=" + customer.client_id,
            headers=customer.headers(),
        )
        answer = connection.getresponse()
        statuses.append((answer.status, b'"495"' in answer.read()))
        customer.partner.registry.revoke(customer.serial, customer.partner.registry._clock())
    connection.close()
    assert statuses == [(200, False), (400, True)]


def test_sibling_api_takes_headers(customer: Customer) -> None:
    made = desk(customer.partner, "POST", f"/desk/accounts/{LOGIN}/applications", {"name": "default"}).json
    address = urlsplit(customer.partner.api_url)

    def ask(**headers: str) -> int:
        connection = customer.connect()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request("GET", "/api/cert-aai/fleets", headers={**customer.headers(), **named})
        try:
            return connection.getresponse().status
        finally:
            connection.close()

    assert address.path == "/connectedcar/v3"
    good = {"X_IBM_Client_Id": made["client_id"], "X_IBM_Client_Secret": made["client_secret"]}
    assert ask(**good) == 200
    assert ask(**{**good, "X_IBM_Client_Secret": "wrong"}) == 401
    assert ask(X_IBM_Client_Id=made["client_id"]) == 401
    assert ask() == 401


# HAL


@pytest.mark.parametrize("size", [1, 7, 60])
def test_pages_lead_to_the_end(customer: Customer, size: int) -> None:
    fleet = f"{first_fleet(customer)}/vehicles"
    if size == 1:
        fleet += "?indexRange=0-6&pageSize=1"
    else:
        fleet += f"?pageSize={size}"
    seen = pages(customer, fleet)
    vins = [vehicle["vin"] for page in seen for vehicle in page["_embedded"]["vehicles"]]
    total = 7 if size == 1 else 137
    assert len(set(vins)) == len(vins) == total
    assert [page["currentPage"] for page in seen] == list(range(1, len(seen) + 1))
    assert {(page["total"], page["totalPage"]) for page in seen} == {(total, -(-total // size))}
    assert all(len(page["_embedded"]["vehicles"]) == size for page in seen[:-1])
    assert "prev" not in seen[0]["_links"]
    assert seen[-1]["_links"]["prev"] == seen[-2]["_links"]["self"]
    assert all(page["_links"]["last"] == seen[-1]["_links"]["self"] for page in seen)


@pytest.mark.parametrize(
    "query",
    ["pageSize=0", "pageSize=61", "pageSize=x", "pageSize=-1", "pageToken=x", "pageToken=AAAA", "indexRange=5-2"],
)
def test_a_bad_paging_parameter_is_a_400(customer: Customer, query: str) -> None:
    assert_error(customer.call(f"/fleets?{query}"), 40099)


def test_page_tokens_are_tied_to_their_list(customer: Customer) -> None:
    token = customer.call("/fleets").json["_links"]["self"]["href"].partition("pageToken=")[2]
    assert_error(customer.call(f"{first_fleet(customer)}/vehicles?pageToken={token}"), 40099)


def test_telemetry_has_longer_pages(customer: Customer) -> None:
    vehicle = first_vehicle(customer)
    page = customer.call(f"{vehicle}/telemetry?pageSize=2000").json
    assert len(page["_embedded"]["telemetry"]) == 120
    assert customer.call(f"{vehicle}/telemetry?pageSize=2001").status == 400


def test_the_data_are_the_same_each_time(customer: Customer, tmp_path: Any) -> None:
    first = customer.call("/fleets").json["_embedded"]["fleets"]
    with Standin(tmp_path / "again", accounts={LOGIN: PASSWORD}) as again, Standin(tmp_path / "x", seed="y") as other:
        assert [f["id"] for f in first] == [f.id for f in again._api.api._operations.world(LOGIN).fleets]
        assert [f["id"] for f in first] != [f.id for f in other._api.api._operations.world(LOGIN).fleets]


def test_every_reading_operation_answers(customer: Customer) -> None:
    world = customer.partner._api.api._operations.world(LOGIN)
    fleet = world.fleets[0]
    full = next(v for v in fleet.vehicles if v.alerts and v.collisions)
    stolen = next(v for v in fleet.vehicles if v.thefts)
    monitor = customer.call(f"/fleets/{fleet.id}/monitors", "POST", body=b"{}").json["id"]
    callback = customer.call(f"/fleets/{fleet.id}/remote/callbacks", "POST", body=b"{}").json["id"]
    remotes = f"/fleets/{fleet.id}/vehicles/{full.id}/callbacks/{callback}/remotes"
    remote = customer.call(remotes, "POST", body=b'{"horn": {}}').json["remoteActionId"]
    ids = {
        "fid": fleet.id,
        "vid": full.id,
        "vin": full.vin,
        "tid": full.trips[0]["id"],
        "cid": full.collisions[0]["id"],
    }
    ids |= {"mid": monitor, "cbid": callback, "rid": remote, "sid": stolen.thefts[0]["id"]}
    for operation in OPERATIONS:
        if operation.method == "GET":
            there = {"vid": stolen.id} if "stolen" in operation.template else {}
            one = full.alarms if "alarms" in operation.template else full.alerts
            path = "/" + "/".join(operation.template).format(**ids | {"aid": one[0]["id"]} | there)
            answer = customer.call(path)
            assert (answer.status, answer.headers["Content-Type"]) == (200, operation.media_type), path
            assert "_links" in answer.json or operation.media_type == GEO_JSON, path


def test_it_serves_what_the_profile_has() -> None:
    profile = catalogue.builtin("stellantis")
    served = {(op.method, f"/{'/'.join(op.template)}"): op.media_type for op in OPERATIONS}
    assert len(OPERATIONS) == len(served) == 47
    assert served == {(op.method, op.path): op.accept or profile.media_type for op in profile.operations}


@pytest.mark.parametrize(
    ("accept", "status"),
    [("application/json", 406), (HAL, 406), (GEO_JSON, 200), ("text/html, application/*;q=0.5", 200), ("*/*", 200)],
)
def test_last_position_is_geo_json_only(customer: Customer, accept: str, status: int) -> None:
    answer = customer.call(f"{first_vehicle(customer)}/lastPosition", headers={"Accept": accept})
    assert answer.status == status
    if status == 200:
        assert (answer.headers["Content-Type"], answer.json["type"]) == (GEO_JSON, "Feature")


def test_v2_is_served_and_links_to_itself(customer: Customer) -> None:
    connection = customer.connect()
    connection.request("GET", f"/connectedcar/v2/fleets?client_id={customer.client_id}", headers=customer.headers())
    answer = connection.getresponse().read()
    connection.close()
    assert b"/connectedcar/v2/fleets?pageSize" in answer


@pytest.mark.parametrize("path", ["/nothing", "/fleets/zzz", "/vehicles/VF3AAAAAAAA000000", "/fleets/../fleets", "/"])
def test_missing_resources_are_a_404(customer: Customer, path: str) -> None:
    assert_error(customer.call(path), 40499)


def test_another_logins_fleet_is_a_404(customer: Customer) -> None:
    foreign = customer.partner._api.api._operations.world(OTHER).fleets[0].id
    assert_error(customer.call(f"/fleets/{foreign}"), 40499)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_a_wrong_method_is_a_405(customer: Customer, method: str) -> None:
    assert customer.call("/fleets", method, body=b"{}").status == 405


@pytest.mark.parametrize("kind", ["monitors", "remote/callbacks"])
def test_monitors_and_callbacks_are_kept(customer: Customer, kind: str) -> None:
    path = f"{first_fleet(customer)}/{kind}"
    made = customer.call(path, "POST", body=b'{"label": "one"}')
    one = f"{path}/{made.json['id']}"
    assert made.status == 202
    assert customer.call(one).json["label"] == "one"
    assert customer.call(one, "PUT", body=b'{"label": "two"}').status == 202
    assert customer.call(one).json["label"] == "two"
    assert customer.call(f"{one}/status", "PUT", body=b'{"status": "Paused"}').status == 202
    assert (customer.call(one).json["label"], customer.call(one).json["status"]) == ("two", "Paused")
    assert_error(customer.call(f"{path}/none/status", "PUT", body=b"{}"), 40499)
    assert customer.call(path).json["total"] == 1
    gone = customer.call(one, "DELETE")
    assert (gone.status, gone.body) == (204, b"")
    assert_error(customer.call(one), 40499)
    assert_error(customer.call(path, "POST", body=b"[1]"), 40098)


def test_remote_commands_need_a_callback(customer: Customer) -> None:
    vehicle = first_vehicle(customer)
    callbacks = f"{first_fleet(customer)}/remote/callbacks"
    assert_error(customer.call(f"{vehicle}/callbacks/none/remotes", "POST", body=b'{"horn": {}}'), 40499)
    callback = customer.call(callbacks, "POST", body=b"{}").json["id"]
    remotes = f"{vehicle}/callbacks/{callback}/remotes"
    answer = customer.call(remotes, "POST", body=b'{"horn": {}}')
    assert answer.status == 202
    assert customer.call(f"{remotes}/{answer.json['remoteActionId']}").json["horn"] == {}
    assert customer.call(remotes).json["total"] == 1


# the log


def test_the_log_has_login_serial_and_path(customer: Customer) -> None:
    customer.call("/fleets?pageSize=2")
    entry = desk(customer.partner, "GET", f"/desk/log?login={LOGIN}").json[-1]
    assert (entry["login"], entry["serial"], entry["application"]) == (LOGIN, customer.serial, "default")
    assert (entry["method"], entry["path"], entry["status"]) == ("GET", "/connectedcar/v3/fleets", 200)


def test_unknown_logins_are_not_logged(customer: Customer) -> None:
    customer.but(login="hunter2").call("/fleets")
    assert customer.partner.log.entries()[-1].login == ""
    assert customer.partner.log.entries()[-1].outcome == "login_rejected"


def test_applications_are_logged_apart(customer: Customer) -> None:
    reply = customer.partner.sign(a_csr(customer.key), application="reporting")
    assert customer.but(client_id=reply.client_id).call("/fleets").status == 200
    assert customer.partner.log.entries()[-1].application == "reporting"
