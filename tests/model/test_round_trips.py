"""Whatever a document holds comes back from its stored form as it was."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.copies import replace
from broker.delivery.formats import dump, parse
from broker.evidence.statements import AnchorKey, Statement, verified
from broker.issuing.leases import LeaseSigner
from broker.model.authentication import Authentication, Basic, ClientId
from broker.model.bundle import Manifest
from broker.model.chain import Head
from broker.model.due import Renewal
from broker.model.holdings import ConsumerRecord, Holding
from broker.model.lease import BundleKind, Lease
from broker.model.names import AccountName
from broker.model.secret import Secret
from broker.partners.catalogue import builtin, names
from broker.partners.document import from_document, to_document
from broker.partners.profile import Profile
from broker.vault.documents import decoded, encoded

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
WORDS = st.from_regex(r"[a-z0-9][a-z0-9-]{0,20}", fullmatch=True)
NAMES = WORDS.map(AccountName)
NUMBERS = st.integers(0, 10**9)
TIMES = st.datetimes(datetime(1971, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001  # the bounds
KINDS = st.sampled_from(["direct", "by hand"])
HOLDINGS = st.builds(
    Holding,
    NAMES,
    TEXTS,
    st.sampled_from(["direct", "by hand"]),
    NUMBERS,
    TEXTS,
    TIMES,
    st.none() | TIMES,
    st.booleans(),
)
TOKENS = st.text("abcXYZ019-_.", min_size=1, max_size=20)
PARTS = st.tuples(
    st.just([]) | st.just([Basic()]),
    st.just([]) | TOKENS.map(lambda n: [ClientId(query=n)]) | TOKENS.map(lambda n: [ClientId(header=n)]),
).map(lambda both: (*both[0], *both[1]))
MEDIA_TYPES = st.text("abc/+*;= ", min_size=1)
MANIFESTS = st.builds(
    Manifest,
    account=NAMES,
    application=TEXTS,
    generation=NUMBERS,
    base_url=TEXTS,
    authentication=st.builds(Authentication, PARTS, MEDIA_TYPES),
    not_after=TIMES,
    lease_id=TEXTS,
    expires=TIMES,
    files=st.dictionaries(WORDS, TEXTS, max_size=5),
)
DURATIONS = st.integers(1, 4000).map(lambda days: timedelta(days=days))
PROFILES: st.SearchStrategy[Profile] = st.builds(
    replace,
    st.sampled_from(sorted(names())).map(builtin),
    name=WORDS,
    renewal=st.builds(
        Renewal, DURATIONS, st.floats(0.01, 0.99), st.none() | DURATIONS, st.none() | DURATIONS, st.none() | DURATIONS
    ),
)
SIGNER = LeaseSigner("1", {"1": Secret(bytes(32))})
ANCHOR = AnchorKey(Secret(bytes(32)))
BEFORE = datetime(1970, 1, 2, tzinfo=UTC)


@pytest.mark.slow
@given(st.builds(ConsumerRecord, TEXTS, TEXTS, st.lists(HOLDINGS, max_size=4).map(tuple)))
def test_a_consumers_record(record: ConsumerRecord) -> None:
    assert decoded(json.loads(json.dumps(encoded(record))), ConsumerRecord, "consumer") == record


@given(st.builds(Lease, TEXTS, TEXTS, NAMES, TEXTS, st.sampled_from(BundleKind), NUMBERS, TIMES, TIMES))
def test_a_lease(lease: Lease) -> None:
    assert SIGNER.opened(SIGNER.signed(lease), now=BEFORE) == lease


@given(st.builds(Statement, NUMBERS, TIMES, st.dictionaries(TEXTS, st.builds(Head, NUMBERS, TEXTS), max_size=4), TEXTS))
def test_a_signed_statement(statement: Statement) -> None:
    (read,), _ = verified([ANCHOR.signed(statement)], ANCHOR.verifying)
    assert replace(read, hash="") == statement


@pytest.mark.slow
@given(MANIFESTS)
def test_a_manifest(manifest: Manifest) -> None:
    assert parse(dump(manifest)) == manifest


@given(PROFILES)
def test_a_profile(profile: Profile) -> None:
    assert from_document(json.loads(json.dumps(to_document(profile))), "profile") == profile
