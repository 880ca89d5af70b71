//! Certificates that an operator gives for one registry: `<dir>/<host[:port]>/`, as Docker's
//! `certs.d` has them.
//!
//! It decides what is read there: every `*.crt` is an authority that is trusted for this host
//! besides the system's, and the first `<name>.cert` with its `<name>.key` is what we show. It does
//! not decide when: each request looks, so that renewed certificates count at once.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use reqwest::{Certificate, Identity};

use super::cause::chain;
use crate::Digest;

/// Most files of a host, and largest of them in bytes.
const MAX_FILES: usize = 64;
const MAX_FILE_BYTES: u64 = 1 << 20;

/// What there is for one host.
pub(super) struct HostFiles {
    authorities: Vec<Vec<u8>>,
    /// Certificate and key, one after the other.
    shown: Option<zeroize::Zeroizing<Vec<u8>>>,
    /// Of all of it: the same digest means the same files.
    pub(super) digest: Digest,
}

/// The directory of a host, if it could have one: a name that is no host is not made a path.
fn directory(dir: &Path, host: &str) -> Option<PathBuf> {
    crate::host::is_host(host).then(|| dir.join(host))
}

/// Whether the operator gave certificates for `host`. Blocks.
pub(super) fn has(dir: &Path, host: &str) -> bool {
    directory(dir, host).is_some_and(|path| path.is_dir())
}

/// The certificates for `host`; `None` if the operator gave none. Blocks.
pub(super) fn load(dir: &Path, host: &str) -> io::Result<Option<HostFiles>> {
    let Some(path) = directory(dir, host) else {
        return Ok(None);
    };
    let entries = match fs::read_dir(&path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let mut paths: Vec<PathBuf> = paths.take(MAX_FILES).collect::<io::Result<_>>()?;
    paths.sort();
    let (mut authorities, mut shown) = (Vec::new(), None);
    for path in paths {
        let kind = path.extension().and_then(|extension| extension.to_str());
        match kind {
            Some("crt") => authorities.push(read(&path)?),
            Some("cert") if shown.is_none() => {
                let mut both = zeroize::Zeroizing::new(read(&path)?);
                both.push(b'\n');
                both.extend_from_slice(&read(&path.with_extension("key"))?);
                shown = Some(both);
            }
            _ => {}
        }
    }
    let parts = authorities.iter().map(Vec::as_slice);
    let all = parts.chain(shown.iter().map(|shown| shown.as_slice()));
    let digests: String = all.map(|part| Digest::of(part).to_string()).collect();
    Ok(Some(HostFiles {
        authorities,
        shown,
        digest: Digest::of(digests.as_bytes()),
    }))
}

impl HostFiles {
    /// Adds them to what the system trusts.
    pub(super) fn apply(
        &self,
        mut builder: reqwest::ClientBuilder,
    ) -> Result<reqwest::ClientBuilder, String> {
        for authority in &self.authorities {
            let certificates = Certificate::from_pem_bundle(authority);
            let certificates = certificates.map_err(|error| chain(&error))?;
            if certificates.is_empty() {
                return Err("a .crt file has no certificate in it".into());
            }
            builder = builder.tls_certs_merge(certificates);
        }
        if let Some(shown) = &self.shown {
            let identity = Identity::from_pem(shown).map_err(|error| chain(&error))?;
            builder = builder.identity(identity);
        }
        Ok(builder)
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let named = |error: io::Error| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        io::Error::new(error.kind(), format!("{name}: {error}"))
    };
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(named)?;
    file.take(MAX_FILE_BYTES)
        .read_to_end(&mut bytes)
        .map_err(named)?;
    Ok(bytes)
}
