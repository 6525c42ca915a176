"""The everyday work of Python's `kubernetes` client against the server that $KUBECONFIG names."""

import base64
import io
import os
import sys
import threading
import time

import urllib3
import yaml
from kubernetes import client, config, dynamic, utils, watch
from kubernetes.client.rest import ApiException

NS = "python"
config.load_kube_config()
core, apps, rbac = client.CoreV1Api(), client.AppsV1Api(), client.RbacAuthorizationV1Api()


def step(name):
    print("python:", name, flush=True)


def eventually(what, look):
    deadline = time.monotonic() + 60
    while not (seen := look()):
        assert time.monotonic() < deadline, f"not in a minute: {what}"
        time.sleep(0.1)
    return seen


def refused(code, reason, call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except ApiException as error:
        assert error.status == code, (error.status, error.body)
        assert f'"reason":"{reason}"' in error.body.replace(" ", ""), error.body
        return error
    raise AssertionError(f"{call.__name__} was not refused")


step("versions and discovery")
assert client.VersionApi().get_code().minor.startswith("36")
assert "apps" in [group.name for group in client.ApisApi().get_api_versions().groups]
assert "pods" in [resource.name for resource in core.get_api_resources().resources]

step("namespaces and accounts")
core.create_namespace({"metadata": {"name": NS}})
assert core.read_namespace(NS).status.phase == "Active"
core.create_namespaced_service_account(NS, {"metadata": {"name": "robot"}})
request = client.AuthenticationV1TokenRequest(spec=client.V1TokenRequestSpec(audiences=[], expiration_seconds=600))
assert core.create_namespaced_service_account_token("robot", NS, request).status.token.count(".") == 2

step("config maps and secrets")
made = core.create_namespaced_config_map(NS, client.V1ConfigMap(metadata={"name": "a"}, data={"x": "1"}))
assert made.metadata.creation_timestamp.tzinfo is not None
refused(409, "AlreadyExists", core.create_namespaced_config_map, NS, {"metadata": {"name": "a"}})
refused(404, "NotFound", core.read_namespaced_config_map, "none", NS)
refused(422, "Invalid", core.create_namespaced_config_map, NS, {"metadata": {"name": "A"}})
made.data["x"] = "2"
changed = core.replace_namespaced_config_map("a", NS, made)
refused(409, "Conflict", core.replace_namespaced_config_map, "a", NS, made)
secret = core.create_namespaced_secret(NS, {"metadata": {"name": "s"}, "stringData": {"word": "open"}})
assert secret.data["word"] == "b3Blbg=="

step("patches in four kinds")
for body, content_type in [
    ({"data": {"merged": "1"}}, "application/merge-patch+json"),
    ({"data": {"strategic": "1"}}, "application/strategic-merge-patch+json"),
    ([{"op": "add", "path": "/data/json", "value": "1"}], "application/json-patch+json"),
]:
    core.patch_namespaced_config_map("a", NS, body, _content_type=content_type)
applied = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"applied": "1"}}
core.patch_namespaced_config_map(
    "a", NS, applied, field_manager="python", _content_type="application/apply-patch+yaml")
data = core.read_namespaced_config_map("a", NS).data
assert {"merged", "strategic", "json", "applied"} <= set(data), data

step("apply with conflicts, and marks")
def apply(manager, data, **kwargs):
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "shared"}, "data": data}
    return core.patch_namespaced_config_map(
        "shared", NS, body, field_manager=manager, _content_type="application/apply-patch+yaml", **kwargs)


apply("first", {"x": "1", "y": "1"})
conflict = refused(409, "Conflict", apply, "second", {"x": "2"})
assert '"field":".data.x"' in conflict.body.replace(" ", ""), conflict.body
assert apply("second", {"x": "2"}, force=True).data == {"x": "2", "y": "1"}
assert apply("first", {}).data == {"x": "2"}
marks = {"metadata": {"labels": {"tier": "front"}, "annotations": {"note": "n"}}}
marked = core.patch_namespaced_config_map("shared", NS, marks).metadata
assert (marked.labels, marked.annotations) == ({"tier": "front"}, {"note": "n"}), marked
unmarked = core.patch_namespaced_config_map("shared", NS, {"metadata": {"labels": None}})
assert unmarked.metadata.labels is None, unmarked.metadata
dry = core.patch_namespaced_config_map("shared", NS, {"data": {"x": "dry"}}, dry_run="All")
assert dry.data["x"] == "dry" and core.read_namespaced_config_map("shared", NS).data["x"] == "2"
core.delete_namespaced_config_map("shared", NS)

step("lists in pages, by labels and by fields")
for index in range(5):
    labels = {"even": str(index % 2 == 0).lower()}
    core.create_namespaced_config_map(NS, {"metadata": {"name": f"m{index}", "labels": labels}})
