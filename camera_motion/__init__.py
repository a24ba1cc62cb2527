"""How `camera_motion` is made: camera paths, scenes, rendering and encoding (numpy and av), then training (torch).

`motion` -> `scenes` -> `render` make clips and need no torch; `clips`, `flow`, `depthwise`, `team` and `loop` train;
`realframes`, `virtual_camera`, `measure` and `card` evaluate and document. `python -m scripts.train_camera_motion` puts
them together; `sample_clips` is the way in for everything that only wants a sample clip.
"""
