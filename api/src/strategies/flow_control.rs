//! Flow schemas and priority levels: how requests share the server.
//!
//! Deliberately absent: the bound on the entropy of a priority level's hands.

use super::common::name_of;
use crate::{Strategy, at::At, field::Look, names};

const PRECEDENCE_MAX: i64 = 10_000;
const QUEUES_MAX: i64 = 10_000_000;
const EXEMPT: &str = "exempt";
const VERBS: [&str; 9] =
    ["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];
/// The kinds of subjects and the fields that describe them.
const SUBJECTS: [(&str, &str); 3] =
    [("Group", "group"), ("ServiceAccount", "serviceAccount"), ("User", "user")];

/// What is special about flow schemas.
pub struct FlowSchema;

impl Strategy for FlowSchema {
    fn check(&self, object: &At) {
        let spec = object.field("spec");
        let precedence = spec.field("matchingPrecedence");
        precedence.number_within(1.., "must be a positive value");
        precedence.within(..=PRECEDENCE_MAX, &format!("must not be greater than {PRECEDENCE_MAX}"));
        if precedence.number() == 1 && name_of(object) != EXEMPT {
            precedence.invalid("only the schema named 'exempt' may have matchingPrecedence 1");
        }
        spec.optional("distinguisherMethod", |method| {
            let known = ["ByNamespace", "ByUser"];
            if !known.contains(&method.text("type")) {
                method.field("type").not_supported_value(method.value().clone(), &known);
            }
        });
        let level = spec.field("priorityLevelConfiguration.name");
        level.filled("must reference a priority level");
        level.name_or_none(names::dns1123_subdomain);
        spec.each("rules", flow_rule);
    }
}

/// What is special about priority levels.
pub struct PriorityLevelConfiguration;

impl Strategy for PriorityLevelConfiguration {
    fn check(&self, object: &At) {
        let spec = object.field("spec");
        let kind = spec.field("type");
        let (exempt, limited) = (spec.field("exempt"), spec.field("limited"));
        if (name_of(object) == EXEMPT) != (kind.str() == "Exempt") {
            kind.invalid_text("must be 'Exempt' if and only if `name` is 'exempt'");
        }
        match kind.str() {
            "Exempt" => {
                if limited.is_given() {
                    limited.forbidden("must be nil if the type is not Limited");
                }
                spec.optional("exempt", shares);
            }
            "Limited" => {
                if exempt.is_given() {
                    exempt.forbidden("must be nil if the type is Limited");
                }
                if limited.is_given() {
                    limits(&limited);
                } else {
                    limited.required("must not be empty when type is Limited");
                }
            }
            _ => kind.not_supported(&["Exempt", "Limited"]),
        }
    }
}

fn flow_rule(rule: &At) {
    rule.field("subjects").filled("subjects must contain at least one value");
    rule.each("subjects", flow_subject);
    if rule.items("resourceRules").is_empty() && rule.items("nonResourceRules").is_empty() {
        rule.required("at least one of resourceRules and nonResourceRules has to be non-empty");
    }
    rule.each("resourceRules", resource_rule);
    rule.each("nonResourceRules", |rule| {
        verbs(rule);
        let urls = rule.field("nonResourceURLs");
        if some(&urls, "nonResourceURLs must contain at least one value", "non-resource URLs") {
            for url in urls.elements() {
                path_of_no_resource(url.str()).into_iter().for_each(|fault| url.invalid(fault));
            }
        }
    });
}

/// A list that holds something, or `*` and nothing else. Whether its elements are to be looked at.
fn some(list: &At, missing: &str, others: &str) -> bool {
    let items = list.list();
    let everything = items.iter().any(|item| item == "*");
    list.filled(missing);
    if everything && items.len() > 1 {
        list.invalid(format!("if '*' is present, must not specify other {others}"));
    }
    !items.is_empty() && !everything
}

fn verbs(rule: &At) {
    let verbs = rule.field("verbs");
    if some(&verbs, "verbs must contain at least one value", "verbs")
        && !verbs.elements().all(|verb| VERBS.contains(&verb.str()))
    {
        verbs.not_supported_value(verbs.value().clone(), &VERBS);
    }
}

fn resource_rule(rule: &At) {
    verbs(rule);
    some(&rule.field("apiGroups"), "resource rules must supply at least one api group", "api groups");
    some(&rule.field("resources"), "resource rules must supply at least one resource", "resources");
    let namespaces = rule.field("namespaces");
    if rule.flag("clusterScope") && namespaces.is_empty() {
        return;
    }
    let missing = "resource rules that are not cluster scoped must supply at least one namespace";
    if some(&namespaces, missing, "namespaces") {
        for name in namespaces.elements() {
            let faults = names::dns1123_label(name.str()).into_iter();
            let said = |f| format!("each member of this list must be '*' or a DNS-1123 label; {f}");
            name.invalid_each(name.str(), faults.map(said));
        }
    }
}

fn flow_subject(subject: &At) {
    let kind = subject.field("kind");
    let Some((_, expected)) = SUBJECTS.iter().find(|(known, _)| *known == kind.str()) else {
        return kind.not_supported(&SUBJECTS.map(|(kind, _)| kind));
    };
    let described = subject.field(expected);
    if described.is_given() {
        let (name, namespace) = (described.field("name"), described.field("namespace"));
        name.filled("");
        if kind.str() == "ServiceAccount" {
            if name.str() != "*" {
                name.name_or_none(names::dns1123_subdomain);
            }
            namespace.filled("must specify namespace for service account");
            namespace.name_or_none(names::dns1123_label);
        }
    } else {
        described.required(&format!("{expected} is required when subject kind is '{}'", kind.str()));
    }
    for (other, field) in SUBJECTS.iter().rev().filter(|(_, field)| field != expected) {
        subject.optional(field, |described| {
            described.forbidden(&format!("{field} is forbidden when subject kind is not '{other}'"));
        });
    }
}

fn shares(level: &At) {
    level.field("nominalConcurrencyShares").within(0.., "must be a non-negative integer");
    level.field("lendablePercent").within(0..=100, &names::between(0, 100));
}

fn limits(limited: &At) {
    shares(limited);
    let detail = "if specified, must be a non-negative integer";
    limited.field("borrowingLimitPercent").within(0.., detail);
    let kind = limited.field("limitResponse.type");
    let queuing = limited.field("limitResponse.queuing");
    match (kind.str(), queuing.is_given()) {
        ("Reject", true) => queuing.forbidden("must be nil if limited.limitResponse.type is not Limited"),
        ("Queue", false) => {
            queuing.required("must not be empty if limited.limitResponse.type is Limited");
        }
        ("Queue", true) => queues(&queuing),
        _ => kind.among(&["Queue", "Reject"]),
    }
}

fn queues(queuing: &At) {
    let (queues, hand) = (queuing.field("queues"), queuing.field("handSize"));
    for name in ["queueLengthLimit", "queues", "handSize"] {
        queuing.field(name).number_within(1.., "must be positive");
    }
    queues.within(..=QUEUES_MAX, &format!("must not be greater than {QUEUES_MAX}"));
    if hand.number() > 0 && hand.number() > queues.number() {
        hand.invalid(format!("should not be greater than queues ({})", queues.number()));
    }
}

/// What is wrong with a path that names no resource.
fn path_of_no_resource(url: &str) -> Option<&'static str> {
    if url == "/" {
        return None;
    }
    let stars = url.matches('*').count();
    [
        (url.is_empty(), "must not be empty"),
        (!url.starts_with('/'), "must start with slash"),
        (url.contains(' '), "must not contain white-space"),
        (url.contains("//"), "must not contain double slash"),
        (stars > 1 || stars == 1 && !url.ends_with("/*"), "wildcard can only do suffix matching"),
    ]
    .into_iter()
    .find(|(is_wrong, _)| *is_wrong)
    .map(|(_, fault)| fault)
}
