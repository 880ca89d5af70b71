//! Files and functions stay small enough to be read.
//!
//! A file has at most 500 lines outside its tests, 800 with an excuse; a test file 800. A function
//! has at most 70 lines of code in its body (blank lines and comments do not count, as for
//! clippy's `too_many_lines`); one that is mainly a flat `match`, or a test, which may be one
//! table, 120.

use syn::visit::{self, Visit};
use syn::{Block, Expr, Stmt};

use crate::code::{attributes, is_test_only, lines};
use crate::excuses::LONG_FILES;
use crate::tree::{File, Tree, assert_clean};

const FILE_MAX_LINES: usize = 500;
const EXCUSED_MAX_LINES: usize = 800;
const FUNCTION_MAX_LINES: usize = 70;
const FLAT_MAX_LINES: usize = 120;
/// Longest arm of a flat match, in lines.
const ARM_MAX_LINES: usize = 12;

/// Lines of a file without its test modules.
fn own_lines(file: &File, code: &syn::File) -> usize {
    let tests = code
        .items
        .iter()
        .filter(|item| is_test_only(attributes(item)));
    let test_lines: usize = tests.map(lines).map(|(a, b)| b - a + 1).sum();
    file.text.lines().count() - test_lines
}

fn check_files(tree: &Tree, excused: &[(&str, &str)]) -> Vec<String> {
    let mut problems = Vec::new();
    for (file, code) in tree.rust_files() {
        let count = own_lines(file, &code);
        let excuse = excused.iter().any(|(path, _)| *path == file.path);
        if excuse && count <= FILE_MAX_LINES {
            problems.push(format!(
                "{} needs no excuse any more: take it off the list",
                file.path
            ));
        }
        let limit = if excuse || tree.is_test(file) {
            EXCUSED_MAX_LINES
        } else {
            FILE_MAX_LINES
        };
        if count > limit {
            problems.push(format!("{}: {count} lines, at most {limit}", file.path));
        }
    }
    for (path, reason) in excused {
        if !tree.has(path) || reason.len() < 20 {
            problems.push(format!(
                "the excuse of {path} is for no file or gives no reason"
            ));
        }
    }
    problems
}

struct Functions<'a> {
    text: Vec<&'a str>,
    problems: Vec<String>,
    path: &'a str,
    in_test: bool,
}

impl Functions<'_> {
    fn judge(&mut self, name: &syn::Ident, body: &Block) {
        let (first, last) = lines(body);
        let inner = self
            .text
            .get(first..last.saturating_sub(1))
            .unwrap_or_default();
        let count = inner.iter().filter(|line| is_code(line)).count();
        let limit = if self.in_test || is_dispatch(body) {
            FLAT_MAX_LINES
        } else {
            FUNCTION_MAX_LINES
        };
        if count > limit {
            let place = format!("{}:{first}", self.path);
            self.problems.push(format!(
                "{place}: {name} has {count} lines, at most {limit}"
            ));
        }
    }
}

fn is_code(line: &str) -> bool {
    let line = line.trim();
    !line.is_empty() && !line.starts_with("//")
}

/// Whether a body is one `match` of short arms with at most three statements before it.
fn is_dispatch(body: &Block) -> bool {
    let Some((Stmt::Expr(last, _), before)) = body.stmts.split_last() else {
        return false;
    };
    let arms = match last {
        Expr::Match(found) => &found.arms,
        _ => return false,
    };
    let short = arms.iter().all(|arm| {
        let (first, last) = lines(arm);
        last - first < ARM_MAX_LINES
    });
    short && before.len() <= 3
}

impl<'ast> Visit<'ast> for Functions<'_> {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        let was = self.in_test;
        self.in_test |= is_test_only(attributes(item));
        visit::visit_item(self, item);
        self.in_test = was;
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.judge(&item.sig.ident, &item.block);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.judge(&item.sig.ident, &item.block);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(body) = &item.default {
            self.judge(&item.sig.ident, body);
        }
        visit::visit_trait_item_fn(self, item);
    }
}

fn check_functions(tree: &Tree) -> Vec<String> {
    let mut problems = Vec::new();
    for (file, code) in tree.rust_files() {
        let text = file.text.lines().collect();
        let mut functions = Functions {
            text,
            problems: Vec::new(),
            path: &file.path,
            in_test: tree.is_test(file) || file.path.starts_with("tests/"),
        };
        functions.visit_file(&code);
        problems.append(&mut functions.problems);
    }
    problems
}

#[test]
fn files_are_short() {
    assert_clean("a file is one idea", &check_files(Tree::real(), LONG_FILES));
}

#[test]
fn functions_are_short() {
    assert_clean(
        "a function fits on a screen",
        &check_functions(Tree::real()),
    );
}

#[test]
fn long_files_are_caught() {
    let long = "fn f() {}\n".repeat(501);
    let tested = format!(
        "{}#[cfg(test)]\nmod tests {{\n{long}}}\n",
        "fn f() {}\n".repeat(500)
    );
    let tree = |text: &str| Tree::sample(&[("a.rs", text)]);
    let excuse = [("a.rs", "one table that cannot be cut")];
    assert_eq!(check_files(&tree(&long), &[]).len(), 1);
    assert!(check_files(&tree(&tested), &[]).is_empty());
    assert!(check_files(&tree(&long), &excuse).is_empty());
    assert_eq!(check_files(&tree("fn f() {}\n"), &excuse).len(), 1);
    assert_eq!(
        check_files(&tree(&"fn f() {}\n".repeat(801)), &excuse).len(),
        1
    );
    assert_eq!(
        check_files(&tree(&long), &[("a.rs", "no time"), ("b.rs", "gone")]).len(),
        2
    );
    assert!(check_files(&Tree::sample(&[("x/tests/a.rs", &long)]), &[]).is_empty());
}

#[test]
fn long_functions_are_caught() {
    let body = |line: &str, n: usize| line.repeat(n);
    let plain = format!("fn f() {{\n{}}}\n", body("g();\n", 71));
    let spaced = format!(
        "fn f() {{\n{}{}}}\n",
        body("g();\n", 70),
        body("\n// why\n", 40)
    );
    let method = format!("impl A {{ fn f() {{\n{}}} }}\n", body("g();\n", 71));
    let arms = |n| format!("fn f() {{\nmatch x {{\n{}}}\n}}\n", body("A => g(),\n", n));
    let fat = format!(
        "fn f() {{ match x {{ A => {{\n{}}} }} }}\n",
        body("g();\n", 80)
    );
    for (code, caught) in [
        (plain.clone(), 1),
        (spaced, 0),
        (method, 1),
        (arms(110), 0),
        (arms(121), 1),
        (fat, 1),
        (format!("#[cfg(test)] mod t {{ {plain} }}"), 0),
    ] {
        assert_eq!(
            check_functions(&Tree::sample(&[("a.rs", &code)])).len(),
            caught,
            "{code}"
        );
    }
}
