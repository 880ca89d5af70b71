//! Errors as lines of a log, in the two forms that programs written for runc read.

use std::io::Write;
use std::path::PathBuf;

use serde_json::json;

use super::clock;

/// Form of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// `time="…" level=error msg="…"`.
    #[default]
    Text,
    /// `{"level":"error","msg":"…","time":"…"}`.
    Json,
}

/// Where errors are told.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// A file; None is stderr.
    pub file: Option<PathBuf>,
    /// Form.
    pub format: LogFormat,
}

impl Log {
    fn line(&self, level: &str, message: &str) -> String {
        let time = clock::now_seconds();
        match self.format {
            LogFormat::Json => json!({"level": level, "msg": message, "time": time}).to_string(),
            LogFormat::Text => format!("time=\"{time}\" level={level} msg={message:?}"),
        }
    }

    /// Tells an error: in the log, and in plain words on stderr when the log is elsewhere.
    pub fn error(&self, message: &str) {
        self.say("error", message);
        if self.file.is_some() {
            // Nobody to tell if stderr is gone.
            let _ = writeln!(std::io::stderr(), "{message}");
        }
    }

    /// Tells something that went wrong but changes nothing.
    pub fn warn(&self, message: &str) {
        self.say("warning", message);
    }

    fn say(&self, level: &str, message: &str) {
        let line = self.line(level, message);
        let Some(path) = &self.file else {
            // Nobody to tell if stderr is gone.
            let _ = writeln!(std::io::stderr(), "{line}");
            return;
        };
        let mut options = std::fs::OpenOptions::new();
        let opened = options.create(true).append(true).open(path);
        if opened
            .and_then(|mut file| writeln!(file, "{line}"))
            .is_err()
        {
            let _ = writeln!(std::io::stderr(), "{line}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_line_in_both_forms() {
        let json = Log {
            file: None,
            format: LogFormat::Json,
        };
        let line = json.line("error", "a \"b\"\nc");
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(
            (&value["level"], &value["msg"]),
            (&"error".into(), &"a \"b\"\nc".into())
        );
        assert!(!line.contains('\n'));
        let text = Log::default().line("error", "a \"b\"\nc");
        assert!(text.ends_with(r#"level=error msg="a \"b\"\nc""#), "{text}");
    }
}
