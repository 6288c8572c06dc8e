"""deploy/kubernetes: every field exists, and the parts of each deployment fit together.

No cluster is needed, and none was ever used: docs/scaling.md#what-was-not-run-anywhere lists what
only a cluster can show.
"""

import copy
import re
from pathlib import Path
from typing import Any

import pytest

from tests.ops.kubernetes import FOLDER, ROOT, Document, faults, mappings, render
from weir.server.config import Settings, load
from weir.server.errors import ConfigError

pytestmark = pytest.mark.ops

yaml = pytest.importorskip("yaml", reason="installed by make test-ops")

OVERLAYS = ("cpu", "gpu", "kserve")
# One line of an overlay in place of another.
CHOICES = {
    "access-network": "access-tls",
    "models-fetch": "models-volume",
    "scaling-hpa": "scaling-keda",
}
SCRATCH = "/tmp"  # noqa: S108 - a container's
HOST = "0.0.0.0"  # noqa: S104 - the image's
VARIANTS = [
    *((overlay, "") for overlay in OVERLAYS),
    *((overlay, choice) for overlay in ("cpu", "gpu") for choice in CHOICES),
]
# What `weir health` in the container reads: a client's settings.
CLIENT_VARIABLES = {"WEIR_TLS", "WEIR_CA", "WEIR_SERVER_NAME", "WEIR_TOKEN_FILE"}


def rendered(overlay: str, choice: str, folder: Path) -> list[Document]:
    """The objects of an overlay, with the alternative of a component if one is named."""
    path = FOLDER / "overlays" / overlay
    if choice:
        # kustomize takes no absolute paths, and no folder outside that of the root it is given.
        text = (path / "kustomization.yaml").read_text("utf-8")
        line = f"components/{choice}\n"
        assert text.count(line) == 1
        copy_of = folder / "kubernetes"
        _copy(FOLDER, copy_of)
        path = copy_of / "overlays" / overlay
        changed = text.replace(line, f"components/{CHOICES[choice]}\n")
        (path / "kustomization.yaml").write_text(changed, "utf-8")
    return render(path)


def _copy(source: Path, target: Path) -> None:
    for path in source.rglob("*.yaml"):
        copied = target / path.relative_to(source)
        copied.parent.mkdir(parents=True, exist_ok=True)
        copied.write_bytes(path.read_bytes())


@pytest.fixture(
    scope="module",
    params=VARIANTS,
    ids=lambda variant: variant[0] + (f" {CHOICES[variant[1]]}" if variant[1] else ""),
)
def documents(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> list[Document]:
    overlay, choice = request.param
    return rendered(overlay, choice, tmp_path_factory.mktemp("overlay"))


def of(documents: list[Document], kind: str) -> Document:
    (found,) = [each for each in documents if each["kind"] == kind]
    return found


def has(documents: list[Document], kind: str) -> bool:
    return any(each["kind"] == kind for each in documents)


def pod(documents: list[Document]) -> Document:
    """The specification of the pods, of a Deployment or of KServe's runtime."""
    if has(documents, "Deployment"):
        found: Document = of(documents, "Deployment")["spec"]["template"]["spec"]
        return found
    grace = of(documents, "InferenceService")["spec"]["predictor"]
    runtime: Document = of(documents, "ClusterServingRuntime")["spec"]
    return runtime | {
        name: grace[name]
        for name in ("terminationGracePeriodSeconds", "automountServiceAccountToken")
    }


def server(documents: list[Document]) -> Document:
    (found,) = [
        each
        for each in pod(documents)["containers"]
        if each["name"] in ("weir", "kserve-container")
    ]
    return dict(found)


def environment(container: Document) -> dict[str, str]:
    return {each["name"]: each["value"] for each in container.get("env", ())}


def test_every_object_follows_its_schema(documents: list[Document], tmp_path: Path) -> None:
    found = faults(documents, tmp_path)

    assert found == [""] * len(documents)


def test_misspelt_field_is_found_wherever_it_stands(tmp_path: Path) -> None:
    every: dict[tuple[str, str], Document] = {}
    for number, (overlay, choice) in enumerate(VARIANTS):
        for document in rendered(overlay, choice, tmp_path / str(number)):
            every[document["kind"], f"{overlay} {choice}"] = document
    planted: list[Document] = []
    places: list[str] = []
    for (kind, variant), document in every.items():
        for path in mappings(document):
            wrong = copy.deepcopy(document)
            node: Any = wrong
            for step in path:
                node = node[step]
            node["misspelt"] = "planted"
            planted.append(wrong)
            places.append(f"{variant} {kind} {'.'.join(map(str, path))}")

    found = faults(planted, tmp_path)

    assert {kind for kind, _ in every} >= {
        "Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy",
        "HorizontalPodAutoscaler", "PodMonitor", "ScaledObject",
        "ClusterServingRuntime", "InferenceService",
    }  # fmt: skip
    assert [place for place, fault in zip(places, found, strict=True) if not fault] == []
    assert len(places) > 300


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("Deployment", ("spec", "template", "spec", "containers"), "weir"),
        ("HorizontalPodAutoscaler", ("spec", "maxReplicas"), "8"),
        ("PodMonitor", ("spec", "podMetricsEndpoints"), {}),
        ("ScaledObject", ("spec", "pollingInterval"), "15"),
        ("InferenceService", ("spec", "predictor", "minReplicas"), "2"),
        ("ClusterServingRuntime", ("spec", "multiModel"), "false"),
    ],
    ids=lambda value: value if isinstance(value, str) and value[0].isupper() else "",
)
def test_value_of_another_type_is_found(
    kind: str, path: tuple[str, ...], value: object, tmp_path: Path
) -> None:
    overlay = "kserve" if kind in ("InferenceService", "ClusterServingRuntime") else "cpu"
    choice = "scaling-hpa" if kind == "ScaledObject" else ""
    document = of(rendered(overlay, choice, tmp_path), kind)
    *steps, last = path
    node = document
    for step in steps:
        node = node[step]
    node[last] = value

    (fault,) = faults([document], tmp_path)

    assert fault


