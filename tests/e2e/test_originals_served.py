"""Each model beyond the first three families over HTTP: all scores equal its own library's, on ten files of the corpus.

With random weights, on OpenVINO as archives are by default, one model at a time. What the decoder and both runtimes
give without a server is compared in tests/corpus/test_originals.py.
"""

from __future__ import annotations

from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
from safetensors.torch import load_file

from serving.package import PackageOptions, package
from serving.server import TorchServe
from tests.support import originals
from tests.support.traffic import ONE_WORKER, Client, change_settings


@pytest.mark.slow
@pytest.mark.parametrize("name", originals.NAMES)
def test_scores_over_http_equal_the_original_model(server: TorchServe, corpus: Path, name: str, tmp_path: Path) -> None:
    store = Path(server.model_store)
    archive = package(PackageOptions(spec=name, weights="random", seed=7, output=store, progress=False)).path
    with ZipFile(archive) as zipped:
        zipped.extract("weights.safetensors", tmp_path)
    change_settings(archive, ONE_WORKER)
    payloads = [(corpus / file).read_bytes() for file in originals.FILES]
    server.register(archive.name)
    try:
        client = Client(server, name)
        answers = [client.post(payload, top_k="400", format="list") for payload in payloads]
    finally:
        server.unregister(name)
        archive.unlink()
    model = originals.model(name, load_file(tmp_path / "weights.safetensors"))
    for file, payload, answer in zip(originals.FILES, payloads, answers, strict=True):
        assert answer.status == 200, (file, answer.body)
        expected = originals.probabilities(name, model, originals.tensor(name, payload))
        found = np.zeros(400)
        for entry in answer.json():
            found[entry["class_id"]] = entry["score"]
        assert np.abs(found - expected).max() < 2e-3, file
