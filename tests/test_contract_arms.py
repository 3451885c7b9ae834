"""The contract of all suites, for those whose simulators are stood in for (`stand_in_arms.py`).

The same tests as for installed ones, through the same env server.
"""

import os
import sys

import pytest
import test_suite_contract as contract
from stand_in_arms import environment, lay_out
from test_suite_contract import (  # noqa: F401, collected here with the fixture below
    test_a_chunk_is_its_control_steps_one_after_the_other,
    test_a_snapshot_goes_on_bit_for_bit,
    test_an_episode_begins_as_its_start_says_in_any_slot_and_after_anything,
    test_an_episode_ends_at_its_limit_and_then_takes_no_more,
    test_experts_answer_within_the_bounds_of_the_channels_or_not_at_all,
    test_the_spec_is_what_the_class_says_without_its_simulator,
    test_what_is_no_action_is_refused,
)

from envservers.client import spawn_server

SUITES = ("robocasa-gr1", "robotwin", "domino")


@pytest.fixture(scope="module", params=SUITES)
def client(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    further = lay_out(folder)[request.param]
    usual = contract.options_of

    def options_of(suite):
        return {**usual(suite), **further}

    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment(folder).items():
            patch.setenv(name, value)
        patch.setattr(contract, "options_of", options_of)
        found = spawn_server(
            request.param, 2, options_of(request.param), deadline=60.0, python=sys.executable
        )
        yield found
        pid = found.pid
        found.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
