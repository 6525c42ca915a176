//! Expressions in CEL, bounded in what they may cost.
//!
//! Guarantees: the most that an expression can take, given what it looks at, is known before it is evaluated; evaluation
//! reaches nothing but its variables, and no expression that compiles exhausts the stack.
//! Deliberately absent: static types (a rule that compiles may still meet values that it cannot compare, which is told
//! when it does), and of Kubernetes' own library quantities, addresses, URLs, formats and authorizer.

mod cost;
mod library;
mod values;
mod variables;

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use cel::objects::OptionalValue;
use cel::{Context, Env, Program};
use serde_json::Value;

pub(crate) use values::of_json;

/// `optional.of(value)`, as variables that may be missing are given.
pub(crate) fn some(value: cel::Value) -> cel::Value {
    cel::Value::Opaque(Arc::new(OptionalValue::of(value)))
}

/// `optional.none()`
pub(crate) fn none() -> cel::Value {
    cel::Value::Opaque(Arc::new(OptionalValue::none()))
}

/// The most that one evaluation may cost, as upstream.
pub(crate) const COST_MAX: u64 = 1_000_000;
/// The longest expression.
const BYTES_MAX: usize = 16 * 1024;
/// The most signs in an expression that may nest it.
const SIGNS_MAX: usize = 1000;
/// The deepest that an expression may nest, as upstream.
const DEPTH_MAX: usize = 250;
/// Parsing and evaluation call themselves for every level, with some 20 KB each time without optimisation: they get a
/// stack that no expression within these limits exhausts.
const STACK_BYTES: usize = 64 << 20;

/// A compiled expression.
#[derive(Debug)]
pub(crate) struct Expression {
    program: Program,
    /// The variables that it looks at.
    free: BTreeSet<String>,
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CelError {
    /// The text is no expression. Its author has to change it.
    #[error("compilation failed: {0}")]
    Syntax(String),
    /// A variable that is not offered. Its author has to change it.
    #[error("compilation failed: undeclared reference to '{0}'")]
    Undeclared(String),
    /// The values are not what the expression takes them for.
    #[error("{0}")]
    Failed(String),
}

impl Expression {
    /// Compiles an expression over these variables.
    pub fn compile(source: &str, offered: &[&str]) -> Result<Self, CelError> {
        let program = parsed(source)?;
        let free = variables::free(program.expression());
        match free.iter().find(|name| !is_known(name, offered)) {
            Some(unknown) => Err(CelError::Undeclared(unknown.clone())),
            None => Ok(Self { program, free }),
        }
    }

    /// Whether it looks at a variable.
    pub fn uses(&self, variable: &str) -> bool {
        self.free.contains(variable)
    }

    /// The most that evaluating it costs where its variables hold these trees.
    pub fn cost(&self, variables: &[(&str, &Value)]) -> u64 {
        cost::most(self.program.expression(), variables)
    }

    /// The result for these variables, the cost of which the caller has found to be within limits.
    pub fn evaluate(&self, variables: &[(&str, cel::Value)]) -> Result<cel::Value, CelError> {
        FUNCTIONS.with(|functions| {
            let mut context = functions.new_inner_scope();
            for (name, value) in variables {
                context.add_variable_from_value(*name, value.clone());
            }
            let result = stacker::grow(STACK_BYTES, || self.program.execute(&context));
            result.map_err(|error| CelError::Failed(error.to_string()))
        })
    }
}

/// Parses an expression that nests no deeper than it can be evaluated. The parser calls itself dozens of times for
/// every level, and finds out how deep a text is only by going there.
fn parsed(source: &str) -> Result<Program, CelError> {
    let too_long = || CelError::Syntax("the expression is too long or nested too deeply".to_string());
    let signs = source.bytes().filter(|byte| b"([{?+-*/%!<=.&|".contains(byte)).count();
    if source.len() > BYTES_MAX || signs > SIGNS_MAX {
        return Err(too_long());
    }
    stacker::grow(STACK_BYTES, || match env().compile(source) {
        Ok(program) if variables::depth(program.expression()) > DEPTH_MAX => Err(too_long()),
        Ok(program) => Ok(program),
        Err(errors) => Err(CelError::Syntax(errors.to_string())),
    })
}

/// Whether a name is a variable, or a type, which is one as well.
fn is_known(name: &str, offered: &[&str]) -> bool {
    const TYPES: [&str; 12] = [
        "bool",
        "bytes",
        "double",
        "duration",
        "dyn",
        "int",
        "list",
        "map",
        "null_type",
        "string",
        "type",
        "uint",
    ];
    offered.contains(&name) || TYPES.contains(&name)
}

thread_local! {
    /// What every evaluation on this thread can call.
    static FUNCTIONS: Context<'static, 'static> = {
        let mut context = Context::with_env(env().clone());
        // What is declared is fixed; a test calls each of them.
        if let Err(error) = library::declare(&mut context) {
            tracing::error!(?error, "a function of expressions is left out");
        }
        context
    };
}

fn env() -> &'static Arc<Env> {
    static ENV: OnceLock<Arc<Env>> = OnceLock::new();
    ENV.get_or_init(|| {
        let mut env = Env::stdlib().with_optional_support(true);
        let added = env
            .add_extension(cel::extensions::strings)
            .and_then(|()| env.add_extension(cel::extensions::lists))
            .and_then(|()| env.add_extension(cel::extensions::math));
        if let Err(error) = added {
            tracing::error!(?error, "a library of expressions is left out");
        }
        Arc::new(env)
    })
}

