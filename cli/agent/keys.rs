//! The table of an agent's settings.

use crate::settings::{Key, Kind, Role};

const REGISTRIES: &str = "Registries";
const FETCHING: &str = "Fetching";
const OUTPUT: &str = "Output";
const OFFER: &str = "What the node offers";
const CLUSTER: &str = "Cluster";

/// The role `agent`.
pub(crate) static AGENT: Role = Role {
    name: "agent",
    prefix: "GANTRY_AGENT_",
    mesos: true,
    keys: &KEYS,
};

static KEYS: [Key; 29] = [
    Key::new(
        "coordinator",
        "HOST:PORT,…",
        "host:port of a coordinator, several with commas between them, or unix:PATH",
        "The coordinators of the cluster; each is tried until one leads",
    )
    .mesos("master")
    .heading(CLUSTER),
    Key::new(
        "data-dir",
        "DIR",
        "a directory, which is made where it is not there",
        "Where the agent keeps what it knows, images and sandboxes",
    )
    .mesos("work_dir")
    .default("/var/lib/gantry/agent"),
    Key::new(
        "ip",
        "ADDRESS",
        "an IP address of this machine",
        "Address on which the coordinator reaches this node [default: the one that leads there]",
    )
    .mesos("ip"),
    Key::new(
        "port",
        "PORT",
        "a port from 0 to 65535; 0 picks a free one",
        "Port of the node's own API",
    )
    .mesos("port")
    .default("5051"),
    Key::new(
        "hostname",
        "HOST",
        "a host name or address",
        "Name or address under which tasks are reached [default: the address, or the bridge's]",
    )
    .mesos("hostname")
    .in_dev(),
    Key::new(
        "end-tasks",
        "BOOL",
        "true or false",
        "End the tasks when the agent is told to stop; otherwise the next start takes them up",
    )
    .kind(Kind::Switch)
    .default("false"),
    Key::new(
        "tasks-may-use-api",
        "BOOL",
        "true or false",
        "Let tasks on the host network use the API, for load balancers and schedulers that run as \
         tasks: gives every such task root on this node",
    )
    .kind(Kind::Switch)
    .default("false")
    .in_dev(),
    Key::new(
        "resources",
        "TEXT",
        "name:value;name(role):value of cpus, mem and disk (MiB), gpus and ports, or JSON",
        "What to offer instead of what is found, in Mesos's text or JSON form",
    )
    .kind(Kind::Pairs)
    .mesos("resources")
    .heading(OFFER)
    .in_dev(),
    Key::new(
        "default-role",
        "ROLE",
        "a role, or * for none",
        "Role that resources without one are reserved for",
    )
    .mesos("default_role")
    .default("*")
    .heading(OFFER)
    .in_dev(),
    Key::new(
        "attributes",
        "TEXT",
        "name:value;name:value, a value being text, a number, [1-2,5-6] or {a,b}",
        "Attributes that placement can ask for",
    )
    .kind(Kind::Pairs)
    .mesos("attributes")
    .heading(OFFER)
    .in_dev(),
    Key::new(
        "domain",
        "REGION/ZONE",
        "REGION/ZONE, or Mesos's JSON",
        "Fault domain of the node",
    )
    .mesos("domain")
    .heading(OFFER)
    .in_dev(),
    Key::new(
        "mount-disks",
        "PREFIX",
        "the beginning of an absolute path",
        "Filesystems mounted on PREFIX0, PREFIX1 and so on are disks of their own",
    )
    .default("/dcos/volume")
    .heading(OFFER)
    .in_dev(),
    Key::new(
        "system-reserved-cpus",
        "CPUS",
        "a number of processors, such as 0.5",
        "Processors that all tasks together leave to the system",
    )
    .default("0")
    .heading(OFFER)
    .in_dev(),
    Key::new(
        "system-reserved-mem",
        "MIB",
        "a number of MiB",
        "Memory that all tasks together leave to the system [default: 1024, or half of less than \
         twice that]",
    )
    .heading(OFFER)
    .in_dev(),
    Key::new(
        "insecure-registry",
        "HOST[:PORT]",
        "names of registries",
        "Registry that may be spoken to over plain HTTP (repeat it; loopback always may)",
    )
    .kind(Kind::Many)
    .heading(REGISTRIES)
    .in_dev(),
    Key::new(
        "registry-mirror",
        "REGISTRY=MIRROR[,tags]",
        "REGISTRY=MIRROR[,tags]",
        "Server that is asked before a registry (repeat it; the order counts). With \",tags\" it may \
         also say what a tag means, not only serve what is known by digest",
    )
    .kind(Kind::Many)
    .heading(REGISTRIES)
    .in_dev(),
    Key::new(
        "registry-auth",
        "FILE",
        "a file in the form of Docker's config.json",
        "Logins of registries; read whenever one is needed",
    )
    .heading(REGISTRIES)
    .in_dev(),
    Key::new(
        "registry-certs",
        "DIR",
        "a directory with HOST[:PORT]/*.crt in it",
        "Certificates of registries that have their own",
    )
    .heading(REGISTRIES)
    .in_dev(),
    Key::new(
        "credential-programs",
        "DIR",
        "a directory",
        "Directory of docker-credential-NAME programs that the logins may name",
    )
    .heading(REGISTRIES)
    .in_dev(),
    Key::new(
        "fetch-from",
        "HOST[:PORT]",
        "names of servers",
        "Server that tasks may have files fetched from although it is this machine or has a \
         link-local address (repeat it). Whoever may start tasks reaches it as this node does",
    )
    .kind(Kind::Many)
    .heading(FETCHING)
    .in_dev(),
    Key::new(
        "fetch-files",
        "DIR",
        "directories",
        "Directory of this node whose files tasks may have, whatever their permissions (repeat \
         it); elsewhere only what everyone may read",
    )
    .kind(Kind::Many)
    .heading(FETCHING)
    .in_dev(),
    Key::new(
        "frameworks-home",
        "DIR",
        "a directory",
        "Directory that relative paths of tasks are relative to",
    )
    .mesos("frameworks_home")
    .heading(FETCHING)
    .in_dev(),
    Key::new(
        "fetch-cache",
        "MIB",
        "a number of MiB",
        "Most MiB of fetched files that are kept for the next task; 0 keeps none",
    )
    .default("2048")
    .heading(FETCHING)
    .in_dev(),
    Key::new(
        "output-file",
        "KIB",
        "a number of KiB",
        "KiB at which a file of output is rotated, where its task says nothing else",
    )
    .default("2048")
    .heading(OUTPUT)
    .in_dev(),
    Key::new(
        "output-files",
        "COUNT",
        "a number of files",
        "Old files of output that are kept, where their task says nothing else",
    )
    .default("9")
    .heading(OUTPUT)
    .in_dev(),
    Key::new(
        "output-file-max",
        "KIB",
        "a number of KiB",
        "Most KiB of a file that a task may ask for",
    )
    .default("65536")
    .heading(OUTPUT)
    .in_dev(),
    Key::new(
        "output-files-max",
        "COUNT",
        "a number of files",
        "Most old files that a task may ask for",
    )
    .default("15")
    .heading(OUTPUT)
    .in_dev(),
    Key::new(
        "cluster-secret-file",
        "FILE",
        "a file of root's that nobody else can read, with at least 32 random characters",
        "The secret by which the members of the cluster know each other",
    )
    .heading(CLUSTER),
    Key::new(
        "cluster-secret",
        "TEXT",
        "at least 32 random characters, instead of a file",
        "The secret itself; no flag, since everybody on a machine sees command lines",
    )
    .secret()
    .heading(CLUSTER),
];
