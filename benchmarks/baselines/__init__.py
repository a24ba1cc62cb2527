"""What this package is measured against.

In-process contenders, each run in a process of its own (`process.py`): `served`, this package's pipeline; `recipe`, the
documented recipe; `torchcodec`, torchcodec with OpenVINO; `floor`, the least work that gives the answer.
Handlers for the same TorchServe (`archives.py` packages them): `recipe_handler.py` and `echo_handler.py`.
"""
