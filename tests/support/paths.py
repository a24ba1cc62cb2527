"""Where the repository is, and the folders beside it that only some machines have."""

from __future__ import annotations

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

CORPUS = REPOSITORY.parent / "shared" / "corpus"
"""Videos that may not be published with the repository, and what the documented recipe gives for each."""

DIALECTS = REPOSITORY.parent / "shared" / "dialects"
"""Every key and shape of other ecosystems' checkpoints."""
