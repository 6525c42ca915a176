//! JSON Patch, RFC 6902.

use serde_json::Value;

use super::PatchError;

/// Upstream's limit.
const OPERATIONS_MAX: usize = 10_000;
/// How much all copy operations together may add: what a whole request body may hold.
const COPIED_BYTES_MAX: usize = 3 * 1024 * 1024;
/// How many values all operations together may move within their lists or walk through: without it, a patch that moves
/// the first element of a long list again and again would take minutes.
const STEPS_MAX: usize = 1 << 26;
/// How deep a patch may nest what it adds, from the object's root: what decoding allows for whole bodies. Without it, few
/// operations could make a tree that exhausts the stack of whoever walks it.
const DEPTH_MAX: usize = 100;

/// A parsed patch.
#[derive(Clone, Debug)]
pub struct JsonPatch {
    operations: Vec<Operation>,
}

#[derive(Clone, Debug)]
enum Operation {
    Add(Pointer, Value),
    Remove(Pointer),
    Replace(Pointer, Value),
    Move { from: Pointer, path: Pointer },
    Copy { from: Pointer, path: Pointer },
    Test(Pointer, Value),
}

/// A JSON pointer with its text, for messages.
#[derive(Clone, Debug)]
struct Pointer {
    text: String,
    parts: Vec<String>,
}

impl JsonPatch {
    /// Reads a patch.
    pub fn parse(patch: &Value) -> Result<Self, PatchError> {
        let list = patch.as_array().ok_or_else(|| PatchError::Malformed("a JSON patch is a list".into()))?;
        if list.len() > OPERATIONS_MAX {
            return Err(PatchError::TooManyOperations {
                operations: list.len(),
                operations_max: OPERATIONS_MAX,
            });
        }
        Ok(Self { operations: list.iter().map(Operation::parse).collect::<Result<_, _>>()? })
    }

    /// Applies it. On an error the target is half-changed and has to be dropped.
    pub fn apply(&self, target: &mut Value) -> Result<(), PatchError> {
        self.apply_within(Budget { copied_bytes: COPIED_BYTES_MAX, steps: STEPS_MAX }, target)
    }

    fn apply_within(&self, mut budget: Budget, target: &mut Value) -> Result<(), PatchError> {
        self.operations.iter().try_for_each(|operation| operation.apply(target, &mut budget))
    }
}

/// What a patch has left.
struct Budget {
    copied_bytes: usize,
    steps: usize,
}

impl Budget {
    fn step(&mut self, steps: usize) -> Result<(), PatchError> {
        let left = self.steps.checked_sub(steps);
        self.steps = left.ok_or_else(|| {
            PatchError::Unprocessable(format!("the patch moves more than {STEPS_MAX} values"))
        })?;
        Ok(())
    }

    fn copy(&mut self, value: &Value) -> Result<(), PatchError> {
        let left = self.copied_bytes.checked_sub(value.to_string().len());
        self.copied_bytes = left.ok_or_else(|| {
            PatchError::Unprocessable(format!("copy operations add more than {COPIED_BYTES_MAX} bytes"))
        })?;
        Ok(())
    }

    /// Refuses a value that would nest too deep at a path.
    fn fits_at(&mut self, path: &Pointer, value: &Value) -> Result<(), PatchError> {
        self.fits(value, DEPTH_MAX.saturating_sub(path.parts.len()))
    }

    fn fits(&mut self, value: &Value, levels: usize) -> Result<(), PatchError> {
        self.step(1)?;
        let below = levels.saturating_sub(1);
        match value {
            Value::Object(_) | Value::Array(_) if levels == 0 => {
                Err(PatchError::Unprocessable(format!("the patch nests deeper than {DEPTH_MAX} levels")))
            }
            Value::Object(map) => map.values().try_for_each(|child| self.fits(child, below)),
            Value::Array(list) => list.iter().try_for_each(|child| self.fits(child, below)),
            _ => Ok(()),
        }
    }
}

