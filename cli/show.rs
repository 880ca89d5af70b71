//! API values as people read them.

use serde_json::Value;

/// A value as text: strings without quotes, nothing for null.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A number without a needless fraction: `32`, `0.5`.
pub(crate) fn amount(value: &Value) -> String {
    match value.as_f64() {
        Some(number) => format!("{}", (number * 1000.0).round() / 1000.0),
        None => text(value),
    }
}

/// MiB in the largest unit that stays above 1: `512 MiB`, `1.5 GiB`.
pub(crate) fn mebibytes(value: &Value) -> String {
    let Some(mib) = value.as_f64() else {
        return text(value);
    };
    for (unit, size) in [("TiB", 1024.0 * 1024.0), ("GiB", 1024.0)] {
        if mib >= size {
            return format!("{} {unit}", (mib / size * 10.0).round() / 10.0);
        }
    }
    format!("{} MiB", mib.round())
}

/// A time of the API without its fraction: `2026-01-02T03:04:05Z`.
pub(crate) fn moment(value: &Value) -> String {
    let text = text(value);
    match text.split_once('.') {
        Some((whole, _)) => format!("{whole}Z"),
        None => text,
    }
}

/// `TASK_RUNNING` as `running`.
pub(crate) fn state(value: &Value) -> String {
    let text = text(value);
    text.strip_prefix("TASK_").unwrap_or(&text).to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_are_short() {
        assert_eq!(amount(&json!(32.0)), "32");
        assert_eq!(amount(&json!(0.1)), "0.1");
        assert_eq!(amount(&json!(0.1 + 0.2)), "0.3");
        assert_eq!(mebibytes(&json!(512.0)), "512 MiB");
        assert_eq!(mebibytes(&json!(1536.0)), "1.5 GiB");
        assert_eq!(mebibytes(&json!(3 << 20)), "3 TiB");
        assert_eq!(
            moment(&json!("2026-01-02T03:04:05.678Z")),
            "2026-01-02T03:04:05Z"
        );
        assert_eq!(state(&json!("TASK_RUNNING")), "running");
        assert_eq!(text(&json!(null)), "");
    }
}
