//! `fetch`, and the old `uris`: what is brought into the sandbox before an instance starts.
//!
//! It decides what is a fitting entry; whether a node may fetch it, and from where, only the node
//! knows.

use gantry_wire::marathon::Fetch;
use serde_json::Value;

use super::app::short_text;
use super::bounds::{LIST_MAX, TEXT_MAX_BYTES};
use super::fields::{Fields, Report};

/// Ends of URIs that the old form extracts (Marathon's `state/FetchUri.scala`).
const ARCHIVES: [&str; 6] = [".tgz", ".tar.gz", ".tbz2", ".tar.bz2", ".txz", ".tar.xz"];
const HEX_DIGITS: usize = 64;

pub(super) fn read(f: &mut Fields<'_>, report: &mut Report) -> Vec<Fetch> {
    let (path, old_path) = (f.at("fetch"), f.at("uris"));
    let modern = f.list("fetch", report).unwrap_or_default();
    let old = f.list("uris", report).unwrap_or_default();
    let one_form = modern.is_empty() || old.is_empty();
    report.require(one_form, &old_path, "must not be given together with fetch");
    let few = modern.len().max(old.len()) <= LIST_MAX;
    report.require(few, &path, "has too many entries");
    let modern = modern.iter().enumerate().filter_map(|(i, value)| {
        let mut f = Fields::of(&format!("{path}({i})"), value, report)?;
        entry(&mut f, report).inspect(|_| f.finish(report))
    });
    let mut fetch: Vec<Fetch> = modern.collect();
    for (i, value) in old.iter().enumerate() {
        fetch.extend(uri(&format!("{old_path}({i})"), value, report));
    }
    fetch
}

fn entry(f: &mut Fields<'_>, report: &mut Report) -> Option<Fetch> {
    let uri = short_text(f, "uri", report);
    let uri = f.required("uri", uri, report);
    let sha256 = short_text(f, "sha256", report);
    let digits = sha256
        .as_deref()
        .map(|text| text.strip_prefix("sha256:").unwrap_or(text));
    let is_digest = digits.is_none_or(|digits| {
        digits.len() == HEX_DIGITS && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
    });
    report.require(is_digest, &f.at("sha256"), "must be 64 hexadecimal digits");
    let dest_path = short_text(f, "destPath", report);
    let inside = dest_path.as_deref().is_none_or(|path| {
        !path.starts_with('/') && path.split('/').all(|component| component != "..")
    });
    report.require(
        inside,
        &f.at("destPath"),
        "must be a path inside the sandbox",
    );
    Some(Fetch {
        cache: f.flag("cache", report).unwrap_or(false),
        executable: f.flag("executable", report).unwrap_or(false),
        extract: f.flag("extract", report).unwrap_or(true),
        dest_path,
        sha256,
        uri: uri?,
    })
}

fn uri(path: &str, value: &Value, report: &mut Report) -> Option<Fetch> {
    let Some(uri) = value.as_str() else {
        report.shape(path, "error.expected.jsstring");
        return None;
    };
    let fine = !uri.is_empty() && uri.len() <= TEXT_MAX_BYTES && !uri.contains('\0');
    report.require(fine, path, "must be a URI");
    Some(Fetch {
        cache: false,
        dest_path: None,
        executable: false,
        extract: ARCHIVES.iter().any(|end| uri.ends_with(end)),
        sha256: None,
        uri: uri.to_owned(),
    })
}
