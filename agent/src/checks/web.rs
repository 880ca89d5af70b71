//! HTTP and TCP probes of the loopback address of a task's network. They speak only to that: a
//! redirect to another host is not followed but counts as the answer it is.
//!
//! What a task answers is untrusted: heads are bounded, bodies are not read. That a certificate is
//! anybody's is fine, as with the peers (Mesos runs `curl -k`, Marathon trusts all): the connection
//! never leaves the network of the task.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use axum::body::Body;
use gantry_agent_core::Found;
use gantry_wire::check::{HttpProbe, TcpProbe};
use hyper::header::{ACCEPT, CONNECTION, HOST, LOCATION, USER_AGENT};
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tokio_rustls::TlsConnector;

use super::sockets::{Sockets, Unconnected};

/// Redirects that are followed (curl's own default is 50; a check that needs three is odd).
const REDIRECTS_MAX: usize = 5;
/// Bound of an answer's head in bytes.
const HEAD_MAX_BYTES: usize = 16 << 10;

/// Where a connection comes from.
#[derive(Clone, Copy)]
pub(super) struct From<'a> {
    pub(super) sockets: &'a Sockets,
    /// A process in the network; none for the node's own.
    pub(super) pid: Option<u32>,
}

pub(super) async fn tcp(probe: &TcpProbe, from: From<'_>) -> Found {
    let Some(address) = loopback(probe.port, probe.ipv6) else {
        return no_port(probe.port);
    };
    match from.sockets.connect(from.pid, address).await {
        Ok(_) => Found::Answer {
            value: 1,
            passed: true,
        },
        Err(Unconnected::Gone) => Found::Unclear,
        Err(Unconnected::Refused(error)) => nothing(&unconnected(address, &error)),
    }
}

pub(super) async fn http(probe: &HttpProbe, from: From<'_>, tls: &TlsConnector) -> Found {
    let Some(address) = loopback(probe.port, probe.ipv6) else {
        return no_port(probe.port);
    };
    let path = if probe.path.starts_with('/') {
        probe.path.clone()
    } else {
        format!("/{}", probe.path)
    };
    let Ok(mut target) = path.parse::<Uri>() else {
        return nothing(&format!("'{path}' is not a path of a URL"));
    };
    for _ in 0..=REDIRECTS_MAX {
        let answer = match ask(probe, address, &target, from, tls).await {
            Ok(Some(answer)) => answer,
            Ok(None) => return Found::Unclear,
            Err(cause) => return nothing(&cause),
        };
        let status = answer.status();
        match same_place(probe, address, &answer) {
            Some(next) if status.is_redirection() && probe.statuses.is_empty() => target = next,
            _ => {
                let code = status.as_u16();
                let passed = if probe.statuses.is_empty() {
                    (200..400).contains(&code)
                } else {
                    probe.statuses.contains(&u32::from(code))
                };
                let value = i32::from(code);
                return Found::Answer { value, passed };
            }
        }
    }
    nothing(&format!("more than {REDIRECTS_MAX} redirects"))
}

fn nothing(cause: &str) -> Found {
    let cause = cause.to_owned();
    Found::Nothing { cause }
}

fn no_port(port: u32) -> Found {
    nothing(&format!("{port} is not a port"))
}

fn loopback(port: u32, ipv6: bool) -> Option<SocketAddr> {
    let port = u16::try_from(port).ok().filter(|&port| port > 0)?;
    let ip = if ipv6 {
        IpAddr::from(Ipv6Addr::LOCALHOST)
    } else {
        IpAddr::from(Ipv4Addr::LOCALHOST)
    };
    Some(SocketAddr::new(ip, port))
}

fn unconnected(address: SocketAddr, error: &std::io::Error) -> String {
    format!("connecting to {address}: {error}")
}

/// One request; no answer when it was an informational one that is to be ignored, or when the task
/// is gone.
async fn ask(
    probe: &HttpProbe,
    address: SocketAddr,
    target: &Uri,
    from: From<'_>,
    tls: &TlsConnector,
) -> Result<Option<Response<hyper::body::Incoming>>, String> {
    let stream = match from.sockets.connect(from.pid, address).await {
        Ok(stream) => stream,
        Err(Unconnected::Gone) => return Ok(None),
        Err(Unconnected::Refused(error)) => return Err(unconnected(address, &error)),
    };
    if !probe.tls {
        return exchange(stream, probe.ignore_1xx, address, target).await;
    }
    let name = ServerName::from(address.ip());
    let stream = tls.connect(name, stream).await;
    let stream = stream.map_err(|error| format!("TLS with {address}: {error}"))?;
    exchange(stream, probe.ignore_1xx, address, target).await
}

