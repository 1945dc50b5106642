"""What several test files need."""

from pathlib import Path

import pytest

CORPORA = Path(__file__).parent.parent.parent / "shared" / "corpora"


@pytest.fixture(scope="session")
def corpora() -> Path:
    """The folder of real music that developers have beside the repository."""
    if not CORPORA.is_dir():
        pytest.skip("no real music here: ../shared/corpora is absent")
    return CORPORA


@pytest.fixture(scope="session")
def real_files(corpora: Path) -> list[Path]:
    return sorted(corpora.glob("*/**/*.mid"))
