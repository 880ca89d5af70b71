//! The coordinator's HTTP API as the commands see it.
//!
//! It turns every answer into JSON or a [`Failure`] with the right exit code; it knows no command.
//! Invariant: a request has a deadline unless it streams, and a body read whole is bounded.

use std::path::Path;
use std::time::Duration;

use gantry_wire::mesos::negotiation::{PROTOBUF, RECORDIO};
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{Body, Method, Response, StatusCode};
use serde_json::Value;

use crate::failure::{Exit, Failure};
use crate::output::{escape, escape_lines};

/// Where a coordinator listens unless told otherwise.
pub(crate) const DEFAULT_URL: &str = "http://127.0.0.1:5050";
/// Until the connection stands.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Until a whole answer is there.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest answer that is read whole, in bytes: `/state` of a large cluster fits.
const ANSWER_MAX_BYTES: usize = 256 << 20;
/// Names the deployment that a change started.
const DEPLOYMENT_HEADER: &str = "Marathon-Deployment-Id";

/// An answer with status 2xx.
pub(crate) struct Answer {
    /// The body; null when it is empty.
    pub(crate) body: Value,
    /// The deployment that the call started.
    pub(crate) deployment: Option<String>,
}

/// A connection pool to one coordinator.
pub(crate) struct Client {
    http: reqwest::Client,
    base: String,
}

impl Client {
    /// Checks the URL; connects to nothing yet.
    pub(crate) fn new(url: &str) -> Result<Self, Failure> {
        let base = url.trim_end_matches('/').to_owned();
        let parsed = reqwest::Url::parse(&base).ok();
        let Some(parsed) = parsed.filter(|u| matches!(u.scheme(), "http" | "https")) else {
            let message = format!("'{}' is not the URL of a coordinator", escape(url));
            return Err(Failure::new(Exit::Usage, message).hint(format!("such as {DEFAULT_URL}")));
        };
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .user_agent(concat!("gantry/", env!("CARGO_PKG_VERSION")));
        if parsed.scheme() == "http" {
            // A machine without CA certificates would refuse to build a TLS client it never uses.
            builder = builder.tls_certs_only(std::iter::empty());
        }
        let host = parsed.host_str().unwrap_or_default();
        if host == "localhost" || host.starts_with("127.") || host == "[::1]" {
            builder = builder.no_proxy();
        }
        let http = builder
            .build()
            .map_err(|e| Failure::new(Exit::Failed, format!("no HTTP client: {}", chain(&e))))?;
        Ok(Self { http, base })
    }

    /// To the images of a node that does not run, on a socket.
    pub(crate) fn local(socket: &Path) -> Result<Self, Failure> {
        let builder = reqwest::Client::builder()
            .tls_certs_only(std::iter::empty())
            .no_proxy()
            .unix_socket(socket);
        let http = builder
            .build()
            .map_err(|e| Failure::new(Exit::Failed, format!("no HTTP client: {}", chain(&e))))?;
        let base = "http://localhost".to_owned();
        Ok(Self { http, base })
    }

    /// GET of JSON.
    pub(crate) async fn get(&self, path: &str) -> Result<Value, Failure> {
        Ok(self.call(Method::GET, path, None).await?.body)
    }

