//! Text to tokens.

use crate::error::Issue;
use crate::value::{Text, Value};

/// A token.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Token {
    /// An operator, a bracket, or a word that is one.
    Sign(&'static str),
    Name(String),
    /// A whole number that may still turn out too large, without its sign: `(digits, base)`.
    Int(String, u32),
    Literal(LiteralToken),
    End,
}

/// A literal that stands for itself.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum LiteralToken {
    Uint(u64),
    Double(f64),
    String(String),
    Bytes(Vec<u8>),
}

impl LiteralToken {
    pub fn value(self) -> Value<'static> {
        match self {
            Self::Uint(number) => Value::Uint(number),
            Self::Double(number) => Value::Double(number),
            Self::String(text) => Value::String(Text::Shared(text.into())),
            Self::Bytes(bytes) => Value::Bytes(bytes.into()),
        }
    }
}

/// A token and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Placed {
    pub token: Token,
    pub at: usize,
    pub end: usize,
}

/// Longest first.
const SIGNS: [&str; 24] = [
    "==", "!=", "<=", ">=", "&&", "||", "<", ">", "[", "]", "{", "}", "(", ")", ".", ",", "-", "!", "?", ":",
    "+", "*", "/", "%",
];

/// All tokens of a text, and last its end.
pub(crate) fn tokens(source: &str) -> Result<Vec<Placed>, Issue> {
    let mut lexer = Lexer { source, at: 0 };
    let mut tokens = Vec::new();
    loop {
        lexer.skip_blank();
        let at = lexer.at;
        let token = lexer.token()?;
        let is_end = token == Token::End;
        tokens.push(Placed { token, at, end: lexer.at });
        if is_end {
            return Ok(tokens);
        }
    }
}

struct Lexer<'s> {
    source: &'s str,
    at: usize,
}

