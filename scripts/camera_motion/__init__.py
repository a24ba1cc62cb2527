"""How `camera_motion` is made: camera paths, scenes, rendering and encoding (numpy and av), then training (torch).

`motion` -> `scenes` -> `render` make clips and need no torch; `preprocess`, `batches`, `network`, `loop`, `realframes`,
`measure` and `card` train, evaluate and document. `scripts.train_camera_motion` puts them together;
`scripts._camera_clips` is the way in for everything that only wants a sample clip.
"""
