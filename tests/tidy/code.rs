//! Reading Rust: paths, attributes, idents inside macros, what is test code.

use proc_macro2::{TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::{Attribute, Item, UseTree};

/// Whether an item is compiled for tests only.
pub(crate) fn is_test_only(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|a| {
        let cfg_test = a.path().is_ident("cfg")
            && a.meta
                .require_list()
                .is_ok_and(|list| idents(&list.tokens) == ["test"]);
        cfg_test || a.path().is_ident("test")
    })
}

/// The attributes of an item, whatever it is.
pub(crate) fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(i) => &i.attrs,
        Item::Enum(i) => &i.attrs,
        Item::ExternCrate(i) => &i.attrs,
        Item::Fn(i) => &i.attrs,
        Item::ForeignMod(i) => &i.attrs,
        Item::Impl(i) => &i.attrs,
        Item::Macro(i) => &i.attrs,
        Item::Mod(i) => &i.attrs,
        Item::Static(i) => &i.attrs,
        Item::Struct(i) => &i.attrs,
        Item::Trait(i) => &i.attrs,
        Item::TraitAlias(i) => &i.attrs,
        Item::Type(i) => &i.attrs,
        Item::Union(i) => &i.attrs,
        Item::Use(i) => &i.attrs,
        _ => &[],
    }
}

/// First and last line of a piece of code, counted from 1.
pub(crate) fn lines(piece: &impl Spanned) -> (usize, usize) {
    let span = piece.span();
    (span.start().line, span.end().line)
}

/// Every identifier in a token stream, groups included.
pub(crate) fn idents(tokens: &TokenStream) -> Vec<String> {
    let mut found = Vec::new();
    for token in tokens.clone() {
        match token {
            TokenTree::Ident(ident) => found.push(ident.to_string()),
            TokenTree::Group(group) => found.extend(idents(&group.stream())),
            TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
    }
    found
}

/// Paths in a token stream that is not parsed (a macro's arguments): idents joined by `::`.
pub(crate) fn paths(tokens: &TokenStream) -> Vec<Vec<String>> {
    let mut found: Vec<Vec<String>> = Vec::new();
    let (mut colons, mut joined) = (0, false);
    for token in tokens.clone() {
        match token {
            TokenTree::Punct(punct) if punct.as_char() == ':' => {
                colons += 1;
                joined = colons == 2;
                continue;
            }
            TokenTree::Ident(ident) => match found.last_mut() {
                Some(path) if joined => path.push(ident.to_string()),
                _ => found.push(vec![ident.to_string()]),
            },
            TokenTree::Group(group) => {
                found.extend(paths(&group.stream()));
                found.push(Vec::new());
            }
            TokenTree::Punct(_) | TokenTree::Literal(_) => found.push(Vec::new()),
        }
        (colons, joined) = (0, false);
    }
    found.retain(|path| !path.is_empty());
    found
}

/// The paths that a `use` brings in; a rename shows as `path as name`, a glob as `path::*`.
pub(crate) fn flatten(tree: &UseTree) -> Vec<Vec<String>> {
    match tree {
        UseTree::Path(path) => {
            let rest = flatten(&path.tree).into_iter();
            let first = path.ident.to_string();
            rest.map(|tail| [vec![first.clone()], tail].concat())
                .collect()
        }
        UseTree::Name(name) => vec![vec![name.ident.to_string()]],
        UseTree::Rename(rename) => vec![vec![rename.ident.to_string()]],
        UseTree::Glob(_) => vec![vec!["*".to_owned()]],
        UseTree::Group(group) => group.items.iter().flat_map(flatten).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uses_and_macros_are_read() {
        let item: syn::ItemUse =
            syn::parse_str("use std::{fs, net::{self, TcpStream as T}, io::*};")
                .expect("it parses");
        let joined: Vec<String> = flatten(&item.tree).iter().map(|p| p.join("::")).collect();
        assert_eq!(
            joined,
            [
                "std::fs",
                "std::net::self",
                "std::net::TcpStream",
                "std::io::*"
            ]
        );
        let tokens: TokenStream = "a, std::fs::read(b::c) + d".parse().expect("it lexes");
        let joined: Vec<String> = paths(&tokens).iter().map(|p| p.join("::")).collect();
        assert_eq!(joined, ["a", "std::fs::read", "b::c", "d"]);
    }

    #[test]
    fn test_modules_are_known() {
        let file: syn::File =
            syn::parse_str("#[cfg(test)] mod tests {} #[cfg(not(test))] mod a {}").expect("parses");
        let known: Vec<bool> = file
            .items
            .iter()
            .map(|i| is_test_only(attributes(i)))
            .collect();
        assert_eq!(known, [true, false]);
    }
}
