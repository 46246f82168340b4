from collections.abc import Iterator

import pytest

from tests.fake_upstream import SECRET
from tests.gateway import UPSTREAM_KEY, Gateway


@pytest.fixture(scope="module", autouse=True)
def quiet(seeded: Gateway) -> Iterator[None]:
    """Whatever a module does to the gateway, nothing falls over inside, and no secret comes into the log."""
    yield
    for web in seeded.service.webs:
        printed = web.output()
        assert "Traceback" not in printed, printed[-5000:]
        assert "unexpected error" not in printed, printed[-5000:]
        for secret in (seeded.alice.key, UPSTREAM_KEY, SECRET):
            assert secret not in printed
