//! The answer to a pull or an import: lines of JSON, shown as a moving bar until the last one.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};
use reqwest::Response;
use serde_json::Value;

use crate::failure::{Exit, Failure};
use crate::output::{escape, escape_lines};
use crate::trouble;

/// Longest line of an answer, in bytes: an image has at most 128 layers.
const LINE_MAX_BYTES: usize = 1 << 20;

/// Follows an answer to its end; gives what was done.
pub(super) async fn follow(mut response: Response) -> Result<Value, Failure> {
    let bar = Bar::new();
    let mut rest: Vec<u8> = Vec::new();
    while let Some(bytes) = response.chunk().await.map_err(|_| broken())? {
        rest.extend_from_slice(&bytes);
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            let line: Value = serde_json::from_slice(&line).map_err(|_| broken())?;
            if line["done"].is_object() {
                return Ok(line["done"].clone());
            }
            if let Some(message) = line["error"]["message"].as_str() {
                return Err(trouble::failure(&line["error"], escape_lines(message)));
            }
            bar.show(&line["progress"]);
        }
        if rest.len() > LINE_MAX_BYTES {
            return Err(broken());
        }
    }
    Err(broken())
}

/// The node died, or was stopped.
pub(super) fn broken() -> Failure {
    let failure = Failure::new(
        Exit::Failed,
        "the node's answer broke off before it was done",
    );
    failure.hint("is it still running? its log says more (`gantry node list`)")
}

/// A bar on stderr if somebody looks at it.
pub(super) struct Bar(Option<ProgressBar>);

impl Bar {
    pub(super) fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(0);
            let style = "{spinner} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {wide_msg}";
            if let Ok(style) = ProgressStyle::with_template(style) {
                bar.set_style(style.progress_chars("=> "));
            }
            bar
        });
        Self(bar)
    }

    /// For something of which only the size so far is known.
    pub(super) fn bytes(&self, done: u64, message: &str) {
        if let Some(bar) = &self.0 {
            bar.set_position(done);
            bar.set_message(escape(message));
        }
    }

    pub(super) fn total(&self, total: u64) {
        if let Some(bar) = &self.0 {
            bar.set_length(total);
        }
    }

    fn show(&self, progress: &Value) {
        let Some(bar) = &self.0 else { return };
        let layers = progress["layers"].as_array();
        let layers = layers.map(Vec::as_slice).unwrap_or_default();
        let sum = |field: &str| {
            layers
                .iter()
                .filter_map(|layer| layer[field].as_u64())
                .sum()
        };
        let is_here = |layer: &&Value| matches!(layer["state"].as_str(), Some("present" | "done"));
        bar.set_length(sum("total_bytes"));
        bar.set_position(sum("done_bytes"));
        let here = layers.iter().filter(is_here).count();
        let image = progress["image"].as_str().unwrap_or_default();
        bar.set_message(escape(&format!(
            "{here}/{} layers of {image}",
            layers.len()
        )));
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
