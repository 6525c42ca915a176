//! Calls that are another way to write something else.

use std::sync::Arc;

use crate::ast::{ACCUMULATOR, Entry, Expr, Fold, Kind, OptMap};
use crate::error::Issue;
use crate::lexer::bad;
use crate::value::Value;

type Expanded = Result<Expr, Issue>;

/// A call of a function that is not a member.
pub(crate) fn global(at: usize, name: &str, mut args: Vec<Expr>) -> Expanded {
    if name != "has" || args.len() != 1 {
        return Ok(Expr::call(at, name, args));
    }
    match args.pop().map(|arg| (arg.at, arg.kind)) {
        Some((_, Kind::Select { operand, field, test: false })) => {
            Ok(Expr::new(at, Kind::Select { operand, field, test: true }))
        }
        other => Err(bad(other.map_or(at, |(at, _)| at), "invalid argument to has() macro")),
    }
}

/// A call on something.
pub(crate) fn member(at: usize, name: &str, target: Expr, mut args: Vec<Expr>) -> Expanded {
    let vars = match (name, args.len()) {
        ("all" | "exists" | "exists_one" | "existsOne" | "filter" | "sortBy", 2) | ("map", 2 | 3) => 1,
        (
            "all" | "exists" | "exists_one" | "existsOne" | "transformList" | "transformMap"
            | "transformMapEntry",
            3,
        )
        | ("transformList" | "transformMap" | "transformMapEntry", 4) => 2,
        ("optMap" | "optFlatMap", 2) => return optional(at, name == "optFlatMap", target, args),
        _ => {
            args.insert(0, target);
            return Ok(Expr::member(at, name, args));
        }
    };
    let rest = args.split_off(vars);
    let mut names = args.iter().map(|arg| variable(name, arg)).collect::<Result<Vec<_>, _>>()?.into_iter();
    let (Some(var), second) = (names.next(), names.next()) else {
        return Err(bad(at, "a variable is missing"));
    };
    if let (Some(second), Some(arg)) = (&second, args.get(1))
        && *second == var
    {
        return Err(bad(arg.at, &format!("duplicate variable name: {var}")));
    }
    let mut rest = rest.into_iter();
    let (Some(first), last) = (rest.next(), rest.next()) else {
        return Err(bad(at, "an argument is missing"));
    };
    let loops = Loop { at, target, var, second };
    Ok(match name {
        "all" => {
            let condition = Expr::call(at, "@not_strictly_false", vec![Expr::accumulator(at)]);
            let step = Expr::call(at, "_&&_", vec![Expr::accumulator(at), first]);
            loops.over(Expr::literal(at, Value::Bool(true)), condition, step, Expr::accumulator(at))
        }
        "exists" => {
            let none_yet = Expr::call(at, "!_", vec![Expr::accumulator(at)]);
            let condition = Expr::call(at, "@not_strictly_false", vec![none_yet]);
            let step = Expr::call(at, "_||_", vec![Expr::accumulator(at), first]);
            loops.over(Expr::literal(at, Value::Bool(false)), condition, step, Expr::accumulator(at))
        }
        "exists_one" | "existsOne" => {
            let one = || Expr::literal(at, Value::Int(1));
            let more = Expr::call(at, "_+_", vec![Expr::accumulator(at), one()]);
            let step = Expr::call(at, "_?_:_", vec![first, more, Expr::accumulator(at)]);
            let result = Expr::call(at, "_==_", vec![Expr::accumulator(at), one()]);
            loops.over(Expr::literal(at, Value::Int(0)), Expr::literal(at, Value::Bool(true)), step, result)
        }
        "filter" => {
            let element = Expr::ident(at, &loops.var);
            loops.gathered(Some(first), element)
        }
        "sortBy" => return Ok(sorted_by(loops, first)),
        "map" | "transformList" => match last {
            Some(transform) => loops.gathered(Some(first), transform),
            None => loops.gathered(None, first),
        },
        _ => {
            let (filter, transform) = match last {
                Some(transform) => (Some(first), transform),
                None => (None, first),
            };
            let mut args = vec![Expr::accumulator(at)];
            args.extend((name == "transformMap").then(|| Expr::ident(at, &loops.var)));
            args.push(transform);
            let step = filtered(at, filter, Expr::call(at, "cel.@mapInsert", args));
            let condition = Expr::literal(at, Value::Bool(true));
            loops.over(Expr::new(at, Kind::Map(Vec::new())), condition, step, Expr::accumulator(at))
        }
    })
}

/// A macro over a list or map.
struct Loop {
    at: usize,
    target: Expr,
    var: Arc<str>,
    second: Option<Arc<str>>,
}

impl Loop {
    fn over(self, init: Expr, condition: Expr, step: Expr, result: Expr) -> Expr {
        let Self { at, target: range, var, second } = self;
        let fold = Fold { range, var, second, init, condition, step, result, accu: ACCUMULATOR };
        Expr::new(at, Kind::Fold(Box::new(fold)))
    }

    /// A list of what the elements become.
    fn gathered(self, filter: Option<Expr>, transform: Expr) -> Expr {
        let at = self.at;
        let one = Expr::new(at, Kind::List(vec![Entry { value: transform, optional: false }]));
        let step = filtered(at, filter, Expr::call(at, "_+_", vec![Expr::accumulator(at), one]));
        let condition = Expr::literal(at, Value::Bool(true));
        self.over(Expr::new(at, Kind::List(Vec::new())), condition, step, Expr::accumulator(at))
    }
}

fn filtered(at: usize, filter: Option<Expr>, step: Expr) -> Expr {
    match filter {
        Some(filter) => Expr::call(at, "_?_:_", vec![filter, step, Expr::accumulator(at)]),
        None => step,
    }
}

/// The list is bound to a name, so that it is there twice without being computed twice.
fn sorted_by(loops: Loop, key: Expr) -> Expr {
    const INPUT: &str = "@__sortBy_input__";
    let Loop { at, target, var, second } = loops;
    let keys = Loop { at, target: Expr::ident(at, INPUT), var, second }.gathered(None, key);
    let result = Expr::member(at, "@sortByAssociatedKeys", vec![Expr::ident(at, INPUT), keys]);
    let fold = Fold {
        range: Expr::new(at, Kind::List(Vec::new())),
        var: "#unused".into(),
        second: None,
        init: target,
        condition: Expr::literal(at, Value::Bool(false)),
        step: Expr::ident(at, INPUT),
        result,
        accu: INPUT,
    };
    Expr::new(at, Kind::Fold(Box::new(fold)))
}

fn optional(at: usize, flat: bool, target: Expr, mut args: Vec<Expr>) -> Expanded {
    let (Some(body), Some(name)) = (args.pop(), args.pop()) else {
        return Err(bad(at, "an argument is missing"));
    };
    let Kind::Ident(var) = name.kind else {
        let function = if flat { "optFlatMap" } else { "optMap" };
        return Err(bad(name.at, &format!("{function}() variable name must be a simple identifier")));
    };
    Ok(Expr::new(at, Kind::OptMap(Box::new(OptMap { target, var, body, flat }))))
}

fn variable(name: &str, arg: &Expr) -> Result<Arc<str>, Issue> {
    match &arg.kind {
        Kind::Ident(var) if &**var == "__result__" => {
            Err(bad(arg.at, "iteration variable overwrites accumulator variable"))
        }
        Kind::Ident(var) => Ok(var.clone()),
        _ if matches!(name, "map" | "filter") => Err(bad(arg.at, "argument is not an identifier")),
        _ => Err(bad(arg.at, "argument must be a simple name")),
    }
}
