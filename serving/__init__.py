"""Makes archives and runs servers: what the commands, benchmarks and tests share. Imports handlers and the client.

package.py           a spec and weights -> a verified .mar
weights.py           published, own, bundled or random weights; weights_cache.py, download.py: from a URL
model_config.py      the archive's model-config.yaml
openvino_export.py   the converted model inside it
build_archive.py     the files -> the .mar, checked in a process of its own
environment.py       ports, variables, folders of a TorchServe; shell_exports.py: the same for `source scripts/env`
server.py            a running TorchServe
health.py            whether it answers: workers, queues, keys, a tiny prediction
connection.py        the flags with which commands find a server and its keys
install.py           pinned requirements into .venv
"""
