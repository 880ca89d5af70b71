//! The two sides of a connection, on rustls. What is checked of a peer: that its public key is the
//! one that the secret gives (compared as bytes), and by rustls that it signed this very handshake.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::{WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig,
    SignatureScheme,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::keys::{End, KeysError};
use crate::secret::Secret;

/// How long a peer may take for the handshake.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
/// In the place of a server's name, which no one looks at: keys are compared.
const NO_NAME: &str = "gantry.invalid";

/// The side that connects.
#[derive(Clone)]
pub struct Connecting(Arc<ClientConfig>);

/// The side that listens.
#[derive(Clone)]
pub struct Accepting(Arc<ServerConfig>);

impl Connecting {
    /// For the end that this process is.
    ///
    /// # Errors
    /// [`KeysError`].
    pub fn new(secret: &Secret, own: End) -> Result<Self, KeysError> {
        let peer = Peer::new(secret, own)?;
        let key = own.key(secret)?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider);
        let builder = builder.with_protocol_versions(&[&TLS13]);
        let builder = builder.map_err(|_| KeysError("TLS 1.3"))?.dangerous();
        let mut config = builder
            .with_custom_certificate_verifier(Arc::new(peer))
            .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(key)));
        config.resumption = Resumption::disabled();
        config.enable_sni = false;
        Ok(Self(Arc::new(config)))
    }

    /// What other libraries make their connections with.
    #[must_use]
    pub fn config(&self) -> ClientConfig {
        (*self.0).clone()
    }

    /// Makes a stream a connection to a member of the cluster.
    ///
    /// # Errors
    /// The stream's, `InvalidData` when the peer is not who it should be, `TimedOut`.
    pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
    ) -> io::Result<tokio_rustls::client::TlsStream<S>> {
        let name = ServerName::try_from(NO_NAME).map_err(io::Error::other)?;
        let connector = TlsConnector::from(self.0.clone());
        timeout(HANDSHAKE_MAX, connector.connect(name, stream)).await?
    }
}

impl Accepting {
    /// For the end that this process is.
    ///
    /// # Errors
    /// [`KeysError`].
    pub fn new(secret: &Secret, own: End) -> Result<Self, KeysError> {
        let peer = Peer::new(secret, own)?;
        let key = own.key(secret)?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider);
        let builder = builder.with_protocol_versions(&[&TLS13]);
        let mut config = builder
            .map_err(|_| KeysError("TLS 1.3"))?
            .with_client_cert_verifier(Arc::new(peer))
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(key)));
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self(Arc::new(config)))
    }

    /// Makes a stream a connection to a member of the cluster.
    ///
    /// # Errors
    /// The stream's, `InvalidData` when the peer is not who it should be, `TimedOut`.
    pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
    ) -> io::Result<tokio_rustls::server::TlsStream<S>> {
        let acceptor = TlsAcceptor::from(self.0.clone());
        timeout(HANDSHAKE_MAX, acceptor.accept(stream)).await?
    }
}

impl std::fmt::Debug for Connecting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connecting(..)")
    }
}

impl std::fmt::Debug for Accepting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Accepting(..)")
    }
}

/// Who the other end must be.
#[derive(Debug)]
struct Peer {
    public: CertificateDer<'static>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Peer {
    fn new(secret: &Secret, own: End) -> Result<Self, KeysError> {
        let key = own.peer().key(secret)?;
        let public = key.cert.first().ok_or(KeysError("no public key"))?.clone();
        let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
        Ok(Self { public, algorithms })
    }

    fn is(&self, presented: &CertificateDer<'_>, more: &[CertificateDer<'_>]) -> Result<(), Error> {
        // Public keys: nothing is learned from how long the comparison takes.
        if more.is_empty() && presented.as_ref() == self.public.as_ref() {
            return Ok(());
        }
        let why = CertificateError::ApplicationVerificationFailure;
        Err(Error::InvalidCertificate(why))
    }

    fn signed(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = SubjectPublicKeyInfoDer::from(key.as_ref());
        verify_tls13_signature_with_raw_key(message, &key, signature, &self.algorithms)
    }

    /// There is no TLS 1.2 here.
    fn older() -> Result<HandshakeSignatureValid, Error> {
        let why = CertificateError::ApplicationVerificationFailure;
        Err(Error::InvalidCertificate(why))
    }
}

impl ServerCertVerifier for Peer {
    fn verify_server_cert(
        &self,
        presented: &CertificateDer<'_>,
        more: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.is(presented, more)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _key: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Self::older()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signed(message, key, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for Peer {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        presented: &CertificateDer<'_>,
        more: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.is(presented, more)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _key: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Self::older()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signed(message, key, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
