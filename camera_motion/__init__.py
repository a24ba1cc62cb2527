"""How `camera_motion` is made: camera paths, scenes, rendering and encoding (numpy and av), then training (torch).

`motion` -> `scenes` -> `render` make clips and need no torch; `clips`, `realframes`, `flow`, `depthwise`, `team`,
`loop`, `measure` and `card` train, evaluate and document. `python -m scripts.train_camera_motion` puts them together;
`sample_clips` is the way in for everything that only wants a sample clip.
"""
