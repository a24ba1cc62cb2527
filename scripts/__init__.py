"""Commands of the repository, run as `python -m scripts.NAME`; modules with a leading underscore are shared by them."""
