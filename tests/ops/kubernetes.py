"""deploy/kubernetes as kustomize renders it, and the check of its objects against their schemas.

`make test-ops` lays the tools in build/kubernetes. Each schema is strict: it knows every field.

    core kinds            kubernetes-validate, Kubernetes' own OpenAPI schemas
    PodMonitor, KEDA      the types of @kubernetes-models, by the TypeScript compiler, which refuses
                          unknown fields in literals; the package's own validators let them pass
    KServe                the models in the wheel of kserve, which is read and not installed: its
                          requirements exclude versions that this project uses
"""

import ast
import json
import re
import subprocess
import zipfile
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

yaml = pytest.importorskip("yaml", reason="installed by make test-ops")
kubernetes_validate = pytest.importorskip(
    "kubernetes_validate", reason="installed by make test-ops"
)
jsonschema = pytest.importorskip("jsonschema", reason="installed by make test-ops")
referencing = pytest.importorskip("referencing", reason="installed by make test-ops")

Document = dict[str, Any]

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "kubernetes"
TOOLS = ROOT / "build" / "kubernetes"
# The oldest version that the objects are for, and the newest with a schema.
VERSIONS = ("1.30", "1.37")
_CORE_GROUPS = {"v1", "apps", "autoscaling", "networking.k8s.io", "policy"}
_TYPES = {
    "PodMonitor": "prometheus-operator/monitoring.coreos.com/v1/PodMonitor",
    "ScaledObject": "keda/keda.sh/v1alpha1/ScaledObject",
}
_KSERVE_MODELS = {
    "ClusterServingRuntime": "V1alpha1ClusterServingRuntime",
    "InferenceService": "V1beta1InferenceService",
}
_SCALARS: dict[str, Document] = {
    "str": {"type": "string"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "object": {},
    "ResourceQuantity": {"type": ["string", "number"]},
}


def render(folder: Path) -> list[Document]:
    """The objects of a kustomization."""
    done = subprocess.run(
        [TOOLS / "kubectl" / "kubectl", "kustomize", folder],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
    return [each for each in yaml.safe_load_all(done.stdout) if each is not None]


def faults(documents: Sequence[Document], folder: Path) -> list[str]:
    """What is wrong with each object, empty if nothing is; `folder` is for files of the check."""
    found = ["" for _ in documents]
    typed = {}
    for number, document in enumerate(documents):
        group = document["apiVersion"].partition("/")[0]
        if document["kind"] in _TYPES:
            typed[number] = document
        elif group == "serving.kserve.io":
            found[number] = _kserve_fault(document)
        else:
            assert group in _CORE_GROUPS, f"no schema for {document['apiVersion']}"
            found[number] = _core_fault(document)
    for number, fault in _typed_faults(typed, folder).items():
        found[number] = fault
    return found


def _core_fault(document: Document) -> str:
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except jsonschema.ValidationError as error:
            return f"{version}: {error.message}"
    return ""


def _typed_faults(documents: dict[int, Document], folder: Path) -> dict[int, str]:
    """One run of the compiler for all of them: it takes seconds to start."""
    if not documents:
        return {}
    for number, document in documents.items():
        kind = document["kind"]
        (folder / f"document{number}.ts").write_text(
            f'import type {{ I{kind} }} from "@kubernetes-models/{_TYPES[kind]}";\n'
            f"export const document: I{kind} = {json.dumps(document)};\n"
        )
    options = {
        "module": "esnext", "moduleResolution": "bundler", "noEmit": True, "strict": True,
        "skipLibCheck": True, "types": [],
        # The objects' files lie elsewhere.
        "paths": {"@kubernetes-models/*": [f"{TOOLS}/node_modules/@kubernetes-models/*"]},
    }  # fmt: skip
    (folder / "tsconfig.json").write_text(
        json.dumps({"compilerOptions": options, "include": ["*.ts"]})
    )
    compiler = TOOLS / "node_modules" / "typescript" / "bin" / "tsc"
    done = subprocess.run(
        ["/usr/bin/env", "node", compiler, "--project", folder, "--pretty", "false"],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
    )
    by_number = {
        int(number): message
        for number, message in re.findall(
            r"^document(\d+)\.ts\(.*?\): (.*)$", done.stdout, re.MULTILINE
        )
    }
    assert (done.returncode == 0) == (not by_number), done.stdout + done.stderr
    assert "Cannot find module" not in done.stdout, done.stdout
    return by_number


def _kserve_fault(document: Document) -> str:
    schema, registry = _kserve_schema(_KSERVE_MODELS[document["kind"]])
    validator = jsonschema.validators.Draft202012Validator(schema, registry=registry)
    error = next(validator.iter_errors(document), None)
    return "" if error is None else str(error.message)


@cache
def _kserve_schema(root: str) -> tuple[Document, Any]:
    """A schema of KServe's models, and the definitions of Kubernetes that it refers to."""
    (wheel,) = TOOLS.glob("kserve-*.whl")
    models: dict[str, dict[str, str]] = {}
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.startswith("kserve/models/"):
                models |= _models(archive.read(name).decode())
    core = kubernetes_validate.utils.schema_contents(
        f"kubernetes-json-schema/v{VERSIONS[1]}.0-local-strict/_definitions.json", VERSIONS[1]
    )

    def schema(kind: str) -> Document:
        found: Document
        if kind.startswith("list["):
            found = {"type": "array", "items": schema(kind[5:-1])}
        elif kind.startswith("dict("):
            found = {"type": "object", "additionalProperties": schema(kind[5:-1].split(", ")[1])}
        elif kind in models:
            found = {"$ref": f"#/$defs/{kind}"}
        elif kind in _SCALARS:
            found = _SCALARS[kind]
        elif name := _core_name(kind, core["$defs"]):
            found = {"$ref": f"{core['$id']}#/$defs/{name}"}
        else:
            # The wheel lacks some models that it names; a field of theirs is then a fault.
            found = {"not": {}}
        return found

    definitions = {
        name: {
            "type": "object",
            "properties": {field: schema(kind) for field, kind in fields.items()},
            "additionalProperties": False,
        }
        for name, fields in models.items()
        if name in _reachable(root, models)
    }
    registry = referencing.Registry().with_resource(
        core["$id"], referencing.Resource.from_contents(core)
    )
    return {"$ref": f"#/$defs/{root}", "$defs": definitions}, registry


def _models(source: str) -> dict[str, dict[str, str]]:
    """The types of the fields, by their names in YAML, of each model in a module."""
    found = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef):
            tables = {
                target.id: ast.literal_eval(each.value)
                for each in node.body
                if isinstance(each, ast.Assign)
                for target in each.targets
                if isinstance(target, ast.Name) and target.id in ("openapi_types", "attribute_map")
            }
            if len(tables) == 2:
                found[node.name] = {
                    tables["attribute_map"][name]: kind
                    for name, kind in tables["openapi_types"].items()
                }
    return found


def _reachable(root: str, models: dict[str, dict[str, str]]) -> set[str]:
    waiting, known = [root], set()
    while waiting:
        name = waiting.pop()
        if name in models and name not in known:
            known.add(name)
            waiting += re.findall(r"\w+", " ".join(models[name].values()))
    return known


def _core_name(kind: str, definitions: Document) -> str:
    """`io.k8s.api.core.v1.Container` of `V1Container`, and so on; empty if there is none."""
    short = re.sub(r"^(K8sIoApi\w+?)?V1", "", kind)
    groups = ("api.core", "api.apps", "apimachinery.pkg.apis.meta")
    names = (f"io.k8s.{group}.v1.{short}" for group in groups)
    return next((name for name in names if name in definitions), "")


def mappings(node: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The paths of all mappings of an object whose keys are fields of a schema."""
    if isinstance(node, dict):
        is_free = path and (
            path[-1] in {"labels", "matchLabels", "annotations", "limits", "requests"}
            or (path == ("spec", "selector") and "matchLabels" not in node)
            or (len(path) > 2 and path[-3] == "triggers")
        )
        if not is_free:
            yield path
            for key, value in node.items():
                yield from mappings(value, (*path, key))
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from mappings(value, (*path, number))
