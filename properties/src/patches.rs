//! Patches: a merge that is made twice is the same as made once, and says what it says; nothing makes trees too deep.

use schema::decode::depth;
use schema::patch::{json::JsonPatch, merge, strategic};
use serde_json::{Value, json};

use crate::trees::{Choices, trees};

const WORDS: &[&str] = &[
    "spec",
    "containers",
    "name",
    "image",
    "ports",
    "containerPort",
    "env",
    "value",
    "metadata",
    "labels",
    "finalizers",
    "tolerations",
    "volumes",
    "emptyDir",
    "$patch",
    "delete",
    "replace",
    "merge",
    "$retainKeys",
    "$setElementOrder/containers",
    "$deleteFromPrimitiveList/finalizers",
    "a",
    "b",
];

/// A pod, a merge patch, a strategic patch and a JSON patch.
pub fn all(data: &[u8]) {
    let [target, merged, strategic_patch, steps] = trees(data, |choices| choices.tree(WORDS, 5));
    merge_patch(&target, &merged);
    strategic_merge_patch(&target, &strategic_patch);
    json_patch(&target, &steps);
    json_patch(&target, &generated_steps(data));
}

fn merge_patch(target: &Value, patch: &Value) {
    let mut once = target.clone();
    merge::apply(patch, &mut once);
    let mut twice = once.clone();
    merge::apply(patch, &mut twice);
    assert_eq!(once, twice, "{patch} on {target}");
    assert!(depth(&once) <= depth(target).max(depth(patch)));
    says(patch, &once);
    let mut same = target.clone();
    merge::apply(&json!({}), &mut same);
    assert!(!target.is_object() || same == *target);
}

/// Whether a result has what a merge patch sets, and has not what it takes away.
fn says(patch: &Value, result: &Value) {
    let Value::Object(fields) = patch else {
        assert_eq!(patch, result);
        return;
    };
    for (name, value) in fields {
        match value {
            Value::Null => assert!(result.get(name).is_none(), "{name} is taken away"),
            value => says(value, &result[name]),
        }
    }
}

fn strategic_merge_patch(target: &Value, patch: &Value) {
    let schema = api::schemas::for_kind("", "v1", "Pod").unwrap();
    let mut once = target.clone();
    if strategic::apply(&schema, patch, &mut once).is_err() {
        return;
    }
    assert!(depth(&once) <= depth(target).max(depth(patch)), "{patch} on {target}");
    let mut twice = once.clone();
    // What a first time was possible may not be so a second time: a key that is gone, for example.
    if strategic::apply(&schema, patch, &mut twice).is_ok() {
        assert_eq!(once, twice, "{patch} on {target}");
    }
    let mut same = target.clone();
    strategic::apply(&schema, &json!({}), &mut same).unwrap();
    assert!(!target.is_object() || same == *target, "an empty patch of {target}");
}

fn json_patch(target: &Value, steps: &Value) {
    let Ok(patch) = JsonPatch::parse(steps) else { return };
    let (mut once, mut again) = (target.clone(), target.clone());
    let done = patch.apply(&mut once);
    assert_eq!(done.is_ok(), patch.apply(&mut again).is_ok());
    if done.is_ok() {
        assert_eq!(once, again, "{steps} on {target}");
        assert!(depth(&once) <= 100.max(depth(target)));
    }
}

/// Steps over paths that are likely to be there.
fn generated_steps(data: &[u8]) -> Value {
    let mut choices = Choices::new(data);
    let path = |choices: &mut Choices<'_>| {
        (0..choices.below(4))
            .map(|_| {
                ["/spec", "/containers", "/0", "/1", "/-", "/name", "/a", "/", "/~0", "/~1", "/01"]
                    [choices.below(11)]
            })
            .collect::<String>()
    };
    (0..8)
        .map(|_| {
            let op = ["add", "remove", "replace", "move", "copy", "test"][choices.below(6)];
            json!({"op": op, "path": path(&mut choices), "from": path(&mut choices), "value": choices.tree(&["a", "b"], 2)})
        })
        .collect()
}
