//! What a file that is no archive of images looks like, for the person who took it for one.
//!
//! It decides nothing but words. Invariant: names from a file are quoted and few.

use super::source::Source;

/// Most names that are repeated, and most of each, in characters.
const NAMES: usize = 3;
const NAME_CHARS: usize = 60;
/// Where nothing but a root file system has files.
const ROOTS: [&str; 4] = ["bin/", "etc/", "usr/", "var/"];

/// By its first bytes, for what is no tar archive.
pub(super) fn of_bytes(head: &[u8]) -> &'static str {
    let is_text = |head: &[u8]| {
        let text = std::str::from_utf8(head.get(..256).unwrap_or(head));
        // A letter of several bytes may be cut.
        text.is_ok_and(|text| !text.contains('\0'))
    };
    match head {
        [] => "an empty file",
        [b'P', b'K', 3, 4, ..] => "a zip file",
        [0x7f, b'E', b'L', b'F', ..] => "a program",
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => {
            "compressed with xz, which is not read (unpack it first)"
        }
        [b'B', b'Z', b'h', ..] => "compressed with bzip2, which is not read (unpack it first)",
        [b'h', b's', b'q', b's', ..] => "a squashfs file system",
        [b'!', b'<', b'a', b'r', b'c', b'h', b'>', ..] => "a Debian package or another ar archive",
        [b'{' | b'[', ..] => "a JSON document",
        head if is_text(head) => "text",
        _ => "no tar archive",
    }
}

/// By the names in it, for a tar archive or a directory.
pub(super) fn of_names(source: &Source) -> String {
    let what = match source {
        Source::Directory(_) => "a directory",
        Source::Archive { .. } => "a tar archive",
    };
    let mut names = source.names();
    names.sort();
    let has = |name: &str| names.iter().any(|other| other == name);
    if names.is_empty() {
        return format!("{what} without files");
    }
    if has("manifest.json") && has("version") {
        return format!("{what} as skopeo's dir: writes it (let it write oci: or oci-archive:)");
    }
    let below = |name: &&String| name.ends_with("/oci-layout") || name.ends_with("/manifest.json");
    if let Some(inner) = names.iter().find(below) {
        let quoted: String = inner.chars().take(NAME_CHARS).collect();
        return format!("{what} with {quoted:?} too deep in it (pack what is in the directory)");
    }
    if names
        .iter()
        .any(|name| ROOTS.iter().any(|root| name.starts_with(root)))
    {
        return format!("{what} of a root file system, not of an image");
    }
    let first = names.iter().take(NAMES);
    let first: Vec<String> = first
        .map(|name| format!("{:?}", name.chars().take(NAME_CHARS).collect::<String>()))
        .collect();
    let more = if names.len() > NAMES { ", …" } else { "" };
    format!("{what} of other files ({}{more})", first.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_people_take_for_archives() {
        for (head, word) in [
            (&b""[..], "empty"),
            (b"PK\x03\x04", "zip"),
            (b"\x7fELF\x02", "program"),
            (b"\xfd7zXZ\0\0", "xz"),
            (b"BZh9", "bzip2"),
            (b"{\"a\":1}", "JSON"),
            (b"root:x:0:0\n", "text"),
            (&[0; 600], "no tar archive"),
        ] {
            assert!(of_bytes(head).contains(word), "{word}");
        }
    }
}
