//! The text form of label selectors.

use super::{Operator, Requirement, SelectorError};
use crate::{field::quoted, names};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    ClosedParenthesis,
    Comma,
    DoesNotExist,
    DoubleEquals,
    End,
    Equals,
    GreaterThan,
    Identifier,
    In,
    LessThan,
    NotEquals,
    NotIn,
    OpenParenthesis,
}

/// Whether `in` and `notin` are operators here, or words like any other.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Context {
    Operator,
    Value,
}

struct Parser<'a> {
    tokens: Vec<(Token, &'a str)>,
    next: usize,
}

/// Reads a selector; its requirements come out sorted by key.
pub(super) fn parse(text: &str) -> Result<Vec<Requirement>, SelectorError> {
    let mut parser = Parser { tokens: tokens(text), next: 0 };
    let mut requirements = parser.requirements().map_err(SelectorError)?;
    requirements.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(requirements)
}

fn tokens(text: &str) -> Vec<(Token, &str)> {
    let is_symbol = |c: char| "=!(),><".contains(c);
    let is_space = |c: char| " \t\r\n".contains(c);
    let mut tokens = Vec::new();
    let mut rest = text.trim_start_matches(is_space);
    while let Some(first) = rest.chars().next() {
        let length = if is_symbol(first) {
            if rest.starts_with("==") || rest.starts_with("!=") { 2 } else { 1 }
        } else {
            rest.find(|c| is_symbol(c) || is_space(c)).unwrap_or(rest.len())
        };
        let (literal, after) = rest.split_at(length);
        let token = match literal {
            ")" => Token::ClosedParenthesis,
            "," => Token::Comma,
            "!" => Token::DoesNotExist,
            "==" => Token::DoubleEquals,
            "=" => Token::Equals,
            ">" => Token::GreaterThan,
            "in" => Token::In,
            "<" => Token::LessThan,
            "!=" => Token::NotEquals,
            "notin" => Token::NotIn,
            "(" => Token::OpenParenthesis,
            _ => Token::Identifier,
        };
        tokens.push((token, literal));
        rest = after.trim_start_matches(is_space);
    }
    tokens
}

impl<'a> Parser<'a> {
    fn look(&self, context: Context) -> (Token, &'a str) {
        match self.tokens.get(self.next).copied().unwrap_or((Token::End, "")) {
            (Token::In | Token::NotIn, word) if context == Context::Value => (Token::Identifier, word),
            other => other,
        }
    }

    fn take(&mut self, context: Context) -> (Token, &'a str) {
        let token = self.look(context);
        self.next += 1;
        token
    }

    fn requirements(&mut self) -> Result<Vec<Requirement>, String> {
        let mut requirements = Vec::new();
        loop {
            match self.look(Context::Value) {
                (Token::End, _) => return Ok(requirements),
                (Token::Identifier | Token::DoesNotExist, _) => {
                    let requirement =
                        self.requirement().map_err(|why| format!("unable to parse requirement: {why}"))?;
                    requirements.push(requirement);
                }
                (_, found) => {
                    return Err(format!("found '{found}', expected: !, identifier, or 'end of string'"));
                }
            }
            match self.take(Context::Value) {
                (Token::End, _) => return Ok(requirements),
                (Token::Comma, _) => {
                    let (token, found) = self.look(Context::Value);
                    if !matches!(token, Token::Identifier | Token::DoesNotExist) {
                        return Err(format!("found '{found}', expected: identifier after ','"));
                    }
                }
                (_, found) => return Err(format!("found '{found}', expected: ',' or 'end of string'")),
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let (mut token, mut key) = self.take(Context::Value);
        let negated = token == Token::DoesNotExist;
        if negated {
            (token, key) = self.take(Context::Value);
        }
        if token != Token::Identifier {
            return Err(format!("found '{key}', expected: identifier"));
        }
        let faults = names::qualified_name(key);
        if !faults.is_empty() {
            // Upstream has no path at this point and says so.
            return Err(format!("<nil>: Invalid value: {}: {}", quoted(key), faults.join("; ")));
        }
        let operator = match self.look(Context::Value).0 {
            _ if negated => Operator::DoesNotExist,
            Token::End | Token::Comma => Operator::Exists,
            _ => self.operator()?,
        };
        let values = match operator {
            Operator::Exists | Operator::DoesNotExist => Vec::new(),
            Operator::In | Operator::NotIn => self.list()?,
            _ => vec![self.single()?],
        };
        Requirement::new(key, operator, values).map_err(|why| why.to_string())
    }

    fn operator(&mut self) -> Result<Operator, String> {
        match self.take(Context::Operator) {
            (Token::In, _) => Ok(Operator::In),
            (Token::NotIn, _) => Ok(Operator::NotIn),
            (Token::Equals | Token::DoubleEquals, _) => Ok(Operator::Equals),
            (Token::NotEquals, _) => Ok(Operator::NotEquals),
            (Token::GreaterThan, _) => Ok(Operator::GreaterThan),
            (Token::LessThan, _) => Ok(Operator::LessThan),
            (_, found) => Err(format!("found '{found}', expected: in, notin, =, ==, !=, gt, lt")),
        }
    }

    fn single(&mut self) -> Result<String, String> {
        if matches!(self.look(Context::Value).0, Token::End | Token::Comma) {
            return Ok(String::new());
        }
        match self.take(Context::Value) {
            (Token::Identifier, word) => Ok(word.to_string()),
            (_, found) => Err(format!("found '{found}', expected: identifier")),
        }
    }

    fn list(&mut self) -> Result<Vec<String>, String> {
        let (token, found) = self.take(Context::Value);
        if token != Token::OpenParenthesis {
            return Err(format!("found '{found}' expected: '('"));
        }
        match self.look(Context::Value) {
            (Token::ClosedParenthesis, _) => {
                self.next += 1;
                Ok(Vec::new())
            }
            (Token::Identifier | Token::Comma, _) => self.words(),
            (_, found) => Err(format!("found '{found}', expected: ',', ')' or identifier")),
        }
    }

    /// Words with commas between; an empty word stands before, between and after commas.
    fn words(&mut self) -> Result<Vec<String>, String> {
        let mut words = Vec::new();
        loop {
            let word = match self.look(Context::Value) {
                (Token::Identifier, word) => {
                    self.next += 1;
                    word
                }
                (Token::Comma | Token::ClosedParenthesis, _) => "",
                (_, found) => return Err(format!("found '{found}', expected: ',', or identifier")),
            };
            words.push(word.to_string());
            match self.take(Context::Value) {
                (Token::Comma, _) => {}
                (Token::ClosedParenthesis, _) => return Ok(words),
                (_, found) => return Err(format!("found '{found}', expected: ',' or ')'")),
            }
        }
    }
}
