//! From the secret to the key pair of an end.

use std::sync::Arc;

use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use aws_lc_rs::signature::Ed25519KeyPair;
use rustls::crypto::aws_lc_rs::sign::any_eddsa_type;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use zeroize::Zeroizing;

use crate::secret::Secret;

/// Says what the keys are for (RFC 5869 §3.1); another number is another cluster.
const SALT: &[u8] = b"gantry cluster secret 1";
const SEED_BYTES: usize = 32;

/// Keys cannot be made: the library refuses, which a sound one does not.
#[derive(Debug, thiserror::Error)]
#[error("keys cannot be made of the cluster's secret ({0})")]
pub struct KeysError(pub(crate) &'static str);

/// One end of one kind of connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// An agent that looks for its coordinator.
    SessionAgent,
    /// A coordinator that agents connect to.
    SessionCoordinator,
    /// A coordinator that asks an agent by HTTP.
    HttpCoordinator,
    /// An agent that answers a coordinator's HTTP.
    HttpAgent,
}

impl End {
    /// The one that it speaks to.
    pub(crate) fn peer(self) -> Self {
        match self {
            Self::SessionAgent => Self::SessionCoordinator,
            Self::SessionCoordinator => Self::SessionAgent,
            Self::HttpCoordinator => Self::HttpAgent,
            Self::HttpAgent => Self::HttpCoordinator,
        }
    }

    fn label(self) -> &'static [u8] {
        match self {
            Self::SessionAgent => b"session: agent",
            Self::SessionCoordinator => b"session: coordinator",
            Self::HttpCoordinator => b"http: coordinator",
            Self::HttpAgent => b"http: agent",
        }
    }

    /// Its key pair, the public one in the place of a certificate.
    pub(crate) fn key(self, secret: &Secret) -> Result<Arc<CertifiedKey>, KeysError> {
        let mut seed = Zeroizing::new([0; SEED_BYTES]);
        let pseudo_random = Salt::new(HKDF_SHA256, SALT).extract(secret.bytes());
        let info = [self.label()];
        let expanded = pseudo_random.expand(&info, HKDF_SHA256);
        expanded
            .and_then(|okm| okm.fill(seed.as_mut()))
            .map_err(|_| KeysError("expanding"))?;
        let pair = Ed25519KeyPair::from_seed_unchecked(seed.as_ref());
        let pair = pair.map_err(|_| KeysError("the seed"))?;
        let pkcs8 = pair.to_pkcs8v1().map_err(|_| KeysError("encoding"))?;
        let der = PrivatePkcs8KeyDer::from(pkcs8.as_ref());
        let key = any_eddsa_type(&der).map_err(|_| KeysError("signing"))?;
        let public = key.public_key().ok_or(KeysError("the public key"))?;
        let public = CertificateDer::from(public.to_vec());
        Ok(Arc::new(CertifiedKey::new(vec![public], key)))
    }
}
