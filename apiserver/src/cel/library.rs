//! What Kubernetes adds to the language: regular expressions that find, and lists that are looked through.

use std::cmp::Ordering;
use std::sync::Arc;

use cel::extractors::This;
use cel::{Context, DeclarationError, ExecutionError, Value};

type List = Arc<Vec<Value>>;
type Text = Arc<String>;

/// Declares the functions.
pub(super) fn declare(context: &mut Context<'_, '_>) -> Result<(), DeclarationError> {
    context.add_function("find", find)?;
    context.add_function("findAll", find_all)?;
    context.add_function("isSorted", |This(list): This<List>| list.is_sorted())?;
    context.add_function("sum", |This(list): This<List>| sum(&list))?;
    context.add_function("min", |This(list): This<List>| extreme(&list, "min", Ordering::Less))?;
    context.add_function("max", |This(list): This<List>| extreme(&list, "max", Ordering::Greater))?;
    Ok(())
}

fn expression(function: &str, pattern: &str) -> Result<regex::Regex, ExecutionError> {
    regex::RegexBuilder::new(pattern)
        .size_limit(1 << 20)
        .build()
        .map_err(|error| ExecutionError::function_error(function, error))
}

fn find(This(text): This<Text>, pattern: Text) -> Result<Value, ExecutionError> {
    let found = expression("find", &pattern)?.find(&text).map(|found| found.as_str().to_string());
    Ok(Value::String(Arc::new(found.unwrap_or_default())))
}

fn find_all(This(text): This<Text>, pattern: Text) -> Result<Value, ExecutionError> {
    let expression = expression("findAll", &pattern)?;
    let found = expression.find_iter(&text).map(|found| Value::String(Arc::new(found.as_str().to_string())));
    Ok(Value::List(Arc::new(found.collect())))
}

fn sum(list: &[Value]) -> Result<Value, ExecutionError> {
    let start = if list.iter().any(|value| matches!(value, Value::Float(_))) {
        Value::Float(0.0)
    } else {
        Value::Int(0)
    };
    list.iter()
        .try_fold(start, |sum, value| match (sum, value) {
            (Value::Int(sum), Value::Int(value)) => sum.checked_add(*value).map(Value::Int),
            (Value::Float(sum), Value::Float(value)) => Some(Value::Float(sum + value)),
            _ => None,
        })
        .ok_or_else(|| ExecutionError::function_error("sum", "the elements cannot be added"))
}

fn extreme(list: &[Value], function: &str, wanted: Ordering) -> Result<Value, ExecutionError> {
    let better = |best: Value, value: &Value| match value.partial_cmp(&best) {
        Some(order) if order == wanted => value.clone(),
        _ => best,
    };
    let Some((first, rest)) = list.split_first() else {
        return Err(ExecutionError::function_error(function, format!("{function} called on empty list")));
    };
    Ok(rest.iter().fold(first.clone(), better))
}
