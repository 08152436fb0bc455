"""With NAS_EXTENSIONS=FILE.py in the environment, the contract suites are those of a user's entries, too."""

from collections.abc import Iterator

import pytest

from search_spaces.extensions import load_extensions

load_extensions()


@pytest.fixture(scope="session", autouse=True)
def _cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What runs cache goes into a folder of the tests, not into the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield
