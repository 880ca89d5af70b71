//! `gantry image list` and `gantry image inspect`.

use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use serde_json::{Value, json};

use super::target::Target;
use crate::args::Global;
use crate::client::encode;
use crate::failure::Failure;
use crate::output;
use crate::show::text;

/// Flags of `image inspect`.
#[derive(Debug, Args)]
pub(super) struct InspectArgs {
    /// The image.
    image: String,
}

impl InspectArgs {
    pub(super) async fn run(&self, target: &Target) -> Result<(), Failure> {
        let path = target.path(&format!("/inspect?name={}", encode(&self.image)));
        output::print_json(&target.client.get(&path).await?)
    }
}

/// Every image of these nodes.
pub(super) async fn run(targets: &[Target], global: &Global) -> Result<(), Failure> {
    let (mut all, mut rows) = (Vec::new(), Vec::new());
    for target in targets {
        let images = target.client.get(&target.path("")).await?;
        for image in images.as_array().into_iter().flatten() {
            let mut image = image.clone();
            if !target.node.is_empty() {
                image["node"] = json!(target.node);
            }
            rows.push(row(&image, now_s()));
            all.push(image);
        }
    }
    if global.json {
        return output::print_json(&Value::Array(all));
    }
    if rows.is_empty() {
        output::note("no images");
        return Ok(());
    }
    let header = [
        "IMAGE",
        "SIZE",
        "LAYERS",
        "LAST USED",
        "STATE",
        "DIGEST",
        "NODE",
    ];
    output::print(&output::table(&header, rows))
}

fn now_s() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

fn row(image: &Value, now_s: u64) -> Vec<String> {
    let names = image["names"].as_array().into_iter().flatten();
    let mut names: Vec<String> = names.map(text).collect();
    // The name by digest says nothing that the column of digests does not.
    if names.iter().any(|name| !name.contains('@')) {
        names.retain(|name| !name.contains('@'));
    }
    let state = match (image["complete"] == true, image["in_use"] == true) {
        (false, _) => "incomplete".to_owned(),
        (true, true) => "in use".to_owned(),
        (true, false) if image["runs_here"] == false => text(&image["platform"]),
        (true, false) => String::new(),
    };
    let digest = text(&image["digest"]);
    let short: String = digest.chars().skip("sha256:".len()).take(12).collect();
    let used_s = image["last_used_s"].as_u64().unwrap_or_default();
    vec![
        names.join(" "),
        size(image["size_bytes"].as_u64().unwrap_or_default()),
        text(&image["layers"]),
        format!("{} ago", ago(now_s.saturating_sub(used_s))),
        state,
        short,
        text(&image["node"]),
    ]
}

/// Bytes on disk: `3 KB`, `12 MB`, `1.5 GB`.
pub(super) fn size(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{} KB", bytes.div_ceil(1000)),
        1_000_000..1_000_000_000 => format!("{} MB", bytes / 1_000_000),
        _ => format!("{}.{} GB", bytes / 1_000_000_000, bytes / 100_000_000 % 10),
    }
}

fn ago(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_a_short_row() {
        let image = json!({"names": ["r/a:1", "r/a@sha256:00"], "size_bytes": 1_540_000_000_u64,
            "layers": 3, "last_used_s": 1000, "complete": true, "in_use": true, "node": "n",
            "digest": "sha256:0123456789abcdef"});
        let want = [
            "r/a:1",
            "1.5 GB",
            "3",
            "90 s ago",
            "in use",
            "0123456789ab",
            "n",
        ];
        assert_eq!(row(&image, 1090), want);
        let foreign = json!({"names": ["r/a@sha256:00"], "complete": true, "in_use": false,
            "runs_here": false, "platform": "linux/arm64", "digest": "sha256:00"});
        assert_eq!(row(&foreign, 1)[4], "linux/arm64");
        let image = json!({"names": ["r/a@sha256:00"], "size_bytes": 0, "layers": 0,
            "last_used_s": 0, "complete": false, "in_use": false, "digest": "sha256:00"});
        let want = [
            "r/a@sha256:00",
            "0 KB",
            "0",
            "2 days ago",
            "incomplete",
            "00",
            "",
        ];
        assert_eq!(row(&image, 172_800), want);
    }
}
