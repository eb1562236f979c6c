"""Changes of an account in any order and at any time keep its invariants.

The machine plays several hasty people: any change with any argument, commands that die between storing a secret and
naming it, settling that is late or done by half, and a clock that jumps both ways. A change may be refused; it may
not break the account.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import ClassVar

import msgspec
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from broker.copies import replace
from broker.errors import BrokerError
from broker.evidence.tamper import differences
from broker.model.account import Account
from broker.model.chain import Entry, verify
from broker.model.changes import compromising, moving, registering, requesting, rotating_password, trying
from broker.model.changes.moving import displaced_generation, rollback_target
from broker.model.clock import Stamp
from broker.model.generation import Closed, KeyRef, Parts, SecretRef, Submission, key_ref, secret_refs
from broker.model.history import account_state, fold
from broker.model.password_rotation import BY_HAND, PasswordStep
from broker.model.stage import Move, Stage
from broker.model.subject import Subject
from broker.model.verdict import CanaryResult, Verdict
from broker.vault.documents import decoded, encoded
from tests.support.accounts import (
    BY,
    NOW,
    a_certificate,
    a_request,
    an_account,
    ca_set_named,
    with_current,
    without_texts,
)

NUMBERS = st.integers(1, 12)
NAMES = st.sampled_from(["fleet", "billing"])
SECRETS = st.sampled_from(["password", "password", "hmac"])
CAS = st.sampled_from(["ca", "server-ca", "new-ca"])
DONE_BY_HAND = st.sampled_from([Closed.CANCELLED, Closed.REJECTED, Closed.SUPERSEDED])
VERDICTS = st.sampled_from(["ok", "quota", "login_rejected", "client_rejected", "partner_down"])
JUMPS = st.sampled_from([0, 1, 119, 121, 3600, 86400, -1, -119, -121, -86400 * 400])


class AnyHistory(RuleBasedStateMachine):
    """An account, the evidence copied out of it, and the secrets that lie beside it."""

    made: ClassVar[Counter[str]] = Counter()  # of each rule, the changes that were not refused
    account: Account
    now: datetime = NOW

    def __init__(self) -> None:
        super().__init__()
        self.log: list[Entry] = []
        self.keys: set[KeyRef] = set()
        self.secrets: set[SecretRef] = set()
        self.ever: set[SecretRef] = set()
        self.destroyed: set[KeyRef | SecretRef] = set()
        self.displaced: set[int] = set()  # by a roll-back, and not current since
        self.tries = 0

    @initialize(begun=st.booleans())
    def open(self, begun: bool) -> None:
        self.account = with_current() if begun else an_account()
        self.keys |= self.account.keys_in_use
        self.secrets |= self.account.secrets_in_use
        self.ever |= self.secrets

    def change(self, how: Callable[[Account], Account]) -> None:
        """Make a change, as `amend` would; and once more, as it would after a lost answer."""
        before = self.account
        try:
            after = how(before)
        except BrokerError:
            return
        self.made[how.__qualname__.split(".")[1]] += after is not before
        assert how(after) is after
        assert after.head.number >= before.head.number
        assert after.outbox[: len(before.outbox)] == before.outbox
        assert (after is before) == (after.head == before.head), "a change without evidence, or evidence of none"
        for number in ("next_generation", "next_request", "next_order"):
            assert getattr(after, number) >= getattr(before, number)
        self.account = after

    @rule(name=NAMES, client_id=st.sampled_from(["", "id-1", "id-2"]))
    def set_application(self, name: str, client_id: str) -> None:
        now = self.now
        self.change(lambda a: registering.application_set(a, name, client_id, Stamp(now, BY)))

    @rule(name=NAMES)
    def remove_application(self, name: str) -> None:
        now = self.now
        self.change(lambda a: registering.application_removed(a, name, Stamp(now, BY)))

    @rule(name=NAMES)
    def set_subject(self, name: str) -> None:
        now, subject = self.now, Subject((("CN", name),))
        self.change(lambda a: registering.subject_set(a, subject, Stamp(now, BY)))

    @rule()
    def suspend(self) -> None:
        now = self.now
        self.change(lambda a: registering.suspended(a, "stolen", Stamp(now, BY)))

    @rule()
    def resume(self) -> None:
        now = self.now
        self.change(lambda a: registering.resumed(a, Stamp(now, BY)))

    @rule(killed=st.booleans())
    def draft(self, killed: bool) -> None:
        if self.account.open_request:
            return
        request = a_request(self.account, at=self.now)
        self.keys.add(request.key)
        if not killed:
            self.change(lambda a: requesting.requested(a, request, by=BY))

    @rule()
    def draft_with_same_key(self) -> None:
        if self.account.open_request or not self.account.current:
            return
        current = self.account.current.parts.key
        known = next(r for r in self.account.requests if r.key == current)
        request = replace(a_request(self.account, at=self.now), key=known.key, spki=known.spki)

        def drafted(account: Account) -> Account:
            return account if account.open_request else requesting.requested_with_same_key(account, request, by=BY)

        self.change(drafted)

    @rule(suspend=st.booleans())
    def report_compromise(self, suspend: bool) -> None:
        now = self.now
        self.change(lambda a: compromising.compromised(a, "stolen", Stamp(now, BY), suspend=suspend))

    @rule()
    def begin_password_rotation(self) -> None:
        now = self.now
        self.change(lambda a: a if a.password_rotation else rotating_password.rotation_begun(a, Stamp(now, BY)))

    @rule(step=st.sampled_from(BY_HAND))
    def confirm_password_step(self, step: PasswordStep) -> None:
        now = self.now

        def confirmed(account: Account) -> Account:
            rotation = account.password_rotation
            if rotation is None:
                return account
            return rotating_password.step_confirmed(account, step, "", Stamp(now, BY))

        self.change(confirmed)

    @rule()
    def abort_password_rotation(self) -> None:
        now = self.now

        def aborted(account: Account) -> Account:
            if account.password_rotation is None:
                return account
            return rotating_password.rotation_aborted(account, "over", Stamp(now, BY))

        self.change(aborted)

    @rule(number=NUMBERS)
    def confirm_revoked(self, number: int) -> None:
        now = self.now
        self.change(lambda a: compromising.certificate_revoked(a, number, "", Stamp(now, BY)))

    @rule(slot=NUMBERS)
    def draft_late(self, slot: int) -> None:
        """Write what a slow run drafted: its slot's key was made by somebody, or is gone."""
        if key_ref(slot) in self.keys and slot <= self.account.next_request:
            request = a_request(self.account, at=self.now, slot=slot)
            self.change(lambda a: requesting.requested(a, request, by=BY))

    @rule(number=NUMBERS, reference=st.sampled_from(["", "7"]))
    def submit(self, number: int, reference: str) -> None:
        sent = Submission(self.now, "hand", reference=reference)
        self.change(lambda a: requesting.submitted(a, number, sent, by=BY))

    @rule(number=NUMBERS, why=DONE_BY_HAND)
    def close(self, number: int, why: Closed) -> None:
        now = self.now
        self.change(lambda a: requesting.closed(a, number, why, Stamp(now, BY)))

    @rule(number=NUMBERS, serial=st.sampled_from(["01", "02"]))
    def answer(self, number: int, serial: str) -> None:
        now, certificate = self.now, a_certificate(self.account, number, serial=serial)
        self.change(lambda a: requesting.answered(a, number, certificate, Stamp(now, BY)))

    @precondition(lambda self: self.account.open_request)
    @rule()
    def answer_the_open_one(self) -> None:
        assert self.account.open_request
        self.answer(self.account.open_request.number, "01")

    @rule(name=SECRETS, killed=st.booleans())
    def set_secret(self, name: str, killed: bool) -> None:
        number = self.account.secrets.get(name, 0) + 1
        while secret_refs({name: number}) <= self.ever:
            number += 1
        self.secrets |= secret_refs({name: number})
        self.ever |= secret_refs({name: number})
        if not killed:
            self.name_secret(name, number)

    @rule(name=SECRETS, number=NUMBERS)
    def set_secret_late(self, name: str, number: int) -> None:
        if secret_refs({name: number}) <= self.ever:
            self.name_secret(name, number)

    def name_secret(self, name: str, number: int) -> None:
        now = self.now
        self.change(lambda a: registering.secret_set(a, name, number, Stamp(now, BY)))

    @rule(name=CAS)
    def set_trust(self, name: str) -> None:
        now = self.now
        self.change(lambda a: registering.trust_set(a, ca_set_named(name), Stamp(now, BY)))

    @rule(name=CAS)
    def accept_ca(self, name: str) -> None:
        now = self.now
        self.change(lambda a: registering.ca_accepted(a, ca_set_named(name), Stamp(now, BY)))

    @rule(one=NUMBERS, other=NUMBERS)
    def join(self, one: int, other: int) -> None:
        now, before = self.now, self.account.current
        self.change(lambda a: moving.joined(a, one, other, Stamp(now, BY)))
        assert self.account.current == before

    @precondition(lambda self: len(self.account.candidates) > 1)
    @rule()
    def join_the_newest(self) -> None:
        self.join(self.account.candidates[-2].number, self.account.candidates[-1].number)

    @rule(number=NUMBERS)
    def restore(self, number: int) -> None:
        now, before = self.now, self.account.current
        self.change(lambda a: moving.restored(a, number, Stamp(now, BY)))
        assert self.account.current == before

    @precondition(lambda self: any(g.stage is Stage.PREVIOUS for g in self.account.generations))
    @rule()
    def restore_the_newest(self) -> None:
        self.restore(max(g.number for g in self.account.generations if g.stage is Stage.PREVIOUS))

    @rule(number=NUMBERS, move=st.sampled_from(Move))
    def move(self, number: int, move: Move) -> None:
        """Move a generation: a promotion after a canary, a roll-back on a person's word."""
        now, before = self.now, self.account.current
        if move is Move.PROMOTE and not self.accepted(number):
            return
        self.change(lambda a: moving.moved(a, number, move, Stamp(now, BY), reason="a person said so"))
        assert self.account.current == before or move in (Move.PROMOTE, Move.ROLL_BACK)
        if before and self.account.current and before.number != self.account.current.number:
            self.displaced.discard(self.account.current.number)
            (self.displaced.add if move is Move.ROLL_BACK else self.displaced.discard)(before.number)

    @precondition(lambda self: self.account.candidates)
    @rule()
    def promote_the_newest(self) -> None:
        self.move(self.account.candidates[-1].number, Move.PROMOTE)

    @precondition(lambda self: any(map(self.account.rolled_back, self.account.generations)))
    @rule()
    def promote_what_was_rolled_back(self) -> None:
        self.move(next(g.number for g in self.account.generations if self.account.rolled_back(g)), Move.PROMOTE)

    @precondition(lambda self: any(g.stage is Stage.PREVIOUS for g in self.account.generations))
    @rule()
    def roll_back_to_the_way_back(self) -> None:
        """Without a number a roll-back goes to what a promotion displaced, and never to what a roll-back did."""
        try:
            wanted = displaced_generation(self.account).number
        except BrokerError:
            return
        assert wanted not in self.displaced
        self.restore(wanted)
        target = rollback_target(self.account, self.account.generation(wanted)).number
        if self.accepted(target):
            self.move(target, Move.ROLL_BACK)

    @rule(number=NUMBERS)
    def try_out(self, number: int) -> None:
        self.tries += 1
        now, id_ = self.now, f"id-{self.tries}"
        found = next((g for g in self.account.generations if g.number == number), None)
        parts = self.account.parts_of(found) if found else Parts()
        self.change(lambda a: trying.canary_sent(a, number, parts, id_, Stamp(now, BY)))

    def accepted(self, number: int) -> bool:
        """Try `number`, and say whether that was allowed and the partner accepted it."""
        self.try_out(number)
        attempt = next((t.number for t in self.account.tries if t.id == f"id-{self.tries}"), 0)
        self.canary_answers(attempt, "ok", 0)
        return attempt > 0

    @rule(number=NUMBERS, verdict=VERDICTS, hours=st.sampled_from([0, 1]))
    def canary_answers(self, number: int, verdict: str, hours: int) -> None:
        now, known = self.now, next(iter(self.account.applications), None)
        answer = CanaryResult(Verdict(verdict), wait=timedelta(hours=hours) or None, application=known)
        self.change(lambda a: trying.canary_answered(a, number, answer, Stamp(now, BY)))

    @precondition(lambda self: self.account.tries)
    @rule(verdict=VERDICTS)
    def the_last_canary_answers(self, verdict: str) -> None:
        self.canary_answers(self.account.tries[-1].number, verdict, 0)

    @rule()
    def reset(self) -> None:
        now = self.now
        self.change(lambda a: trying.breaker_reset(a, "unlocked", Stamp(now, BY)))

    @rule(seconds=JUMPS)
    def time_passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @rule(upto=st.integers(0, 20), may_destroy=st.booleans(), killed=st.booleans())
    def settle(self, upto: int, may_destroy: bool, killed: bool) -> None:
        """Copy out the evidence, perhaps not all of it; destroy what is doomed, perhaps; say so, perhaps."""
        entries = self.account.outbox[:upto]
        for entry in entries:
            if entry.number > len(self.log):
                self.log.append(entry)
            assert self.log[entry.number - 1] == entry
        keys = self.account.doomed_keys if may_destroy else frozenset()
        secrets = self.account.doomed_secrets if may_destroy else frozenset()
        self.keys -= keys
        self.secrets -= secrets
        self.destroyed |= keys | secrets
        if not killed:
            self.account = moving.settled(self.account, entries, keys, secrets)

    @invariant()
    def nothing_is_there_twice(self) -> None:
        assert sum(g.stage is Stage.CURRENT for g in self.account.generations) <= 1
        assert sum(r.closed is None for r in self.account.requests) <= 1

    @invariant()
    def no_secret_in_use_is_doomed_or_gone(self) -> None:
        for used, doomed, there in (
            (self.account.keys_in_use, self.account.doomed_keys, self.keys),
            (self.account.secrets_in_use, self.account.doomed_secrets, self.secrets),
        ):
            assert not used & doomed
            assert used <= there

    @invariant()
    def no_secret_is_forgotten(self) -> None:
        """Stored secrets are in use, or doomed, or adopted or skipped by the next run."""
        account = self.account
        adopted = {key_ref(account.next_request)}
        assert self.keys <= account.keys_in_use | account.doomed_keys | adopted
        passed_over = {ref for ref in self.ever if _is_newer(ref, account.secrets)}
        assert self.secrets <= account.secrets_in_use | account.doomed_secrets | passed_over

    @invariant()
    def the_evidence_is_whole_and_tells_the_same(self) -> None:
        entries = [*self.log, *(e for e in self.account.outbox if e.number > len(self.log))]
        assert verify(f"accounts/{self.account.name}", entries, self.account.head) == ()
        assert fold(entries) == account_state(self.account)
        assert list(differences(without_texts(self.account), entries)) == []

    @invariant()
    def every_candidate_makes_a_whole_set(self) -> None:
        for candidate in self.account.candidates:
            assert self.account.parts_of(candidate).complete

    @invariant()
    def what_is_living_has_its_text(self) -> None:
        for generation in self.account.generations:
            if generation.stage.living:
                parts = self.account.parts_of(generation)
                assert self.account.certificate(parts.certificate).pem
                assert self.account.ca_set(parts.trust).pem
                assert self.account.ca_set(parts.issuing).pem

    @invariant()
    def what_is_pinned_has_its_text(self) -> None:
        for ref in (self.account.issuing, self.account.trust):
            assert ref is None or self.account.ca_set(ref).pem

    @invariant()
    def the_document_comes_back_as_it_was(self) -> None:
        document = json.loads(json.dumps(encoded(self.account)))
        again = decoded(document, Account, "account")
        assert again == self.account
        assert msgspec.json.encode(encoded(again)) == msgspec.json.encode(encoded(self.account))
        assert all(e.hash == e.expected_hash for e in again.outbox)


def _is_newer(ref: SecretRef, newest: Mapping[str, int]) -> bool:
    name, _, number = ref.rpartition(":")
    return int(number) > newest.get(name, 0)


@pytest.mark.slow
def test_any_history() -> None:
    AnyHistory.made.clear()
    run_state_machine_as_test(AnyHistory)
    assert len(+AnyHistory.made) >= 8, "of 16 changes, a hundred short histories make eleven or more: are all refused?"
