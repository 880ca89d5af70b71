//! What counts and who said so, for `--print-config`.

use serde_json::{Value, json};

use super::{Settings, Source};
use crate::args::Global;
use crate::failure::Failure;
use crate::output;

/// Stands for a secret.
const REDACTED: &str = "(set, not shown)";

impl Settings {
    /// Prints every key with its value and source; `effective` has what a default stands for.
    pub(crate) fn print(
        &self,
        effective: &[(&'static str, String)],
        global: &Global,
    ) -> Result<(), Failure> {
        let rows: Vec<[String; 3]> = self.rows(effective).collect();
        if global.json {
            let object = |[name, value, source]: &[String; 3]| {
                (name.clone(), json!({"value": value, "source": source}))
            };
            let object: serde_json::Map<String, Value> = rows.iter().map(object).collect();
            return output::print_json(&Value::Object(object));
        }
        let rows = rows.into_iter().map(|row| row.to_vec()).collect();
        output::print(&output::table(&["KEY", "VALUE", "SOURCE"], rows))
    }

    pub(super) fn rows(
        &self,
        effective: &[(&'static str, String)],
    ) -> impl Iterator<Item = [String; 3]> {
        self.role.keys.iter().map(move |key| {
            let source = self.source(key);
            let known = effective.iter().find(|(name, _)| *name == key.name);
            let value = match (&source, known) {
                (Source::Default, Some((_, text))) => text.clone(),
                (Source::Default, None) => self.texts(key).join(" "),
                _ if key.secret => REDACTED.to_owned(),
                _ => self.texts(key).join(" "),
            };
            [key.name.to_owned(), value, source.to_string()]
        })
    }
}