# The controllers publish the authority here.
eventually("the authority is there", lambda: "kube-root-ca.crt" in [
    item.metadata.name for item in core.list_namespaced_config_map(NS).items])
names, token = [], None
while True:
    page = core.list_namespaced_config_map(NS, limit=2, _continue=token)
    names += [item.metadata.name for item in page.items]
    token = page.metadata._continue
    if not token:
        break
names.remove("kube-root-ca.crt")
assert names == ["a", "m0", "m1", "m2", "m3", "m4"], names
assert len(core.list_namespaced_config_map(NS, label_selector="even=true").items) == 3
assert len(core.list_config_map_for_all_namespaces(field_selector="metadata.name=m1").items) == 1

step("watches")
listed = core.list_namespaced_config_map(NS)
core.delete_namespaced_config_map("m4", NS)
core.create_namespaced_config_map(NS, {"metadata": {"name": "later"}})
seen = []
watcher = watch.Watch()
for event in watcher.stream(
    core.list_namespaced_config_map, NS, resource_version=listed.metadata.resource_version, timeout_seconds=30):
    seen.append((event["type"], event["object"].metadata.name))
    if len(seen) == 2:
        watcher.stop()
assert seen == [("DELETED", "m4"), ("ADDED", "later")], seen

step("deployments")
documents = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: python}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: "web:v1", ports: [{containerPort: 80}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: python}
spec: {selector: {app: web}, ports: [{port: 80}]}
"""
utils.create_from_yaml(client.ApiClient(), yaml_objects=yaml.safe_load_all(io.StringIO(documents)))
deployment = apps.read_namespaced_deployment("web", NS)
assert deployment.spec.strategy.rolling_update.max_surge == "25%"
assert core.read_namespaced_service("web", NS).spec.cluster_ip
assert apps.read_namespaced_deployment_scale("web", NS).spec.replicas == 2
assert apps.patch_namespaced_deployment_scale("web", NS, {"spec": {"replicas": 3}}).spec.replicas == 3
sidecar = {"spec": {"template": {"spec": {"containers": [{"name": "side", "image": "side:v1"}]}}}}
patched = apps.patch_namespaced_deployment("web", NS, sidecar)
assert {c.name for c in patched.spec.template.spec.containers} == {"web", "side"}
apps.delete_namespaced_deployment("web", NS, dry_run="All")


def below():
    sets = apps.list_namespaced_replica_set(NS, label_selector="app=web").items
    pods = core.list_namespaced_pod(NS, label_selector="app=web").items
    return len(sets), len(pods)


def rolled_out():
    found = apps.read_namespaced_deployment("web", NS)
    status = found.status
    counts = {status.replicas, status.updated_replicas, status.available_replicas}
    return counts == {3} and status.observed_generation == found.metadata.generation


def gone():
    try:
        apps.read_namespaced_deployment("web", NS)
    except ApiException as error:
        return error.status == 404


step("deletion with three propagations")
for propagation, left in [("Orphan", (1, 3)), ("Foreground", (0, 0)), ("Background", (0, 0))]:
    if gone():
        again = yaml.safe_load(documents.split("---")[0])
        again["spec"]["replicas"] = 3
        again["spec"]["template"]["spec"]["containers"].append({"name": "side", "image": "side:v1"})
        apps.create_namespaced_deployment(NS, again)
    eventually("the deployment is rolled out", rolled_out)
    eventually("only its pods are there", lambda: below()[1] == 3)
    for old in apps.list_namespaced_replica_set(NS, label_selector="app=web").items:
        if not old.spec.replicas:
            apps.delete_namespaced_replica_set(old.metadata.name, NS)
    apps.delete_namespaced_deployment("web", NS, propagation_policy=propagation)
    eventually("the deployment is gone", gone)
    if propagation == "Background":
        eventually("what was below is gone", lambda: below() == left)
    assert below() == left, (propagation, below())

step("rights")
rbac.create_namespaced_role(NS, client.V1Role(
    metadata={"name": "reader"}, rules=[client.V1PolicyRule(api_groups=[""], resources=["pods"], verbs=["get"])]))
review = client.V1SelfSubjectAccessReview(spec=client.V1SelfSubjectAccessReviewSpec(
    resource_attributes=client.V1ResourceAttributes(namespace=NS, verb="delete", resource="pods")))
assert client.AuthorizationV1Api().create_self_subject_access_review(review).status.allowed

step("certificates and tokens")
certificates = client.CertificatesV1Api()
request = base64.b64encode(os.environ["CERTIFICATE_REQUEST"].encode()).decode()
signing = certificates.create_certificate_signing_request(client.V1CertificateSigningRequest(
    metadata={"name": "ann"}, spec=client.V1CertificateSigningRequestSpec(
        signer_name="kubernetes.io/kube-apiserver-client", usages=["client auth"], request=request)))
signing.status.conditions = [client.V1CertificateSigningRequestCondition(
    type="Approved", status="True", reason="Python", message="approved by a script")]
certificates.replace_certificate_signing_request_approval("ann", signing)
issued = eventually("the certificate is issued", lambda: (
    certificates.read_certificate_signing_request_status("ann").status.certificate))
assert base64.b64decode(issued).startswith(b"-----BEGIN CERTIFICATE-----")
token = core.create_namespaced_service_account_token("robot", NS, client.AuthenticationV1TokenRequest(
    spec=client.V1TokenRequestSpec(audiences=[], expiration_seconds=600))).status.token
answer = client.AuthenticationV1Api().create_token_review(client.V1TokenReview(spec={"token": token}))
assert answer.status.user.username == f"system:serviceaccount:{NS}:robot", answer

step("custom resources")
definition = {
    "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
    "metadata": {"name": "snakes.python.example.com"},
    "spec": {"group": "python.example.com", "scope": "Namespaced", "names": {"kind": "Snake", "plural": "snakes"},
             "versions": [{"name": "v1", "served": True, "storage": True, "subresources": {"status": {}},
                           "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                               "spec": {"type": "object", "properties": {"length": {"type": "integer"}}},
                               "status": {"type": "object", "properties": {"fed": {"type": "boolean"}}}}}}}]}}
extensions = client.ApiextensionsV1Api()
extensions.create_custom_resource_definition(definition)
for event in watch.Watch().stream(
    extensions.list_custom_resource_definition, field_selector="metadata.name=snakes.python.example.com",
    timeout_seconds=30):
    conditions = event["object"].status.conditions if event["object"].status else None
    if any(c.type == "Established" and c.status == "True" for c in conditions or []):
        break
snakes = ("python.example.com", "v1", NS, "snakes")
custom = client.CustomObjectsApi()
snake = {"apiVersion": "python.example.com/v1", "kind": "Snake", "metadata": {"name": "kaa"}, "spec": {"length": 9}}
assert custom.create_namespaced_custom_object(*snakes, snake)["metadata"]["generation"] == 1
custom.patch_namespaced_custom_object(*snakes, "kaa", {"spec": {"length": 10}})
custom.patch_namespaced_custom_object_status(*snakes, "kaa", {"status": {"fed": True}})
kaa = custom.get_namespaced_custom_object(*snakes, "kaa")
assert (kaa["spec"]["length"], kaa["status"]["fed"], kaa["metadata"]["generation"]) == (10, True, 2), kaa
snake["spec"]["length"] = "long"
refused(422, "Invalid", custom.create_namespaced_custom_object, *snakes, {**snake, "metadata": {"name": "long"}})

step("the dynamic client")
anything = dynamic.DynamicClient(client.ApiClient())
kind = anything.resources.get(api_version="python.example.com/v1", kind="Snake")
assert [item.metadata.name for item in kind.get(namespace=NS).items] == ["kaa"]
maps = anything.resources.get(api_version="v1", kind="ConfigMap")
applied["data"] = {"applied": "2"}
assert maps.server_side_apply(applied, name="a", namespace=NS, field_manager="python").data.applied == "2"

step("collections")
core.delete_collection_namespaced_config_map(NS, label_selector="even")
left = [item.metadata.name for item in core.list_namespaced_config_map(NS).items]
assert left == ["a", "kube-root-ca.crt", "later"], left

step("a watch through a restart")
seen, following = [], threading.Event()


def see(name):
    if name in ("before", "after") and name not in seen:
        seen.append(name)


def listed():
    found = core.list_namespaced_config_map(NS)
    for item in found.items:
        see(item.metadata.name)
    return found.metadata.resource_version


def follow():
    version = listed()
    following.set()
    while "after" not in seen:
        try:
            for event in watch.Watch().stream(
                core.list_namespaced_config_map, NS, resource_version=version, timeout_seconds=60):
                version = event["object"].metadata.resource_version
                see(event["object"].metadata.name)
                if "after" in seen:
                    return
        except (urllib3.exceptions.HTTPError, ApiException) as error:
            time.sleep(0.2)
            # A server that has just come up does not know what was before it.
            if isinstance(error, ApiException) and error.status == 410:
                version = listed()


follower = threading.Thread(target=follow, daemon=True)
follower.start()
following.wait()
core.create_namespaced_config_map(NS, {"metadata": {"name": "before"}})
eventually("the watch goes on", lambda: "before" in seen)
print("python: restart the server", flush=True)
assert sys.stdin.readline() == "restarted\n"
core.create_namespaced_config_map(NS, {"metadata": {"name": "after"}})
follower.join(60)
assert seen == ["before", "after"], seen
print("python: done", flush=True)
sys.exit(0)
