"""What the server says of itself is true, whatever is sent to it. More of the same: `python -m tests.fuzz`."""

from pathlib import Path

import pytest


@pytest.mark.parametrize("keys", [False, True])
def test_every_answer_is_as_described_and_none_is_a_5xx(tmp_path: Path, keys: bool):
    from tests.fuzz import target  # which imports much that no other test needs

    with target(tmp_path, keys) as server:
        server.fuzz(200)
        server.check()
        assert not server.faults
        assert {200, 400, 404} <= server.statuses.keys()
