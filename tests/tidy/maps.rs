//! The maps are right: every path that ARCHITECTURE.md and README.md name is there.
//!
//! A path is a word in backticks, or the first word of a line in a fenced block, that begins with
//! a folder of the repository or ends as a file or folder does. Words with `<`, `*`, `$` and the
//! like are patterns, not paths.

use crate::tree::{Tree, assert_clean};

const MAPS: [&str; 2] = ["ARCHITECTURE.md", "README.md"];
/// Ends of names of files that a map would point at.
const FILE_ENDS: [&str; 4] = [".rs", ".toml", ".md", ".lock"];

/// Words of a document that may be paths.
fn candidates(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut fenced = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if fenced {
            let first = line.split_whitespace().next().unwrap_or_default();
            if first.ends_with('/') {
                found.push(first.to_owned());
            }
        } else {
            found.extend(line.split('`').skip(1).step_by(2).map(str::to_owned));
        }
    }
    found
}

fn is_path(tree: &Tree, word: &str) -> bool {
    let pattern = |c: char| !(c.is_ascii_alphanumeric() || "/._-".contains(c));
    if word.is_empty() || word.contains(pattern) || word.starts_with(['/', '-']) {
        return false;
    }
    let first = word.split('/').next().unwrap_or_default();
    let below_a_folder = word.contains('/') && tree.has(first);
    below_a_folder || word.ends_with('/') || FILE_ENDS.iter().any(|end| word.ends_with(end))
}

/// A bare file name counts when any file has it; with a folder the whole path must be right.
fn is_there(tree: &Tree, word: &str) -> bool {
    let below = format!("/{word}");
    let anywhere = !word.contains('/') && tree.files.iter().any(|f| f.path.ends_with(&below));
    anywhere || tree.has(word)
}

fn check(tree: &Tree) -> Vec<String> {
    let mut problems = Vec::new();
    for map in MAPS {
        let Some(file) = tree.files.iter().find(|f| f.path == map) else {
            problems.push(format!("{map} is not there"));
            continue;
        };
        for word in candidates(&file.text) {
            if is_path(tree, &word) && !is_there(tree, &word) {
                problems.push(format!("{map} names {word}, which is not there"));
            }
        }
    }
    problems
}

#[test]
fn maps_are_right() {
    let tree = Tree::real();
    assert_clean("maps name what exists", &check(tree));
    let map = tree
        .files
        .iter()
        .find(|f| f.path == MAPS[0])
        .expect("checked by the rule");
    let paths = candidates(&map.text)
        .into_iter()
        .filter(|word| is_path(tree, word));
    assert!(
        paths.count() > 10,
        "the map of the code names hardly any path"
    );
}

#[test]
fn wrong_maps_are_caught() {
    let with = |map: &str| {
        check(&Tree::sample(&[
            ("ARCHITECTURE.md", map),
            ("README.md", ""),
            ("net/src/a.rs", ""),
        ]))
    };
    for map in [
        "see `net/src/b.rs`",
        "see `net/dst`",
        "`gone/`",
        "```\ngone/   what was there\n```",
        "`b.rs` is gone",
    ] {
        assert_eq!(with(map).len(), 1, "{map}");
    }
    for map in [
        "see `net/src/a.rs`, `a.rs` and `net/`",
        "`/v2/apps` `*/core` `gantry-<tag>` `a || b/`",
        "```\nnet/  links\n$ gone/x\n```",
    ] {
        assert_eq!(with(map), Vec::<String>::new(), "{map}");
    }
    assert_eq!(check(&Tree::sample(&[("README.md", "")])).len(), 1);
}
