"""Who held which generation of an account, from the evidence of all processes, merged by time as it is read."""

import heapq
from collections.abc import Callable, Iterator

from broker.evidence.holders import Holder, Period, holders
from broker.model.account import Account
from broker.model.chain import Entry
from broker.vault.evidence import VaultEvidence


def held_in(period: Period, account: Account, evidence: VaultEvidence, say: Callable[[str], None]) -> Iterator[Holder]:
    """Yield who held a generation of `account` in `period`; `say` is called for each entry that cannot be read.

    The evidence is not verified. One entry of each chain is in memory.
    """
    around = period.around

    def of_account() -> Iterator[Entry]:
        last = 0
        for entry in evidence.between(f"accounts/{account.name}", around.start, around.end, say):
            last = entry.number
            yield entry
        yield from (e for e in account.outbox if e.number > last and around.start <= e.at <= around.end)

    chains = (evidence.between(chain, around.start, around.end, say) for chain in evidence.issuing_chains())
    merged = heapq.merge(of_account(), *chains, key=lambda entry: entry.at)
    return holders(merged, account.name, period, lambda e: say(f"{e.chain} entry {e.number} makes no sense"))
