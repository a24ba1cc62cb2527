"""Procedural textures with the statistics of pictures: 1/f noise, occluding shapes, smooth regions, sharp edges, text.

Every texture is (SIZE, SIZE, 3) uint8 and wraps around, so a camera can travel over it without end.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.float32]  # (SIZE, SIZE, 3), about [0, 1]

SIZE = 512
"""Texels per side; a power of two, so that wrapping is a bit mask."""


def make_texture(rng: np.random.Generator) -> NDArray[np.uint8]:
    """A scene: one of six kinds, with its own palette, shading and contrast."""
    kinds: tuple[Callable[[np.random.Generator], Picture], ...] = (_cloudy, _leaves, _leaves, _room, _page, _landscape)
    picture = kinds[int(rng.integers(len(kinds)))](rng)
    if rng.uniform() < 0.5:
        picture = picture + _noise(rng, rng.uniform(0.6, 2.0)) * rng.uniform(0.02, 0.12)
    return _finish(rng, picture)


def _finish(rng: np.random.Generator, picture: Picture) -> NDArray[np.uint8]:
    """Spread to a random contrast around a random mean, then a random gamma."""
    low, high = np.percentile(picture, (1, 99))
    spread = (picture - low) / max(float(high - low), 1e-3)
    contrast = rng.uniform(0.45, 1.0)
    base = rng.uniform(0, 1 - contrast)
    shaped = np.clip(base + contrast * spread, 0, 1) ** rng.uniform(0.6, 1.6)
    texture: NDArray[np.uint8] = (shaped * 255).astype(np.uint8)
    return texture


def _spectrum(exponent: float) -> NDArray[np.float32]:
    frequency = np.hypot(np.fft.fftfreq(SIZE)[:, None], np.fft.rfftfreq(SIZE)[None, :])
    frequency[0, 0] = 1.0
    amplitude = frequency**-exponent
    amplitude[0, 0] = 0.0
    return np.asarray(amplitude, np.float32)


def _plane(rng: np.random.Generator, exponent: float) -> NDArray[np.float32]:
    """(SIZE, SIZE) noise of unit deviation whose amplitude falls with frequency to the power `exponent`."""
    white = np.fft.rfft2(rng.standard_normal((SIZE, SIZE), dtype=np.float32))
    plane = np.fft.irfft2(white * _spectrum(exponent), s=(SIZE, SIZE))
    return np.asarray(plane / max(float(plane.std()), 1e-6), np.float32)


def _noise(rng: np.random.Generator, exponent: float) -> Picture:
    """Noise in colour: a shared plane and, less, one of chroma."""
    shared = _plane(rng, exponent)
    chroma = _plane(rng, exponent + 0.3)
    tint = rng.uniform(-0.6, 0.6, 3).astype(np.float32)
    return shared[..., None] + chroma[..., None] * tint


def _colour(rng: np.random.Generator) -> NDArray[np.float32]:
    """A colour; half of them nearly grey, as in the world."""
    grey = rng.uniform(0, 1)
    saturation = rng.uniform(0, 0.12) if rng.uniform() < 0.5 else rng.uniform(0.1, 0.5)
    return np.clip(grey + rng.uniform(-1, 1, 3) * saturation, 0, 1).astype(np.float32)


def _cloudy(rng: np.random.Generator) -> Picture:
    return 0.5 + 0.2 * _noise(rng, rng.uniform(0.9, 1.9))


def _leaves(rng: np.random.Generator) -> Picture:
    """Occluding shapes with power-law sizes ("dead leaves"): edges and flat regions as photographs have them."""
    picture: Picture = np.broadcast_to(_colour(rng), (SIZE, SIZE, 3)).copy()
    grain = _noise(rng, rng.uniform(0.5, 1.5)) * rng.uniform(0.0, 0.15)
    smallest = rng.uniform(4, 14)
    for _ in range(int(rng.integers(60, 420))):
        radius = min(smallest * rng.uniform(0.01, 1.0) ** -0.6, SIZE / 5)
        _leaf(rng, picture, radius, grain * rng.uniform(0, 1.5))
    return picture


def _leaf(rng: np.random.Generator, picture: Picture, radius: float, grain: Picture | None) -> None:
    """Paint one rotated ellipse, rectangle or triangle, shaded across, over the wrapped picture."""
    reach = int(radius * 1.5) + 2
    rows = (int(rng.integers(SIZE)) + np.arange(-reach, reach)) % SIZE
    columns = (int(rng.integers(SIZE)) + np.arange(-reach, reach)) % SIZE
    offset = np.arange(-reach, reach, dtype=np.float32) / radius
    angle = rng.uniform(0, np.pi) if rng.uniform() < 0.6 else 0.0
    across = np.cos(angle) * offset[None, :] + np.sin(angle) * offset[:, None]
    along = (np.cos(angle) * offset[:, None] - np.sin(angle) * offset[None, :]) / rng.uniform(0.35, 1.0)
    kind = rng.integers(3)
    if kind == 0:
        outline = across**2 + along**2
    elif kind == 1:
        outline = np.maximum(np.abs(across), np.abs(along)) * 1.2
    else:
        outline = np.maximum(np.abs(across) * 1.7 + along, -along * 1.5)
    cover = np.clip((1.0 - outline) * radius / rng.uniform(1.0, 4.0), 0, 1)[..., None]
    shade = 1.0 + rng.uniform(-0.35, 0.35) * across[..., None]
    paint = _colour(rng) * shade
    where = np.ix_(rows, columns)
    if grain is not None:
        paint = paint + grain[where]
    picture[where] = picture[where] * (1 - cover) + paint * cover


def _room(rng: np.random.Generator) -> Picture:
    """Large plain areas with slow shading, a few boxes and lines: little texture to hold on to."""
    ramp = np.sin(np.arange(SIZE, dtype=np.float32) * (2 * np.pi / SIZE) + rng.uniform(0, 6))
    light = ramp[:, None] * rng.uniform(-0.15, 0.15) + ramp[None, ::-1] * rng.uniform(-0.15, 0.15)
    picture: Picture = _colour(rng) + light[..., None]
    for _ in range(int(rng.integers(2, 6))):
        start, length = int(rng.integers(SIZE)), int(rng.integers(30, 220))
        band = (start + np.arange(length)) % SIZE
        if rng.uniform() < 0.5:
            picture[band] = picture[band] * 0.4 + _colour(rng) * 0.6
        else:
            picture[:, band] = picture[:, band] * 0.4 + _colour(rng) * 0.6
    for _ in range(int(rng.integers(12, 60))):
        _leaf(rng, picture, float(rng.uniform(5, 70)), None)
    return picture + _noise(rng, 1.4) * rng.uniform(0.005, 0.03)


def _page(rng: np.random.Generator) -> Picture:
    """Rows of letter-like strokes on paper, and a few pictures."""
    paper, ink = _colour(rng), _colour(rng)
    picture: Picture = np.broadcast_to(paper, (SIZE, SIZE, 3)).copy()
    height = int(rng.integers(6, 22))
    for top in range(0, SIZE - height, int(height * rng.uniform(1.4, 2.2))):
        column = int(rng.integers(0, 60))
        while column < SIZE - height:
            if rng.uniform() < 0.82:
                strokes = rng.uniform(size=(5, 4)) < 0.5
                glyph = np.kron(strokes, np.ones((height // 5 + 1, height // 6 + 1)))[:height, :height]
                picture[top : top + glyph.shape[0], column : column + glyph.shape[1]][glyph > 0] = ink
            column += int(height * rng.uniform(0.7, 1.1))
        if rng.uniform() < 0.15:
            ink = _colour(rng)
    for _ in range(int(rng.integers(1, 12))):
        _leaf(rng, picture, float(rng.uniform(15, 80)), None)
    return picture + _noise(rng, 1.2) * 0.01


def _landscape(rng: np.random.Generator) -> Picture:
    """A smooth sky over ground with texture, and a ragged horizon between them."""
    ridge = _plane(rng, 1.5)[0] * rng.uniform(3, 25)
    horizon = SIZE * rng.uniform(0.3, 0.6) + ridge
    below = np.clip((np.arange(SIZE, dtype=np.float32)[:, None] - horizon[None, :]) / 2.0, 0, 1)[..., None]
    fade = np.linspace(0, 1, SIZE, dtype=np.float32)[:, None, None]
    sky = _colour(rng) * (1 - fade) + _colour(rng) * fade + _noise(rng, 1.9) * rng.uniform(0.0, 0.06)
    ground = _colour(rng) + _noise(rng, rng.uniform(0.7, 1.5)) * rng.uniform(0.06, 0.2)
    picture: Picture = (sky * (1 - below) + ground * below).astype(np.float32)
    for _ in range(int(rng.integers(0, 60))):
        _leaf(rng, picture, float(rng.uniform(4, 45)), None)
    return picture
