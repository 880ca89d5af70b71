//! Measures attach and detach on this machine, in a network namespace of its own: `attach_latency
//! [RUNS] [LANES]`.
//!
//! Each run attaches a container with one TCP port, drops its namespace as an ended container
//! would, and detaches it.

use std::time::{Duration, Instant};

use gantry_net::{NetError, Network, NetworkConfig, PortMap, Protocol};

struct Run {
    attach: Duration,
    detach: Duration,
}

async fn lane(network: Network, lane: u16, runs: u16) -> Result<Vec<Run>, NetError> {
    let mut measured = Vec::new();
    for run in 0..runs {
        let host_port = 20_000 + lane * 1000 + run % 1000;
        let port = PortMap {
            host_port,
            container_port: 80,
            protocol: Protocol::Tcp,
        };
        let id = format!("{lane}.{run}");
        let begun = Instant::now();
        let attachment = loop {
            match network.attach(&id, &[port]).await {
                Err(NetError::SubnetExhausted { .. }) => network.settle().await?,
                other => break other?,
            }
        };
        let attach = begun.elapsed();
        drop(attachment);
        let begun = Instant::now();
        network.detach(&id).await?;
        measured.push(Run {
            attach,
            detach: begun.elapsed(),
        });
    }
    Ok(measured)
}

fn print(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    println!(
        "{what:16} p50 {:.2} ms  p90 {:.2} ms  p99 {:.2} ms  max {:.2} ms",
        at(0.5),
        at(0.9),
        at(0.99),
        at(1.0)
    );
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let runs: u16 = arguments.next().map_or(Ok(300), |text| text.parse())?;
    let lanes: u16 = arguments.next().map_or(Ok(1), |text| text.parse())?;
    // The process has no other thread yet, so all its threads will live in the new namespace.
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)?;
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let network = Network::open(NetworkConfig::for_tag("la7e4c1e")).await?;
        let begun = Instant::now();
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..lanes {
            tasks.spawn(lane(network.clone(), number, runs));
        }
        let mut all = Vec::new();
        for measured in tasks.join_all().await {
            all.extend(measured?);
        }
        let rate = all.len() as f64 / begun.elapsed().as_secs_f64();
        network.settle().await?;
        println!("{} runs in {lanes} lanes, {rate:.0}/s", all.len());
        print("attach", all.iter().map(|run| run.attach).collect());
        print("detach", all.iter().map(|run| run.detach).collect());
        print(
            "attach + detach",
            all.iter().map(|run| run.attach + run.detach).collect(),
        );
        network.remove().await?;
        Ok(())
    })
}