async fn exchange<S>(
    stream: S,
    ignore_1xx: bool,
    address: SocketAddr,
    target: &Uri,
) -> Result<Option<Response<hyper::body::Incoming>>, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let failed = |error: hyper::Error| format!("asking {address}: {}", crate::chain(&error));
    let mut client = hyper::client::conn::http1::Builder::new();
    let client = client.max_buf_size(HEAD_MAX_BYTES);
    let (mut sender, connection) = client
        .handshake::<_, Body>(TokioIo::new(stream))
        .await
        .map_err(failed)?;
    let mut request = Request::builder()
        .uri(target.clone())
        .header(HOST, address.to_string())
        .header(USER_AGENT, concat!("gantry/", env!("CARGO_PKG_VERSION")))
        .header(ACCEPT, "*/*")
        .header(CONNECTION, "close")
        .body(Body::empty())
        .map_err(|error| error.to_string())?;
    let (informed, informational) = oneshot::channel();
    if ignore_1xx {
        let informed = std::sync::Mutex::new(Some(informed));
        hyper::ext::on_informational(&mut request, move |_| {
            let first = informed
                .lock()
                .ok()
                .and_then(|mut informed| informed.take());
            if let Some(informed) = first {
                let _ = informed.send(());
            }
        });
    }
    // The connection ends with this function: what it drives is dropped.
    let drive = async {
        let ended = connection.await;
        std::future::pending::<()>().await;
        ended
    };
    tokio::select! {
        answer = sender.send_request(request) => answer.map(Some).map_err(failed),
        Ok(()) = informational => Ok(None),
        _ = drive => Err(format!("asking {address}: the connection ended")),
    }
}

/// Where an answer redirects to, if that is the same port of the same host.
fn same_place(
    probe: &HttpProbe,
    address: SocketAddr,
    answer: &Response<hyper::body::Incoming>,
) -> Option<Uri> {
    let location = answer.headers().get(LOCATION)?.to_str().ok()?;
    redirect(probe.tls, address, location)
}

fn redirect(tls: bool, address: SocketAddr, location: &str) -> Option<Uri> {
    if location.starts_with('/') && !location.starts_with("//") {
        return location.parse().ok();
    }
    let uri: Uri = location.parse().ok()?;
    let scheme = if tls { "https" } else { "http" };
    let authority = uri.authority()?;
    let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let host = authority.host();
    let here = host.eq_ignore_ascii_case("localhost") || host == "127.0.0.1" || host == "[::1]";
    if uri.scheme_str()? != scheme || port != address.port() || !here {
        return None;
    }
    uri.path_and_query()?.as_str().parse().ok()
}

/// Takes any certificate; the handshake itself must still be right.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

/// Connects to whoever answers.
pub(super) fn tls() -> TlsConnector {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("the provider has ciphers for the versions that are built in")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[tokio::test]
    async fn a_head_without_end_is_cut() {
        let (ours, mut theirs) = tokio::io::duplex(64 << 10);
        let server = tokio::spawn(async move {
            let mut head = "HTTP/1.1 200 OK\r\n".to_owned();
            head.push_str(&"x: y\r\n".repeat(HEAD_MAX_BYTES / 4));
            // What is too much may never be taken.
            let _ = theirs.write_all(head.as_bytes()).await;
            theirs
        });
        let address = "127.0.0.1:8080".parse().unwrap();
        let found = exchange(ours, false, address, &Uri::from_static("/")).await;
        assert_eq!(
            found.unwrap_err(),
            "asking 127.0.0.1:8080: message head is too large"
        );
        server.await.unwrap();
    }

    #[test]
    fn only_redirects_to_the_same_place_are_followed() {
        let address = "127.0.0.1:8080".parse().unwrap();
        for (tls, location, want) in [
            (false, "/login?x=1", Some("/login?x=1")),
            (false, "http://127.0.0.1:8080/a", Some("/a")),
            (false, "http://LOCALHOST:8080/a", Some("/a")),
            (false, "http://127.0.0.1/a", None),
            (false, "https://127.0.0.1:8080/a", None),
            (true, "https://127.0.0.1:8080/a", Some("/a")),
            (false, "http://10.0.0.1:8080/a", None),
            (false, "http://127.0.0.1:8080@evil/a", None),
            (false, "//evil/a", None),
            (false, "a", None),
            (false, "", None),
        ] {
            let got = redirect(tls, address, location).map(|uri| uri.to_string());
            assert_eq!(got.as_deref(), want, "{location}");
        }
    }
}
