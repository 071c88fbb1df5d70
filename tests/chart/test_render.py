"""What the chart makes of its values, and which values it refuses. Needs helm, but no cluster."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
import yaml
from tests.support.chart import CHART, WITH_IMAGES, helm, helm_well, rendered

from retrainer.api import Pod, Resources
from retrainer_operator.settings import Settings
from retrainer_operator.watching.watches import RIGHTS

# One of the pinned binaries that are built from their Go modules.
pytestmark = pytest.mark.needs("helm")

DIGEST = "sha256:" + "ab" * 32
NAMESPACED = "--set=namespaces={team-a,team-b}"
TWO = "--set=operator.replicas=2"
EVERYTHING = [
    TWO,
    NAMESPACED,
    "--set=networkPolicy.enabled=true",
    f"--set=operator.image.digest={DIGEST}",
    "--set=trainer.image.tag=v2",
    "--set=trainer.tensorflowImage.repository=retrainer/trainer-tensorflow",
    "--set=trainer.tensorflowImage.tag=v2",
    "--set=operator.imagePullSecrets={pull}",
    "--set=trainer.imagePullSecrets={pull,other}",
    "--set=trainer.serviceAccount.create=true",
    "--set=trainer.serviceAccount.name=trainer",
    "--set=trainer.serviceAccount.namespaces={team-a}",
    "--set=allowedServiceAccounts={gpu}",
    "--set=allowedPodMetadataPrefixes={example.com/}",
    "--set=allowedPriorityClasses={batch-high}",
    "--set=allowedTolerationKeys={nvidia.com/gpu}",
    "--set=maxShards=500",
    "--set=operator.priorityClassName=system-cluster-critical",
    "--set=operator.nodeSelector.disk=ssd",
    "--set=operator.podAnnotations.note=x",
    "--set=operator.podLabels.team=vision",
    "--set=labels.team=platform",
    '--set-json=operator.tolerations=[{"key":"a","operator":"Exists"}]',
    '--set-json=networkPolicy.metricsFrom=[{"namespaceSelector":{}}]',
    '--set-json=networkPolicy.apiServerTo=[{"ipBlock":{"cidr":"10.0.0.1/32"}}]',
]
COMBINATIONS = {
    "defaults": [],
    "namespaced": [NAMESPACED],
    "two replicas": [TWO],
    "no crd": ["--set=crds.install=false"],
    "no rbac": ["--set=rbac.create=false", "--set=rbac.aggregateToUserRoles=false"],
    "network policies": ["--set=networkPolicy.enabled=true"],
    "own account": [
        "--set=operator.serviceAccount.create=false",
        "--set=operator.serviceAccount.name=mine",
    ],
    "everything": EVERYTHING,
}
combinations = pytest.mark.parametrize("values", COMBINATIONS.values(), ids=COMBINATIONS)


def _of_kind(objects: list[Any], kind: str) -> list[Any]:
    return [o for o in objects if o["kind"] == kind]


def _named(objects: list[Any], kind: str, name: str = "rt-retrainer-operator") -> Any:
    (resource,) = [o for o in _of_kind(objects, kind) if o["metadata"]["name"] == name]
    return resource


def _environment(objects: list[Any]) -> dict[str, str]:
    """The environment of the operator's container, with the fields that Kubernetes fills in."""
    (container,) = _named(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    return {e["name"]: e.get("value", "filled-in") for e in container["env"]}


def _pods(objects: list[Any]) -> Iterator[Any]:
    for each in objects:
        if each["kind"] == "Pod":
            yield each["spec"]
        elif each["kind"] == "Deployment":
            yield each["spec"]["template"]["spec"]


@combinations
def test_helm_lint_finds_nothing(values: list[str]) -> None:
    helm_well("lint", "--strict", *WITH_IMAGES, *values)


@combinations
def test_every_object_is_named_once_and_carries_the_releases_labels(values: list[str]) -> None:
    objects = rendered(*values)
    names = [(o["kind"], o["metadata"].get("namespace"), o["metadata"]["name"]) for o in objects]
    assert len(set(names)) == len(names)
    for each in objects:
        labels = each["metadata"]["labels"]
        assert labels["app.kubernetes.io/instance"] == "rt"
        assert labels["app.kubernetes.io/managed-by"] == "Helm"


@combinations
def test_every_pod_passes_the_restricted_level(values: list[str]) -> None:
    pods = list(_pods(rendered(*values)))
    assert len(pods) == 2
    for pod in pods:
        # Without a runAsUser, which OpenShift gives by namespace; the image says who runs elsewhere.
        assert pod["securityContext"].keys() == {"runAsNonRoot", "seccompProfile"}
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["readOnlyRootFilesystem"] is True
            assert context["capabilities"] == {"drop": ["ALL"]}


def test_labels_reach_every_object_and_pod_but_no_selector_and_an_objects_own_win() -> None:
    own = "--set=operator.podLabels.team=operators,monitoring.dashboards.labels.team=boards"
    objects = rendered("--set=labels.team=vision,labels.release=blue", own, TWO)
    for each in objects:
        assert each["metadata"]["labels"]["release"] == "blue"
        team = "boards" if each["kind"] == "ConfigMap" else "vision"
        assert each["metadata"]["labels"]["team"] == team
    deployment = _named(objects, "Deployment")["spec"]
    pod = deployment["template"]["metadata"]["labels"]
    assert (pod["team"], pod["release"]) == ("operators", "blue")
    assert deployment["selector"] == _named(rendered(TWO), "Deployment")["spec"]["selector"]


# --- the operator reads what the chart sets ---
@combinations
def test_the_operator_understands_its_environment(values: list[str]) -> None:
    environment = _environment(rendered(*values))
    aliases = {field.alias for field in Settings.model_fields.values()}
    assert set(environment) <= aliases
    Settings.from_environment(environment)


def test_the_charts_defaults_are_the_operators_own() -> None:
    set_by_chart = Settings.from_environment(_environment(rendered()))
    own = Settings.from_environment({"RETRAINER_TRAINER_IMAGE": "retrainer/trainer:0.1.0"})
    differ = {
        name for name in Settings.model_fields if getattr(set_by_chart, name) != getattr(own, name)
    }
    # The pod says who and where it is, the release's name is part of the Lease's, and logs in a
    # cluster are for machines.
    assert differ == {"identity", "namespace", "lease", "log_format"}


def test_values_reach_the_operator() -> None:
    settings = Settings.from_environment(_environment(rendered(*EVERYTHING)))
    assert settings.namespaces == ("team-a", "team-b")
    assert settings.trainer_image == "retrainer/trainer:v2"
    assert settings.trainer_tensorflow_image == "retrainer/trainer-tensorflow:v2"
    assert settings.image_pull_secrets == ("pull", "other")
    assert settings.service_accounts == {"trainer", "gpu"}
    assert settings.allowed_pod_metadata_prefixes == ("example.com/",)


def test_the_lease_that_the_operator_takes_is_the_one_that_its_role_names() -> None:
    objects = rendered()
    role = _named(objects, "Role", "rt-retrainer-operator-lease")
    named = [rule["resourceNames"] for rule in role["rules"] if "resourceNames" in rule]
    assert named == [[Settings.from_environment(_environment(objects)).lease]]


def test_the_chart_says_where_trainer_pods_run_whose_job_does_not() -> None:
    assert Settings.from_environment(_environment(rendered())).trainer_scheduling == Pod()
    objects = rendered(
        "--set=trainer.nodeSelector.pool=training,trainer.priorityClassName=low",
        '--set-json=trainer.tolerations=[{"key":"training","operator":"Exists"}]',
        '--set-json=trainer.affinity={"nodeAffinity":{}}',
    )
    scheduling = Settings.from_environment(_environment(objects)).trainer_scheduling
    assert scheduling.node_selector == {"pool": "training"}
    assert scheduling.priority_class_name == "low"
    assert [t.key for t in scheduling.tolerations] == ["training"]
    assert scheduling.affinity == {"nodeAffinity": {}}


def test_null_takes_defaults_away_where_they_can_be_done_without() -> None:
    bare = rendered("--set=monitoring.dashboards.labels=null,trainer.resources=null,labels=null")
    assert Settings.from_environment(_environment(bare)).trainer_resources == Resources()
    assert len(bare) == len(rendered())


def test_a_digest_wins_over_a_tag_and_the_apps_version_is_the_default() -> None:
    (default,) = _named(rendered(), "Deployment")["spec"]["template"]["spec"]["containers"]
    assert default["image"] == "retrainer/operator:0.1.0"
    (pinned,) = _named(rendered(*EVERYTHING), "Deployment")["spec"]["template"]["spec"][
        "containers"
    ]
    assert pinned["image"] == f"retrainer/operator@{DIGEST}"


# --- rights ---
@combinations
def test_no_right_is_a_wildcard_and_none_is_on_secrets(values: list[str]) -> None:
    objects = rendered(*values)
    for role in _of_kind(objects, "Role") + _of_kind(objects, "ClusterRole"):
        for rule in role["rules"]:
            texts = [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
            assert not [word for word in texts if "*" in word or "secret" in word]


def test_the_role_gives_every_right_that_the_operator_checks_at_start() -> None:
    role = _named(rendered(), "ClusterRole", "retrainer-rt-retrainer-operator")
    rights = {
        (verb, group, resource)
        for rule in role["rules"]
        for group, resource, verb in itertools.product(
            rule["apiGroups"], rule["resources"], rule["verbs"]
        )
    }
    for verb, name in RIGHTS:  # such as retrainjobs.retrainer.dev/status
        full, slash, subresource = name.partition("/")
        resource, _, group = full.partition(".")
        assert (verb, group, resource + slash + subresource) in rights


def test_for_all_namespaces_there_is_one_cluster_role_bound_to_the_operator() -> None:
    objects = rendered()
    (binding,) = _of_kind(objects, "ClusterRoleBinding")
    assert binding["roleRef"]["name"] == "retrainer-rt-retrainer-operator"
    assert binding["subjects"] == [
        {"kind": "ServiceAccount", "name": "rt-retrainer-operator", "namespace": "retrainer"}
    ]
    assert [r["metadata"]["name"] for r in _of_kind(objects, "Role")] == [
        "rt-retrainer-operator-lease"
    ]


def test_for_listed_namespaces_nothing_is_bound_cluster_wide() -> None:
    objects = rendered(NAMESPACED)
    whole = _named(rendered(), "ClusterRole", "retrainer-rt-retrainer-operator")["rules"]
    assert not _of_kind(objects, "ClusterRoleBinding")
    roles = [r for r in _of_kind(objects, "Role") if r["metadata"]["namespace"] != "retrainer"]
    assert {r["metadata"]["namespace"] for r in roles} == {"team-a", "team-b"}
    assert all(r["rules"] == whole for r in roles)
    bindings = {b["metadata"]["namespace"] for b in _of_kind(objects, "RoleBinding")}
    assert bindings == {"team-a", "team-b", "retrainer"}


def test_two_releases_in_one_cluster_share_no_cluster_wide_name() -> None:
    one, two = (
        {o["metadata"]["name"] for o in rendered(namespace=n) if "ClusterRole" in o["kind"]}
        for n in ("one", "two")
    )
    assert not one & two


def test_long_release_names_are_cut_to_what_a_label_may_hold() -> None:
    for each in rendered(NAMESPACED, "--set=networkPolicy.enabled=true", release="r" * 53):
        if each["kind"] in ("Service", "Pod", "Deployment", "NetworkPolicy", "ServiceAccount"):
            assert len(each["metadata"]["name"]) <= 63


# --- what is there only when asked for ---
def test_a_disruption_budget_comes_with_the_second_replica() -> None:
    assert not _of_kind(rendered(), "PodDisruptionBudget")
    (budget,) = _of_kind(rendered(TWO), "PodDisruptionBudget")
    assert budget["spec"]["minAvailable"] == 1


def test_network_policies_are_optional_and_reach_trainers_only_where_namespaces_are_listed() -> (
    None
):
    on = "--set=networkPolicy.enabled=true"
    assert not _of_kind(rendered(), "NetworkPolicy")
    assert [p["metadata"]["namespace"] for p in _of_kind(rendered(on), "NetworkPolicy")] == [
        "retrainer"
    ]
    listed = {
        p["metadata"]["namespace"] for p in _of_kind(rendered(on, NAMESPACED), "NetworkPolicy")
    }
    assert listed == {"retrainer", "team-a", "team-b"}


def test_selectors_find_the_operators_pods_and_not_the_one_of_helm_test() -> None:
    objects = rendered(TWO, "--set=networkPolicy.enabled=true")
    deployment = _named(objects, "Deployment")
    operator = deployment["spec"]["template"]["metadata"]["labels"]
    (test,) = _of_kind(objects, "Pod")
    selectors = [
        deployment["spec"]["selector"]["matchLabels"],
        _named(objects, "Service")["spec"]["selector"],
        _named(objects, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        _named(objects, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
    ]
    for selector in selectors:
        assert selector.items() <= operator.items()
        assert not selector.items() <= test["metadata"]["labels"].items()


def test_the_service_points_prometheus_at_the_metrics_port() -> None:
    service = _named(rendered("--set=metrics.port=9999"), "Service")
    assert service["metadata"]["annotations"] == {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": "9999",
        "prometheus.io/path": "/metrics",
    }
    assert (
        "annotations"
        not in _named(rendered("--set=metrics.scrapeAnnotations=false"), "Service")["metadata"]
    )


def test_the_crd_is_kept_on_uninstall_and_can_be_left_out() -> None:
    (crd,) = _of_kind(rendered(), "CustomResourceDefinition")
    assert crd["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert not _of_kind(rendered("--set=crds.install=false"), "CustomResourceDefinition")


def test_the_trainers_account_is_made_without_a_token_where_it_is_asked_for() -> None:
    accounts = {o["metadata"]["name"]: o for o in _of_kind(rendered(*EVERYTHING), "ServiceAccount")}
    assert accounts["trainer"]["metadata"]["namespace"] == "team-a"
    assert accounts["trainer"]["automountServiceAccountToken"] is False
    assert set(accounts) == {"trainer", "rt-retrainer-operator"}


# --- values ---
WRONG = [
    ("--set=operator.replicas=3", "replicas"),
    ("--set=operator.replicas=0", "replicas"),
    ("--set=operator.replica=2", "replica"),
    ("--set=operator.logLevel=loud", "logLevel"),
    ("--set=operator.logFormat=xml", "logFormat"),
    ("--set=operator.resyncSeconds=0", "resyncSeconds"),
    ("--set=operator.resyncSeconds=601", "resyncSeconds"),
    ("--set=operator.serviceAccount.create=false", "name"),
    ("--set=operator.image.pullPolicy=Sometimes", "pullPolicy"),
    ("--set=operator.image.digest=sha256:12", "digest"),
    ("--set=operator.image.tag=a b", "tag"),
    ("--set=operator.image.repository=registry:5000/operator:1.0", "repository"),
    ("--set=operator.image=null", "missing property 'image'"),
    ("--set=operator.resources.limits.memory=2GB", "memory"),
    ("--set-string=operator.podLabels.app\\.kubernetes\\.io/name=x", "name"),
    ("--set=labels.team=of vision", "labels"),
    ("--set=fullnameOverride=Retrainer_1", "fullnameOverride"),
    ("--set=nameOverride=my retrainer", "nameOverride"),
    ("--set=trainer.resources.limit.memory=2Gi", "limit"),
    ("--set=trainer.serviceAccount.create=true", "serviceAccount"),
    ("--set=trainer.command=sh", "command"),
    ("--set=namespaces=team-a", "namespaces"),
    ("--set=namespaces={Team}", "namespaces"),
    ("--set=namespaces={a,a}", "namespaces"),
    ("--set=allowedPodMetadataPrefixes={example}", "allowedPodMetadataPrefixes"),
    ("--set=allowedServiceAccounts={A}", "allowedServiceAccounts"),
    ("--set=allowedPriorityClasses={Very High}", "allowedPriorityClasses"),
    ("--set=allowedTolerationKeys={a b}", "allowedTolerationKeys"),
    ("--set=maxShards=0", "maxShards"),
    ("--set=crds.install=maybe", "install"),
    ("--set=rbac.create=1", "create"),
    ("--set=metrics=null", "missing property 'metrics'"),
    ("--set=metrics.port=80", "port"),
    ("--set=metrics.port=8081", "port"),
    ("--set=networkPolicy.apiServerPorts={https}", "apiServerPorts"),
    ("--set=replicas=2", "replicas"),
    ("--set=monitoring.rules.runbookBaseUrl=runbooks.html", "runbookBaseUrl"),
]


@pytest.mark.parametrize("part", ["operator", "trainer"])
def test_an_image_that_nobody_has_pushed_is_asked_for_and_never_guessed(part: str) -> None:
    answer = helm("template", "rt", *WITH_IMAGES, f"--set={part}.image.repository=")
    assert answer.code != 0
    assert f"{part}.image.repository" in answer.err
    assert "must name the container images that you have built" in answer.err


@pytest.mark.parametrize(("value", "named"), WRONG, ids=[value for value, _ in WRONG])
def test_a_wrong_value_is_refused_and_named(value: str, named: str) -> None:
    answer = helm("template", "rt", str(CHART), value)
    assert answer.code != 0
    assert "values don't meet the specifications of the schema" in answer.err
    assert named in answer.err


def test_the_schema_knows_exactly_the_values_that_there_are() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())

    def compare(value: Any, schema_part: Any, path: str) -> None:
        if "$ref" in schema_part:
            schema_part = schema["definitions"][schema_part["$ref"].rpartition("/")[2]]
        if isinstance(value, dict) and schema_part.get("additionalProperties") is False:
            assert set(value) <= set(schema_part["properties"]), path
            for name in value:
                compare(value[name], schema_part["properties"][name], f"{path}.{name}")

    compare(values, schema, "values")
    assert set(schema["properties"]) - set(values) == {"global"}


def test_the_notes_print_the_next_three_commands() -> None:
    # `helm template` leaves the notes out; a client-side dry run prints them without a cluster.
    text = helm_well(
        "install", "rt", *WITH_IMAGES, "-n", "retrainer", "--dry-run=client", NAMESPACED
    )
    notes = text.partition("NOTES:")[2]
    assert "serves RetrainJobs in these namespaces:\n\n   team-a\n   team-b\n\n1. See" in notes
    assert "helm test rt --namespace retrainer" in notes
    assert "kubectl create secret generic s3-credentials --namespace team-a" in notes
    assert "kubectl apply --namespace team-a -f job.yaml" in notes
    everywhere = helm_well("install", "rt", *WITH_IMAGES, "-n", "retrainer", "--dry-run=client")
    assert "serves RetrainJobs in every namespace.\n\n1. See" in everywhere
    for text in (notes, everywhere.partition("NOTES:")[2]):
        assert [line for line in text.splitlines() if len(line) > 80] == []


def test_helm_test_waits_for_an_operator_that_is_still_starting() -> None:
    asked: list[str] = []

    class Starting(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200 if len(asked) > 1 else 503)
            self.end_headers()
            self.wfile.write(b"retrainer_leader 1\n")

        def log_message(self, *_: object) -> None:
            pass

    (pod,) = [o for o in rendered() if o["kind"] == "Pod"]
    (script,) = pod["spec"]["containers"][0]["args"]
    with ThreadingHTTPServer(("127.0.0.1", 0), Starting) as operator:
        Thread(target=operator.serve_forever, daemon=True).start()
        script = script.replace("http://{host}:", f"http://127.0.0.1:{operator.server_port}/")
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=False
        )
        operator.shutdown()
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("1 series of Retrainer on /metrics\n")
    assert asked == ["/8081/healthz", "/8081/healthz", "/8081/readyz", "/8080/metrics"]
