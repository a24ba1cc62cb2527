"""Everything that ships inside a model archive, and nothing else; this file imports nothing.

    request/   one TorchServe row -> videos and options; answers -> the body that goes back
    video/     bytes -> packets -> frames -> views, as the documented recipe picks and transforms them
    decode/    that work as a service: jobs in, views out, in processes of their own or in threads
    model/     checkpoints, labels, the network, and the runtimes that compute it
    inference.py, pending.py   views of several videos -> the model -> scores
    pipeline.py                requests -> scores, without TorchServe
    video_handler.py           the adapter to TorchServe; the entry files name it for each family of models
    torch_stand_in.py          what workers that need no torch import under its name
    errors.py specs/ limits.py config.py     the vocabulary that all of them share

Data flows one way: row -> options -> windows -> frames -> views -> logits -> scores -> JSON.
"""

__version__ = "0.1.0"
