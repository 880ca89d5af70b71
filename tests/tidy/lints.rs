//! Every package takes the workspace's lints, and the workspace's lints are at deny.

use crate::tree::{File, Tree, assert_clean};

fn section<'a>(manifest: &'a File, name: &str) -> Vec<&'a str> {
    let header = format!("[{name}]");
    let after = manifest
        .text
        .lines()
        .skip_while(|line| line.trim() != header)
        .skip(1);
    after
        .take_while(|line| !line.starts_with('['))
        .map(str::trim)
        .collect()
}

fn check(tree: &Tree) -> Vec<String> {
    let mut problems = Vec::new();
    for file in tree
        .files
        .iter()
        .filter(|f| f.path.rsplit('/').next() == Some("Cargo.toml"))
    {
        if !section(file, "lints").contains(&"workspace = true") {
            problems.push(format!("{}: no `[lints] workspace = true`", file.path));
        }
        for lints in ["workspace.lints.rust", "workspace.lints.clippy"] {
            for line in section(file, lints) {
                let weak = line.contains("\"warn\"")
                    || (line.contains("\"allow\"") && !line.starts_with("missing_docs"));
                if weak {
                    problems.push(format!("{}: a lint that is not at deny: {line}", file.path));
                }
            }
        }
    }
    problems
}

#[test]
fn every_package_takes_the_lints() {
    let tree = Tree::real();
    assert_clean("lints are the workspace's, at deny", &check(tree));
    let root = tree
        .files
        .iter()
        .find(|f| f.path == "Cargo.toml")
        .expect("the root manifest");
    for lint in [
        "unsafe_code",
        "unwrap_used",
        "too_many_lines",
        "allow_attributes",
    ] {
        let denied = format!("{lint} = \"deny\"");
        assert!(
            root.text.lines().any(|line| line == denied),
            "{lint} is not denied"
        );
    }
}

#[test]
fn missing_lints_are_caught() {
    for manifest in [
        "[package]\nname = \"a\"",
        "[lints]\n[package]\nworkspace = true",
        "[workspace.lints.rust]\nunused = \"warn\"\n[lints]\nworkspace = true",
    ] {
        assert_eq!(
            check(&Tree::sample(&[("a/Cargo.toml", manifest)])).len(),
            1,
            "{manifest}"
        );
    }
    assert!(
        check(&Tree::sample(&[(
            "Cargo.toml",
            "[lints]\nworkspace = true"
        )]))
        .is_empty()
    );
}
