"""Commands of the repository, run as `python -m scripts.NAME`. Nothing outside this folder imports them but tests."""
