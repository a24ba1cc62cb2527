"""The file of the views' logits: where a row lies, what is refused, going on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bulk.outcomes import Failure, Outcome
from bulk.view_scores import ViewScores
from handlers.errors import InvalidConfig

SHAPE = (3, 2, 2)


def outcome(*views: tuple[float, ...]) -> Outcome:
    return Outcome("v", logits=views)


def test_rows_lie_at_their_videos_and_nothing_is_nan(tmp_path: Path) -> None:
    scores = ViewScores(tmp_path / "v.npy", SHAPE, is_begun=False)
    scores.write(1, [outcome((1.0, 2.0), (3.0, 4.0)), Outcome("bad", failure=Failure("MissingFile", "gone"))])
    found = np.load(tmp_path / "v.npy")
    assert (found.dtype, found.shape) == (np.float32, SHAPE)
    assert found[1].tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert np.isnan(found[[0, 2]]).all()


def test_a_run_goes_on_in_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "v.npy"
    ViewScores(path, SHAPE, is_begun=False).write(0, [outcome((1.0, 2.0), (3.0, 4.0))])
    ViewScores(path, SHAPE, is_begun=True).write(2, [outcome((5.0, 6.0), (7.0, 8.0))])
    assert np.load(path)[:, 0, 0].tolist() == pytest.approx([1.0, np.nan, 5.0], nan_ok=True)


def test_refusals(tmp_path: Path) -> None:
    path = tmp_path / "v.npy"
    with pytest.raises(InvalidConfig, match="cannot be read"):
        ViewScores(path, SHAPE, is_begun=True)
    scores = ViewScores(path, SHAPE, is_begun=False)
    with pytest.raises(InvalidConfig, match="is there; name another file"):
        ViewScores(path, SHAPE, is_begun=False)
    with pytest.raises(InvalidConfig, match=r"holds float32 \(3, 2, 2\), this run float32 \(3, 2, 5\)"):
        ViewScores(path, (3, 2, 5), is_begun=True)
    with pytest.raises(InvalidConfig, match=r"v gave views and classes \(1, 2\); v\.npy has room for \(2, 2\)"):
        scores.write(0, [outcome((1.0, 2.0))])
