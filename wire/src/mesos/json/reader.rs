//! Reads JSON token by token, out of text that is known to be UTF-8. Nothing is built: strings
//! without escapes are slices of the input.
//!
//! Beyond RFC 8259 it takes the bare tokens `Infinity`, `-Infinity` and `NaN`, which Mesos writes.
//! It never goes deeper than the caller says.

use std::borrow::Cow;

use super::{DecodeError, Syntax};

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token {
    Object,
    Array,
    String,
    Number,
    Bool,
    Null,
}

pub(super) struct Reader<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Reader<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { text, at: 0 }
    }

    pub(super) fn wrong(&self, what: Syntax) -> DecodeError {
        DecodeError::Syntax { at: self.at, what }
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_blanks(&mut self) {
        while matches!(self.byte(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    /// The kind of the next value.
    pub(super) fn peek(&mut self) -> Result<Token, DecodeError> {
        self.skip_blanks();
        Ok(match self.byte() {
            Some(b'{') => Token::Object,
            Some(b'[') => Token::Array,
            Some(b'"') => Token::String,
            Some(b't' | b'f') => Token::Bool,
            Some(b'n') => Token::Null,
            Some(b'-' | b'0'..=b'9' | b'I' | b'N') => Token::Number,
            _ => return Err(self.wrong(Syntax::Value)),
        })
    }

    /// Takes a byte if it comes next.
    pub(super) fn take(&mut self, byte: u8) -> bool {
        self.skip_blanks();
        let found = self.byte() == Some(byte);
        self.at += usize::from(found);
        found
    }

    /// Goes into an object or array; whether something is in it.
    pub(super) fn open(&mut self, close: u8) -> bool {
        self.at += 1;
        !self.take(close)
    }

    /// After an element: whether another one follows.
    pub(super) fn more(&mut self, close: u8) -> Result<bool, DecodeError> {
        if self.take(b',') {
            return Ok(true);
        }
        if self.take(close) {
            return Ok(false);
        }
        Err(self.wrong(Syntax::Separator))
    }

    /// A name in an object, with its colon.
    pub(super) fn key(&mut self) -> Result<Cow<'t, str>, DecodeError> {
        self.skip_blanks();
        if self.byte() != Some(b'"') {
            return Err(self.wrong(Syntax::Name));
        }
        let key = self.string()?;
        if self.take(b':') {
            Ok(key)
        } else {
            Err(self.wrong(Syntax::Colon))
        }
    }

    fn word(&mut self, word: &str) -> bool {
        let found = self.text[self.at..].starts_with(word);
        self.at += if found { word.len() } else { 0 };
        found
    }

    pub(super) fn null(&mut self) -> Result<(), DecodeError> {
        let found = self.word("null");
        found.then_some(()).ok_or_else(|| self.wrong(Syntax::Value))
    }

    pub(super) fn bool(&mut self) -> Result<bool, DecodeError> {
        if self.word("true") {
            return Ok(true);
        }
        let found = self.word("false");
        found
            .then_some(false)
            .ok_or_else(|| self.wrong(Syntax::Value))
    }

    /// The text of a number.
    pub(super) fn number(&mut self) -> Result<&'t str, DecodeError> {
        let start = self.at;
        for word in ["Infinity", "-Infinity", "NaN"] {
            if self.word(word) {
                return Ok(word);
            }
        }
        self.at += usize::from(self.byte() == Some(b'-'));
        let whole = self.digits();
        let mut right = whole;
        if self.byte() == Some(b'.') {
            self.at += 1;
            right &= self.digits();
        }
        if matches!(self.byte(), Some(b'e' | b'E')) {
            self.at += 1;
            self.at += usize::from(matches!(self.byte(), Some(b'+' | b'-')));
            right &= self.digits();
        }
        if right {
            Ok(&self.text[start..self.at])
        } else {
            Err(self.wrong(Syntax::Number))
        }
    }

    fn digits(&mut self) -> bool {
        let start = self.at;
        while matches!(self.byte(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        self.at > start
    }

    /// The content of a string.
    pub(super) fn string(&mut self) -> Result<Cow<'t, str>, DecodeError> {
        self.at += 1;
        let mut start = self.at;
        let mut unescaped = String::new();
        loop {
            match self.byte() {
                Some(b'"') => {
                    let rest = &self.text[start..self.at];
                    self.at += 1;
                    return Ok(if unescaped.is_empty() {
                        Cow::Borrowed(rest)
                    } else {
                        Cow::Owned(unescaped + rest)
                    });
                }
                Some(b'\\') => {
                    unescaped.push_str(&self.text[start..self.at]);
                    unescaped.push(self.escape()?);
                    start = self.at;
                }
                Some(0..=0x1f) | None => return Err(self.wrong(Syntax::String)),
                Some(_) => self.at += 1,
            }
        }
    }

    fn escape(&mut self) -> Result<char, DecodeError> {
        self.at += 1;
        let letter = self.byte().ok_or_else(|| self.wrong(Syntax::String))?;
        self.at += 1;
        Ok(match letter {
            b'"' | b'\\' | b'/' => char::from(letter),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => self.code_point()?,
            _ => return Err(self.wrong(Syntax::String)),
        })
    }

    fn code_point(&mut self) -> Result<char, DecodeError> {
        let first = self.four_digits()?;
        let mut code = first;
        if (0xd800..0xdc00).contains(&first) && self.word("\\u") {
            let second = self.four_digits()?;
            if !(0xdc00..0xe000).contains(&second) {
                return Err(self.wrong(Syntax::String));
            }
            code = 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00);
        }
        char::from_u32(code).ok_or_else(|| self.wrong(Syntax::String))
    }

    fn four_digits(&mut self) -> Result<u32, DecodeError> {
        let digits = self.text.as_bytes().get(self.at..self.at + 4);
        let digits = digits.ok_or_else(|| self.wrong(Syntax::String))?;
        let mut value = 0;
        for digit in digits {
            let digit = char::from(*digit).to_digit(16);
            value = value << 4 | digit.ok_or_else(|| self.wrong(Syntax::String))?;
        }
        self.at += 4;
        Ok(value)
    }

    /// Passes over a value, whatever it is.
    pub(super) fn skip(&mut self, depth: usize) -> Result<(), DecodeError> {
        let depth = depth.checked_sub(1).ok_or(DecodeError::TooDeep)?;
        match self.peek()? {
            Token::String => self.string().map(drop),
            Token::Number => self.number().map(drop),
            Token::Bool => self.bool().map(drop),
            Token::Null => self.null(),
            Token::Array => {
                let mut more = self.open(b']');
                while more {
                    self.skip(depth)?;
                    more = self.more(b']')?;
                }
                Ok(())
            }
            Token::Object => {
                let mut more = self.open(b'}');
                while more {
                    self.key()?;
                    self.skip(depth)?;
                    more = self.more(b'}')?;
                }
                Ok(())
            }
        }
    }

    /// Only blanks may be left.
    pub(super) fn end(&mut self) -> Result<(), DecodeError> {
        self.skip_blanks();
        if self.at == self.text.len() {
            Ok(())
        } else {
            Err(self.wrong(Syntax::Trailing))
        }
    }
}
