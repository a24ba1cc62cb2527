"""What a model is: architecture, preprocessing, published figures. Frozen values, no code that runs them.

The rows are in the modules beside this one. Sources, cited per spec by key:
    tutorial   PyTorchVideo's Torch Hub inference tutorial (transform parameters, frames x rate, 30 frames per second)
    zoo        PyTorchVideo's model zoo page, docs/source/model_zoo.md (Kinetics-400 top-1 / top-5 with 10 clips x 3
               crops, parameters, FLOPs of one view). fvcore counts within 6 % of its FLOPs at the spec's crop, not at
               the smaller one the network is built with: the table's x3d_s is 182 pixels, not 160
    hub        pytorchvideo 0.1.5, `pytorchvideo/models/hub/*.py` (architecture arguments, weights URLs)
    pyslowfast PySlowFast's configs/Kinetics/X3D_L.yaml (X3D-L's test crop, which the tutorial lacks)
    mmaction2  MMAction2 0.x's configs/recognition/x3d (frames, crop, mean and deviation on 0 to 255, accuracy on videos
               of short side 320; the file names end in their SHA-256's first digits). The 1.x page measured the same
               files again: 72.7 / 73.3 and 74.9 / 75.5. Parameters and FLOPs are the zoo's, same networks
    torchvision 0.29.1, `torchvision/models/video/*.py`: each weights' `transforms` and `meta` (frame rate, clip length,
               clips per video, accuracy, parameters, GFLOPs; file names end in their SHA-256's first digits)
    huggingface transformers 5.23, the video processor of a folder's model (serving/huggingface.py)
    here       trained by this repository, `python -m scripts.train_camera_motion`
    own        a user's spec file (serving/spec_file.py)
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

Family = Literal["x3d", "slow", "slowfast", "c2d", "i3d", "csn", "r2plus1d", "mvit", "torchvision", "graph"]
EXPLAINED_FAMILIES: tuple[Family, ...] = ("x3d", "slow", "slowfast", "c2d", "i3d", "csn", "r2plus1d")
"""Families whose heads `handlers.model.head` knows: they pool feature maps and classify what comes out."""
Head = Literal["pytorchvideo", "mmaction2", "pyslowfast", "torchvision", "graph"]
Source = Literal["tutorial", "zoo", "hub", "pyslowfast", "mmaction2", "torchvision", "huggingface", "here", "own"]

Temporal = Literal["recipe", "fps_stride", "whole_video"]
ResizeArithmetic = Literal["pytorchvideo", "torchvision"]
CropRounding = Literal["round", "floor"]
ChannelOrder = Literal["rgb", "bgr"]
Layout = Literal["N3TSS", "NT3SS"]
Activation = Literal["softmax", "sigmoid"]
Combine = Literal["mean", "max"]
Channels = tuple[float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class X3DArchitecture:
    """Arguments of pytorchvideo's create_x3d; length and crop decide the head's pooling window, not the input size."""

    input_clip_length: int
    input_crop_size: int
    depth_factor: float = 2.2


@dataclass(frozen=True, slots=True, kw_only=True)
class ResNetArchitecture:
    """Arguments of create_resnet or create_slowfast; `fusion_kernel_frames` is SlowFast's alone."""

    model_depth: int
    fusion_kernel_frames: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HubArchitecture:
    """A model of `pytorchvideo.models.hub` by its name there; `classifier` is the name of its last layer."""

    model: str
    classifier: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchvisionArchitecture:
    """A model of `torchvision.models.video` by its name there; `classifier` is the name of its last layer."""

    model: str
    classifier: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphArchitecture:
    """No network that is known here: the archive holds the model as an OpenVINO IR, made from the file of this name."""

    file: str