def test_variables_are_settings_with_valid_values(
    documents: list[Document], tmp_path: Path
) -> None:
    variables = environment(server(documents))
    (tmp_path / "models").mkdir()
    for name in ("WEIR_TLS_CERT", "WEIR_TLS_KEY", "WEIR_TOKENS_FILE"):
        if name in variables:
            variables[name] = str(tmp_path / name)
            Path(variables[name]).touch()

    # Unknown variables, malformed values, and a host beyond loopback without access are errors.
    settings = load({"models_dir": tmp_path / "models", "host": HOST}, variables, None)

    assert settings.max_connection_age_s > 0
    assert settings.require_models
    if "WEIR_TLS" in variables:
        assert set(variables) >= CLIENT_VARIABLES


@pytest.mark.parametrize(
    "wrong", [{"WEIR_GRACE": "25"}, {"WEIR_GRACE_S": "soon"}, {"WEIR_INSECURE": "false"}], ids=str
)
def test_wrong_variable_is_found(wrong: dict[str, str], tmp_path: Path) -> None:
    variables = environment(server(rendered("cpu", "", tmp_path)))

    with pytest.raises(ConfigError):
        load({"models_dir": tmp_path, "host": HOST}, variables | wrong, None)


def test_probes_and_ports_are_those_of_the_container(documents: list[Document]) -> None:
    container = server(documents)
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    arguments = " ".join(container.get("args", ()))
    listens = re.search(r"--port=(\d+)", arguments)
    defaults = {name: Settings.model_fields[name].default for name in ("port", "metrics_port")}
    grpc_port = int(listens.group(1)) if listens else defaults["port"]

    probes = [container[f"{kind}Probe"] for kind in ("startup", "readiness", "liveness")]
    for probe in probes:
        if "exec" in probe:
            assert probe["exec"]["command"][:2] == ["weir", "health"]
        else:
            port = (probe.get("grpc") or probe.get("tcpSocket"))["port"]
            assert ports.get(port, port) == grpc_port
    assert "tcpSocket" in container["livenessProbe"], "a model that fails is no reason to restart"
    assert "tcpSocket" in container["startupProbe"]
    assert grpc_port in ports.values()
    assert ports.get("metrics", defaults["metrics_port"]) == defaults["metrics_port"]


