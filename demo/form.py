"""The fields of the demo page's form."""

from __future__ import annotations

from typing import Any

import gradio as gr

from demo.requests import DEFAULT_TOP_K

_MODES = [("A timeline", "timeline"), ("Some clips, averaged", "clips")]
MOST_LABELS = 20
"""What the slider offers; fewer for a model of fewer classes."""


def form_fields() -> tuple[gr.Dropdown, gr.Dropdown, gr.Button, gr.Slider, list[Any]]:
    """Model, version, the button that lists them again, the labels' slider; all fields in `Page.classify`'s order."""
    with gr.Row():
        model = gr.Dropdown(label="Model", choices=[], interactive=True, elem_id="va-model", min_width=160)
        version = gr.Dropdown(label="Version", choices=[], interactive=True, elem_id="va-version", min_width=160)
    refresh = gr.Button("List the models again", size="sm", variant="secondary", elem_id="va-refresh")
    mode = gr.Radio(_MODES, value="timeline", label="Look at the video as", elem_id="va-mode")
    with gr.Row():
        stride_sec = gr.Number(1.0, label="One window every ... seconds", minimum=0.04, min_width=160)
        num_clips = gr.Slider(1, 20, 1, step=1, label="Clips, spread over the video", visible=False, min_width=160)
        top_k = gr.Slider(1, MOST_LABELS, DEFAULT_TOP_K, step=1, label="Labels", min_width=160)
    with gr.Accordion("More", open=False):
        with gr.Row():
            start_sec = gr.Number(0, label="From second", minimum=0, min_width=160)
            end_sec = gr.Number(0, label="To second (0: the end)", minimum=0, min_width=160)
        num_crops = gr.Radio([("The centre", 1), ("The whole frame, three crops", 3)], value=1, label="Crops")
        average = gr.Radio([("Probabilities", "prob"), ("Scores", "score")], value="prob", label="Average of")
    mode.change(
        lambda value: (gr.Number(visible=value == "timeline"), gr.Slider(visible=value != "timeline")),
        mode,
        [stride_sec, num_clips],
        api_visibility="private",
        show_progress="hidden",
    )
    return model, version, refresh, top_k, [mode, stride_sec, num_clips, num_crops, top_k, start_sec, end_sec, average]
