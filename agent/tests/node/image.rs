//! Tasks from images: Debian's registry, an image by umoci, pushed by skopeo.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use gantry_wire::agent::{Launch, NetworkMode};
use gantry_wire::task::TaskState;

use crate::agent::{Node, run};
use crate::coordinator::{shell, state};

pub(crate) struct Registry(Child);

impl Drop for Registry {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn tool(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    let output = output.unwrap_or_else(|error| panic!("{program} is needed: {error}"));
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {words}");
    String::from_utf8(output.stdout).unwrap()
}

/// Copies a program and the libraries that it needs.
fn install(root: &Path, program: &str) {
    let libraries = tool("ldd", &[program]);
    let libraries = libraries
        .split_whitespace()
        .filter(|word| word.starts_with('/'));
    for file in libraries.chain([program]) {
        let target = root.join(file.trim_start_matches('/'));
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::copy(file, target).unwrap();
    }
}

/// Starts a registry with one image; its reference.
pub(crate) async fn registry(node: &Node, dir: &Path) -> (Registry, String) {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = free.local_addr().unwrap().to_string();
    drop(free);
    let path = |name: &str| dir.join(name).to_string_lossy().into_owned();
    let storage = path("storage");
    let config = format!(
        "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem:\n    \
         rootdirectory: {storage}\nhttp:\n  addr: {host}\n"
    );
    std::fs::write(path("config.yml"), config).unwrap();
    let mut command = Command::new("docker-registry");
    command.args(["serve", &path("config.yml")]);
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let registry = Registry(child.expect("docker-registry is needed"));
    node.coordinator
        .until("the registry", |_| TcpStream::connect(&host).ok().map(drop))
        .await;

    let (layout, bundle) = (path("image"), path("bundle"));
    let image = format!("{layout}:latest");
    tool("umoci", &["init", "--layout", &layout]);
    tool("umoci", &["new", "--image", &image]);
    tool("umoci", &["unpack", "--image", &image, &bundle]);
    let root = Path::new(&bundle).join("rootfs");
    install(&root, "/bin/sh");
    install(&root, "/usr/bin/id");
    tool("umoci", &["repack", "--image", &image, &bundle]);
    let mut config = vec!["config", "--image", &image, "--config.user", "1234:567"];
    config.extend([
        "--config.env",
        "COLOUR=green",
        "--config.env",
        "PATH=/usr/bin:/bin",
    ]);
    config.extend([
        "--config.workingdir",
        "/work",
        "--config.entrypoint",
        "/bin/sh",
    ]);
    config.extend([
        "--config.cmd",
        "-c",
        "--config.cmd",
        "echo default $COLOUR; pwd; id -u; id -g",
    ]);
    tool("umoci", &config);
    let (from, name) = (format!("oci:{image}"), format!("{host}/test/tools:1"));
    let to = format!("docker://{name}");
    tool(
        "skopeo",
        &["copy", "-q", "--dest-tls-verify=false", &from, &to],
    );
    (registry, name)
}

pub(crate) fn an_image_says_what_it_runs() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let node = Node::start().await;
        let (_registry, image) = registry(&node, dir.path()).await;
        let of = |task: &str, command: &str, args: &[&str]| Launch {
            image: image.clone(),
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            ..shell(task, command)
        };
        let both = Launch {
            network: NetworkMode::Bridge as i32,
            ..of(
                "bridged",
                "echo mine > $MESOS_SANDBOX/file && echo wrote",
                &[],
            )
        };
        let root = Launch {
            user: "root".into(),
            ..of("root", "id -u", &[])
        };
        for (launch, want) in [
            (of("default", "", &[]), "default green\n/work\n1234\n567\n"),
            (of("args", "", &["-c", "echo $0", "zero"]), "zero\n"),
            (of("shell", "echo $COLOUR; ls /", &[]), "green\n"),
            (both, "wrote\n"),
            (root, "0\n"),
        ] {
            let task = launch.task_id.clone();
            node.coordinator.launch(launch);
            let end = node.coordinator.terminal(&task).await;
            let seen = node.read(&format!("{}/stdout", end.sandbox)).await;
            let wrong = node.read(&format!("{}/stderr", end.sandbox)).await;
            assert_eq!(seen, want, "{task}: {end:?} {wrong}");
        }
        let missing = Launch {
            image: format!("{image}-not"),
            ..shell("missing", "true")
        };
        node.coordinator.launch(missing);
        let end = node.coordinator.terminal("missing").await;
        assert_eq!(state(&end), TaskState::TaskFailed);
        assert!(end.message.contains("tools:1-not"), "{}", end.message);
    });
}
