"""The pipeline: N requests in, N results out; videos share the model, failures stay where they are."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from handlers.config import HandlerConfig
from handlers.decode.create import create_decoder
from handlers.decode.processes import ProcessDecodeService
from handlers.errors import InternalError, InvalidConfig, InvalidLabels, MissingVideo, RuntimeUnavailable
from handlers.model.archive_info import ArchiveInfo, WeightsInfo
from handlers.model.network import build_model
from handlers.pipeline import VideoClassifier
from handlers.request.answer import VideoScores
from handlers.request.options import RequestOptions, VideoRequest
from handlers.specs import get_spec
from handlers.video.codecs import MODERN
from handlers.video.sampling import Sampling
from tests.support.decoding import decode
from tests.support.videos import VideoPlan, make_video

CLASSES = 12


def _write_archive(folder: Path, **settings: str) -> Path:
    """An unpacked archive of a small seeded X3D-XS whose classes differ clearly."""
    spec = get_spec("x3d_xs")
    torch.manual_seed(3)
    model = build_model(spec, num_classes=CLASSES, head=spec.head)
    model.get_parameter("blocks.5.proj.weight").data.normal_(0.0, 0.5)
    save_file(model.state_dict(), folder / "weights.safetensors")
    info = ArchiveInfo(
        spec=spec.name,
        name="tiny",
        version="1.0",
        num_classes=CLASSES,
        head=spec.head,
        weights=WeightsInfo(kind="random", source=None, sha256="0" * 64, seed=3),
        package_version="test",
    )
    (folder / "archive.json").write_text(json.dumps(info.to_json()))
    (folder / "index_to_name.json").write_text(json.dumps({str(i): f"class {i}" for i in range(CLASSES)}))
    lines = {"spec": spec.name, "runtime": "eager", "decode_processes": "2", **settings}
    text = "handler:\n" + "".join(f"  {key}: {value}\n" for key, value in lines.items())
    (folder / "model-config.yaml").write_text(text)
    return folder


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _write_archive(tmp_path_factory.mktemp("archive"))


@pytest.fixture(scope="module")
def classifier(model_dir: Path) -> Iterator[VideoClassifier]:
    classifier = VideoClassifier.from_directory(model_dir)
    yield classifier
    classifier.close()


def _request(payload: bytes, **sampling: Any) -> VideoRequest:
    return VideoRequest(payload, RequestOptions(sampling=Sampling(**sampling)))


def _logits(result: object) -> NDArray[np.float32]:
    assert isinstance(result, VideoScores)
    return np.concatenate([window.logits for window in result.windows])


def test_answers_stand_in_their_requests_places(
    classifier: VideoClassifier, indexed_video: Callable[[str], bytes]
) -> None:
    known_failure = MissingVideo("nothing was sent")
    results = classifier.classify(
        [
            _request(indexed_video("h264")),
            known_failure,
            _request(b"no video"),
            _request(indexed_video("vp9"), num_clips=2, num_crops=3),
            _request(indexed_video("h264"), start_sec=99.0),
        ]
    )
    kinds = [type(result).__name__ for result in results]
    assert kinds == ["VideoScores", "MissingVideo", "UnsupportedVideo", "VideoScores", "EmptyClip"]
    assert results[1] is known_failure
    assert _logits(results[3]).shape == (6, CLASSES)


def test_no_request_at_all(classifier: VideoClassifier) -> None:
    assert classifier.classify([]) == []


def test_an_answer_is_the_same_alone_and_among_others(
    classifier: VideoClassifier, indexed_video: Callable[[str], bytes]
) -> None:
    payloads = [indexed_video(name) for name in ("h264", "vp9", "hevc", "mjpeg")]
    together = classifier.classify([_request(payload) for payload in payloads])
    for payload, result in zip(payloads, together, strict=True):
        (alone,) = classifier.classify([_request(payload)])
        np.testing.assert_allclose(_logits(result), _logits(alone), atol=1e-5)


@pytest.mark.parametrize("decoder", [{"isolation": "none"}, {"decoder": "encoded_video"}])
def test_every_decoder_gives_the_same_scores(
    classifier: VideoClassifier, tmp_path: Path, h264_video: bytes, decoder: dict[str, str]
) -> None:
    other = VideoClassifier.from_directory(_write_archive(tmp_path, **decoder))
    request = _request(h264_video, num_clips=2, num_crops=3)
    (ours,), (theirs,) = classifier.classify([request]), other.classify([request])
    other.close()
    np.testing.assert_allclose(_logits(ours), _logits(theirs), atol=1e-4)


def test_many_windows_come_out_in_order(classifier: VideoClassifier, h264_video: bytes) -> None:
    (result,) = classifier.classify([_request(h264_video, stride_sec=0.02)])
    assert isinstance(result, VideoScores)
    starts = [float(window.window.start_sec) for window in result.windows]
    assert starts == pytest.approx([0.02 * index for index in range(21)])
    assert result.report.frames_decoded <= 60


def test_a_model_that_fails_is_the_servers_fault_and_the_next_batch_works(
    classifier: VideoClassifier, h264_video: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object, *, features: bool, maps: bool) -> None:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(classifier._runtime, "outputs", fail)
        results = classifier.classify([_request(h264_video), _request(b"no video")])
    assert isinstance(results[0], InternalError)
    assert "out of memory" not in results[0].message
    assert type(results[1]).__name__ == "UnsupportedVideo"
    assert isinstance(classifier.classify([_request(h264_video)])[0], VideoScores)


def test_a_description_is_json(classifier: VideoClassifier) -> None:
    told = json.loads(json.dumps(classifier.describe()))
    assert told["runtime"] == "eager"
    assert told["device"] == "cpu"
    assert told["weights"]["kind"] == "random"
    assert told["spec"]["clip_duration_sec"] == pytest.approx(1.6)
    assert told["limits"]["max_windows"] == 4096
    assert told["isolation"] == "process"
    assert told["sandbox"] == list(classifier._decoder.sandbox)
    assert set(told["sandbox"]) <= {"landlock", "seccomp"}
    assert told["codecs"]["profile"] == "wide"
    assert ("prores" in told["codecs"]["allowed"]) == ("seccomp" in told["sandbox"])
    assert "h264" in told["codecs"]["allowed"]


def test_isolation_by_request_has_one_process_more(h264_video: bytes) -> None:
    config = HandlerConfig.from_mapping({"spec": "x3d_xs", "isolation": "request", "decode_processes": 1})
    service = create_decoder(get_spec(config.spec), config)
    assert isinstance(service, ProcessDecodeService)
    service.await_ready()
    try:
        before = service.process_ids()
        assert len(before) == 2
        assert decode(service, h264_video).type == "ok"
        service.wait(0.0, also_for_wakeup=True)
        assert len(set(service.process_ids()) - set(before)) == 1
    finally:
        service.close()


@pytest.mark.parametrize("setting", [{"isolation": "none"}, {"decoder": "encoded_video"}])
def test_the_modern_profile_holds_without_processes(setting: dict[str, str]) -> None:
    config = HandlerConfig.from_mapping({"spec": "x3d_xs", "codecs": "modern", **setting})
    service = create_decoder(get_spec(config.spec), config)
    try:
        outcome = decode(service, make_video(VideoPlan(num_frames=6, width=96, height=80, container="flv")))
    finally:
        service.close()
    assert outcome.type == "UnsupportedVideo"
    assert str(outcome.error).endswith(MODERN.shown_containers)


def test_labels_must_fit(tmp_path: Path) -> None:
    folder = _write_archive(tmp_path)
    (folder / "index_to_name.json").write_text(json.dumps({"0": "one", "1": "two"}))
    with pytest.raises(InvalidLabels, match="2 labels for a model of 12 classes"):
        VideoClassifier.from_directory(folder)


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"spec": "x3d_s"}, InvalidConfig, "the archive holds x3d_xs, but handler.spec says x3d_s"),
        ({"colour": "red"}, InvalidConfig, "unknown key handler.colour"),
        ({"runtime": "openvino"}, RuntimeUnavailable, "holds no OpenVINO model"),
        ({"precision": "float16"}, RuntimeUnavailable, "needs a GPU"),
    ],
)
def test_what_cannot_be_served_is_refused_at_load(
    tmp_path: Path, settings: dict[str, str], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        VideoClassifier.from_directory(_write_archive(tmp_path, **settings))


def test_an_unreadable_archive_is_refused(tmp_path: Path) -> None:
    broken = tmp_path / "broken.mar"
    broken.write_bytes(b"not a zip file")
    with (
        pytest.raises(InvalidConfig, match=r"broken\.mar is not a readable model archive"),
        VideoClassifier.from_archive(broken),
    ):
        pass


def test_a_timeout_in_one_video_leaves_the_others(model_dir: Path, tmp_path: Path, h264_video: bytes) -> None:
    classifier = VideoClassifier.from_directory(_write_archive(tmp_path, limits="{decode_timeout_sec: 0.000001}"))
    slow = classifier.classify([_request(h264_video), _request(b"no video")])
    classifier.close()
    assert [type(result).__name__ for result in slow] == ["DecodeTimeout", "UnsupportedVideo"]
