//! Values as flags and endpoints write them: `4`, `0.5`, `[31000-32000, 33000-33000]`, `{a, b}`, and
//! text, by the rules of Mesos's `src/common/values.cpp`: blanks mean nothing, ranges are joined and
//! sorted, a scalar has three decimals.

use super::v1::Value;
use super::v1::value::{Range, Ranges, Scalar, Set, Text, Type};

/// Why some text is no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// Nothing there.
    #[error("a value must not be empty")]
    Empty,
    /// Brackets that do not match, or something around them.
    #[error("brackets that do not match")]
    Brackets,
    /// Not `begin-end`.
    #[error("a range is written begin-end")]
    Range,
    /// Not a number, negative, or larger than Mesos can hold.
    #[error("not an amount")]
    Amount,
}

/// Largest scalar: thousandths of it are exact in a double.
const SCALAR_MAX: f64 = 1e12;

/// A scalar in thousandths, as Mesos rounds it. `None` when it is negative, not a number, or too
/// large to be exact.
#[must_use]
pub fn thousandths(value: f64) -> Option<u64> {
    (0.0..=SCALAR_MAX)
        .contains(&value)
        .then(|| (value * 1000.0).round() as u64)
}

/// The scalar of some thousandths.
#[must_use]
pub fn scalar(thousandths: u64) -> f64 {
    thousandths as f64 / 1000.0
}

/// Reads a value; what looks like nothing else is text. Errors: see [`ValueError`].
pub fn parse(text: &str) -> Result<Value, ValueError> {
    let text: String = text.chars().filter(|c| *c != ' ').collect();
    let mut value = Value::default();
    match text.as_bytes().first() {
        None => return Err(ValueError::Empty),
        Some(b'[') => {
            value.set_type(Type::Ranges);
            value.ranges = Some(ranges(&text)?);
        }
        Some(b'{') => {
            value.set_type(Type::Set);
            value.set = Some(set(&text)?);
        }
        Some(_) if text.contains(['[', ']', '{', '}']) => return Err(ValueError::Brackets),
        Some(_) => match text.parse::<f64>() {
            Ok(number) => {
                let fixed = thousandths(number).ok_or(ValueError::Amount)?;
                value.set_type(Type::Scalar);
                value.scalar = Some(Scalar {
                    value: scalar(fixed),
                });
            }
            Err(_) => {
                value.set_type(Type::Text);
                value.text = Some(Text { value: text });
            }
        },
    }
    Ok(value)
}

fn inside(text: &str, open: char, close: char) -> Result<&str, ValueError> {
    let inner = text.strip_prefix(open).and_then(|t| t.strip_suffix(close));
    inner
        .filter(|inner| !inner.contains(['[', ']', '{', '}']))
        .ok_or(ValueError::Brackets)
}

fn ranges(text: &str) -> Result<Ranges, ValueError> {
    let parts = inside(text, '[', ']')?.split(',').filter(|p| !p.is_empty());
    let mut range: Vec<Range> = parts
        .map(|part| {
            let (begin, end) = part.split_once('-').ok_or(ValueError::Range)?;
            let number = |text: &str| text.parse::<u64>().map_err(|_| ValueError::Range);
            let (begin, end) = (number(begin)?, number(end)?);
            if begin > end {
                return Err(ValueError::Range);
            }
            Ok(Range { begin, end })
        })
        .collect::<Result<_, _>>()?;
    coalesce(&mut range);
    Ok(Ranges { range })
}

/// Sorts ranges and joins those that overlap or touch; those that are reversed go.
pub fn coalesce(ranges: &mut Vec<Range>) {
    ranges.retain(|range| range.begin <= range.end);
    ranges.sort_unstable_by_key(|range| range.begin);
    ranges.dedup_by(|next, last| {
        let joins = next.begin <= last.end.saturating_add(1);
        if joins {
            last.end = last.end.max(next.end);
        }
        joins
    });
}

fn set(text: &str) -> Result<Set, ValueError> {
    let items = inside(text, '{', '}')?.split(',').filter(|i| !i.is_empty());
    Ok(Set {
        item: items.map(str::to_owned).collect(),
    })
}

/// A scalar as Mesos prints it: at most three decimals, no zeros behind them.
#[must_use]
pub fn print_scalar(value: f64) -> String {
    match thousandths(value) {
        Some(fixed) => scalar(fixed).to_string(),
        None => value.to_string(),
    }
}

/// Ranges as Mesos prints them: `[1-2, 5-5]`.
#[must_use]
pub fn print_ranges(ranges: &[Range]) -> String {
    let one = |range: &Range| format!("{}-{}", range.begin, range.end);
    let all: Vec<String> = ranges.iter().map(one).collect();
    format!("[{}]", all.join(", "))
}

/// A set as Mesos prints it: `{a, b}`.
#[must_use]
pub fn print_set(items: &[String]) -> String {
    format!("{{{}}}", items.join(", "))
}

/// A value as Mesos prints it.
#[must_use]
pub fn print(value: &Value) -> String {
    match value.r#type() {
        Type::Scalar => print_scalar(value.scalar.as_ref().map_or(0.0, |s| s.value)),
        Type::Ranges => print_ranges(value.ranges.as_ref().map_or(&[], |r| &r.range)),
        Type::Set => print_set(value.set.as_ref().map_or(&[], |s| &s.item)),
        Type::Text => value.text.as_ref().map_or("", |t| &t.value).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_and_printed() {
        for (text, want) in [
            ("4", Ok("4")),
            ("0.1", Ok("0.1")),
            (" 1.2345 ", Ok("1.235")),
            ("1e3", Ok("1000")),
            ("[31000-32000]", Ok("[31000-32000]")),
            ("[5-6, 1-2 ,3-3]", Ok("[1-3, 5-6]")),
            ("[10-20,15-30]", Ok("[10-30]")),
            (
                "[0-18446744073709551615,7-9]",
                Ok("[0-18446744073709551615]"),
            ),
            ("[]", Ok("[]")),
            ("{a, b}", Ok("{a, b}")),
            ("{}", Ok("{}")),
            ("r1", Ok("r1")),
            ("a:b/c", Ok("a:b/c")),
            ("", Err(ValueError::Empty)),
            ("  ", Err(ValueError::Empty)),
            ("[1-2", Err(ValueError::Brackets)),
            ("[1-2]x", Err(ValueError::Brackets)),
            ("x[1-2]", Err(ValueError::Brackets)),
            ("[[1-2]]", Err(ValueError::Brackets)),
            ("{a", Err(ValueError::Brackets)),
            ("[1]", Err(ValueError::Range)),
            ("[2-1]", Err(ValueError::Range)),
            ("[1--2]", Err(ValueError::Range)),
            ("[1-99999999999999999999]", Err(ValueError::Range)),
            ("-1", Err(ValueError::Amount)),
            ("inf", Err(ValueError::Amount)),
            ("NaN", Err(ValueError::Amount)),
            ("1e13", Err(ValueError::Amount)),
        ] {
            let found = parse(text).map(|value| print(&value));
            assert_eq!(found, want.map(str::to_owned), "{text}");
        }
    }
}
