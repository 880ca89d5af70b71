//! What a node says about trouble with an image, as an exit code and the way out.
//!
//! It decides nothing about the words of the cause, which the node knows best. Invariant: a word
//! that this version does not know is an ordinary failure.

use serde_json::Value;

use crate::failure::{Exit, Failure};

/// A failure from the object that a node answers with: `{"message": …, "trouble": …}`.
pub(crate) fn failure(told: &Value, message: String) -> Failure {
    let (exit, hint) = told["trouble"].as_str().map_or((Exit::Failed, ""), sort);
    let failure = Failure::new(exit, message);
    if hint.is_empty() {
        failure
    } else {
        failure.hint(hint)
    }
}

fn sort(trouble: &str) -> (Exit, &'static str) {
    match trouble {
        "not_found" | "not_in_archive" => (Exit::NotFound, ""),
        "not_here" => (Exit::NotFound, "see `gantry image list`"),
        "in_use" => (Exit::Conflict, ""),
        "bad_request" => (Exit::Usage, ""),
        "several" => (
            Exit::Usage,
            "name the one that is meant after the file: `gantry image import FILE NAME --name …`",
        ),
        "unnamed" => (Exit::Usage, "give it a name with --name"),
        "login" => (
            Exit::Failed,
            "logins: --config FILE for this pull, or `gantry dev --registry-auth FILE`; \
             `docker login` and `podman login --authfile FILE` write such files",
        ),
        "tls" => (
            Exit::Failed,
            "plain HTTP: --insecure-registry HOST; certificates of its own: \
             `gantry dev --registry-certs DIR` with DIR/HOST/ca.crt",
        ),
        "plain_http" => (
            Exit::Failed,
            "if that is safe where it runs: --insecure-registry HOST",
        ),
        "no_space" => (
            Exit::Failed,
            "`gantry image prune --all` removes what nothing uses",
        ),
        "not_an_archive" => (
            Exit::Failed,
            "what `docker save`, `podman save`, `skopeo copy … oci-archive:FILE` and \
             `gantry image export` write is taken",
        ),
        "damaged" => (Exit::Failed, "remove the image and pull or import it again"),
        "busy" => (Exit::Failed, "try again when they are done"),
        _ => (Exit::Failed, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn scripts_can_tell_what_is_missing_from_what_is_broken() {
        for (trouble, exit) in [
            (json!("not_found"), Exit::NotFound),
            (json!("not_in_archive"), Exit::NotFound),
            (json!("in_use"), Exit::Conflict),
            (json!("bad_request"), Exit::Usage),
            (json!("login"), Exit::Failed),
            (json!("of a later version"), Exit::Failed),
            (Value::Null, Exit::Failed),
        ] {
            let told = json!({"message": "x", "trouble": trouble});
            assert_eq!(failure(&told, "x".into()).exit, exit, "{told}");
        }
    }
}
