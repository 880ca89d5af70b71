//! Label selectors of `GET /v2/apps?label=` (Marathon's `api/v2/LabelSelector.scala`).
//!
//! ```text
//! selector = term { "," term }                      all must hold
//! term     = key                                    the label exists
//!          | key ("==" | "!=") value
//!          | key ("in" | "notin") "(" value { "," value } ")"
//! ```
//! Keys and values are made of `-A-Za-z0-9_.`; any other character follows a backslash. It decides
//! which label sets match, and nothing about apps. As in Marathon, `!=` and `notin` hold only where
//! the label exists. Invariant: reading is total and takes time linear in the text.

use std::collections::{BTreeMap, BTreeSet};

/// Why a text is no selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("label selector '{text}' is not valid at character {at}: expected {expected}")]
pub struct SelectorError {
    /// The whole text.
    text: String,
    /// Where, counted from 0.
    at: usize,
    /// What should be there.
    expected: &'static str,
}

/// A selector. An empty one matches everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelSelector(Vec<Term>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Term {
    key: String,
    test: Test,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    Exists,
    In(BTreeSet<String>),
    NotIn(BTreeSet<String>),
}

impl LabelSelector {
    /// Reads a selector.
    ///
    /// # Errors
    /// When the text does not follow the grammar.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut reader = Reader {
            chars: text.chars().collect(),
            at: 0,
        };
        reader
            .selector()
            .map(Self)
            .map_err(|expected| SelectorError {
                text: text.to_owned(),
                at: reader.at,
                expected,
            })
    }

    /// Whether all terms hold for these labels.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0
            .iter()
            .all(|term| match (labels.get(&term.key), &term.test) {
                (None, _) => false,
                (Some(_), Test::Exists) => true,
                (Some(value), Test::In(values)) => values.contains(value),
                (Some(value), Test::NotIn(values)) => !values.contains(value),
            })
    }
}

struct Reader {
    chars: Vec<char>,
    at: usize,
}

impl Reader {
    fn selector(&mut self) -> Result<Vec<Term>, &'static str> {
        let mut terms = vec![self.term()?];
        while self.take(",") {
            terms.push(self.term()?);
        }
        self.skip_spaces();
        if self.at == self.chars.len() {
            Ok(terms)
        } else {
            Err("',' or the end")
        }
    }

    fn term(&mut self) -> Result<Term, &'static str> {
        let key = self.word("a label name")?;
        let test = if self.take("==") {
            Test::In(BTreeSet::from([self.word("a value")?]))
        } else if self.take("!=") {
            Test::NotIn(BTreeSet::from([self.word("a value")?]))
        } else if self.take("notin") {
            Test::NotIn(self.set()?)
        } else if self.take("in") {
            Test::In(self.set()?)
        } else {
            Test::Exists
        };
        Ok(Term { key, test })
    }

    fn set(&mut self) -> Result<BTreeSet<String>, &'static str> {
        if !self.take("(") {
            return Err("'('");
        }
        let mut values = BTreeSet::from([self.word("a value")?]);
        while self.take(",") {
            values.insert(self.word("a value")?);
        }
        if self.take(")") {
            Ok(values)
        } else {
            Err("',' or ')'")
        }
    }

    fn word(&mut self, expected: &'static str) -> Result<String, &'static str> {
        self.skip_spaces();
        let mut word = String::new();
        while let Some(c) = self.chars.get(self.at).copied() {
            let escaped = self.chars.get(self.at + 1).copied().filter(|_| c == '\\');
            if let Some(escaped) = escaped {
                word.push(escaped);
                self.at += 2;
            } else if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') {
                word.push(c);
                self.at += 1;
            } else {
                break;
            }
        }
        if word.is_empty() {
            Err(expected)
        } else {
            Ok(word)
        }
    }

    /// Takes an operator or a mark if it comes next, after spaces.
    fn take(&mut self, mark: &str) -> bool {
        self.skip_spaces();
        let end = self.at + mark.chars().count();
        let next = self.chars.get(self.at..end);
        let found = next.is_some_and(|next| next.iter().copied().eq(mark.chars()));
        if found {
            self.at = end;
        }
        found
    }

    fn skip_spaces(&mut self) {
        while self.chars.get(self.at).is_some_and(|c| c.is_whitespace()) {
            self.at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_match_labels() {
        let labels = BTreeMap::from([
            ("env".to_owned(), "prod".to_owned()),
            ("tier".to_owned(), "a b".to_owned()),
            ("inside".to_owned(), "1".to_owned()),
        ]);
        for (text, want) in [
            ("env", Some(true)),
            ("other", Some(false)),
            ("env==prod", Some(true)),
            ("env == prod", Some(true)),
            ("env==test", Some(false)),
            ("env!=test", Some(true)),
            ("other!=test", Some(false)),
            ("env in (prod, test)", Some(true)),
            ("env in (test)", Some(false)),
            ("env notin (test)", Some(true)),
            ("env notin (prod)", Some(false)),
            ("inside", Some(true)),
            ("tier==a\\ b", Some(true)),
            ("env==prod, inside", Some(true)),
            ("env==prod, other", Some(false)),
            ("", None),
            ("env=prod", None),
            ("env==", None),
            ("env in prod", None),
            ("env in (prod", None),
            ("env in ()", None),
            ("env,", None),
            ("env)", None),
            ("\\", None),
            ("é", None),
        ] {
            let got = LabelSelector::parse(text)
                .ok()
                .map(|selector| selector.matches(&labels));
            assert_eq!(got, want, "{text:?}");
        }
        let why = LabelSelector::parse("env in prod").unwrap_err().to_string();
        assert_eq!(
            why,
            "label selector 'env in prod' is not valid at character 7: expected '('"
        );
    }
}
