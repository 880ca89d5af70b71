//! What `gantry dev` prints once the node is up: where it is, what it offers, what to try.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;

use gantry_wire::resources::Resources;
use serde_json::json;

use crate::client::DEFAULT_URL;
use crate::show::{amount, mebibytes};

/// The facts of a node.
pub(super) struct Greeting<'a> {
    /// Where the API listens.
    pub(super) api: SocketAddr,
    /// The data directory.
    pub(super) data: &'a Path,
    /// Name or address of the node.
    pub(super) node: &'a str,
    /// What tasks may use.
    pub(super) resources: &'a Resources,
    /// What the node cannot do.
    pub(super) lacks: &'a [String],
    /// Whether tasks outlive gantry.
    pub(super) keep_tasks: bool,
}

impl fmt::Display for Greeting<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = format!("http://{}", self.api);
        let offer = self.resources;
        let cpus = amount(&json!(offer.cpus.cpus()));
        let (mem, disk) = (
            mebibytes(&json!(offer.mem.mib())),
            mebibytes(&json!(offer.disk.mib())),
        );
        let ports = offer.ports.to_string();
        let ports = ports.trim_matches(['[', ']']);
        writeln!(
            f,
            "Gantry {} runs one node on this machine.\n",
            env!("CARGO_PKG_VERSION")
        )?;
        writeln!(f, "  API    {url}")?;
        writeln!(f, "  page   {url}/")?;
        writeln!(f, "  data   {}", self.data.display())?;
        writeln!(
            f,
            "  node   {}: {cpus} CPUs, {mem} memory, {disk} disk, ports {ports}",
            self.node
        )?;
        for lack in self.lacks {
            writeln!(f, "  lacks  {lack}")?;
        }
        writeln!(f, "\nTry next, in another terminal:\n")?;
        if url != DEFAULT_URL {
            writeln!(f, "  export GANTRY_URL={url}")?;
        }
        let app =
            "gantry app add --id /hello --cmd 'while date; do sleep 1; done' --cpus 0.1 --mem 32";
        writeln!(f, "  {app}")?;
        writeln!(f, "  gantry task list")?;
        writeln!(f, "  gantry task log -f /hello\n")?;
        let end = if self.keep_tasks {
            "Ctrl-C stops the node; its tasks go on and the next `gantry dev` takes them up."
        } else {
            "Ctrl-C stops the tasks and the node."
        };
        writeln!(f, "{end}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_wire::resources::{PortRange, PortRanges};
    use gantry_wire::units::{Bytes, MilliCpu};

    #[test]
    fn the_greeting_names_what_a_newcomer_needs() {
        let resources = Resources {
            cpus: MilliCpu(2000),
            mem: Bytes(2 << 30),
            disk: Bytes(10 << 30),
            gpus: 0,
            ports: PortRanges::new([PortRange {
                begin: 31000,
                end: 32000,
            }]),
        };
        let lacks = ["no swap limits".to_owned()];
        let mut greeting = Greeting {
            api: SocketAddr::from(([127, 0, 0, 1], 5050)),
            data: Path::new("/data"),
            node: "10.0.0.1",
            resources: &resources,
            lacks: &lacks,
            keep_tasks: false,
        };
        let text = greeting.to_string();
        for part in [
            "http://127.0.0.1:5050\n",
            "10.0.0.1: 2 CPUs, 2 GiB memory, 10 GiB disk, ports 31000-32000",
            "lacks  no swap limits",
            "gantry app add --id /hello",
            "stops the tasks and the node",
        ] {
            assert!(text.contains(part), "{part}:\n{text}");
        }
        assert!(!text.contains("GANTRY_URL"));
        greeting.api.set_port(6000);
        assert!(
            greeting
                .to_string()
                .contains("export GANTRY_URL=http://127.0.0.1:6000")
        );
    }
}