impl Operation {
    fn parse(source: &Value) -> Result<Self, PatchError> {
        let malformed = |why: &str| PatchError::Malformed(format!("{why}: {source}"));
        let text = |name: &str| source.get(name).and_then(Value::as_str);
        let pointer = |name: &str| {
            let text = text(name).ok_or_else(|| malformed(&format!("operation without {name}")))?;
            Pointer::parse(text).ok_or_else(|| malformed(&format!("{name} is not a JSON pointer")))
        };
        let value = || source.get("value").cloned().ok_or_else(|| malformed("operation without value"));
        Ok(match text("op").ok_or_else(|| malformed("operation without op"))? {
            "add" => Self::Add(pointer("path")?, value()?),
            "remove" => Self::Remove(pointer("path")?),
            "replace" => Self::Replace(pointer("path")?, value()?),
            "move" => Self::Move { from: pointer("from")?, path: pointer("path")? },
            "copy" => Self::Copy { from: pointer("from")?, path: pointer("path")? },
            // A test without a value asks for null.
            "test" => Self::Test(pointer("path")?, source.get("value").cloned().unwrap_or_default()),
            other => return Err(malformed(&format!("unexpected kind: {other}"))),
        })
    }

    fn apply(&self, target: &mut Value, budget: &mut Budget) -> Result<(), PatchError> {
        match self {
            Self::Add(path, value) => add(target, path, value.clone(), "add", budget),
            Self::Remove(path) => remove(target, path, "remove", budget).map(drop),
            Self::Replace(path, value) => {
                budget.fits_at(path, value)?;
                let place = path.find_mut(target).ok_or_else(|| missing("replace", path))?;
                *place = value.clone();
                Ok(())
            }
            Self::Move { from, path } => {
                let value = remove(target, from, "move", budget)?;
                add(target, path, value, "move", budget)
            }
            Self::Copy { from, path } => {
                let value = from.find(target).ok_or_else(|| missing("copy", from))?;
                budget.copy(value)?;
                add(target, path, value.clone(), "copy", budget)
            }
            Self::Test(path, value) => match path.find(target) {
                Some(found) if found == value => Ok(()),
                None if value.is_null() => Ok(()),
                Some(_) => {
                    Err(PatchError::Unprocessable(format!("testing value {} failed: test failed", path.text)))
                }
                None => Err(missing("test", path)),
            },
        }
    }
}

fn missing(operation: &str, path: &Pointer) -> PatchError {
    PatchError::Unprocessable(format!(
        "{operation} operation does not apply: doc is missing path: {:?}: missing value",
        path.text
    ))
}

fn add(
    target: &mut Value,
    path: &Pointer,
    value: Value,
    operation: &str,
    budget: &mut Budget,
) -> Result<(), PatchError> {
    budget.fits_at(path, &value)?;
    let Some((last, parent)) = path.parts.split_last() else {
        *target = value;
        return Ok(());
    };
    match find_mut(target, parent).ok_or_else(|| missing(operation, path))? {
        Value::Object(map) => {
            map.insert(last.clone(), value);
            Ok(())
        }
        Value::Array(list) => {
            let index = if last == "-" { Some(list.len()) } else { index(last) };
            let index = index.filter(|index| *index <= list.len()).ok_or_else(|| {
                let why =
                    format!("{operation} operation does not apply: index of {:?} is invalid", path.text);
                PatchError::Unprocessable(why)
            })?;
            budget.step(list.len() - index)?;
            list.insert(index, value);
            Ok(())
        }
        _ => Err(missing(operation, path)),
    }
}

fn remove(
    target: &mut Value,
    path: &Pointer,
    operation: &str,
    budget: &mut Budget,
) -> Result<Value, PatchError> {
    let Some((last, parent)) = path.parts.split_last() else {
        return Ok(target.take());
    };
    let removed = match find_mut(target, parent) {
        Some(Value::Object(map)) => map.remove(last),
        Some(Value::Array(list)) => {
            let index =
                index(last).filter(|index| *index < list.len()).ok_or_else(|| missing(operation, path))?;
            budget.step(list.len() - index)?;
            Some(list.remove(index))
        }
        _ => None,
    };
    removed.ok_or_else(|| missing(operation, path))
}

fn find_mut<'a>(target: &'a mut Value, parts: &[String]) -> Option<&'a mut Value> {
    parts.iter().try_fold(target, |value, part| match value {
        Value::Object(map) => map.get_mut(part),
        Value::Array(list) => list.get_mut(index(part)?),
        _ => None,
    })
}

/// A list index: digits without leading zeros.
fn index(part: &str) -> Option<usize> {
    let is_plain = part.bytes().all(|b| b.is_ascii_digit()) && (part == "0" || !part.starts_with('0'));
    part.parse().ok().filter(|_| is_plain)
}

