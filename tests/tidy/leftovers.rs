//! Nothing half done is left: no `todo!`, no ignored test, no silenced lint, no `unwrap` or bare
//! `expect` outside tests.

use syn::visit::{self, Visit};

use crate::code::{attributes, idents, is_test_only, lines};
use crate::tree::{Tree, assert_clean};

/// Macros that mark unfinished work.
const MACROS: [&str; 3] = ["todo", "unimplemented", "dbg"];
/// Shortest reason that an `expect` or `#[expect]` may give, in characters.
const REASON_MIN: usize = 8;

struct Visitor {
    found: Vec<(usize, String)>,
    in_test: bool,
}

impl<'ast> Visit<'ast> for Visitor {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        let was = self.in_test;
        self.in_test |= is_test_only(attributes(item));
        visit::visit_item(self, item);
        self.in_test = was;
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        let name = call
            .path
            .segments
            .last()
            .map(|s| s.ident.to_string())
            .unwrap_or_default();
        let inner = idents(&call.tokens);
        let all = inner.iter().map(String::as_str).chain([name.as_str()]);
        for word in all.filter(|word| MACROS.contains(word)) {
            self.found.push((lines(call).0, format!("{word}!")));
        }
    }

    fn visit_attribute(&mut self, attribute: &'ast syn::Attribute) {
        let words = match &attribute.meta {
            syn::Meta::List(list) => idents(&list.tokens),
            syn::Meta::Path(_) | syn::Meta::NameValue(_) => Vec::new(),
        };
        let line = lines(attribute).0;
        for name in ["ignore", "allow"] {
            let conditional =
                attribute.path().is_ident("cfg_attr") && words.iter().any(|word| word == name);
            if attribute.path().is_ident(name) || conditional {
                self.found.push((line, format!("#[{name}]")));
            }
        }
        if attribute.path().is_ident("expect") && !words.iter().any(|word| word == "reason") {
            self.found
                .push((line, "#[expect] without a reason".to_owned()));
        }
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        let line = call.method.span().start().line;
        if !self.in_test && call.method == "unwrap" && call.args.is_empty() {
            self.found
                .push((line, ".unwrap() outside tests".to_owned()));
        }
        let reason = match call.args.first() {
            Some(syn::Expr::Lit(literal)) => match &literal.lit {
                syn::Lit::Str(text) => Some(text.value()),
                _ => None,
            },
            _ => None,
        };
        let short = reason.is_some_and(|text| text.chars().count() < REASON_MIN);
        if !self.in_test && call.method == "expect" && short {
            self.found.push((
                line,
                ".expect() that does not say why it cannot fail".to_owned(),
            ));
        }
        visit::visit_expr_method_call(self, call);
    }
}

fn check(tree: &Tree) -> Vec<String> {
    let mut problems = Vec::new();
    for (file, code) in tree.rust_files() {
        let in_test = tree.is_test(file) || file.path.starts_with("tests/");
        let mut visitor = Visitor {
            found: Vec::new(),
            in_test,
        };
        visitor.visit_file(&code);
        let found = visitor.found.into_iter();
        problems.extend(found.map(|(line, what)| format!("{}:{line}: {what}", file.path)));
    }
    problems
}

#[test]
fn nothing_is_left_half_done() {
    assert_clean("nothing half done", &check(Tree::real()));
}

#[test]
fn leftovers_are_caught() {
    for code in [
        "fn f() { todo!() }",
        "fn f() { unimplemented!(\"later\") }",
        "fn f() { let a = dbg!(1); }",
        "fn f() { vec![todo!()]; }",
        "#[test] #[ignore] fn f() {}",
        "#[cfg_attr(debug_assertions, ignore)] fn f() {}",
        "#![allow(dead_code)]",
        "#[allow(unused)] fn f() {}",
        "#[expect(unused)] fn f() {}",
        "fn f() { g().unwrap(); }",
        "fn f() { g().expect(\"ok\"); }",
    ] {
        assert!(
            !check(&Tree::sample(&[("agent/src/a.rs", code)])).is_empty(),
            "{code}"
        );
    }
    for code in [
        "#[cfg(test)] mod tests { fn f() { g().unwrap(); } }",
        "#[expect(unused, reason = \"read by the next version\")] fn f() {}",
        "fn f() { g().expect(\"checked two lines above\"); }",
        "//! A word about todo!() in a comment.",
    ] {
        assert!(
            check(&Tree::sample(&[("agent/src/a.rs", code)])).is_empty(),
            "{code}"
        );
    }
}
