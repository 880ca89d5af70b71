//! Query parameters as the clients of Marathon and Mesos write them.
//!
//! It decides how values are read, not what they mean. marathon-python sends Python booleans
//! (`force=True`), so booleans are case-insensitive, and anything but `true` is false; a name may
//! repeat (`embed`), and the last one wins where only one counts. Invariant: reading never fails,
//! a malformed percent escape stays as it is.

use axum::extract::Query;
use axum::http::Uri;

/// Most parameters that are looked at; the rest of a longer query is ignored.
const PARAMETERS_MAX: usize = 64;

/// The parameters of one request, in order.
#[derive(Debug, Default)]
pub(super) struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Reads the query of a URI.
    pub(super) fn of(uri: &Uri) -> Self {
        let pairs = Query::<Vec<(String, String)>>::try_from_uri(uri).map(|q| q.0);
        let mut pairs = pairs.unwrap_or_default();
        pairs.truncate(PARAMETERS_MAX);
        Self(pairs)
    }

    /// The last value of a name.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .rev()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }

    /// Every value of a name, also written `name[]`.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let matches = move |n: &str| n == name || n.strip_suffix("[]") == Some(name);
        self.0
            .iter()
            .filter(move |(n, _)| matches(n))
            .map(|(_, value)| value.as_str())
    }

    /// A boolean, `default` when the name is absent.
    pub(super) fn flag(&self, name: &str, default: bool) -> bool {
        self.get(name)
            .map_or(default, |value| value.eq_ignore_ascii_case("true"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(query: &str) -> Parameters {
        Parameters::of(&format!("/x?{query}").parse().unwrap())
    }

    #[test]
    fn booleans_are_case_insensitive_and_anything_else_is_false() {
        for (query, want) in [
            ("force=true", true),
            ("force=True", true),
            ("force=TRUE", true),
            ("force=false", false),
            ("force=1", false),
            ("force", false),
            ("force=", false),
            ("force=true&force=false", false),
            ("", true),
            ("other=false", true),
        ] {
            assert_eq!(of(query).flag("force", true), want, "{query}");
        }
    }

    #[test]
    fn names_repeat_and_escapes_are_undone() {
        let query = of("embed=apps.tasks&embed=counts&status[]=running&id=%2Fa%20b&bad=%zz");
        assert_eq!(
            query.all("embed").collect::<Vec<_>>(),
            ["apps.tasks", "counts"]
        );
        assert_eq!(query.all("status").collect::<Vec<_>>(), ["running"]);
        assert_eq!(query.get("id"), Some("/a b"));
        assert_eq!(query.get("bad"), Some("%zz"));
        let long: String = (0..1000).map(|i| format!("a{i}=1&")).collect();
        assert_eq!(of(&long).get("a63"), Some("1"));
        assert_eq!(of(&long).get("a64"), None);
    }
}