#[cfg(test)]
mod tests {
    use schema::Schema;
    use serde_json::json;

    use super::*;

    fn evaluated(source: &str, this: &Value) -> Result<cel::Value, CelError> {
        let this_value = of_json(Schema::anything(), this);
        Expression::compile(source, &["self"])?.evaluate(&[("self", this_value)])
    }

    fn cost(source: &str, this: &Value) -> u64 {
        Expression::compile(source, &["self"]).unwrap().cost(&[("self", this)])
    }

    #[test]
    fn expressions_should_speak_of_what_they_are_given() {
        let this = json!({"a": 1, "list": ["x", "y"], "map": {"k": 2.5}, "name": "web-1", "none": null});
        for (source, expected) in [
            ("self.a == 1 && self.a < 2", true),
            ("self.a + 1 == 2", true),
            ("has(self.b)", false),
            ("!has(self.b) || self.b > 1", true),
            ("self.list.all(x, x.size() == 1)", true),
            ("self.list.exists(x, x == 'z')", false),
            ("'x' in self.list && size(self.list) == 2", true),
            ("self.map['k'] == 2.5", true),
            ("self.name.startsWith('web') && self.name.matches('^[a-z]+-[0-9]$')", true),
            ("self.name.find('[0-9]') == '1'", true),
            ("self.name.split('-')[0].upperAscii() == 'WEB'", true),
            ("self.list.isSorted()", true),
            ("[1, 3, 2].sum() == 6 && [1, 3, 2].max() == 3 && [1, 3, 2].min() == 1", true),
        ] {
            assert_eq!(evaluated(source, &this).unwrap(), cel::Value::Bool(expected), "{source}");
        }
    }

    #[test]
    fn what_is_wrong_should_be_told() {
        let this = json!({"a": 1, "list": []});
        assert!(matches!(evaluated("self.a ==", &this), Err(CelError::Syntax(_))));
        assert!(
            matches!(evaluated("other.a == 1", &this), Err(CelError::Undeclared(name)) if name == "other")
        );
        assert!(matches!(evaluated("self.b == 1", &this), Err(CelError::Failed(_))));
        assert!(matches!(evaluated("1 / 0 == self.a", &this), Err(CelError::Failed(_))));
    }

    #[test]
    fn long_expressions_should_not_exhaust_the_stack() {
        let nested =
            |count: usize, open: &str, close: &str| format!("{}1{}", open.repeat(count), close.repeat(count));
        for count in [DEPTH_MAX - 10, SIGNS_MAX] {
            for source in [
                format!("1{}", "+1".repeat(count)),
                format!("self{}", ".a".repeat(count)),
                format!("true{}", "&&true".repeat(count / 2)),
                nested(count, "(", ")"),
                nested(count, "[", "]"),
                nested(count, "-", ""),
                nested(count, "{1:", "}"),
            ] {
                // The stack of a worker thread.
                let evaluate = move || evaluated(&source, &json!({})).map(drop);
                let thread = std::thread::Builder::new().stack_size(2 << 20).spawn(evaluate).unwrap();
                let _any_answer = thread.join().unwrap();
            }
        }
        assert!(matches!(evaluated(&"(".repeat(5000), &json!({})), Err(CelError::Syntax(_))));
    }

    #[test]
    fn costs_should_be_those_of_what_is_looked_at() {
        let numbers: Vec<u32> = (0..200).collect();
        let this =
            json!({"many": numbers, "few": [1, 2, 3], "text": "x".repeat(100_000), "names": ["a", "b"]});
        let nested = |list: &str| {
            format!("self.{list}.all(a, self.{list}.all(b, self.{list}.all(c, a + b + c >= 0)))")
        };
        assert!(cost(&nested("many"), &this) > COST_MAX);
        assert!(cost(&nested("few"), &this) < 1_000);
        assert!(
            cost("self.names.all(n, n.startsWith('a') || n == 'b' || n.matches('^[a-z]$'))", &this) < 200
        );
        assert!(cost("self.text.matches('^x+$')", &this) > 9_000);
        assert!(cost("self.many.map(m, self.many).all(l, l.all(m, m >= 0))", &this) > 200 * 200);
    }
}
