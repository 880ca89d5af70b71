//! Who gets through and who does not; what a secret must be.

use std::io;
use std::os::unix::fs::PermissionsExt;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::*;

const OURS: &[u8] = b"m2Zl0Qn9vY8sK1xTq7Wc5Rb3Hd6Jf4Ga";
const THEIRS: &[u8] = b"m2Zl0Qn9vY8sK1xTq7Wc5Rb3Hd6Jf4Gb";

fn secret(text: &[u8]) -> Secret {
    Secret::parse(text).unwrap()
}

/// A handshake of two ends with two secrets, then some bytes both ways.
async fn meet(
    (client, client_secret): (End, &[u8]),
    (server, server_secret): (End, &[u8]),
) -> io::Result<()> {
    let (a, b) = tokio::io::duplex(64 * 1024);
    let connecting = Connecting::new(&secret(client_secret), client).unwrap();
    let accepting = Accepting::new(&secret(server_secret), server).unwrap();
    let serve = async {
        let mut stream = accepting.accept(b).await?;
        let mut heard = [0; 4];
        stream.read_exact(&mut heard).await?;
        stream.write_all(&heard).await?;
        stream.shutdown().await
    };
    let ask = async {
        let mut stream = connecting.connect(a).await?;
        stream.write_all(b"ping").await?;
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).await?;
        assert_eq!(heard, b"ping");
        Ok(())
    };
    let (served, asked): (io::Result<()>, io::Result<()>) = tokio::join!(serve, ask);
    // Neither may think that all is well while the other does not.
    assert_eq!(served.is_ok(), asked.is_ok(), "{served:?} {asked:?}");
    asked
}

#[tokio::test]
async fn those_who_know_the_secret_meet_and_nobody_else() {
    let (agent, coordinator) = (End::SessionAgent, End::SessionCoordinator);
    meet((agent, OURS), (coordinator, OURS)).await.unwrap();
    let (asks, answers) = (End::HttpCoordinator, End::HttpAgent);
    meet((asks, OURS), (answers, OURS)).await.unwrap();
    for (client, server) in [
        ((agent, THEIRS), (coordinator, OURS)),
        ((agent, OURS), (coordinator, THEIRS)),
        // The same secret, but a key for something else.
        ((agent, OURS), (answers, OURS)),
        ((asks, OURS), (coordinator, OURS)),
        ((coordinator, OURS), (coordinator, OURS)),
        ((agent, OURS), (agent, OURS)),
    ] {
        assert!(meet(client, server).await.is_err(), "{client:?} {server:?}");
    }
}

#[tokio::test]
async fn who_presents_nothing_or_speaks_no_tls_is_left() {
    let accepting = Accepting::new(&secret(OURS), End::SessionCoordinator).unwrap();
    let (mut a, b) = tokio::io::duplex(1024);
    a.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert!(accepting.accept(b).await.is_err());
    let (a, b): (DuplexStream, DuplexStream) = tokio::io::duplex(64 * 1024);
    // Knows the public key of the server, has none of its own.
    let mut config = Connecting::new(&secret(OURS), End::SessionAgent)
        .unwrap()
        .config();
    config.client_auth_cert_resolver = std::sync::Arc::new(Nothing);
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    let name = "gantry.invalid".try_into().unwrap();
    let (served, _) = tokio::join!(accepting.accept(b), connector.connect(name, a));
    assert!(served.is_err());
}

#[derive(Debug)]
struct Nothing;

impl rustls::client::ResolvesClientCert for Nothing {
    fn resolve(
        &self,
        _: &[&[u8]],
        _: &[rustls::SignatureScheme],
    ) -> Option<std::sync::Arc<rustls::sign::CertifiedKey>> {
        None
    }

    fn only_raw_public_keys(&self) -> bool {
        true
    }

    fn has_certs(&self) -> bool {
        false
    }
}

#[test]
fn keys_are_the_same_for_the_same_secret_only() {
    let public = |end: End, text: &[u8]| end.key(&secret(text)).unwrap().cert[0].to_vec();
    let ends = [
        End::SessionAgent,
        End::SessionCoordinator,
        End::HttpCoordinator,
        End::HttpAgent,
    ];
    let mut all: Vec<Vec<u8>> = Vec::new();
    for end in ends {
        assert_eq!(public(end, OURS), public(end, OURS));
        all.extend([public(end, OURS), public(end, THEIRS)]);
    }
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 8);
}

#[test]
fn secrets_are_long_and_their_files_private() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secret");
    let mode =
        |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    std::fs::write(&path, [OURS, b"\n"].concat()).unwrap();
    for wrong in [0o644, 0o640, 0o602] {
        mode(wrong);
        let error = Secret::read(&path).unwrap_err();
        assert!(matches!(error, SecretError::Exposed { .. }), "{error}");
        assert!(
            error.to_string().contains(&format!("{wrong:04o}")),
            "{error}"
        );
    }
    for right in [0o600, 0o400] {
        mode(right);
        assert_eq!(Secret::read(&path).unwrap().bytes(), OURS);
    }
    assert!(matches!(
        Secret::read(dir.path()),
        Err(SecretError::Exposed { .. } | SecretError::Read { .. })
    ));
    assert!(matches!(
        Secret::read(&dir.path().join("x")),
        Err(SecretError::Read { .. })
    ));
    for weak in [&OURS[..31], b"", &[b'a'; 64]] {
        assert!(matches!(Secret::parse(weak), Err(SecretError::Weak)));
    }
    let long: Vec<u8> = (0..5000_u16).map(|i| (i % 90) as u8 + 33).collect();
    assert!(matches!(Secret::parse(&long), Err(SecretError::Long)));
    assert_eq!(format!("{:?}", secret(OURS)), "Secret(..)");
}
