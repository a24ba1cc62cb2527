"""A `.pt2` file of torch.export.save -> a clean copy of it that may be loaded, or a refusal; nothing of it runs before.

torch.export.load is not for strangers' files. Beside pickles it takes from them names of functions, which it looks up
and calls, expressions for sympy, which evaluates them, and conditions, which it executes. Here each of these is
compared with what a network needs: raw tensors, ATen's operators, arithmetic on the length of the batch, plain names.
The copy is written anew from what was compared, so it holds nothing else. Read for torch 2.14:
`_export/serde/serialize.py` and `export/pt2_archive/_package.py`.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from handlers.errors import InvalidCheckpoint

_HOW = (
    "export it with logits as its only output and save it so: torch.export.save(torch.export.export(model.eval(), "
    "(torch.zeros(2, ...),), dynamic_shapes=({0: torch.export.Dim('batch')},)), 'model.pt2')"
)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,300}")
_WORD = re.compile(r"[A-Za-z0-9_.+\-]{0,300}")
_RAW = re.compile(r"(weight|tensor)_[0-9]+")
_ATEN = re.compile(r"torch\.ops\.aten\.([A-Za-z0-9_]+)\.([A-Za-z0-9_]+)")
_ARITHMETIC = [
    "add",
    "sub",
    "mul",
    "floordiv",
    "truediv",
    "mod",
    "neg",
    "pow",
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
    "getitem",
]
_PYTHON = frozenset(
    [f"_operator.{name}" for name in _ARITHMETIC]
    + [f"math.{name}" for name in ("ceil", "floor", "trunc", "sqrt")]
    + [f"torch.sym_{name}" for name in ("int", "float", "max", "min", "not", "ite", "sum")]
)
_FILES = frozenset({"from_file", "save"})  # operators that open files
# Words that an operator takes: modes of gelu, division, padding, interpolation, reduction; an equation of einsum.
_MODE = re.compile(
    r"none|tanh|floor|trunc|constant|reflect|replicate|circular|linear|bilinear|nearest|sum|prod|mean|a?max|a?min|ij|xy"
    r"|[A-Za-z, .]{1,40}->[A-Za-z .]{0,20}"
)
_EXPRESSION = re.compile(r"(?:'s[0-9]{1,6}'|[A-Za-z]+|s[0-9]{1,6}|[0-9]+(?:\.[0-9]+)?|[-+*/(),=<> ])*")
_EXPRESSION_WORDS = frozenset(
    [
        "Symbol",
        "Integer",
        "Rational",
        "Float",
        "Add",
        "Mul",
        "Pow",
        "Max",
        "Min",
        "Mod",
        "FloorDiv",
        "CeilDiv",
        "CleanDiv",
        "PythonMod",
        "ModularIndexing",
        "Where",
        "IntTrueDiv",
        "FloatTrueDiv",
        "PowByNatural",
        "TruncToInt",
        "RoundToInt",
        "CeilToInt",
        "FloorToInt",
        "ToFloat",
        "Eq",
        "Ne",
        "Lt",
        "Le",
        "Gt",
        "Ge",
        "And",
        "Or",
        "Not",
        "Equality",
        "Unequality",
        "StrictLessThan",
        "LessThan",
        "StrictGreaterThan",
        "GreaterThan",
        "positive",
        "integer",
        "nonnegative",
        "True",
        "False",
        "s",
    ]
)
_FORBIDDEN = ("as_graph", "as_custom_obj", "as_operator", "as_string_to_argument", "custom_obj")
_LEAF = '{"type": null, "context": null, "children_spec": []}'
_ONE_INPUT = (
    '[1, {"type": "builtins.tuple", "context": "null", "children_spec": [{"type": "builtins.tuple", "context": "null", '
    f'"children_spec": [{_LEAF}]}}, {{"type": "builtins.dict", "context": "[]", "children_spec": []}}]}}]'
)
_OUTPUTS = {
    1: f"[1, {_LEAF}]",
    2: f'[1, {{"type": "builtins.tuple", "context": "null", "children_spec": [{_LEAF}, {_LEAF}]}}]',
}
_LARGEST_JSON = 200 * 2**20
_NOTHING = json.dumps({"config": {}})


def clean_program(source: Path, target: Path) -> None:
    """Writes `target`, a .pt2 with the network of `source` and nothing else. Raises InvalidCheckpoint."""
    try:
        with zipfile.ZipFile(source) as given:
            _Cleaner(source.name, given).write(target)
    except (zipfile.BadZipFile, OSError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise InvalidCheckpoint(f"{source.name} is not a file of torch.export.save that can be read; {_HOW}") from error


class _Cleaner:
    """One file. Any surprise in it raises InvalidCheckpoint, or an error that `clean_program` translates."""

    def __init__(self, name: str, given: zipfile.ZipFile) -> None:
        self._name, self._given = name, given
        self._entries = self._checked_entries()

    def write(self, target: Path) -> None:
        network = self._network(self._json("models/model.json"))
        weights = self._tensors("weights")
        constants = self._tensors("constants")
        target.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as clean:
            for name, content in (
                ("archive_format", "pt2"),
                ("archive_version", "0"),
                (".data/version", "6\n"),
                ("byteorder", "little"),
                ("models/model.json", json.dumps(network)),
                ("data/sample_inputs/model.pt", ""),
                ("data/weights/model_weights_config.json", json.dumps(weights)),
                ("data/constants/model_constants_config.json", json.dumps(constants)),
            ):
                clean.writestr(f"model/{name}", content)
            for folder, config in (("weights", weights), ("constants", constants)):
                for path in sorted({entry["path_name"] for entry in config["config"].values()}):
                    clean.writestr(f"model/data/{folder}/{path}", self._read(f"data/{folder}/{path}"))

    def _refuse(self, why: str) -> InvalidCheckpoint:
        return InvalidCheckpoint(f"{self._name} {why}; {_HOW}")

    def _checked_entries(self) -> Mapping[str, zipfile.ZipInfo]:
        """The entries by their paths below the one folder in which torch puts all of them."""
        entries: dict[str, zipfile.ZipInfo] = {}
        for info in self._given.infolist():
            path = info.filename.partition("/")[2]
            if path in entries or info.compress_type != zipfile.ZIP_STORED:
                raise self._refuse("holds an entry twice, or a compressed one")
            entries[path] = info
        if self._text(entries, "archive_format") != "pt2" or self._text(entries, "archive_version") != "0":
            raise self._refuse("is of another version of torch.export.save")
        if self._text(entries, "byteorder") != "little":
            raise self._refuse("is of a machine with another order of bytes")
        models = [path for path in entries if path.startswith("models/")]
        if models != ["models/model.json"]:
            raise self._refuse(f"must hold one program, got {len(models)}")
        compiled = [path for path in entries if path.startswith(("data/aotinductor/", "data/executorch/", "mtia"))]
        if compiled:
            raise self._refuse("holds compiled code")
        return entries

    def _text(self, entries: Mapping[str, zipfile.ZipInfo], path: str) -> str:
        return self._given.read(entries[path])[:100].decode()

    def _read(self, path: str) -> bytes:
        return self._given.read(self._entries[path])

    def _json(self, path: str) -> Any:
        if self._entries[path].file_size > _LARGEST_JSON:
            raise self._refuse("describes too large a graph")
        return json.loads(self._read(path))

    def _tensors(self, kind: str) -> Any:
        """The configuration of the tensors in `data/<kind>`, all of them raw bytes."""
        path = f"data/{kind}/model_{kind}_config.json"
        config = self._json(path)["config"] if path in self._entries else {}
        for name, entry in config.items():
            if entry["use_pickle"] is not False or entry["tensor_meta"] is None:
                raise self._refuse(f"holds {name[:60]} as a pickle, which may hold code")
            if not _RAW.fullmatch(entry["path_name"]):
                raise self._refuse(f"holds {name[:60]} as something else than a tensor")
            if f"data/{kind}/{entry['path_name']}" not in self._entries:
                raise self._refuse(f"lacks the numbers of {name[:60]}")
        self._check_words(config)
        return {"config": config}

    def _network(self, program: Any) -> Any:
        """The program without what only describes it, compared word by word."""
        module = program["graph_module"]
        graph, signature = module["graph"], module["signature"]
        inputs = [spec for spec in signature["input_specs"] if "user_input" in spec]
        outputs = signature["output_specs"]
        kinds = {next(iter(spec)) for spec in signature["input_specs"]}
        if len(inputs) != 1 or "as_tensor" not in inputs[0]["user_input"]["arg"]:
            raise self._refuse(f"must take one tensor, the clips, got {len(inputs)} inputs")
        if not kinds <= {"user_input", "parameter", "buffer", "tensor_constant"}:
            raise self._refuse(f"has inputs of the kind {sorted(kinds)[0]}")
        if len(outputs) not in _OUTPUTS or any("user_output" not in spec for spec in outputs):
            raise self._refuse(f"must answer logits, and features if there is a second output, got {len(outputs)}")
        for node in graph["nodes"]:
            node["metadata"] = {}
            self._check_operator(node)
        call = module["module_call_graph"][0]["signature"]
        given = json.loads(call["in_spec"]), json.loads(call["out_spec"])
        if given != (json.loads(_ONE_INPUT), json.loads(_OUTPUTS[len(outputs)])):
            raise self._refuse("takes or answers something else than tensors")
        signature_text: dict[str, Any] = {
            "inputs": [],
            "outputs": [],
            "in_spec": _ONE_INPUT,
            "out_spec": _OUTPUTS[len(outputs)],
            "forward_arg_names": None,
        }
        clean = {
            "graph_module": {
                "graph": graph,
                "signature": signature,
                "module_call_graph": [],
                "metadata": {},
                "treespec_namedtuple_fields": {},
            },
            "opset_version": program["opset_version"],
            "range_constraints": program["range_constraints"],
            "schema_version": program["schema_version"],
            "verifiers": ["TRAINING"],
            "torch_version": program["torch_version"],
            "guards_code": [],
        }
        self._check_words(clean)
        clean["graph_module"]["module_call_graph"] = [{"fqn": "", "signature": signature_text}]
        return clean

    def _check_operator(self, node: Any) -> None:
        target = node["target"]
        aten = _ATEN.fullmatch(target)
        if aten is None:
            if target not in _PYTHON:
                raise self._refuse(f"calls {target[:60]!r}, which is no operator of ATen")
            return
        name, overload = aten.groups()
        known = torch._C._jit_get_schemas_for_operator(f"aten::{name}")
        if name in _FILES or ("" if overload == "default" else overload) not in {each.overload_name for each in known}:
            raise self._refuse(f"calls {target[:60]!r}, which is no operator of ATen that a network needs")

    def _check_words(self, content: Any) -> None:
        """Every key and every text in JSON values: names that are names, expressions of lengths, plain words."""
        for key, text in _texts(content):
            if key in _FORBIDDEN:
                raise self._refuse(f"holds a {key.removeprefix('as_')}, which may be code")
            if text is None:
                fits = _WORD.fullmatch(key) is not None
            elif key == "expr_str":
                words = set(re.findall(r"[A-Za-z]+", text))
                fits = len(text) < 2000 and bool(_EXPRESSION.fullmatch(text)) and words <= _EXPRESSION_WORDS
            elif key in ("as_string", "as_strings"):
                fits = _MODE.fullmatch(text) is not None
            elif key == "name":
                fits = text == "" or _NAME.fullmatch(text) is not None
            else:
                fits = _WORD.fullmatch(text) is not None
            if not fits:
                raise self._refuse(f"holds {(text or key)[:60]!r} as {key[:30]!r}, which no network needs")


def _texts(content: Any, key: str = "") -> Iterator[tuple[str, str | None]]:
    """(key, text) of each text, under the key that it or its list has, and (key, None) of each key."""
    if isinstance(content, dict):
        for name, value in content.items():
            yield name, None
            yield from _texts(value, name)
    elif isinstance(content, list):
        for value in content:
            yield from _texts(value, key)
    elif isinstance(content, str):
        yield key, content
