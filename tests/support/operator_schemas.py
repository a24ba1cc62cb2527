"""JSON schemas of the operators' kinds in deploy/kubernetes: the fields that are used there, and no others.

Written by hand from KEDA's reference of ScaledObject v1alpha1 (2.17) and its Prometheus scaler, and from the Prometheus
operator's API reference of PodMonitor and PrometheusRule v1. Where a manifest needs a further field, it is added here
after a look at the reference: the operators ignore what they do not know. `strict` makes such a schema of an operator's
own definition of its kind.
"""

from __future__ import annotations

from typing import Any, cast

Schema = dict[str, Any]
_DURATION = {"type": "string", "pattern": r"^\d+(ms|s|m|h)$"}
_NAME = {"type": "string", "minLength": 1}
_STRINGS = {"type": "object", "additionalProperties": {"type": "string"}}


def _object(required: dict[str, Schema], optional: dict[str, Schema] | None = None) -> Schema:
    return {
        "type": "object",
        "properties": {**required, **(optional or {})},
        "required": list(required),
        "additionalProperties": False,
    }


def _kind(version: str, kind: str, spec: Schema) -> Schema:
    metadata = _object({"name": _NAME}, {"namespace": _NAME, "labels": _STRINGS, "annotations": _STRINGS})
    return _object({"apiVersion": {"const": version}, "kind": {"const": kind}, "metadata": metadata, "spec": spec})


def _count(least: int = 0) -> Schema:
    return {"type": "integer", "minimum": least}


_POLICY = _object({"type": {"enum": ["Pods", "Percent"]}, "value": _count(1), "periodSeconds": _count(1)})
_RULES = _object(
    {"policies": {"type": "array", "items": _POLICY, "minItems": 1}},
    {"stabilizationWindowSeconds": {"type": "integer", "minimum": 0, "maximum": 3600}},
)
_PROMETHEUS_TRIGGER = _object(
    {
        "type": {"const": "prometheus"},
        # Metadata of a scaler are strings, numbers included.
        "metadata": _object({"serverAddress": _NAME, "query": _NAME, "threshold": {"type": "string"}}),
    }
)
_SCALED_OBJECT = _object(
    {
        "scaleTargetRef": _object({"name": _NAME}),
        "triggers": {"type": "array", "items": _PROMETHEUS_TRIGGER, "minItems": 1},
    },
    {
        "minReplicaCount": _count(),
        "maxReplicaCount": _count(1),
        "pollingInterval": _count(1),
        "fallback": _object(
            {"failureThreshold": _count(), "replicas": _count()},
            {"behavior": {"enum": ["static", "currentReplicas", "currentReplicasIfHigher", "currentReplicasIfLower"]}},
        ),
        "advanced": _object(
            {
                "horizontalPodAutoscalerConfig": _object(
                    {"behavior": _object({}, {"scaleUp": _RULES, "scaleDown": _RULES})}
                )
            }
        ),
    },
)
_POD_MONITOR = _object(
    {
        "selector": _object({"matchLabels": _STRINGS}),
        "podMetricsEndpoints": {
            "type": "array",
            "items": _object({"port": _NAME}, {"path": {"type": "string", "pattern": "^/"}, "interval": _DURATION}),
            "minItems": 1,
        },
    }
)
_ALERT = _object({"alert": _NAME, "expr": _NAME}, {"for": _DURATION, "labels": _STRINGS, "annotations": _STRINGS})
_PROMETHEUS_RULE = _object(
    {"groups": {"type": "array", "items": _object({"name": _NAME, "rules": {"type": "array", "items": _ALERT}})}}
)

SCHEMAS = {
    "ScaledObject": _kind("keda.sh/v1alpha1", "ScaledObject", _SCALED_OBJECT),
    "PodMonitor": _kind("monitoring.coreos.com/v1", "PodMonitor", _POD_MONITOR),
    "PrometheusRule": _kind("monitoring.coreos.com/v1", "PrometheusRule", _PROMETHEUS_RULE),
}


def strict(definition: dict[str, Any]) -> tuple[str, Schema]:
    """Kind, and schema of a CustomResourceDefinition's first version; it refuses every field that it does not name."""
    version = definition["spec"]["versions"][0]
    schema = cast("Schema", _closed(version["schema"]["openAPIV3Schema"]))
    group = definition["spec"]["group"]
    schema["properties"]["apiVersion"] = {"const": f"{group}/{version['name']}"}
    schema["properties"]["metadata"] = {"type": "object"}
    return definition["spec"]["names"]["kind"], schema


def _closed(node: object) -> object:
    if isinstance(node, list):
        return [_closed(each) for each in node]
    if not isinstance(node, dict):
        return node
    closed = {key: _closed(value) for key, value in node.items()}
    if closed.get("x-kubernetes-int-or-string"):
        closed.pop("type", None)  # said in `anyOf`
    names_all = "properties" in closed and not closed.get("x-kubernetes-preserve-unknown-fields")
    if closed.get("type") == "object" and names_all:
        closed.setdefault("additionalProperties", False)
    return closed
