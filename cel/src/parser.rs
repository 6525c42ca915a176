//! Tokens to expressions, by precedence.
//!
//! Guarantees: no text makes it call itself deeper than the limit on nesting, and no tree that it makes is deeper.
//! Deliberately absent: messages that are constructed by a type's name, of which Kubernetes has none here.

use crate::ast::{DEPTH_MAX, Entry, Expr, Kind};
use crate::error::{Issue, Issues};
use crate::lexer::{self, Placed, Token, bad};
use crate::macros;
use crate::value::{Text, Value};

/// The most characters of an expression, as upstream.
const LENGTH_MAX: usize = 100_000;
/// Names that nothing can have.
pub(crate) const RESERVED: [&str; 19] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "false",
    "for",
    "function",
    "if",
    "import",
    "in",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];
/// What an expression can begin with, as upstream lists it.
const BEGINNINGS: &str = "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}";

/// Operators between two expressions: how tightly they bind, the sign, and the function that it calls.
const OPERATORS: [(usize, &str, &str); 14] = [
    (0, "||", "_||_"),
    (1, "&&", "_&&_"),
    (2, "<", "_<_"),
    (2, "<=", "_<=_"),
    (2, ">=", "_>=_"),
    (2, ">", "_>_"),
    (2, "==", "_==_"),
    (2, "!=", "_!=_"),
    (2, "in", "@in"),
    (3, "+", "_+_"),
    (3, "-", "_-_"),
    (4, "*", "_*_"),
    (4, "/", "_/_"),
    (4, "%", "_%_"),
];
/// Operators that bind no tighter than this take many terms at once.
const GATHERS_MAX: usize = 1;

/// Reads an expression.
pub(crate) fn parse(source: &str) -> Result<Expr, Issues> {
    let length = source.chars().count();
    if length > LENGTH_MAX {
        let message = format!("expression code point size exceeds limit: size: {length}, limit {LENGTH_MAX}");
        return Err(Issues::new("", vec![Issue { at: 0, message }]));
    }
    let parsed = lexer::tokens(source).and_then(|tokens| {
        let mut parser = Parser { source, tokens, next: 0, depth: 0 };
        let expr = parser.expr()?;
        if parser.peek() == &Token::End { Ok(expr) } else { parser.unexpected("<EOF>") }
    });
    parsed.map_err(|issue| Issues::new(source, vec![issue]))
}

type Parsed<T = Expr> = Result<T, Issue>;

struct Parser<'s> {
    source: &'s str,
    tokens: Vec<Placed>,
    next: usize,
    depth: usize,
}

