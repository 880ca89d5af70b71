//! Who may import whom, from `cargo metadata`. Nobody imports upwards.

use std::sync::OnceLock;

use cargo_metadata::{DependencyKind, MetadataCommand, Package};

use crate::tree::assert_clean;

/// A package of ours and those of ours it may import.
const ALLOWED: [(&str, &[&str]); 14] = [
    (
        "gantry",
        &[
            "gantry-agent",
            "gantry-coordinator",
            "gantry-isolation",
            "gantry-link",
            "gantry-wire",
        ],
    ),
    (
        "gantry-agent",
        &[
            "gantry-agent-core",
            "gantry-fetch",
            "gantry-image",
            "gantry-isolation",
            "gantry-link",
            "gantry-net",
            "gantry-wire",
        ],
    ),
    ("gantry-agent-core", &["gantry-wire"]),
    ("gantry-fetch", &["gantry-intake"]),
    (
        "gantry-coordinator",
        &["gantry-coordinator-core", "gantry-link", "gantry-wire"],
    ),
    ("gantry-coordinator-core", &["gantry-wire"]),
    ("gantry-isolation", &[]),
    ("gantry-image", &["gantry-intake"]),
    ("gantry-intake", &[]),
    ("gantry-link", &[]),
    ("gantry-net", &[]),
    ("gantry-wire", &[]),
    (
        "gantry-bench",
        &[
            "gantry-agent",
            "gantry-image",
            "gantry-isolation",
            "gantry-net",
            "gantry-wire",
        ],
    ),
    ("gantry-tests", &[]),
];
/// What `wire` may import of others: it holds data, and moves none.
const WIRE: [&str; 6] = [
    "jiff",
    "prost",
    "serde",
    "serde_json",
    "serde_path_to_error",
    "thiserror",
];

/// The packages of the workspace.
pub(crate) fn packages() -> &'static [Package] {
    static PACKAGES: OnceLock<Vec<Package>> = OnceLock::new();
    PACKAGES.get_or_init(|| {
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
        let metadata = MetadataCommand::new()
            .manifest_path(manifest)
            .no_deps()
            .other_options(vec!["--offline".to_owned()])
            .exec();
        metadata.expect("cargo describes the workspace").packages
    })
}

/// An import: who, whom, whether for tests only.
type Edge = (String, String, bool);

fn edges() -> Vec<Edge> {
    let of = |p: &'static Package| {
        let dependencies = p.dependencies.iter();
        dependencies.map(|d| {
            (
                p.name.to_string(),
                d.name.clone(),
                d.kind == DependencyKind::Development,
            )
        })
    };
    packages().iter().flat_map(of).collect()
}

fn check(edges: &[Edge]) -> Vec<String> {
    let mut problems = Vec::new();
    for (who, whom, for_tests) in edges {
        let Some((_, allowed)) = ALLOWED.iter().find(|(name, _)| name == who) else {
            problems.push(format!(
                "{who} has no place in the house: add it to this rule"
            ));
            continue;
        };
        let ours = whom.starts_with("gantry");
        if ours && !allowed.contains(&whom.as_str()) {
            problems.push(format!("{who} must not import {whom}"));
        }
        if who == "gantry-wire" && !for_tests && !WIRE.contains(&whom.as_str()) {
            problems.push(format!(
                "gantry-wire holds data only and must not import {whom}"
            ));
        }
        if whom == "anyhow" && !["gantry", "gantry-tests", "gantry-bench"].contains(&who.as_str()) {
            problems.push(format!(
                "{who} has an error enum of its own and must not import anyhow"
            ));
        }
    }
    problems
}

#[test]
fn nobody_imports_upwards() {
    let edges = edges();
    assert_clean("imports are those of DESIGN", &check(&edges));
    assert!(
        edges
            .iter()
            .any(|(who, whom, _)| who == "gantry" && whom == "gantry-agent")
    );
    for (name, _) in ALLOWED {
        assert!(
            packages().iter().any(|p| p.name.as_str() == name),
            "no package {name}"
        );
    }
}

#[test]
fn upward_imports_are_caught() {
    for (who, whom, for_tests) in [
        ("gantry", "gantry-net", false),
        ("gantry-agent", "gantry-coordinator", false),
        ("gantry-agent", "gantry-coordinator", true),
        ("gantry-isolation", "gantry-wire", false),
        ("gantry-net", "gantry-isolation", true),
        ("gantry-agent-core", "gantry-isolation", false),
        ("gantry-wire", "tokio", false),
        ("gantry-agent", "anyhow", false),
        ("gantry-new", "serde", false),
    ] {
        let edge = (who.to_owned(), whom.to_owned(), for_tests);
        assert_eq!(check(&[edge]).len(), 1, "{who} → {whom}");
    }
    assert!(check(&[("gantry-agent".into(), "gantry-net".into(), false)]).is_empty());
}