Architecture = X3DArchitecture | ResNetArchitecture | HubArchitecture | TorchvisionArchitecture | GraphArchitecture


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """Top-1 percent with `views` (clips x crops); `reference_top1`: the same weights in their first authors' code."""

    views: str
    top1: float
    reference_top1: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What the model's authors claim: percent on Kinetics-400, millions of parameters, GFLOPs of one view.

    `views` is clips x crops, as `evaluate --views` writes it; `accuracies` are all that were published, where more than
    one was.
    """

    top1: float | None
    top5: float | None
    params_m: float
    flops_g: float | None
    views: str
    accuracies: tuple[Accuracy, ...] = ()
    source: Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """Where published weights are: a URL, or file names in this repository's weights folder (with their labels)."""

    url: str | None = None
    bundled: str | None = None
    bundled_labels: str | None = None
    sha256_prefix: str | None = None
    source: Source


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """One model with the preprocessing it was trained with.

    Which frames. A clip is `num_frames` frames (T) of `clip_duration_sec` seconds of video. `temporal`:

        recipe       all frames of the window, of which T are picked uniformly, the first and the last included
        fps_stride   T frames in a row of the video as it is at `frame_rate` frames per second: frame
                     `floor(k * fps / frame_rate)` of the window for k = 0 ... T - 1 (torchvision's VideoClips)
        whole_video  frame `k * n // T` of the n frames in the part that is looked at (Hugging Face's video processors);
                     `clip_duration_sec` is then the length of a timeline's windows alone

    Which pixels. Frames are resized (bilinear) so that the short side has `short_side` pixels, or to `exact_size`
    (height, width) whatever their shape; a square of `crop_size` pixels (S) is cut out. Where the middle lies between
    two pixels, `crop_rounding` takes the even one (torchvision) or the first (Hugging Face). `antialias` averages over
    the pixels that become one. `resize_as`: pytorchvideo resizes float32 pictures; torchvision resizes uint8 pictures,
    so the resized pixels are whole numbers, and rounds the length of the long side in another way.

    Which numbers. Pixels are scaled to [0, 1], minus `mean`, divided by `std`, per channel in `channel_order`. Views
    are (N, 3, T, S, S), or (N, T, 3, S, S) with the layout NT3SS.

    What comes out. The model gives logits; `activation` makes them scores, and `combine` says how those of a video's
    views become one.
    """

    name: str
    family: Family
    num_frames: int
    sampling_rate: int
    short_side: int
    crop_size: int
    frames_per_second: int = 30
    temporal: Temporal = "recipe"
    exact_size: tuple[int, int] | None = None
    antialias: bool = False
    resize_as: ResizeArithmetic = "pytorchvideo"
    crop_rounding: CropRounding = "round"
    mean: Channels = (0.45, 0.45, 0.45)
    std: Channels = (0.225, 0.225, 0.225)
    channel_order: ChannelOrder = "rgb"
    layout: Layout = "N3TSS"
    alpha: int | None = None
    num_classes: int = 400
    activation: Activation = "softmax"
    combine: Combine = "mean"
    head: Head = "pytorchvideo"
    architecture: Architecture
    published: Published
    weights: Weights
    preprocessing_source: Source = "tutorial"

    def __post_init__(self) -> None:
        if (self.family == "slowfast") != (self.alpha is not None):
            raise ValueError(f"{self.name}: alpha belongs to slowfast alone, got {self.family} with alpha {self.alpha}")
        if self.exact_size is not None and min(self.exact_size) != self.short_side:
            raise ValueError(f"{self.name}: exact_size {self.exact_size} has another short side than {self.short_side}")
        if self.crop_size > self.short_side:
            raise ValueError(f"{self.name}: crop {self.crop_size} is larger than the short side {self.short_side}")
        if min(self.std) <= 0:
            raise ValueError(f"{self.name}: std must be positive, got {self.std}")
        if self.antialias and self.resize_as != "torchvision":
            raise ValueError(f"{self.name}: antialias needs resize_as torchvision, got {self.resize_as}")

    @property
    def clip_duration_sec(self) -> float:
        """Seconds of video in one clip: `num_frames * sampling_rate / frames_per_second`, as the tutorial computes."""
        return (self.num_frames * self.sampling_rate) / self.frames_per_second

    @property
    def clip_duration_exact(self) -> Fraction:
        return Fraction(self.num_frames * self.sampling_rate, self.frames_per_second)

    @property
    def frame_rate(self) -> float:
        """Frames of a clip per second of video."""
        return self.frames_per_second / self.sampling_rate

    @property
    def pathways(self) -> int:
        return 2 if self.family == "slowfast" else 1

    @property
    def classifier(self) -> str:
        """Name of the model's last layer, which gives the logits."""
        if isinstance(self.architecture, HubArchitecture | TorchvisionArchitecture):
            return self.architecture.classifier
        return "blocks.6.proj" if self.family == "slowfast" else "blocks.5.proj"

    @property
    def last_block(self) -> str | None:
        """Name of the block that gives the last feature maps, of both pathways where there are two.

        None where explanations are not known for the head behind it, as with transformers and graphs.
        """
        if self.family not in EXPLAINED_FAMILIES:
            return None
        head = int(self.classifier.split(".")[1])
        return f"blocks.{head - (2 if self.family == 'slowfast' else 1)}"

    @property
    def follows_recipe(self) -> bool:
        """Whether PyTorchVideo's documented recipe, with this spec's numbers, is its preprocessing."""
        pixels = (self.resize_as, self.exact_size, self.crop_rounding, self.channel_order, self.layout)
        return (self.temporal, *pixels) == ("recipe", "pytorchvideo", None, "round", "rgb", "N3TSS")
