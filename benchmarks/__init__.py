"""Benchmarks: this package against the documented recipe, against torchcodec with OpenVINO, and against the floor.

    videos.py      the input videos, made here
    baselines/     the contenders: in-process ones, and handlers for the same TorchServe
    stages.py      in-process: decode, transform, model
    load.py        HTTP and gRPC: latency of one client, throughput of several, many views
    memory.py      memory of the worker; startup.py: register to READY
    targets.py     what was promised, and whether a result keeps it
    results.py     the result file; machine.py what it was measured on; table.py and plots.py what is made from it
    gpu.py         models on a GPU: `python -m benchmarks.gpu`

`python -m scripts.benchmark` runs them.
"""
