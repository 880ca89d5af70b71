//! What a node offers: reservations, attributes, its domain and disks as both APIs show them, more of
//! it after a restart, never less than what its tasks hold, and a share that the system keeps.

use gantry_tests::apart::Machines;
use gantry_tests::kernel::{run, tag_of};
use gantry_tests::poll::until;
use serde_json::{Value, json};

/// A filesystem of its own, until it is dropped.
struct Mounted(String);

impl Mounted {
    fn new(dir: String) -> Self {
        std::fs::create_dir(&dir).unwrap();
        run("mount", &["-t", "tmpfs", "-o", "size=8m", "tmpfs", &dir]);
        Self(dir)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        run("umount", &[&self.0]);
    }
}

fn task_pid(machines: &Machines) -> u32 {
    let task = machines.get("/state").unwrap()["frameworks"][0]["tasks"][0].clone();
    let statuses = task["statuses"].as_array().unwrap().clone();
    let pid = statuses.last().unwrap()["container_status"]["executor_pid"].as_u64();
    u32::try_from(pid.unwrap()).unwrap()
}

fn same_in_both(machines: &Machines, volume: &str) {
    let node = machines.nodes()[0].clone();
    let id = node["id"].as_str().unwrap();
    let agent = machines.get(&format!("/agent/{id}/state")).unwrap();
    for shown in [&node, &agent] {
        let full = |list: &Value| list.as_array().unwrap().clone();
        assert_eq!(shown["resources"]["cpus"], 1.5, "{shown}");
        assert_eq!(shown["unreserved_resources"]["cpus"], 1.0);
        assert_eq!(
            shown["reserved_resources"]["web"],
            json!({"cpus": 0.5, "mem": 0.0, "disk": 0.0, "gpus": 0.0})
        );
        let reserved = &full(&shown["reserved_resources_full"]["web"])[0]["reservations"][0];
        assert_eq!(*reserved, json!({"type": "STATIC", "role": "web"}));
        let disks = full(&shown["unreserved_resources_full"]);
        let disk = disks
            .iter()
            .find(|r| r["disk"]["source"]["type"] == "MOUNT")
            .unwrap();
        assert_eq!(disk["disk"]["source"]["mount"]["root"], volume);
        assert_eq!(disk["scalar"]["value"], 8.0);
        let attributes = json!({"rack": "r1", "level": 2.0, "slots": "[1-3]", "kinds": "{a, b}"});
        assert_eq!(shown["attributes"], attributes);
        assert_eq!(shown["domain"]["fault_domain"]["region"]["name"], "eu");
        assert_eq!(shown["domain"]["fault_domain"]["zone"]["name"], "eu-1");
    }
}

#[test]
fn reserved_shown_grown_and_never_less_than_what_runs() {
    let machines = Machines::new(2);
    let _coordinator = machines.coordinator();
    let volume = machines.place("volume0").to_string_lossy().into_owned();
    let disk = Mounted::new(volume.clone());
    let prefix = volume.trim_end_matches('0').to_owned();
    let resources = |text: &str| format!("{text};mem:256;ports:[31000-31009]");
    let more = [
        "--mount-disks",
        &prefix,
        "--domain",
        "eu/eu-1",
        "--system-reserved-mem",
        "512",
        "--system-reserved-cpus",
        "0.5",
        "--attributes",
        "rack:r1;level:2;slots:[1-3];kinds:{a,b}",
    ];
    let mut agent = machines.agent(1, &more);
    // The last of a flag that is given twice would be refused: resources come with each start.
    agent.kill_9();
    agent.spawn_with(&["--resources", &resources("cpus:1;cpus(web):0.5")]);
    machines.wait_active(1, &[&agent]);
    same_in_both(&machines, &volume);

    let app = |id: &str| json!({"id": id, "cpus": 0.6, "mem": 32, "cmd": "sleep 1000"});
    assert_eq!(machines.post("/v2/apps", &app("/a")).0, 201);
    let first = machines.wait_running("/a", 1);
    // There is enough for it, but half a processor of that is the role's.
    assert_eq!(machines.post("/v2/apps", &app("/b")).0, 201);
    until("it waits for processors", || {
        let queue = machines.get("/v2/queue").unwrap_or_default();
        let asked = &queue["queue"][0]["processedOffersSummary"]["rejectSummaryLastOffers"];
        let lacks =
            |reason: &Value| reason["reason"] == "InsufficientCpus" && reason["declined"] == 1;
        let found = asked.as_array().is_some_and(|all| all.iter().any(lacks));
        if found {
            Ok(())
        } else {
            Err(queue.to_string())
        }
    });

    let tag = tag_of(task_pid(&machines));
    let bound = std::fs::read_to_string(format!(
        "/sys/fs/cgroup/memory/gantry-{tag}/memory.limit_in_bytes"
    ));
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap();
    let total: u64 = meminfo.split_whitespace().nth(1).unwrap().parse().unwrap();
    let bound: u64 = bound.unwrap().trim().parse().unwrap();
    assert_eq!(bound, (total * 1024 - (512 << 20)) & !4095);
    let quota =
        std::fs::read_to_string(format!("/sys/fs/cgroup/cpu/gantry-{tag}/cpu.cfs_quota_us"));
    let processors = std::thread::available_parallelism().unwrap().get() as u64;
    assert_eq!(
        quota.unwrap().trim(),
        (processors * 100_000 - 50_000).to_string()
    );

    agent.kill_9();
    agent.spawn_with(&["--resources", &resources("cpus:0.5")]);
    assert_eq!(agent.wait(), Some(1));
    assert!(
        agent.log().contains("hold 0.6 cpus and cpus would be 0.5"),
        "{}",
        agent.log()
    );
    // More of it: the task goes on, and the other one has room.
    agent.spawn_with(&["--resources", &resources("cpus:1.5")]);
    machines.wait_active(1, &[&agent]);
    machines.wait_running("/b", 1);
    assert_eq!(machines.wait_running("/a", 1)[0]["id"], first[0]["id"]);
    drop(agent);
    drop(disk);
}
