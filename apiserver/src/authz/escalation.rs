//! What somebody would give away without having it. Pure.
//!
//! Wanted rules are broken into their smallest parts (one verb, group, resource and name each): such a part is covered by
//! one held rule as a whole, or not at all.

use super::rbac::Rule;

/// The parts of the wanted rules that no held rule covers, put together again where they differ only by their verb. Empty
/// when everything is held.
pub(super) fn missing_rules(held: &[Rule], wanted: &[Rule]) -> Vec<Rule> {
    let parts = wanted.iter().flat_map(parts_of);
    compact(parts.filter(|part| !held.iter().any(|rule| covers(rule, part))))
}

/// What is missing, written as upstream writes it.
pub(crate) fn missing_rights(held: &[Rule], wanted: &[Rule]) -> Vec<String> {
    let mut lines: Vec<String> = missing_rules(held, wanted).iter().map(describe).collect();
    lines.sort();
    lines.dedup();
    lines
}

fn parts_of(rule: &Rule) -> Vec<Rule> {
    let one = |text: &String| vec![text.clone()];
    let mut parts = Vec::new();
    for verb in &rule.verbs {
        for group in &rule.api_groups {
            for resource in &rule.resources {
                let part = Rule {
                    verbs: one(verb),
                    api_groups: one(group),
                    resources: one(resource),
                    ..Rule::default()
                };
                if rule.resource_names.is_empty() {
                    parts.push(part.clone());
                }
                for name in &rule.resource_names {
                    parts.push(Rule { resource_names: one(name), ..part.clone() });
                }
            }
        }
        for url in &rule.non_resource_urls {
            parts.push(Rule { verbs: one(verb), non_resource_urls: one(url), ..Rule::default() });
        }
    }
    parts
}

/// Whether a rule grants all of a part.
fn covers(rule: &Rule, part: &Rule) -> bool {
    let has = |list: &[String], wanted: &str| list.iter().any(|item| item == "*" || item == wanted);
    let all = |list: &[String], wanted: &[String]| wanted.iter().all(|item| has(list, item));
    let resource = |wanted: &String| {
        let by_subresource = wanted.split_once('/').map(|(_, subresource)| format!("*/{subresource}"));
        has(&rule.resources, wanted) || by_subresource.is_some_and(|any| rule.resources.contains(&any))
    };
    let url = |wanted: &String| {
        rule.non_resource_urls.iter().any(|held| match held.strip_suffix('*') {
            Some(prefix) => wanted.starts_with(prefix),
            None => held == wanted,
        })
    };
    let names = rule.resource_names.is_empty()
        || !part.resource_names.is_empty()
            && part.resource_names.iter().all(|name| rule.resource_names.contains(name));
    all(&rule.verbs, &part.verbs)
        && all(&rule.api_groups, &part.api_groups)
        && part.resources.iter().all(resource)
        && part.non_resource_urls.iter().all(url)
        && names
}

fn compact(parts: impl Iterator<Item = Rule>) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    for part in parts {
        let same = rules.iter_mut().find(|rule| {
            !part.resources.is_empty()
                && rule.api_groups == part.api_groups
                && rule.resources == part.resources
                && rule.resource_names == part.resource_names
        });
        match same {
            Some(rule) => rule.verbs.extend(part.verbs),
            None => rules.push(part),
        }
    }
    rules
}

fn describe(rule: &Rule) -> String {
    let fields = [
        ("APIGroups", &rule.api_groups),
        ("Resources", &rule.resources),
        ("NonResourceURLs", &rule.non_resource_urls),
        ("ResourceNames", &rule.resource_names),
        ("Verbs", &rule.verbs),
    ];
    let fields = fields.iter().filter(|(_, values)| !values.is_empty());
    let fields: Vec<String> = fields.map(|(name, values)| format!("{name}:{}", list(values))).collect();
    format!("{{{}}}", fields.join(", "))
}

/// A list of texts as upstream's messages have them: `["a" "b"]`.
pub(crate) fn list(values: &[String]) -> String {
    let quoted: Vec<String> = values.iter().map(|value| format!("{value:?}")).collect();
    format!("[{}]", quoted.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(verbs: &str, groups: &str, resources: &str, names: &str) -> Rule {
        let list = |text: &str| -> Vec<String> {
            text.split(',').filter(|t| !t.is_empty()).map(|t| t.replace("core", "")).collect()
        };
        Rule {
            verbs: list(verbs),
            api_groups: list(groups),
            resources: list(resources),
            resource_names: list(names),
            ..Rule::default()
        }
    }

    #[test]
    fn nobody_gives_more_than_they_have() {
        let held = [rule("get,list", "core", "pods,*/scale", ""), rule("update", "core", "secrets", "a")];
        assert!(missing_rights(&held, &[rule("get", "core", "pods", "")]).is_empty());
        assert!(missing_rights(&held, &[rule("get", "core", "pods", "x")]).is_empty());
        assert!(missing_rights(&held, &[rule("list", "core", "deployments/scale", "")]).is_empty());
        assert!(missing_rights(&held, &[rule("update", "core", "secrets", "a")]).is_empty());
        assert_eq!(
            missing_rights(&held, &[rule("get,create,delete", "core,apps", "pods", "")]),
            [
                r#"{APIGroups:[""], Resources:["pods"], Verbs:["create" "delete"]}"#,
                r#"{APIGroups:["apps"], Resources:["pods"], Verbs:["get" "create" "delete"]}"#
            ]
        );
        assert_eq!(missing_rights(&held, &[rule("update", "core", "secrets", "")]).len(), 1, "all names");
        assert_eq!(missing_rights(&held, &[rule("get", "core", "*", "")]).len(), 1);
        assert_eq!(missing_rights(&held, &[rule("get", "core", "pods/log", "")]).len(), 1);
    }

    #[test]
    fn paths_are_given_by_those_who_have_their_prefix() {
        let urls = |url: &str| Rule {
            verbs: vec!["get".into()],
            non_resource_urls: vec![url.into()],
            ..Rule::default()
        };
        assert!(missing_rights(&[urls("/apis/*")], &[urls("/apis/apps"), urls("/apis/*")]).is_empty());
        assert_eq!(
            missing_rights(&[urls("/apis/*")], &[urls("*")]),
            [r#"{NonResourceURLs:["*"], Verbs:["get"]}"#]
        );
    }
}