impl Pointer {
    fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self { text: String::new(), parts: Vec::new() });
        }
        let parts = text.strip_prefix('/')?.split('/');
        let parts = parts.map(|part| part.replace("~1", "/").replace("~0", "~")).collect();
        Some(Self { text: text.to_string(), parts })
    }

    fn find<'a>(&self, target: &'a Value) -> Option<&'a Value> {
        self.parts.iter().try_fold(target, |value, part| match value {
            Value::Object(map) => map.get(part),
            Value::Array(list) => list.get(index(part)?),
            _ => None,
        })
    }

    fn find_mut<'a>(&self, target: &'a mut Value) -> Option<&'a mut Value> {
        find_mut(target, &self.parts)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn patched(target: Value, patch: Value) -> Result<Value, PatchError> {
        let mut value = target;
        JsonPatch::parse(&patch)?.apply(&mut value)?;
        Ok(value)
    }

    #[test]
    fn every_operation_should_do_what_the_rfc_says() {
        let target = json!({"a": {"b": [1, 2]}, "x/y": 1});
        let patch = json!([
            {"op": "test", "path": "/a/b/0", "value": 1},
            {"op": "add", "path": "/a/b/-", "value": 3},
            {"op": "add", "path": "/a/b/0", "value": 0},
            {"op": "replace", "path": "/x~1y", "value": 2},
            {"op": "copy", "from": "/a/b", "path": "/c"},
            {"op": "move", "from": "/c/0", "path": "/d"},
            {"op": "remove", "path": "/a"},
            {"op": "test", "path": "/gone"},
        ]);
        assert_eq!(patched(target, patch).unwrap(), json!({"x/y": 2, "c": [1, 2, 3], "d": 0}));
    }

    #[test]
    fn patches_that_do_not_fit_should_say_why() {
        let error = patched(json!({}), json!([{"op": "remove", "path": "/a"}])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "remove operation does not apply: doc is missing path: \"/a\": missing value"
        );
        let error = patched(json!({"a": 1}), json!([{"op": "test", "path": "/a", "value": 2}])).unwrap_err();
        assert!(matches!(error, PatchError::Unprocessable(_)));
        let error =
            patched(json!({"a": [1]}), json!([{"op": "add", "path": "/a/5", "value": 2}])).unwrap_err();
        assert!(matches!(error, PatchError::Unprocessable(_)));
        assert!(matches!(patched(json!({}), json!({})), Err(PatchError::Malformed(_))));
        assert!(matches!(
            patched(json!({}), json!([{"op": "grow", "path": "/a"}])),
            Err(PatchError::Malformed(_))
        ));
        let many: Vec<Value> = (0..=OPERATIONS_MAX).map(|_| json!({"op": "remove", "path": "/a"})).collect();
        let error = patched(json!({}), Value::from(many)).unwrap_err();
        assert_eq!(error.to_string(), "The allowed maximum operations in a JSON patch is 10000, got 10001");
    }

    #[test]
    fn patches_should_not_nest_without_end() {
        let deep = |levels: usize| (0..levels).fold(json!({}), |inner, _| json!({"a": inner}));
        let step = |at: usize| json!({"op": "add", "path": "/a".repeat(at), "value": deep(40)});
        assert!(patched(json!({"a": {}}), json!([step(1), step(41)])).is_ok());
        let error = patched(json!({"a": {}}), json!([step(1), step(41), step(81)])).unwrap_err();
        assert_eq!(error.to_string(), "the patch nests deeper than 100 levels");
    }

    #[test]
    fn patches_should_not_move_or_copy_without_end() {
        let moves = |ways: &[(&str, &str)]| -> Value {
            let step = |(from, path)| json!({"op": "move", "from": from, "path": path});
            ways.iter().copied().cycle().take(20).map(step).collect()
        };
        let within = |steps: usize, patch: &Value| {
            let mut value = json!({"list": vec![0; 100], "b": {}});
            let budget = Budget { copied_bytes: 100, steps };
            JsonPatch::parse(patch).unwrap().apply_within(budget, &mut value)
        };
        let turned = moves(&[("/list/0", "/list/-")]);
        assert_eq!(within(2100, &turned), Ok(()));
        assert!(within(2000, &turned).unwrap_err().to_string().contains("moves more than"));
        // Whole lists are walked through, too.
        assert!(within(2000, &moves(&[("/list", "/b/list"), ("/b/list", "/list")])).is_err());
        let doubles: Value =
            (0..8).map(|turn| json!({"op": "copy", "from": "/b", "path": format!("/b/{turn}")})).collect();
        let error = within(2000, &doubles).unwrap_err();
        assert_eq!(error.to_string(), "copy operations add more than 3145728 bytes");
    }
}
