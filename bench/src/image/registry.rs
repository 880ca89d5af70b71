//! Debian's `docker-registry` on a loopback port of its own; dropping it stops it.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::Context;

use super::{output, until};

pub(super) struct Registry {
    host: String,
    child: Child,
}

impl Registry {
    pub(super) fn start(scratch: &Path) -> anyhow::Result<Self> {
        let host = {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            listener.local_addr()?.to_string()
        };
        let (config, storage) = (scratch.join("registry.yml"), scratch.join("registry"));
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http: {{addr: \"{host}\"}}\n",
            storage.display()
        );
        std::fs::write(&config, text)?;
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("docker-registry is not installed")?;
        let registry = Self { host, child };
        until("the registry listens", || {
            TcpStream::connect(&registry.host).is_ok()
        })?;
        Ok(registry)
    }

    /// Pushes a tag of a layout.
    pub(super) fn push(&self, layout: &Path, tag: &str, image: &str) -> anyhow::Result<()> {
        let from = format!("oci:{}:{tag}", layout.display());
        let to = format!("docker://{}", self.reference(image));
        output(
            "skopeo",
            &["copy", "-q", "--dest-tls-verify=false", &from, &to],
        )?;
        Ok(())
    }

    /// The full name of an image.
    pub(super) fn reference(&self, image: &str) -> String {
        format!("{}/{image}", self.host)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
