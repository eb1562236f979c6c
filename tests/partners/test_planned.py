"""The plan of an account by its profile: a request that no machine sends waits for us."""

from pathlib import Path

import broker_demo
import pytest

import broker
from broker.copies import replace
from broker.model.channel import Channel
from broker.model.life_cycle import Phase, Who
from broker.partners.planned import plan_of
from broker.partners.profile import Profile, Submission
from tests.support.accounts import NOW, with_current, with_open_request


@pytest.mark.parametrize(
    ("how", "own", "automatic"),
    [
        (Channel.EML, "", False),
        (Channel.SMTP, "", True),
        (Channel.SMTP, "portal", False),
        (Channel.MANUAL, "smtp", True),
        (Channel.VAULT_PKI, "", True),
    ],
)
def test_by_hand_is_not_automatic(how: Channel, own: str, automatic: bool) -> None:
    account = replace(with_open_request(with_current()), submit_via=own)
    profile = Profile("partner", "Partner", {}, submission=Submission(how=how))
    plan = plan_of(account, profile, NOW)
    assert (plan.phase, plan.who, plan.automatic) == (Phase.DRAFTED, Who.US, automatic)


def test_every_plan_is_made_here() -> None:
    """People, notices, the scheduler and the service read one plan."""
    homes = [Path(package.__file__ or "").parent for package in (broker, broker_demo)]
    files = [file for home in homes for file in home.rglob("*.py") if "account_plan(" in file.read_text()]
    assert sorted(file.name for file in files) == ["plan.py", "planned.py"]
