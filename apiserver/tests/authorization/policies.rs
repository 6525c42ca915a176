//! ValidatingAdmissionPolicy: what policies say, where bindings put them in force, and who hears of it.

use apiserver::Security;
use apiserver::audit::{AuditConfig, AuditPolicy};
use serde_json::{Value, json};

use crate::audit::event;
use crate::cluster::{Answer, Cluster};

const ADMISSION: &str = "/apis/admissionregistration.k8s.io/v1";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

fn with(mut base: Value, more: &Value) -> Value {
    for (field, value) in more.as_object().unwrap() {
        base[field] = value.clone();
    }
    base
}

fn rule(operations: &[&str], group: &str, resource: &str) -> Value {
    json!({"apiGroups": [group], "apiVersions": ["*"], "operations": operations, "resources": [resource]})
}

/// A policy about config maps, unless `spec` says something else.
fn policy(name: &str, spec: &Value) -> Value {
    let rules = json!({"resourceRules": [rule(&["CREATE", "UPDATE"], "", "configmaps")]});
    json!({"kind": "ValidatingAdmissionPolicy", "apiVersion": "admissionregistration.k8s.io/v1",
        "metadata": {"name": name}, "spec": with(json!({"matchConstraints": rules}), spec)})
}

fn binding(name: &str, policy: &str, spec: &Value) -> Value {
    json!({"kind": "ValidatingAdmissionPolicyBinding", "apiVersion": "admissionregistration.k8s.io/v1",
        "metadata": {"name": name}, "spec": with(json!({"policyName": policy, "validationActions": ["Deny"]}), spec)})
}

/// Puts a policy in force everywhere.
async fn enforce(cluster: &Cluster, name: &str, spec: Value) {
    make_policy(cluster, name, &spec).await.expect(201);
    bind(cluster, name, json!({})).await;
}

async fn make_policy(cluster: &Cluster, name: &str, spec: &Value) -> Answer {
    cluster.admin().post(&format!("{ADMISSION}/validatingadmissionpolicies"), &policy(name, spec)).await
}

async fn bind(cluster: &Cluster, policy: &str, spec: Value) {
    let binding = binding(policy, policy, &spec);
    cluster
        .admin()
        .post(&format!("{ADMISSION}/validatingadmissionpolicybindings"), &binding)
        .await
        .expect(201);
}

async fn lift(cluster: &Cluster, name: &str) {
    for kind in ["validatingadmissionpolicybindings", "validatingadmissionpolicies"] {
        cluster.admin().delete(&format!("{ADMISSION}/{kind}/{name}")).await.expect(200);
    }
}

fn map(name: &str, data: Value) -> Value {
    json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name, "labels": {"app": name}}, "data": data})
}

/// A config map that nobody keeps.
async fn tried(cluster: &Cluster, data: Value) -> Answer {
    cluster.admin().post(&format!("{MAPS}?dryRun=All"), &map("m", data)).await
}