impl Parser<'_> {
    fn peek(&self) -> &Token {
        self.tokens.get(self.next).map_or(&Token::End, |placed| &placed.token)
    }

    fn at(&self) -> usize {
        self.tokens.get(self.next).map_or(self.source.len(), |placed| placed.at)
    }

    /// Takes a sign if it comes next; where it stands.
    fn take(&mut self, sign: &str) -> Option<usize> {
        let at = self.at();
        let is_next = matches!(self.peek(), Token::Sign(next) if *next == sign);
        self.next += usize::from(is_next);
        is_next.then_some(at)
    }

    fn expect(&mut self, sign: &str) -> Parsed<usize> {
        match self.take(sign) {
            Some(at) => Ok(at),
            None => self.unexpected(&format!("'{sign}'")),
        }
    }

    fn unexpected<T>(&self, expected: &str) -> Parsed<T> {
        let found = self.tokens.get(self.next).and_then(|placed| self.source.get(placed.at..placed.end));
        let found = found.filter(|text| !text.is_empty()).unwrap_or("<EOF>");
        let message = format!("Syntax error: mismatched input '{found}' expecting {expected}");
        Err(Issue { at: self.at(), message })
    }

    /// An expression that nests no deeper than is allowed.
    fn within_limits(&self, expr: Expr) -> Parsed {
        if expr.depth > DEPTH_MAX { Err(too_deep(expr.at)) } else { Ok(expr) }
    }

    fn expr(&mut self) -> Parsed {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(too_deep(self.at()));
        }
        let condition = self.binary(0)?;
        let expr = match self.take("?") {
            None => condition,
            Some(at) => {
                let yes = self.binary(0)?;
                self.expect(":")?;
                let no = self.expr()?;
                self.within_limits(Expr::call(at, "_?_:_", vec![condition, yes, no]))?
            }
        };
        self.depth -= 1;
        Ok(expr)
    }

    /// What comes next if it is an operator.
    fn operator(&self) -> Option<(usize, &'static str)> {
        let Token::Sign(next) = self.peek() else { return None };
        OPERATORS.iter().find(|(_, sign, _)| sign == next).map(|(level, _, function)| (*level, *function))
    }

    /// An expression of operators that bind at least so tightly.
    fn binary(&mut self, level_min: usize) -> Parsed {
        let mut left = self.unary()?;
        while let Some((level, function)) = self.operator().filter(|(level, _)| *level >= level_min) {
            let (mut terms, mut places) = (vec![left], Vec::new());
            loop {
                places.push(self.at());
                self.next += 1;
                terms.push(self.binary(level + 1)?);
                if level > GATHERS_MAX || self.operator() != Some((level, function)) {
                    break;
                }
            }
            let joined = balanced(function, &mut terms.into_iter(), &places);
            left = self.within_limits(joined.unwrap_or_else(|| Expr::ident(0, "")))?;
        }
        Ok(left)
    }

    fn unary(&mut self) -> Parsed {
        let (at, start) = (self.at(), self.next);
        for (sign, function) in [("!", "!_"), ("-", "-_")] {
            let mut count = 0;
            while self.take(sign).is_some() {
                count += 1;
            }
            // A minus directly before a number belongs to it.
            let is_number =
                matches!(self.peek(), Token::Int(..) | Token::Literal(lexer::LiteralToken::Double(_)));
            if sign == "-" && count == 1 && is_number {
                self.next = start;
                return self.member();
            }
            if count > 0 {
                let operand = self.member()?;
                let is_even = count % 2 == 0;
                return if is_even {
                    Ok(operand)
                } else {
                    self.within_limits(Expr::call(at, function, vec![operand]))
                };
            }
        }
        self.member()
    }

    fn member(&mut self) -> Parsed {
        let mut expr = self.primary()?;
        loop {
            expr = if let Some(at) = self.take(".") {
                let is_optional = self.take("?").is_some();
                let name_at = self.at();
                let name = self.field_name()?;
                match self.take("(") {
                    Some(open) if !is_optional => {
                        let args = self.list(")", Self::expr)?;
                        macros::member(open, &name, expr, args)?
                    }
                    Some(_) => return self.unexpected("<EOF>"),
                    None if is_optional => {
                        let name = Expr::literal(name_at, Value::String(Text::Shared(name.into())));
                        Expr::call(at, "_?._", vec![expr, name])
                    }
                    None => {
                        let operand = Box::new(expr);
                        Expr::new(at, Kind::Select { operand, field: name.into(), test: false })
                    }
                }
            } else if let Some(at) = self.take("[") {
                let function = if self.take("?").is_some() { "_[?_]" } else { "_[_]" };
                let index = self.expr()?;
                self.expect("]")?;
                Expr::call(at, function, vec![expr, index])
            } else {
                return Ok(expr);
            };
            expr = self.within_limits(expr)?;
        }
    }

    fn field_name(&mut self) -> Parsed<String> {
        let Token::Name(name) = self.peek().clone() else { return self.unexpected("IDENTIFIER") };
        self.next += 1;
        Ok(name)
    }

    fn primary(&mut self) -> Parsed {
        let at = self.at();
        let negative = self.take("-").is_some();
        let token = self.peek().clone();
        self.next += 1;
        match token {
            Token::Int(digits, base) => {
                let number = i128::from_str_radix(&digits, base)
                    .ok()
                    .map(|number| if negative { -number } else { number });
                let number = number.and_then(|number| i64::try_from(number).ok());
                number
                    .map(|number| Expr::literal(at, Value::Int(number)))
                    .ok_or_else(|| bad(at, "invalid int literal"))
            }
            Token::Literal(lexer::LiteralToken::Double(number)) if negative => {
                Ok(Expr::literal(at, Value::Double(-number)))
            }
            Token::Literal(literal) => Ok(Expr::literal(at, literal.value())),
            Token::Sign("true") => Ok(Expr::literal(at, Value::Bool(true))),
            Token::Sign("false") => Ok(Expr::literal(at, Value::Bool(false))),
            Token::Sign("null") => Ok(Expr::literal(at, Value::Null)),
            Token::Sign("(") => {
                let inner = self.expr()?;
                self.expect(")").map(|_| inner)
            }
            Token::Sign("[") => {
                let entries = self.list("]", |parser| {
                    let optional = parser.take("?").is_some();
                    Ok(Entry { value: parser.expr()?, optional })
                })?;
                self.within_limits(Expr::new(at, Kind::List(entries)))
            }
            Token::Sign("{") => {
                let entries = self.list("}", |parser| {
                    let optional = parser.take("?").is_some();
                    let key = parser.expr()?;
                    parser.expect(":")?;
                    Ok((key, Entry { value: parser.expr()?, optional }))
                })?;
                self.within_limits(Expr::new(at, Kind::Map(entries)))
            }
            // A dot before a name means the outermost one, which all names here are.
            Token::Sign(".") if matches!(self.peek(), Token::Name(_)) => self.primary(),
            Token::Name(name) if RESERVED.contains(&name.as_str()) => {
                Err(bad(at, &format!("reserved identifier: {name}")))
            }
            Token::Name(name) => match self.take("(") {
                Some(open) => {
                    let args = self.list(")", Self::expr)?;
                    let call = macros::global(open, &name, args)?;
                    self.within_limits(call)
                }
                None => Ok(Expr::ident(at, &name)),
            },
            _ => {
                self.next -= 1;
                self.unexpected(BEGINNINGS)
            }
        }
    }

    /// What commas part, until a bracket closes; after the last of a literal's there may be one more.
    fn list<T>(&mut self, close: &str, item: impl Fn(&mut Self) -> Parsed<T>) -> Parsed<Vec<T>> {
        let mut items = Vec::new();
        while self.take(close).is_none() {
            if !items.is_empty() {
                self.expect(",")?;
                if close != ")" && self.take(close).is_some() {
                    break;
                }
            }
            items.push(item(self)?);
        }
        Ok(items)
    }
}

/// Terms as a tree that is as flat as it can be: a hundred of them are not a hundred levels.
fn balanced(function: &str, terms: &mut dyn Iterator<Item = Expr>, places: &[usize]) -> Option<Expr> {
    if places.is_empty() {
        return terms.next();
    }
    let (left, rest) = places.split_at(places.len().div_ceil(2) - usize::from(places.len() % 2 == 1));
    let (at, right) = rest.split_first()?;
    let one = balanced(function, terms, left)?;
    let other = balanced(function, terms, right)?;
    Some(Expr::call(*at, function, vec![one, other]))
}

fn too_deep(at: usize) -> Issue {
    bad(at, &format!("expression recursion limit exceeded: {DEPTH_MAX}"))
}
