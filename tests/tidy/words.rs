//! Every file begins by saying what it is for.

use crate::tree::{Tree, assert_clean};

/// Shortest first line that says anything, in characters.
const MIN_CHARS: usize = 12;

fn check(tree: &Tree) -> Vec<String> {
    let mut problems = Vec::new();
    for file in tree.files.iter().filter(|f| f.path.ends_with(".rs")) {
        let first = file.text.lines().next().unwrap_or_default();
        let words = first.strip_prefix("//!").map_or("", str::trim);
        if words.chars().count() < MIN_CHARS {
            problems.push(format!(
                "{}: begins with {first:?}, not with `//!` words",
                file.path
            ));
        }
    }
    problems
}

#[test]
fn files_begin_with_words() {
    assert_clean(
        "every file says first what it decides and what it does not",
        &check(Tree::real()),
    );
}

#[test]
fn silent_files_are_caught() {
    for code in [
        "fn f() {}",
        "",
        "// comment that is not documentation",
        "//! x",
        "\n//! Late words.",
    ] {
        assert_eq!(check(&Tree::sample(&[("a.rs", code)])).len(), 1, "{code:?}");
    }
    assert!(check(&Tree::sample(&[("a.rs", "//! Says what it is for.")])).is_empty());
}