    /// GET of JSON; nothing when the answer is 404.
    pub(crate) async fn find(&self, path: &str) -> Result<Option<Value>, Failure> {
        match self.get(path).await {
            Ok(body) => Ok(Some(body)),
            Err(failure) if failure.exit == Exit::NotFound => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Any call with a JSON body.
    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answer, Failure> {
        let request = self.request(method, path, body).timeout(ANSWER_TIMEOUT);
        let response = self.judge(request.send().await).await?;
        let header = response.headers().get(DEPLOYMENT_HEADER);
        let deployment = header.and_then(|h| h.to_str().ok()).map(str::to_owned);
        let text = self.read(response).await?;
        let body = if text.is_empty() {
            Value::Null
        } else {
            self.parse(&text)?
        };
        Ok(Answer { body, deployment })
    }

    /// A call whose answer is a stream: no deadline.
    pub(crate) async fn stream(
        &self,
        path: &str,
        body: &Value,
        accept: &str,
    ) -> Result<Response, Failure> {
        let request = self
            .request(Method::POST, path, Some(body))
            .header(ACCEPT, accept);
        self.judge(request.send().await).await
    }

    /// A call of an agent that is answered by what a process writes, in records of protobuf.
    pub(crate) async fn output(&self, path: &str, body: &Value) -> Result<Response, Failure> {
        let request = self
            .request(Method::POST, path, Some(body))
            .header(ACCEPT, RECORDIO)
            .header("Message-Accept", PROTOBUF);
        self.judge(request.send().await).await
    }

    /// A call of an agent that is a stream of records of protobuf, until it is answered.
    pub(crate) async fn input(&self, path: &str, records: Body) -> Result<Response, Failure> {
        let request = self
            .request(Method::POST, path, None)
            .header(CONTENT_TYPE, RECORDIO)
            .header("Message-Content-Type", PROTOBUF)
            .body(records);
        self.judge(request.send().await).await
    }

    /// A POST of a stream, answered by a stream: no deadline.
    pub(crate) async fn upload(&self, path: &str, body: Body) -> Result<Response, Failure> {
        let request = self.request(Method::POST, path, None).body(body);
        self.judge(request.send().await).await
    }

    /// GET of a stream: no deadline.
    pub(crate) async fn download(&self, path: &str) -> Result<Response, Failure> {
        let request = self.request(Method::GET, path, None);
        self.judge(request.send().await).await
    }

    fn request(&self, method: Method, path: &str, body: Option<&Value>) -> reqwest::RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        match body {
            Some(value) => request
                .header(CONTENT_TYPE, "application/json")
                .body(value.to_string()),
            None => request,
        }
    }

    async fn judge(&self, sent: Result<Response, reqwest::Error>) -> Result<Response, Failure> {
        let response = sent.map_err(|e| self.unreachable(&e))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let text = self.read(response).await?;
        Err(refusal(status, &text))
    }

    async fn read(&self, mut response: Response) -> Result<String, Failure> {
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| self.unreachable(&e))? {
            if bytes.len() + chunk.len() > ANSWER_MAX_BYTES {
                let message = format!("an answer of {} is too long", self.base);
                return Err(Failure::new(Exit::Failed, message));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn parse(&self, text: &str) -> Result<Value, Failure> {
        serde_json::from_str(text).map_err(|e| {
            let start = escape(&crate::output::shorten(text, 80));
            let message = format!("{} did not answer with JSON ({e}): {start}", self.base);
            Failure::new(Exit::Failed, message).hint("is it a Gantry coordinator?")
        })
    }

    /// What to say when no answer came.
    pub(crate) fn unreachable(&self, error: &reqwest::Error) -> Failure {
        if error.is_timeout() && !error.is_connect() {
            let message = format!("{} did not answer in time", self.base);
            return Failure::new(Exit::Unreachable, message);
        }
        let message = format!(
            "cannot reach the coordinator at {}: {}",
            self.base,
            chain(error)
        );
        Failure::new(Exit::Unreachable, message).hint(
            "is it running? start one with `gantry dev`, or name another with --url or GANTRY_URL",
        )
    }
}

/// The innermost cause: reqwest's outer messages only repeat the URL.
fn chain(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// A Marathon error body made readable.
fn refusal(status: StatusCode, text: &str) -> Failure {
    let exit = match status {
        StatusCode::NOT_FOUND => Exit::NotFound,
        StatusCode::CONFLICT => Exit::Conflict,
        _ => Exit::Failed,
    };
    let body: Value = serde_json::from_str(text).unwrap_or(Value::Null);
    let message = match body["message"].as_str() {
        Some(message) => named_deployments(message, &body) + &details(&body["details"]),
        None if text.trim().is_empty() => format!("the coordinator answered {status}"),
        // What an agent says in plain words about the request stands for itself.
        None if status.is_client_error() && is_a_sentence(text) => text.trim().to_owned(),
        None => format!(
            "the coordinator answered {status}: {}",
            crate::output::shorten(text, 500)
        ),
    };
    let message = escape_lines(&message);
    if body["trouble"].is_string() {
        return crate::trouble::failure(&body, message);
    }
    let failure = Failure::new(exit, &message);
    if message.contains("force=true") {
        return failure.hint("wait for the deployment, or take over with --force");
    }
    failure
}

/// One line that is no page.
fn is_a_sentence(text: &str) -> bool {
    let text = text.trim();
    text.len() <= 500 && !text.contains('\n') && !text.starts_with(['<', '{', '['])
}

/// Marathon's message about a lock has a place for the deployment's id and leaves it empty.
fn named_deployments(message: &str, body: &Value) -> String {
    let deployments = body["deployments"].as_array().into_iter().flatten();
    let ids: Vec<&str> = deployments.filter_map(|d| d["id"].as_str()).collect();
    if ids.is_empty() {
        return message.to_owned();
    }
    message.replace("<DEPLOYMENT_ID>", &ids.join(", "))
}

fn details(details: &Value) -> String {
    if let Some(text) = details.as_str() {
        return format!(": {text}");
    }
    let mut lines = String::new();
    for detail in details.as_array().into_iter().flatten() {
        let path = detail["path"].as_str().unwrap_or("/");
        for error in detail["errors"].as_array().into_iter().flatten() {
            let error = error
                .as_str()
                .map_or_else(|| error.to_string(), str::to_owned);
            lines.push_str(&format!("\n  {path}: {error}"));
        }
    }
    lines
}

/// A value in a query: everything but letters, digits and `-._~` escaped (RFC 3986).
pub(crate) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marathon_errors_become_lines() {
        let body = r#"{"message":"Object is not valid","details":[
            {"path":"/cpus","errors":["got 0","too small"]},{"path":"/x","errors":["unknown field"]}]}"#;
        let failure = refusal(StatusCode::UNPROCESSABLE_ENTITY, body);
        assert_eq!(failure.exit, Exit::Failed);
        let want = "Object is not valid\n  /cpus: got 0\n  /cpus: too small\n  /x: unknown field";
        assert_eq!(failure.message, want);
    }

    #[test]
    fn statuses_become_exit_codes() {
        let locked = r#"{"message":"App is locked by one or more deployments. Override with '?force=true'."}"#;
        for (status, body, exit, message) in [
            (
                404,
                r#"{"message":"App '/x' does not exist"}"#,
                Exit::NotFound,
                "App '/x' does",
            ),
            (409, locked, Exit::Conflict, "App is locked"),
            (
                400,
                r#"{"message":"Invalid JSON","details":"line 1"}"#,
                Exit::Failed,
                "Invalid JSON: line 1",
            ),
            (502, "", Exit::Failed, "the coordinator answered 502"),
            (404, "No such file\n", Exit::NotFound, "No such file"),
            (
                404,
                "<html>\n",
                Exit::NotFound,
                "the coordinator answered 404 Not Found: <html>",
            ),
            (
                500,
                r#"{"message":"no image x on this node","trouble":"not_here"}"#,
                Exit::NotFound,
                "no image x",
            ),
            (
                500,
                "oh\x1b[2J",
                Exit::Failed,
                "the coordinator answered 500 Internal Server Error: oh\\u{1b}",
            ),
        ] {
            let failure = refusal(StatusCode::from_u16(status).unwrap(), body);
            assert_eq!(failure.exit, exit);
            assert!(failure.message.starts_with(message), "{}", failure.message);
        }
        let named =
            r#"{"message":"see '/v2/deployments/<DEPLOYMENT_ID>'.","deployments":[{"id":"d1"}]}"#;
        let failure = refusal(StatusCode::CONFLICT, named);
        assert_eq!(failure.message, "see '/v2/deployments/d1'.");
        let failure = refusal(StatusCode::CONFLICT, locked);
        assert!(failure.hint.unwrap().contains("--force"));
    }

    #[test]
    fn urls_are_checked() {
        assert!(Client::new("http://127.0.0.1:5050/").is_ok());
        for url in ["", "127.0.0.1:5050", "ftp://x", "http://"] {
            assert_eq!(
                Client::new(url).err().map(|f| f.exit),
                Some(Exit::Usage),
                "{url}"
            );
        }
    }
}