impl<'s> Lexer<'s> {
    fn rest(&self) -> &'s str {
        self.source.get(self.at..).unwrap_or_default()
    }

    fn take_while(&mut self, holds: impl Fn(char) -> bool) -> &'s str {
        let rest = self.rest();
        let length = rest.find(|letter| !holds(letter)).unwrap_or(rest.len());
        self.at += length;
        rest.get(..length).unwrap_or_default()
    }

    fn skip_blank(&mut self) {
        loop {
            self.take_while(|letter| " \t\r\n\u{c}".contains(letter));
            if !self.rest().starts_with("//") {
                return;
            }
            self.take_while(|letter| letter != '\n');
        }
    }

    fn fault<T>(&self, at: usize) -> Result<T, Issue> {
        let text: String =
            self.source.get(at..self.at.max(at + 1)).unwrap_or(self.rest()).chars().take(40).collect();
        Err(Issue { at, message: format!("Syntax error: token recognition error at: '{text}'") })
    }

    fn token(&mut self) -> Result<Token, Issue> {
        let rest = self.rest();
        let Some(first) = rest.chars().next() else { return Ok(Token::End) };
        let second = rest.chars().nth(1).unwrap_or(' ');
        if first.is_ascii_digit() || first == '.' && second.is_ascii_digit() {
            return self.number();
        }
        let quote = rest.bytes().take(3).position(|byte| matches!(byte, b'"' | b'\''));
        let prefix = quote.and_then(|quote| rest.get(..quote)).map(str::to_ascii_lowercase);
        if let Some(prefix @ ("" | "r" | "b" | "br")) = prefix.as_deref() {
            return self.quoted(prefix);
        }
        if first.is_ascii_alphabetic() || first == '_' {
            let name = self.take_while(|letter| letter.is_ascii_alphanumeric() || letter == '_');
            let word = ["in", "true", "false", "null"].into_iter().find(|word| *word == name);
            return Ok(word.map_or_else(|| Token::Name(name.to_string()), Token::Sign));
        }
        let Some(sign) = SIGNS.into_iter().find(|sign| rest.starts_with(sign)) else {
            self.at += first.len_utf8();
            return self.fault(self.at - first.len_utf8());
        };
        self.at += sign.len();
        Ok(Token::Sign(sign))
    }

    fn number(&mut self) -> Result<Token, Issue> {
        let start = self.at;
        let is_hex = self.rest().starts_with("0x");
        self.at += if is_hex { 2 } else { 0 };
        let digits = self
            .take_while(|letter| if is_hex { letter.is_ascii_hexdigit() } else { letter.is_ascii_digit() });
        let base = if is_hex { 16 } else { 10 };
        let mut is_double = false;
        if !is_hex {
            is_double |= self.fraction();
            is_double |= self.exponent();
        }
        let text = self.source.get(start..self.at).unwrap_or_default();
        if is_double {
            let number = text.parse().map_err(|_| bad(start, "invalid double literal"))?;
            return Ok(Token::Literal(LiteralToken::Double(number)));
        }
        if self.rest().starts_with(['u', 'U']) {
            self.at += 1;
            let number = u64::from_str_radix(digits, base).map_err(|_| bad(start, "invalid uint literal"))?;
            return Ok(Token::Literal(LiteralToken::Uint(number)));
        }
        Ok(Token::Int(digits.to_string(), base))
    }

    fn fraction(&mut self) -> bool {
        let mut after = self.rest().chars();
        if after.next() != Some('.') || !after.next().is_some_and(|letter| letter.is_ascii_digit()) {
            return false;
        }
        self.at += 1;
        self.take_while(|letter| letter.is_ascii_digit());
        true
    }

    fn exponent(&mut self) -> bool {
        let before = self.at;
        if !self.rest().starts_with(['e', 'E']) {
            return false;
        }
        self.at += 1;
        self.at += usize::from(self.rest().starts_with(['+', '-']));
        if self.take_while(|letter| letter.is_ascii_digit()).is_empty() {
            self.at = before;
            return false;
        }
        true
    }

    fn quoted(&mut self, prefix: &str) -> Result<Token, Issue> {
        let start = self.at;
        let has = |letter: char| prefix.contains(letter);
        let (is_raw, is_bytes) = (has('r'), has('b'));
        self.at += prefix.len();
        let quote = if self.rest().starts_with('"') { "\"" } else { "'" };
        let is_long = self.rest().starts_with(&quote.repeat(3));
        let close = if is_long { quote.repeat(3) } else { quote.to_string() };
        self.at += close.len();
        let mut content = Content { is_bytes, bytes: Vec::new() };
        while !self.rest().starts_with(&close) {
            let Some(letter) = self.rest().chars().next() else { return self.fault(start) };
            if !is_long && matches!(letter, '\n' | '\r') {
                return self.fault(start);
            }
            self.at += letter.len_utf8();
            if letter == '\\' && !is_raw {
                self.escape(start, &mut content)?;
            } else {
                content.push(letter);
            }
        }
        self.at += close.len();
        match String::from_utf8(content.bytes) {
            Ok(text) if !is_bytes => Ok(Token::Literal(LiteralToken::String(text))),
            Ok(text) => Ok(Token::Literal(LiteralToken::Bytes(text.into_bytes()))),
            Err(bytes) => Ok(Token::Literal(LiteralToken::Bytes(bytes.into_bytes()))),
        }
    }

    fn escape(&mut self, start: usize, content: &mut Content) -> Result<(), Issue> {
        let Some(letter) = self.rest().chars().next() else { return self.fault(start) };
        self.at += letter.len_utf8();
        let (count, base) = match letter {
            'x' | 'X' => (2, 16),
            'u' => (4, 16),
            'U' => (8, 16),
            '0'..='3' => {
                self.at -= 1;
                (3, 8)
            }
            _ => {
                let Some(plain) = plain_escape(letter) else { return self.fault(start) };
                content.push(plain);
                return Ok(());
            }
        };
        let digits =
            self.rest().get(..count).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        let Some(code) = digits.and_then(|digits| u32::from_str_radix(digits, base).ok()) else {
            return self.fault(start);
        };
        self.at += count;
        if content.is_bytes {
            let Ok(byte) = u8::try_from(code) else { return self.fault(start) };
            content.bytes.push(byte);
        } else {
            let Some(letter) = char::from_u32(code) else { return self.fault(start) };
            content.push(letter);
        }
        Ok(())
    }
}

/// What a literal in quotes holds, as far as it has been read.
struct Content {
    is_bytes: bool,
    bytes: Vec<u8>,
}

impl Content {
    fn push(&mut self, letter: char) {
        self.bytes.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
    }
}

/// The letter that one after a backslash stands for, if it does so alone.
pub fn plain_escape(letter: char) -> Option<char> {
    Some(match letter {
        'a' => '\u{7}',
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\u{b}',
        '"' | '\'' | '\\' | '?' | '`' => letter,
        _ => return None,
    })
}

pub(crate) fn bad(at: usize, message: &str) -> Issue {
    Issue { at, message: message.to_string() }
}
