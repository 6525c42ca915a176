//! Sets of field paths, in the form of `fieldsV1` itself.
//!
//! A set is a tree whose keys are path elements: `f:<field>`, `k:<keys of a list element>`, `v:<value of a set
//! element>`, `i:<index>`. An element without children is a member; one with children is a member if it has the key
//! `.`. Working on the wire form means that nothing is decoded or encoded when managed fields are read and written.

use serde_json::{Map, Value};

/// A set of field paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSet(Map<String, Value>);

const SELF: &str = ".";

fn is_member(node: &Map<String, Value>) -> bool {
    node.is_empty() || node.contains_key(SELF)
}

fn children(node: &Map<String, Value>) -> impl Iterator<Item = (&String, &Map<String, Value>)> {
    node.iter().filter(|(key, _)| *key != SELF).filter_map(|(key, child)| Some((key, child.as_object()?)))
}

/// The node for an element; nothing when neither it nor anything below is a member.
fn node(member: bool, mut children: Map<String, Value>) -> Option<Map<String, Value>> {
    if children.is_empty() {
        return member.then_some(children);
    }
    if member {
        let _absent = children.insert(SELF.to_string(), Value::Object(Map::new()));
    }
    Some(children)
}

impl FieldSet {
    /// Reads the wire form.
    pub fn from_wire(fields: Value) -> Result<Self, String> {
        match fields {
            Value::Object(map) => {
                check(&map)?;
                Ok(Self(map))
            }
            Value::Null => Ok(Self::default()),
            _ => Err("fieldsV1 must be an object".to_string()),
        }
    }

    /// The wire form.
    pub fn into_wire(self) -> Value {
        Value::Object(self.0)
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds an element, as a member or for the sake of what is below it.
    pub(super) fn put(&mut self, element: String, member: bool, below: FieldSet) {
        if let Some(node) = node(member, below.0) {
            let _replaced = self.0.insert(element, Value::Object(node));
        }
    }

    /// Whether the element itself is a member.
    pub(super) fn has(&self, element: &str) -> bool {
        self.0.get(element).and_then(Value::as_object).is_some_and(is_member)
    }

    /// What is below an element, without the element itself.
    pub(super) fn below(&self, element: &str) -> Option<FieldSet> {
        let mut map = self.0.get(element)?.as_object()?.clone();
        let _self = map.remove(SELF);
        (!map.is_empty()).then_some(Self(map))
    }

    /// Every element with whether it is a member and what is below it.
    pub(super) fn elements(&self) -> impl Iterator<Item = (&String, bool, FieldSet)> {
        children(&self.0).map(|(key, node)| {
            let mut below = node.clone();
            let _self = below.remove(SELF);
            (key, is_member(node), Self(below))
        })
    }

    /// Takes an element out, with all below it.
    pub(super) fn remove(&mut self, element: &str) {
        let _gone = self.0.remove(element);
    }

    /// Keeps of an element only what `keep` says of its children.
    pub(super) fn retain_below(&mut self, element: &str, keep: impl Fn(&str) -> bool) {
        let Some(Value::Object(node)) = self.0.get_mut(element) else { return };
        node.retain(|key, _| keep(key));
        if node.is_empty() {
            self.remove(element);
        }
    }

    /// Adds all of the other set.
    pub fn unite(&mut self, other: &FieldSet) {
        unite(&mut self.0, &other.0);
    }

    /// What is in this set but not in the other. What is below a member of the other stays.
    #[must_use]
    pub fn difference(&self, other: &FieldSet) -> FieldSet {
        Self(difference(&self.0, &other.0))
    }

    /// What is in both.
    #[must_use]
    pub fn intersection(&self, other: &FieldSet) -> FieldSet {
        Self(intersection(&self.0, &other.0))
    }

    /// Takes out the whole subtree at a path of field names.
    pub(super) fn remove_subtree(&mut self, path: &[&str]) {
        remove_subtree(&mut self.0, path);
    }

    /// What is at these paths of field names and below.
    pub(super) fn only_subtrees(&self, paths: &[&str]) -> FieldSet {
        let mut kept = FieldSet::default();
        for path in paths {
            let steps: Vec<String> = path.split('.').map(|name| format!("f:{name}")).collect();
            if let Some(found) = at(&self.0, &steps) {
                let mut branch = found.clone();
                for step in steps.iter().rev() {
                    branch = Map::from_iter([(step.clone(), Value::Object(branch))]);
                }
                unite(&mut kept.0, &branch);
            }
        }
        kept
    }

    /// Every member as upstream writes paths: `.spec.containers[name="web"].image`.
    pub fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        collect_paths(&self.0, &mut String::new(), &mut paths);
        paths
    }
}

fn check(node: &Map<String, Value>) -> Result<(), String> {
    for (key, child) in node {
        let known = key == SELF || ["f:", "k:", "v:", "i:"].iter().any(|prefix| key.starts_with(prefix));
        if !known {
            return Err(format!("unknown path element {key:?}"));
        }
        match child {
            Value::Object(child) => check(child)?,
            _ => return Err(format!("{key:?} must hold an object")),
        }
    }
    Ok(())
}

