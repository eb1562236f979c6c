"""A program that connects to a real service, and what it leaves behind."""

from __future__ import annotations

import subprocess
import sys

import pytest

from broker.model.names import AccountName
from tests.e2e.test_service import serving
from tests.support.system import System

pytestmark = pytest.mark.slow

PROGRAM = """
import sys
import broker.client
session = broker.client.connect("acme/reporting")
print(session.get("/fleets").status_code, session.manifest.generation, flush=True)
sys.stdin.readline()
while session.manifest.generation == 1:
    session.get("/fleets")
print(session.get("/fleets").status_code, session.manifest.generation, flush=True)
sys.stdin.readline()
"""  # the exit of the program closes it


def test_a_program_follows_and_gives_back(system: System) -> None:
    system.promoted()
    token = system.consumer("acme/reporting")
    with serving(system) as service:
        environment = {"BROKER_ADDR": service.addresses[0], "BROKER_AUTH": f"token-file:{token}"}
        pipe = subprocess.PIPE
        with subprocess.Popen(
            [sys.executable, "-c", PROGRAM], env=environment, cwd=token.parent, stdin=pipe, stdout=pipe, text=True
        ) as program:
            assert program.stdin
            assert program.stdout
            assert program.stdout.readline() == "200 1\n"
            system.renewed()
            program.stdin.write("\n")
            program.stdin.flush()
            status, generation = program.stdout.readline().split()
            assert status == "200"
            assert int(generation) > 1
            program.stdin.close()
        assert program.returncode == 0
        with system.broker() as broker:
            assert not broker.stragglers(AccountName("acme"), 1)
            assert not broker.stragglers(AccountName("acme"), int(generation))