fn deployment(name: &str, replicas: u32) -> Value {
    json!({"kind": "Deployment", "apiVersion": "apps/v1", "metadata": {"name": name}, "spec": {
        "replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": {
            "metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
}

fn validation(expression: &str) -> Value {
    json!({"validations": [{"expression": expression}]})
}

/// The words of a policy `p` that is bound by a binding of the same name.
fn said(what: &str) -> String {
    format!(
        "configmaps \"m\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'p' denied request: {what}"
    )
}

#[tokio::test]
async fn policies_say_what_they_have_to_say() {
    let cluster = Cluster::start().await;
    let data = json!({"a": "1", "b": "two"});
    let fail = "object.data.a == '2'";
    for (spec, code, told) in [
        (validation("object.data.a == '1' && oldObject == null"), 201, ""),
        (validation(fail), 422, "failed expression: object.data.a == '2'"),
        (json!({"validations": [{"expression": fail, "message": " say two "}]}), 422, "say two"),
        (
            json!({"validations": [{"expression": fail, "message": "m", "messageExpression": "'not ' + object.data.a"}]}),
            422,
            "not 1",
        ),
        // An expression for the message that fails, or says nothing, gives way to the message.
        (
            json!({"validations": [{"expression": fail, "message": "m", "messageExpression": "'x' + object.data.none"}]}),
            422,
            "m",
        ),
        (
            json!({"validations": [{"expression": fail, "message": "m", "messageExpression": "' '"}]}),
            422,
            "m",
        ),
        (
            json!({"validations": [{"expression": fail, "message": "m", "messageExpression": "'a\\nb'"}]}),
            422,
            "m",
        ),
        (json!({"validations": [{"expression": fail, "message": "m", "reason": "Forbidden"}]}), 403, "m"),
        (
            json!({"validations": [{"expression": fail, "message": "m", "reason": "RequestEntityTooLarge"}]}),
            413,
            "m",
        ),
        // The first that fails is told.
        (
            json!({"validations": [{"expression": "true"}, {"expression": fail, "message": "1"}, {"expression": "false"}]}),
            422,
            "1",
        ),
        // Variables are computed from others, and only those that are read.
        (
            json!({"variables": [{"name": "a", "expression": "object.data.a"}, {"name": "twice", "expression": "variables.a + variables.a"},
                {"name": "broken", "expression": "object.data.none"}],
                "validations": [{"expression": "variables.twice == '11' && (true || variables.broken == '')"}]}),
            201,
            "",
        ),
        (
            json!({"variables": [{"name": "a", "expression": "object.data.a"}], "validations": [
                {"expression": "variables.a == '2'", "messageExpression": "'got ' + variables.a"}]}),
            422,
            "got 1",
        ),
        // Conditions: one that does not hold settles it, whatever is wrong with another.
        (
            json!({"matchConditions": [{"name": "m", "expression": "object.metadata.name != 'm'"}], "validations": [{"expression": "false"}]}),
            201,
            "",
        ),
        (
            json!({"matchConditions": [{"name": "b", "expression": "object.data.none == ''"}, {"name": "no", "expression": "false"}],
                "validations": [{"expression": "false"}]}),
            201,
            "",
        ),
        (
            json!({"failurePolicy": "Ignore", "matchConditions": [{"name": "b", "expression": "object.data.none == ''"}],
                "validations": [{"expression": "false"}]}),
            201,
            "",
        ),
        // What fails is passed over where the policy says so, what does not hold is not.
        (with(validation("object.data.none == ''"), &json!({"failurePolicy": "Ignore"})), 201, ""),
        (with(validation("false"), &json!({"failurePolicy": "Ignore"})), 422, "failed expression: false"),
        // What is known of the request and its namespace.
        (
            validation(
                "request.operation == 'CREATE' && request.name == 'm' && request.namespace == 'default' && request.dryRun && request.userInfo.username == 'admin' && 'system:masters' in request.userInfo.groups && request.kind.kind == 'ConfigMap' && request.resource.resource == 'configmaps' && request.requestResource.version == 'v1'",
            ),
            201,
            "",
        ),
        (
            validation(
                "namespaceObject.metadata.labels['kubernetes.io/metadata.name'] == 'default' && namespaceObject.status.phase == 'Active'",
            ),
            201,
            "",
        ),
    ] {
        enforce(&cluster, "p", spec.clone()).await;
        let answer = tried(&cluster, data.clone()).await.expect(code);
        if !told.is_empty() {
            assert_eq!(answer["message"], said(told), "{spec}");
            let cause = said(told).split_once("forbidden: ").unwrap().1.to_string();
            assert_eq!(answer["details"]["causes"], json!([{"message": cause}]), "{spec}");
        }
        lift(&cluster, "p").await;
    }
}

#[tokio::test]
async fn what_cannot_be_evaluated_is_refused() {
    let cluster = Cluster::start().await;
    for (spec, told) in [
        (validation("object.data.none == ''"), "'object.data.none == ''' resulted in error:"),
        (
            json!({"matchConditions": [{"name": "b", "expression": "object.data.none == ''"}], "validations": [{"expression": "true"}]}),
            "'object.data.none == ''' resulted in error:",
        ),
        (
            json!({"variables": [{"name": "v", "expression": "object.data.none"}], "validations": [{"expression": "variables.v == ''"}]}),
            "composited variable \"v\" fails to evaluate:",
        ),
    ] {
        enforce(&cluster, "p", spec).await;
        let answer = tried(&cluster, json!({"a": "1"})).await.expect(422);
        let message = answer["message"].as_str().unwrap();
        assert!(message.starts_with(&said("expression '")) && message.contains(told), "{answer}");
        lift(&cluster, "p").await;
    }
}

#[tokio::test]
async fn a_policy_is_in_force_from_its_binding_to_its_end() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    make_policy(&cluster, "p", &validation("object.data.a == '2'")).await.expect(201);
    tried(&cluster, json!({"a": "1"})).await.expect(201);
    bind(&cluster, "p", json!({})).await;
    tried(&cluster, json!({"a": "1"})).await.expect(422);
    let path = format!("{ADMISSION}/validatingadmissionpolicies/p");
    admin.merge(&path, &json!({"spec": validation("object.data.a == '1'")})).await.expect(200);
    tried(&cluster, json!({"a": "1"})).await.expect(201);
    tried(&cluster, json!({"a": "2"})).await.expect(422);
    let seen = admin.get(&path).await.expect(200);
    assert_eq!(
        (&seen["metadata"]["generation"], &seen["status"]["observedGeneration"]),
        (&json!(2), &json!(2))
    );
    admin.delete(&path).await.expect(200);
    tried(&cluster, json!({"a": "2"})).await.expect(201);
    // The binding has waited for it.
    make_policy(&cluster, "p", &validation("false")).await.expect(201);
    tried(&cluster, json!({"a": "2"})).await.expect(422);
    let again = cluster.another().await;
    again.post(&format!("{MAPS}?dryRun=All"), &map("m", json!({}))).await.expect(422);
}

#[tokio::test]
async fn rules_selectors_and_bindings_decide_what_a_policy_is_about() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    cluster.namespace("quiet").await;
    let label = json!({"metadata": {"labels": {"env": "quiet"}}});
    admin.merge("/api/v1/namespaces/quiet", &label).await.expect(200);
    admin.post(MAPS, &map("old", json!({}))).await.expect(201);
    let maps = rule(&["*"], "", "configmaps");
    let constraints =
        |more: Value| json!({"matchConstraints": with(json!({"resourceRules": [maps]}), &more)});
    let in_force = json!({});
    let quiet = json!({"matchLabels": {"env": "quiet"}});
    let named = with(maps.clone(), &json!({"resourceNames": ["m"]}));
    let (default, other) = (MAPS, "/api/v1/namespaces/quiet/configmaps");
    for (constraint, bound, path, name, code) in [
        (constraints(json!({})), &in_force, default, "m", 422),
        (constraints(json!({"namespaceSelector": quiet})), &in_force, default, "m", 201),
        (constraints(json!({"namespaceSelector": quiet})), &in_force, other, "m", 422),
        (constraints(json!({"objectSelector": {"matchLabels": {"app": "m"}}})), &in_force, default, "m", 422),
        (constraints(json!({"objectSelector": {"matchLabels": {"app": "m"}}})), &in_force, default, "n", 201),
        (constraints(json!({"excludeResourceRules": [named]})), &in_force, default, "m", 201),
        (constraints(json!({"excludeResourceRules": [named]})), &in_force, default, "n", 422),
        (constraints(json!({"resourceRules": [named]})), &in_force, default, "n", 201),
        (constraints(json!({})), &json!({"matchResources": {"namespaceSelector": quiet}}), default, "m", 201),
        (constraints(json!({})), &json!({"matchResources": {"namespaceSelector": quiet}}), other, "m", 422),
        (
            constraints(json!({})),
            &json!({"matchResources": {"resourceRules": [rule(&["DELETE"], "", "*")]}}),
            default,
            "m",
            201,
        ),
    ] {
        make_policy(&cluster, "p", &with(validation("false"), &constraint)).await.expect(201);
        bind(&cluster, "p", bound.clone()).await;
        let answer = admin.post(&format!("{path}?dryRun=All"), &map(name, json!({}))).await;
        assert_eq!(answer.code, code, "{constraint} {bound} {name}: {}", answer.body);
        lift(&cluster, "p").await;
    }
}

#[tokio::test]
async fn every_verb_and_subresource_is_asked_about() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    cluster.account("default", "default").await;
    cluster.pod("default", "p", "", json!({})).await;
    admin.post(MAPS, &map("m", json!({"a": "1"}))).await.expect(201);
    admin.post(DEPLOYMENTS, &deployment("d", 1)).await.expect(201);
    let replicas = json!({"spec": {"replicas": 7}});
    let data = json!({"data": {"a": "2"}});
    let eviction = json!({"kind": "Eviction", "apiVersion": "policy/v1", "metadata": {"name": "p"}});
    let binding = json!({"kind": "Binding", "apiVersion": "v1", "metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}});
    let token = json!({"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "spec": {"audiences": ["x"]}});
    let none = Value::Null;
    let hpa = json!({"kind": "HorizontalPodAutoscaler", "apiVersion": "autoscaling/v1", "metadata": {"name": "h"},
        "spec": {"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "d"}}});
    for (rule, expression, method, path, body) in [
        (
            rule(&["UPDATE"], "", "configmaps"),
            "object.data.a == '2' && oldObject.data.a == '1'",
            "PATCH",
            format!("{MAPS}/m"),
            &data,
        ),
        (
            rule(&["DELETE"], "", "configmaps"),
            "object == null && oldObject.data.a == '1' && request.operation == 'DELETE' && request.options.gracePeriodSeconds == 0 && request.options.propagationPolicy == 'Orphan'",
            "DELETE",
            format!("{MAPS}/m?gracePeriodSeconds=0&propagationPolicy=Orphan"),
            &none,
        ),
        (
            rule(&["UPDATE"], "", "configmaps"),
            "request.options.kind == 'UpdateOptions' && request.options.fieldManager == 'me' && request.options.fieldValidation == 'Strict' && !has(request.options.dryRun)",
            "PATCH",
            format!("{MAPS}/m?fieldManager=me&fieldValidation=Strict"),
            &data,
        ),
        (
            rule(&["DELETE"], "", "configmaps"),
            "object == null && oldObject.data.a == '1'",
            "DELETE",
            MAPS.to_string(),
            &none,
        ),
        (
            rule(&["UPDATE"], "apps", "deployments/scale"),
            "object.kind == 'Scale' && object.spec.replicas == 7 && oldObject.spec.replicas == 1 && request.subResource == 'scale' && request.kind.kind == 'Scale'",
            "PATCH",
            format!("{DEPLOYMENTS}/d/scale"),
            &replicas,
        ),
        (
            rule(&["*"], "apps", "*/*"),
            "object.spec.replicas == 7",
            "PATCH",
            format!("{DEPLOYMENTS}/d"),
            &replicas,
        ),
        (
            rule(&["UPDATE"], "apps", "deployments/status"),
            "object.status.replicas == 7",
            "PATCH",
            format!("{DEPLOYMENTS}/d/status"),
            &json!({"status": {"replicas": 7}}),
        ),
        (
            rule(&["CREATE"], "", "pods/eviction"),
            "object.kind == 'Eviction' && request.kind.group == 'policy' && request.name == 'p'",
            "POST",
            "/api/v1/namespaces/default/pods/p/eviction".to_string(),
            &eviction,
        ),
        (
            rule(&["CREATE"], "", "pods/binding"),
            "object.target.name == 'n' && request.kind.kind == 'Binding'",
            "POST",
            "/api/v1/namespaces/default/pods/p/binding".to_string(),
            &binding,
        ),
        (
            rule(&["CREATE"], "", "serviceaccounts/token"),
            "object.spec.audiences == ['x']",
            "POST",
            "/api/v1/namespaces/default/serviceaccounts/default/token".to_string(),
            &token,
        ),
        (
            rule(&["CONNECT"], "", "pods/exec"),
            "object.kind == 'PodExecOptions' && object.command == ['sh'] && request.operation == 'CONNECT'",
            "POST",
            "/api/v1/namespaces/default/pods/p/exec?command=sh".to_string(),
            &none,
        ),
        (
            rule(&["CREATE"], "", "namespaces"),
            "namespaceObject == null && request.namespace == 'n' && object.metadata.name == 'n'",
            "POST",
            "/api/v1/namespaces".to_string(),
            &json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "n"}}),
        ),
        // In the version of the rule, whatever the request speaks.
        (
            json!({"apiGroups": ["autoscaling"], "apiVersions": ["v2"], "operations": ["CREATE"], "resources": ["horizontalpodautoscalers"]}),
            "object.apiVersion == 'autoscaling/v2' && request.kind.version == 'v2' && request.requestKind.version == 'v1'",
            "POST",
            "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers".to_string(),
            &hpa,
        ),
    ] {
        // What the expression says of the request shows in who is refused: this one, and nobody else.
        let spec = json!({"matchConstraints": {"resourceRules": [rule]}, "validations": [{"expression": format!("!({expression})")}]});
        enforce(&cluster, "p", spec).await;
        let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = admin.send(method, &path, kind, body).await.expect(422);
        let told = format!("failed expression: !({expression})");
        assert!(answer["message"].as_str().unwrap().ends_with(&told), "{answer}");
        lift(&cluster, "p").await;
    }
}

#[tokio::test]
async fn policies_and_their_bindings_are_nobodys_business() {
    let cluster = Cluster::start().await;
    let all = json!({"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["*"], "resources": ["*/*"]});
    enforce(
        &cluster,
        "p",
        json!({"matchConstraints": {"resourceRules": [all]}, "validations": [{"expression": "false"}]}),
    )
    .await;
    tried(&cluster, json!({})).await.expect(422);
    let hooks = json!({"kind": "ValidatingWebhookConfiguration", "apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": "v"}});
    cluster.admin().post(&format!("{ADMISSION}/validatingwebhookconfigurations"), &hooks).await.expect(422);
    let review = json!({"kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1"});
    cluster.admin().post("/apis/authentication.k8s.io/v1/selfsubjectreviews", &review).await.expect(201);
    lift(&cluster, "p").await;
    tried(&cluster, json!({})).await.expect(201);
}

#[tokio::test]
async fn parameters_are_found_where_the_binding_says() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    cluster.namespace("team").await;
    let limit = |name: &str, max: &str, labels: Value| {
        json!({"kind": "ConfigMap", "apiVersion": "v1",
        "metadata": {"name": name, "labels": labels}, "data": {"max": max}})
    };
    let limits = json!({"limits": "yes"});
    admin.post("/api/v1/namespaces/team/configmaps", &limit("tight", "1", limits.clone())).await.expect(201);
    admin.post("/api/v1/namespaces/team/configmaps", &limit("wide", "9", limits.clone())).await.expect(201);
    admin.post(MAPS, &limit("tight", "5", limits.clone())).await.expect(201);
    let class = json!({"kind": "PriorityClass", "apiVersion": "scheduling.k8s.io/v1", "metadata": {"name": "c"}, "value": 3});
    admin.post("/apis/scheduling.k8s.io/v1/priorityclasses", &class).await.expect(201);
    let map_kind = json!({"apiVersion": "v1", "kind": "ConfigMap"});
    let class_kind = json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass"});
    let below = "object.spec.replicas <= int(params.data.max)";
    let told = |what: &str| {
        format!(
            "deployments.apps \"d\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'p' denied request: {what}"
        )
    };
    let configure = |what: &str| told(&format!("failed to configure binding: {what}"));
    for (kind, expression, reference, replicas, refusal) in [
        (&map_kind, below, json!({"name": "tight", "namespace": "team"}), 1, None),
        (&map_kind, below, json!({"name": "tight", "namespace": "team"}), 2, Some(told(&format!("failed expression: {below}")))),
        // Without a namespace, in that of the request.
        (&map_kind, below, json!({"name": "tight"}), 5, None),
        (&map_kind, below, json!({"name": "tight"}), 6, Some(told(&format!("failed expression: {below}")))),
        // All that are selected have to agree.
        (&map_kind, below, json!({"selector": {"matchLabels": {"limits": "yes"}}, "namespace": "team"}), 1, None),
        (&map_kind, below, json!({"selector": {"matchLabels": {"limits": "yes"}}, "namespace": "team"}), 8, Some(told(&format!("failed expression: {below}")))),
        (&map_kind, below, json!({"selector": {"matchLabels": {"limits": "no"}}, "namespace": "team"}), 8, Some(configure("no params found for policy binding with `Deny` parameterNotFoundAction"))),
        (&map_kind, below, json!({"name": "none"}), 8, Some(configure("no params found for policy binding with `Deny` parameterNotFoundAction"))),
        (&map_kind, below, json!({"name": "none", "parameterNotFoundAction": "Allow"}), 8, None),
        (&class_kind, "object.spec.replicas <= params.value", json!({"name": "c"}), 3, None),
        (&class_kind, "object.spec.replicas <= params.value", json!({"name": "c"}), 4, Some(told("failed expression: object.spec.replicas <= params.value"))),
        (&class_kind, "true", json!({"name": "c", "namespace": "team"}), 4, Some(configure("paramRef.namespace must not be provided for a cluster-scoped `paramKind`"))),
        (&json!({"apiVersion": "example.com/v1", "kind": "Nothing"}), "true", json!({"name": "c"}), 4,
            Some("deployments.apps \"d\" is forbidden: ValidatingAdmissionPolicy 'p' denied request: failed to configure policy: failed to find resource referenced by paramKind: 'example.com/v1, Kind=Nothing'".to_string())),
    ] {
        let rules = json!({"resourceRules": [rule(&["CREATE"], "apps", "deployments")]});
        let spec = json!({"paramKind": kind, "matchConstraints": rules, "validations": [{"expression": expression}]});
        make_policy(&cluster, "p", &spec).await.expect(201);
        let reference = with(json!({"parameterNotFoundAction": "Deny"}), &reference);
        bind(&cluster, "p", json!({"paramRef": reference})).await;
        let answer = admin.post(&format!("{DEPLOYMENTS}?dryRun=All"), &deployment("d", replicas)).await;
        match refusal {
            None => drop(answer.expect(201)),
            Some(told) => assert_eq!(answer.expect(422)["message"], told, "{reference}"),
        }
        lift(&cluster, "p").await;
    }
    // A policy with a kind of parameters and a binding without: `params` is null.
    let spec =
        json!({"paramKind": map_kind, "validations": [{"expression": "params != null", "message": "none"}]});
    enforce(&cluster, "p", spec).await;
    assert_eq!(tried(&cluster, json!({})).await.expect(422)["message"], said("none"));
}

#[tokio::test]
async fn custom_resources_are_judged_and_are_parameters() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let schema =
        json!({"type": "object", "properties": {"max": {"type": "integer"}, "ratio": {"type": "number"}}});
    let definition = json!({"kind": "CustomResourceDefinition", "apiVersion": "apiextensions.k8s.io/v1",
        "metadata": {"name": "limits.example.com"}, "spec": {"group": "example.com", "scope": "Cluster",
        "names": {"kind": "Limit", "plural": "limits", "singular": "limit"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]}});
    // The policy may come before its kind.
    let spec = json!({"paramKind": {"apiVersion": "example.com/v1", "kind": "Limit"}, "validations": [{"expression": "size(object.data) <= params.max"}]});
    make_policy(&cluster, "p", &spec).await.expect(201);
    bind(&cluster, "p", json!({"paramRef": {"name": "l", "parameterNotFoundAction": "Deny"}})).await;
    tried(&cluster, json!({"a": "1"})).await.expect(422);
    admin.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", &definition).await.expect(201);
    let limit = json!({"kind": "Limit", "apiVersion": "example.com/v1", "metadata": {"name": "l"}, "max": 1});
    let served = async {
        while admin.post("/apis/example.com/v1/limits", &limit).await.code != 201 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), served).await.expect("the kind is served");
    tried(&cluster, json!({"a": "1"})).await.expect(201);
    tried(&cluster, json!({"a": "1", "b": "2"})).await.expect(422);
    admin.merge("/apis/example.com/v1/limits/l", &json!({"max": 2})).await.expect(200);
    tried(&cluster, json!({"a": "1", "b": "2"})).await.expect(201);
    let own = json!({"matchConstraints": {"resourceRules": [rule(&["CREATE", "UPDATE"], "example.com", "limits")]}, "validations": [{"expression": "object.max < 5 && has(oldObject.max)"}]});
    enforce(&cluster, "q", own).await;
    admin.merge("/apis/example.com/v1/limits/l", &json!({"max": 4})).await.expect(200);
    admin.merge("/apis/example.com/v1/limits/l", &json!({"max": 5})).await.expect(422);
}

#[tokio::test]
async fn bindings_refuse_warn_and_audit() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.log");
    let everything = "{kind: Policy, apiVersion: audit.k8s.io/v1, rules: [{level: Metadata}]}";
    let audit = Some(AuditConfig { policy: AuditPolicy::read(everything).unwrap(), path: path.clone() });
    let cluster = Cluster::start_with(Security { audit, ..Security::default() }).await;
    let spec = json!({"validations": [{"expression": "true"}, {"expression": "false", "message": "no"}],
        "auditAnnotations": [{"key": "size", "valueExpression": "string(size(object.data)) + ' entries'"},
            {"key": "nothing", "valueExpression": "null"}, {"key": "empty", "valueExpression": "' '"}]});
    make_policy(&cluster, "p", &spec).await.expect(201);
    bind(&cluster, "p", json!({"validationActions": ["Warn", "Audit"]})).await;
    let made = cluster.admin().post(MAPS, &map("m", json!({"a": "1"}))).await;
    let warning = "299 - \"Validation failed for ValidatingAdmissionPolicy 'p' with binding 'p': no\"";
    assert_eq!((made.code, made.warnings), (201, vec![warning.to_string()]));
    let metrics = cluster.admin().get("/metrics").await.expect(200);
    for action in ["warn", "audit"] {
        let labels = format!(
            "enforcement_action=\"{action}\",error_type=\"no_error\",policy=\"p\",policy_binding=\"p\""
        );
        let counted = format!("apiserver_validating_admission_policy_check_total{{{labels}}} 1\n");
        assert!(metrics.as_str().unwrap().contains(&counted), "{counted}");
    }
    let ended = |resource: &'static str, subresource: &'static str| {
        move |event: &Value| {
            let about = &event["objectRef"];
            event["stage"] == "ResponseComplete"
                && (about["resource"] == resource
                    && about["subresource"].as_str().unwrap_or_default() == subresource)
        }
    };
    let told = event(&path, ended("configmaps", "")).await;
    let failure =
        told["annotations"]["validation.policy.admission.k8s.io/validation_failure"].as_str().unwrap();
    let failure: Value = serde_json::from_str(failure).unwrap();
    assert_eq!(
        failure,
        json!([{"message": "no", "policy": "p", "binding": "p", "expressionIndex": 1, "validationActions": ["Warn", "Audit"]}])
    );
    assert_eq!(told["annotations"]["p/size"], "1 entries");
    assert_eq!((told["annotations"].get("p/nothing"), told["annotations"].get("p/empty")), (None, None));
    // An annotation that is no text is refused, whatever the binding's actions are.
    lift(&cluster, "p").await;
    let broken = json!({"auditAnnotations": [{"key": "k", "valueExpression": "'x' + object.data.none"}]});
    make_policy(&cluster, "p", &broken).await.expect(201);
    bind(&cluster, "p", json!({"validationActions": ["Audit"]})).await;
    tried(&cluster, json!({})).await.expect(422);
    // Streams are told of as well.
    cluster.account("default", "default").await;
    cluster.pod("default", "p", "", json!({})).await;
    let exec = json!({"matchConstraints": {"resourceRules": [rule(&["CONNECT"], "", "pods/exec")]},
        "validations": [{"expression": "false"}], "auditAnnotations": [{"key": "who", "valueExpression": "request.userInfo.username"}]});
    enforce(&cluster, "q", exec).await;
    cluster.admin().post("/api/v1/namespaces/default/pods/p/exec?command=sh", &Value::Null).await.expect(422);
    let told = event(&path, ended("pods", "exec")).await;
    assert_eq!(told["annotations"]["q/who"], "admin");
}

#[tokio::test]
async fn expressions_that_cannot_be_used_are_refused_when_they_are_written() {
    let cluster = Cluster::start().await;
    for (spec, field) in [
        (validation("object.data.a =="), "spec.validations[0].expression"),
        (validation("nothing.a == 1"), "spec.validations[0].expression"),
        // There are no parameters where there is no kind of them, and no variables for conditions.
        (validation("params.a == 1"), "spec.validations[0].expression"),
        (
            json!({"variables": [{"name": "v", "expression": "1"}], "validations": [{"expression": "true"}],
                "matchConditions": [{"name": "c", "expression": "variables.v == 1"}]}),
            "spec.matchConditions[0].expression",
        ),
        (
            json!({"validations": [{"expression": "true"}, {"expression": "true", "messageExpression": "'a' +"}]}),
            "spec.validations[1].messageExpression",
        ),
        (
            json!({"variables": [{"name": "v", "expression": "(1"}], "validations": [{"expression": "true"}]}),
            "spec.variables[0].expression",
        ),
        (
            json!({"auditAnnotations": [{"key": "k", "valueExpression": "1 +"}]}),
            "spec.auditAnnotations[0].valueExpression",
        ),
        // What is known of the request and of variables has types.
        (validation("request.nothing == ''"), "spec.validations[0].expression"),
        (
            json!({"variables": [{"name": "v", "expression": "'a'"}], "validations": [{"expression": "variables.v > 1"}]}),
            "spec.validations[0].expression",
        ),
        (
            json!({"validations": [{"expression": "true", "messageExpression": "authorizer.path('/x').check('get').reason()"}]}),
            "spec.validations[0].messageExpression",
        ),
    ] {
        let answer = make_policy(&cluster, "p", &spec).await.expect(422);
        let cause = &answer["details"]["causes"][0];
        assert_eq!(
            (&cause["field"], &cause["reason"]),
            (&json!(field), &json!("FieldValueInvalid")),
            "{answer}"
        );
        assert!(cause["message"].as_str().unwrap().contains("compilation failed: "), "{cause}");
    }
    for (spec, field, told) in [
        (validation("object.data.a"), "spec.validations[0].expression", "must evaluate to bool but got dyn"),
        (validation("'yes'"), "spec.validations[0].expression", "must evaluate to bool but got string"),
        (
            json!({"validations": [{"expression": "true", "messageExpression": "1"}]}),
            "spec.validations[0].messageExpression",
            "must evaluate to string but got int",
        ),
        (
            json!({"auditAnnotations": [{"key": "k", "valueExpression": "1"}]}),
            "spec.auditAnnotations[0].valueExpression",
            "must evaluate to one of [string null_type] but got int",
        ),
    ] {
        let answer = make_policy(&cluster, "p", &spec).await.expect(422);
        let cause = &answer["details"]["causes"][0];
        assert_eq!(cause["field"], field, "{answer}");
        assert!(cause["message"].as_str().unwrap().ends_with(told), "{cause}");
    }
    // What is stored stays writable.
    let warned = make_policy(&cluster, "p", &validation("true")).await;
    assert_eq!((warned.code, warned.warnings), (201, Vec::new()));
}

#[tokio::test]
async fn expressions_ask_who_may_do_what() {
    let cluster = Cluster::start().await;
    let may = |what: &str, verb: &str| format!("authorizer{what}.check('{verb}').allowed()");
    let maps = ".group('').resource('configmaps').namespace('default')";
    let rules = json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create", "get"]}]);
    cluster.cluster_role("maps", json!({}), rules).await;
    cluster.bind("default", "maps", "user:vera").await;
    cluster.bind("default", "maps", "account:team:robot").await;
    cluster.namespace("team").await;
    for (expression, code) in [
        (may(maps, "get"), 201),
        (may(maps, "delete"), 422),
        (may(&format!("{maps}.name('m').subresource('x')"), "get"), 422),
        (may(".requestResource", "create"), 201),
        (may(".requestResource", "delete"), 422),
        (may(".path('/nothing')", "get"), 422),
        (may(&format!(".serviceAccount('team', 'robot'){maps}"), "get"), 201),
        (may(&format!(".serviceAccount('team', 'stranger'){maps}"), "get"), 422),
        // What the answer to one question leads to is asked as well.
        (format!("{} && !({})", may(maps, "get"), may(maps, "delete")), 201),
        (format!("authorizer{maps}.check('get').reason() != ''"), 201),
    ] {
        enforce(&cluster, "p", validation(&expression)).await;
        let answer =
            cluster.user("vera", &[]).post(&format!("{MAPS}?dryRun=All"), &map("m", json!({}))).await;
        assert_eq!(answer.code, code, "{expression}: {}", answer.body);
        lift(&cluster, "p").await;
    }
    // Rights that are given while a policy is in force count for the next request.
    let spec = json!({"matchConditions": [{"name": "c", "expression": format!("!{}", may(maps, "delete"))}], "validations": [{"expression": "false"}]});
    enforce(&cluster, "p", spec).await;
    let vera = cluster.user("vera", &[]);
    vera.post(&format!("{MAPS}?dryRun=All"), &map("m", json!({}))).await.expect(422);
    cluster.bind("default", "admin", "user:vera").await;
    vera.post(&format!("{MAPS}?dryRun=All"), &map("m", json!({}))).await.expect(201);
}

#[tokio::test]
async fn expressions_end_when_they_cost_too_much() {
    let cluster = Cluster::start().await;
    let data = json!({"long": "v".repeat(900_000)});
    let once = "!object.data.long.contains('z')";
    let often = [once; 12].join(" && ");
    let budget =
        "validation failed due to running out of cost budget, no further validation rules will be run";
    for (expressions, told) in [
        (vec![once; 2], None),
        (vec![&*often], Some("operation cancelled: actual cost limit exceeded")),
        (vec![once; 150], Some(budget)),
    ] {
        let validations: Vec<Value> = expressions.iter().map(|text| json!({"expression": text})).collect();
        for lenient in [false, true] {
            let policy = if lenient { "Ignore" } else { "Fail" };
            enforce(&cluster, "p", json!({"validations": validations, "failurePolicy": policy})).await;
            let answer = tried(&cluster, data.clone()).await;
            match told.filter(|_| !lenient) {
                None => drop(answer.expect(201)),
                Some(told) => {
                    let message = answer.expect(422)["message"].as_str().unwrap().to_string();
                    assert!(message.ends_with(told), "{message}");
                }
            }
            lift(&cluster, "p").await;
        }
    }
}

#[tokio::test]
async fn the_status_tells_what_does_not_go_together() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let deployments = json!({"resourceRules": [{"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["*"], "resources": ["deployments", "daemonsets"]}]});
    let checked = async |spec: Value| {
        let made = make_policy(&cluster, "p", &with(json!({"matchConstraints": deployments}), &spec))
            .await
            .expect(201);
        admin.delete(&format!("{ADMISSION}/validatingadmissionpolicies/p")).await.expect(200);
        assert_eq!(made["status"]["observedGeneration"], 1, "{made}");
        made["status"]["typeChecking"].clone()
    };
    assert_eq!(
        checked(validation(
            "object.metadata.name == 'a' && object.spec.template.spec.containers.all(c, c.image != '')"
        ))
        .await,
        json!({})
    );
    let warned = checked(json!({"validations": [{"expression": "object.spec.replicas > '1'", "messageExpression": "'got ' + object.metadata.generation"}]})).await;
    let warnings = warned["expressionWarnings"].as_array().unwrap();
    let fields: Vec<&str> = warnings.iter().map(|w| w["fieldRef"].as_str().unwrap()).collect();
    assert_eq!(fields, ["spec.validations[0].expression", "spec.validations[0].messageExpression"]);
    for (index, told) in [
        (
            0,
            "apps/v1, Kind=Deployment: compilation failed: ERROR: <input>:1:22: found no matching overload for '_>_' applied to '(int, string)'",
        ),
        (0, "apps/v1, Kind=DaemonSet: compilation failed: ERROR: <input>:1:12: undefined field 'replicas'"),
        (1, "found no matching overload for '_+_' applied to '(string, int)'"),
    ] {
        let warning = warnings[index]["warning"].as_str().unwrap();
        assert!(warning.contains(told), "{warning}");
    }
    // A change of the specification is checked anew.
    make_policy(
        &cluster,
        "p",
        &with(json!({"matchConstraints": deployments}), &validation("object.spec.none == 1")),
    )
    .await
    .expect(201);
    let path = format!("{ADMISSION}/validatingadmissionpolicies/p");
    let changed = admin.merge(&path, &json!({"spec": validation("true")})).await.expect(200);
    assert_eq!(changed["status"], json!({"observedGeneration": 2, "typeChecking": {}}));
}