fn unite(into: &mut Map<String, Value>, other: &Map<String, Value>) {
    for (key, theirs) in children(other) {
        match into.get_mut(key) {
            Some(Value::Object(ours)) => {
                let member = is_member(ours) || is_member(theirs);
                unite(ours, theirs);
                if member && !ours.is_empty() {
                    let _present = ours.insert(SELF.to_string(), Value::Object(Map::new()));
                }
            }
            _ => {
                let _absent = into.insert(key.clone(), Value::Object(theirs.clone()));
            }
        }
    }
}

fn difference(ours: &Map<String, Value>, other: &Map<String, Value>) -> Map<String, Value> {
    let mut left = Map::new();
    for (key, mine) in children(ours) {
        let kept = match other.get(key).and_then(Value::as_object) {
            None => Some(mine.clone()),
            Some(theirs) => node(is_member(mine) && !is_member(theirs), difference(mine, theirs)),
        };
        if let Some(kept) = kept {
            let _absent = left.insert(key.clone(), Value::Object(kept));
        }
    }
    left
}

fn intersection(ours: &Map<String, Value>, other: &Map<String, Value>) -> Map<String, Value> {
    let mut both = Map::new();
    for (key, mine) in children(ours) {
        let Some(theirs) = other.get(key).and_then(Value::as_object) else { continue };
        if let Some(kept) = node(is_member(mine) && is_member(theirs), intersection(mine, theirs)) {
            let _absent = both.insert(key.clone(), Value::Object(kept));
        }
    }
    both
}

fn remove_subtree(node: &mut Map<String, Value>, path: &[&str]) {
    let Some((first, rest)) = path.split_first() else { return };
    let key = format!("f:{first}");
    let emptied = match (node.get_mut(&key), rest) {
        (None, _) => return,
        (Some(Value::Object(child)), [_, ..]) if !child.is_empty() => {
            remove_subtree(child, rest);
            child.is_empty()
        }
        (_, rest) => rest.is_empty(),
    };
    if emptied {
        let _gone = node.remove(&key);
    }
}

fn at<'a>(node: &'a Map<String, Value>, steps: &[String]) -> Option<&'a Map<String, Value>> {
    steps.iter().try_fold(node, |node, step| node.get(step)?.as_object())
}

fn collect_paths(node: &Map<String, Value>, prefix: &mut String, paths: &mut Vec<String>) {
    for (key, child) in children(node) {
        let length = prefix.len();
        prefix.push_str(&shown(key));
        if is_member(child) {
            paths.push(prefix.clone());
        }
        collect_paths(child, prefix, paths);
        prefix.truncate(length);
    }
}

/// A path element as upstream shows it.
pub(super) fn shown(element: &str) -> String {
    let (kind, content) = element.split_at_checked(2).unwrap_or((element, ""));
    match kind {
        "f:" => format!(".{content}"),
        "v:" => format!("[={content}]"),
        "k:" => {
            let keys: Map<String, Value> = serde_json::from_str(content).unwrap_or_default();
            let keys: Vec<String> = keys.iter().map(|(name, value)| format!("{name}={value}")).collect();
            format!("[{}]", keys.join(","))
        }
        _ => format!("[{content}]"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn set(fields: Value) -> FieldSet {
        FieldSet::from_wire(fields).unwrap()
    }

    #[test]
    fn set_operations_should_tell_members_from_their_children() {
        let a = set(json!({"f:a": {".": {}, "f:b": {}}, "f:c": {}}));
        let b = set(json!({"f:a": {"f:b": {}, "f:d": {}}}));
        assert_eq!(a.difference(&b), set(json!({"f:a": {}, "f:c": {}})));
        assert_eq!(b.difference(&a), set(json!({"f:a": {"f:d": {}}})));
        assert_eq!(a.intersection(&b), set(json!({"f:a": {"f:b": {}}})));
        let mut both = a.clone();
        both.unite(&b);
        assert_eq!(both, set(json!({"f:a": {".": {}, "f:b": {}, "f:d": {}}, "f:c": {}})));
        let mut leaf = set(json!({"f:a": {}}));
        leaf.unite(&b);
        assert_eq!(leaf, set(json!({"f:a": {".": {}, "f:b": {}, "f:d": {}}})));
        assert!(a.difference(&a).is_empty());
    }

    #[test]
    fn paths_should_read_as_upstream_writes_them() {
        let fields = json!({"f:spec": {"f:list": {"k:{\"name\":\"web\",\"port\":80}": {".": {}, "f:image": {}}},
            "f:set": {"v:\"x\"": {}}, "f:third": {"i:0": {}}}});
        assert_eq!(
            set(fields).paths(),
            [
                ".spec.list[name=\"web\",port=80]",
                ".spec.list[name=\"web\",port=80].image",
                ".spec.set[=\"x\"]",
                ".spec.third[0]"
            ]
        );
        assert!(FieldSet::from_wire(json!({"spec": {}})).is_err());
        assert!(FieldSet::from_wire(json!({"f:spec": 1})).is_err());
    }

    #[test]
    fn subtrees_should_be_cut_and_kept() {
        let whole = set(json!({"f:metadata": {"f:labels": {"f:a": {}}}, "f:status": {".": {}, "f:x": {}}}));
        let mut cut = whole.clone();
        cut.remove_subtree(&["metadata", "labels"]);
        assert_eq!(cut, set(json!({"f:status": {".": {}, "f:x": {}}})));
        assert_eq!(whole.only_subtrees(&["status"]), cut);
    }
}
