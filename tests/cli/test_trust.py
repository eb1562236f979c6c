"""The CA that the partner's server is known by: accepted by fingerprint, tried before it counts."""

from __future__ import annotations

import json

from tests.support.shop import Shop


def test_a_new_ca_makes_a_candidate_and_only_its_promotion_changes_what_counts(shop: Shop) -> None:
    shop.put("promoted")
    both = f"--accept-ca {shop.cas['issuing']} --accept-ca {shop.cas['server']}"
    before = shop.account.current
    assert before
    told = shop.ok(f"trust set acme reply.zip {both}").err
    assert "2 CA(s)" in told
    assert "generation 2 would use it" in told
    assert shop.account.generation(1) == before
    shop.ok("rotation promote acme --generation 2")
    current = shop.account.current
    assert current
    assert current.parts.trust == shop.account.trust != before.parts.trust
    shop.ok("evidence verify acme")


def test_the_same_a_second_time_changes_nothing(shop: Shop) -> None:
    shop.put("promoted")
    line = f"trust set acme reply.zip --accept-ca {shop.cas['issuing']} -o json"
    first = json.loads(shop.ok(line).out)
    once = shop.account
    assert first == {"account": "acme", "fingerprints": [shop.cas["issuing"]], "candidate": 2}
    assert json.loads(shop.ok(line).out) == first
    assert shop.account == once


def test_a_ca_that_does_not_vouch_for_the_server_is_never_promoted(shop: Shop) -> None:
    shop.put("promoted")
    shop.ok(f"trust set acme reply.zip --accept-ca {shop.cas['issuing']}")
    refused = shop.run("rotation promote acme --generation 2")
    assert refused.code == 6
    assert "wrong_ca" in refused.err
    assert shop.account.current
    assert shop.account.current.number == 1


def test_without_a_fingerprint_it_shows_what_the_file_offers(shop: Shop) -> None:
    shop.put("promoted")
    refused = shop.run("trust set acme reply.zip")
    assert refused.code == 6
    shown = refused.err.replace(":", "").lower()
    assert shop.cas["issuing"] in shown
    assert shop.cas["server"] in shown
    shop.assert_unchanged()


def test_before_there_is_a_set_it_only_says_what_will_count(shop: Shop) -> None:
    shop.put("added")
    told = shop.ok(f"trust set acme reply.zip --accept-ca {shop.cas['server']}").err
    assert "next:" not in told
    assert not shop.account.generations