def test_selectors_match_the_pods(documents: list[Document]) -> None:
    if not has(documents, "Deployment"):
        return
    deployment = of(documents, "Deployment")["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    selectors = [
        deployment["selector"]["matchLabels"],
        of(documents, "Service")["spec"]["selector"],
        of(documents, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        of(documents, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        of(documents, "PodMonitor")["spec"]["selector"]["matchLabels"],
        *(
            each["labelSelector"]["matchLabels"]
            for each in pod(documents)["topologySpreadConstraints"]
        ),
    ]

    assert all(selector and selector.items() <= labels.items() for selector in selectors)


def test_grace_holds_the_drain(documents: list[Document]) -> None:
    container = server(documents)
    (command, seconds) = container["lifecycle"]["preStop"]["exec"]["command"]
    grace_s = float(
        environment(container).get("WEIR_GRACE_S") or Settings.model_fields["grace_s"].default
    )

    assert command == "sleep"
    # The end of the process waits up to five seconds for its log.
    assert pod(documents)["terminationGracePeriodSeconds"] >= float(seconds) + grace_s + 5
    # The pod leaves the endpoints while it sleeps, or else at the next failed probes.
    assert float(seconds) > container["livenessProbe"]["timeoutSeconds"]


def test_pods_are_contained(documents: list[Document]) -> None:
    specification = pod(documents)
    inherited = specification.get("securityContext", {})

    assert specification["automountServiceAccountToken"] is False
    for container in [*specification["containers"], *specification.get("initContainers", ())]:
        context = inherited | container["securityContext"]
        assert context["readOnlyRootFilesystem"] is True
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["runAsNonRoot"] is True and context["runAsUser"] == 10001
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["resources"]["limits"]["memory"]
    users = re.findall(r"^USER (.*)$", (ROOT / "Dockerfile").read_text("utf-8"), re.MULTILINE)
    assert set(users) == {"10001:10001"}


def test_volumes_that_are_mounted_exist(documents: list[Document]) -> None:
    specification = pod(documents)
    volumes = {each["name"]: each for each in specification["volumes"]}

    for container in [*specification["containers"], *specification.get("initContainers", ())]:
        mounts = {each["mountPath"]: each for each in container["volumeMounts"]}
        assert {each["name"] for each in mounts.values()} <= set(volumes)
        assert "emptyDir" in volumes[mounts[SCRATCH]["name"]]
        if container["name"] in ("weir", "kserve-container"):
            written = {path for path, each in mounts.items() if not each.get("readOnly")}
            assert written == {SCRATCH}


def test_access_is_decided(documents: list[Document]) -> None:
    variables = environment(server(documents))

    is_open = variables.get("WEIR_INSECURE") == "true"
    is_closed = {"WEIR_TLS_CERT", "WEIR_TLS_KEY", "WEIR_TOKENS_FILE"} <= set(variables)
    assert is_open != is_closed
    if is_closed:
        mounts = {each["mountPath"]: each["name"] for each in server(documents)["volumeMounts"]}
        secrets = {
            each["name"]: each["secret"] for each in pod(documents)["volumes"] if "secret" in each
        }
        assert set(secrets) == {mounts["/etc/weir/tls"], mounts["/etc/weir/tokens"]}
        assert {each["defaultMode"] for each in secrets.values()} == {0o440}
        assert "grpc" not in server(documents)["readinessProbe"]


def test_policy_lets_in_what_calls_and_scrapes(documents: list[Document]) -> None:
    if not has(documents, "NetworkPolicy"):
        return
    policy = of(documents, "NetworkPolicy")["spec"]
    ports = {each["name"] for each in server(documents)["ports"]}
    calls, scrapes = policy["ingress"]

    assert {calls["ports"][0]["port"], scrapes["ports"][0]["port"]} == ports
    assert calls["from"] == [{"podSelector": {"matchLabels": {"weir-client": "true"}}}]
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
    allowed = {port["port"] for rule in policy["egress"] for port in rule["ports"]}
    assert allowed == ({53, 443} if "initContainers" in pod(documents) else set())


def test_service_is_headless_and_names_its_protocol(documents: list[Document]) -> None:
    if not has(documents, "Service"):
        return
    service = of(documents, "Service")["spec"]
    ports = {each["name"]: each["containerPort"] for each in server(documents)["ports"]}
    (port,) = service["ports"]
    is_tls = "WEIR_TLS_CERT" in environment(server(documents))

    assert service["clusterIP"] == "None"
    # Through a headless service the port is the pod's own.
    assert port["port"] == ports[port["targetPort"]]
    assert port.get("appProtocol") == (None if is_tls else "kubernetes.io/h2c")


def test_autoscaler_reads_a_metric_that_the_server_exports(documents: list[Document]) -> None:
    page = (ROOT / "docs" / "metrics.md").read_text("utf-8")
    exported = re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
    if has(documents, "HorizontalPodAutoscaler"):
        autoscaler = of(documents, "HorizontalPodAutoscaler")["spec"]
        (metric,) = [each["pods"]["metric"]["name"] for each in autoscaler["metrics"]]
        path = FOLDER / "components" / "scaling-hpa" / "prometheus-adapter-rule.yaml"
        (rule,) = yaml.safe_load(path.read_text("utf-8"))["rules"]["custom"]
        assert rule["name"]["as"] == metric
        assert re.match(r"(\w+)\{", rule["seriesQuery"])[1] == metric  # type: ignore[index]
        target = autoscaler["scaleTargetRef"]
    elif has(documents, "ScaledObject"):
        autoscaler = of(documents, "ScaledObject")["spec"]
        (trigger,) = autoscaler["triggers"]
        (metric,) = re.findall(r"\bweir_\w+", trigger["metadata"]["query"])
        namespace = of(documents, "Deployment")["metadata"]["namespace"]
        assert f'namespace="{namespace}"' in trigger["metadata"]["query"]
        target = autoscaler["scaleTargetRef"]
    else:
        assert has(documents, "InferenceService"), "KServe scales by itself"
        return

    assert metric in exported
    assert target["name"] == of(documents, "Deployment")["metadata"]["name"]
    assert "replicas" not in of(documents, "Deployment")["spec"]


def test_scrape_is_of_the_metrics_port(documents: list[Document]) -> None:
    if has(documents, "PodMonitor"):
        (endpoint,) = of(documents, "PodMonitor")["spec"]["podMetricsEndpoints"]
        assert endpoint["port"] in {each["name"] for each in server(documents)["ports"]}
        (relabeling,) = endpoint["relabelings"]
        rules = (ROOT / "deploy" / "prometheus" / "rules" / "alerts.yml").read_text("utf-8")
        assert f'job="{relabeling["replacement"]}"' in rules
    else:
        annotations = of(documents, "ClusterServingRuntime")["spec"]["annotations"]
        port = Settings.model_fields["metrics_port"].default
        assert annotations["prometheus.kserve.io/port"] == str(port)


def test_scrape_has_the_access_of_the_server(documents: list[Document]) -> None:
    if not has(documents, "PodMonitor"):
        return
    (endpoint,) = of(documents, "PodMonitor")["spec"]["podMetricsEndpoints"]
    container = server(documents)
    variables = environment(container)
    access = {name: endpoint.get(name) for name in ("scheme", "tlsConfig", "authorization")}

    if "WEIR_TLS_CERT" not in variables:
        assert access == {"scheme": None, "tlsConfig": None, "authorization": None}
        return
    secrets = {
        each["name"]: each["secret"]["secretName"]
        for each in pod(documents)["volumes"]
        if "secret" in each
    }
    mounts = {each["mountPath"]: secrets.get(each["name"]) for each in container["volumeMounts"]}
    authority, tokens = Path(variables["WEIR_CA"]), Path(variables["WEIR_TOKENS_FILE"])
    assert access == {
        "scheme": "https",
        "tlsConfig": {
            "ca": {"secret": {"name": mounts[str(authority.parent)], "key": authority.name}},
            "serverName": variables["WEIR_SERVER_NAME"],
        },
        "authorization": {"credentials": {"name": mounts[str(tokens.parent)], "key": "scrape"}},
    }


def test_images_are_targets_of_the_dockerfile(documents: list[Document]) -> None:
    text = (ROOT / "Dockerfile").read_text("utf-8")
    targets = re.findall(r"^FROM .* AS ([\w-]+)$", text, re.MULTILINE)
    containers = [*pod(documents)["containers"], *pod(documents).get("initContainers", ())]

    for container in containers:
        name = container["image"].rpartition("/")[2].partition(":")[0]
        assert container["image"].startswith("registry.example/weir/")
        assert name.removesuffix("-cuda") in targets


def test_rollout_keeps_every_pod_until_its_successor_is_ready(documents: list[Document]) -> None:
    if has(documents, "Deployment"):
        strategy = of(documents, "Deployment")["spec"]["strategy"]
    else:
        strategy = of(documents, "InferenceService")["spec"]["predictor"]["deploymentStrategy"]

    assert strategy["rollingUpdate"]["maxUnavailable"] == 0


def test_gpu_pod_asks_for_a_gpu_and_exits_without_one(tmp_path: Path) -> None:
    container = server(rendered("gpu", "", tmp_path))

    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert environment(container)["WEIR_PROVIDER"] == "cuda"


def test_kserve_calls_the_model_by_the_name_of_its_service(tmp_path: Path) -> None:
    documents = rendered("kserve", "", tmp_path)
    runtime = of(documents, "ClusterServingRuntime")
    service = of(documents, "InferenceService")
    model = service["spec"]["predictor"]["model"]

    assert "--name={{.Name}}" in server(documents)["args"]
    assert server(documents)["args"][0] == "/mnt/models"
    assert model["runtime"] == runtime["metadata"]["name"]
    assert model["modelFormat"] in [
        {"name": each["name"], "version": each["version"]}
        for each in runtime["spec"]["supportedModelFormats"]
    ]
    assert model["protocolVersion"] in runtime["spec"]["protocolVersions"]
    assert model["ports"][0]["containerPort"] == server(documents)["ports"][0]["containerPort"]


def test_fetched_models_are_those_that_are_served(tmp_path: Path) -> None:
    documents = rendered("cpu", "", tmp_path)
    (fetch,) = pod(documents)["initContainers"]
    uri, to, folder, replace = fetch["args"]
    (volume,) = [
        each["name"] for each in fetch["volumeMounts"] if folder.startswith(each["mountPath"] + "/")
    ]

    assert (to, replace) == ("--to", "--replace") and "://" in uri
    assert server(documents)["args"] == [folder]
    assert volume in {each["name"] for each in server(documents)["volumeMounts"]}
