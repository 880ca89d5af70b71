//! The allocator by example: spreading, refusals, ports.

use gantry_wire::agent::ResourcesMessage;

use super::*;
use crate::command::{Command, Kind, RegisterAgent};
use gantry_wire::time::Millis;

fn state(agents: &[(&str, u64, u64)]) -> State {
    let mut state = State::default();
    for (id, cpus_milli, mem_bytes) in agents {
        let resources = ResourcesMessage {
            cpus_milli: *cpus_milli,
            mem_bytes: *mem_bytes,
            disk_bytes: 100,
            gpus: 0,
            ports: vec![31000, 31009],
        };
        let register = RegisterAgent {
            agent_id: (*id).to_owned(),
            resources: Some(resources),
            ..RegisterAgent::default()
        };
        let command = Command::new(Millis(1), Kind::RegisterAgent(register));
        crate::apply(&mut state, 1, &command);
    }
    state
}

fn demand(cpus_milli: u64, mem_bytes: u64, ports: &[Option<u16>]) -> Demand {
    let each = Amounts {
        cpus_milli,
        mem_bytes,
        ..Amounts::default()
    };
    Demand {
        role: "*".to_owned(),
        each,
        ports: ports.to_vec(),
    }
}

fn task(n: usize) -> TaskId {
    TaskId::parse(format!("t{n}")).unwrap()
}

#[test]
fn spreads_over_the_least_used_agents_and_never_oversubscribes() {
    let mut alloc = Allocator::new(&state(&[
        ("a", 1000, 100),
        ("b", 2000, 100),
        ("c", 1000, 100),
    ]));
    let want = demand(500, 10, &[]);
    let places: Vec<String> = (0..9)
        .map_while(|n| alloc.answer(&want, &task(n), 7))
        .map(|offer| offer.agent_id.to_string())
        .collect();
    assert_eq!(places, ["a", "b", "c", "b", "a", "b", "c", "b"]);
    let why = alloc.explain(&want);
    assert_eq!(why.asked, 3);
    assert_eq!(
        why.refused,
        BTreeMap::from([(Refusal::InsufficientCpus, 3)])
    );
    assert!(alloc.release(&task(4)) && !alloc.release(&task(4)));
    assert!(alloc.fits_on(&want, &AgentId::parse("a").unwrap()));
    assert_eq!(
        alloc.answer(&want, &task(20), 7).unwrap().agent_id.as_str(),
        "a"
    );
}

#[test]
fn the_first_thing_in_funnel_order_is_named() {
    let alloc = Allocator::new(&state(&[("a", 1000, 100)]));
    for (want, refusal) in [
        (demand(2000, 1000, &[]), Refusal::InsufficientCpus),
        (demand(1, 1000, &[Some(80)]), Refusal::InsufficientMemory),
        (
            Demand {
                each: Amounts {
                    gpus: 1,
                    ..demand(1, 1, &[]).each
                },
                ..demand(1, 1, &[Some(80)])
            },
            Refusal::InsufficientGpus,
        ),
        (demand(1, 1, &[Some(80)]), Refusal::InsufficientPorts),
        (
            demand(1, 1, &[Some(31000), Some(31000)]),
            Refusal::InsufficientPorts,
        ),
        (demand(1, 1, &[None; 11]), Refusal::InsufficientPorts),
        (
            Demand {
                role: "other".to_owned(),
                ..demand(1, 1, &[])
            },
            Refusal::UnfulfilledRole,
        ),
    ] {
        let refused = alloc.explain(&want).refused;
        assert_eq!(
            refused.into_keys().collect::<Vec<_>>(),
            [refusal],
            "{want:?}"
        );
    }
}

#[test]
fn host_ports_are_free_distinct_and_not_just_used() {
    let mut alloc = Allocator::new(&state(&[("a", 1000, 100)]));
    let ports = |alloc: &mut Allocator, n: usize, want: &[Option<u16>], seed| {
        alloc
            .answer(&demand(1, 1, want), &task(n), seed)
            .map(|o| o.host_ports)
    };
    let first = ports(&mut alloc, 0, &[None, Some(31004), None], 1).unwrap();
    assert_eq!(first[1], 31004);
    assert_eq!(first.iter().collect::<BTreeSet<_>>().len(), 3);
    alloc.release(&task(0));
    let again = ports(&mut alloc, 1, &[None; 7], 1).unwrap();
    assert!(
        again.iter().all(|p| !first.contains(p)),
        "{first:?} {again:?}"
    );
    assert_eq!(ports(&mut alloc, 2, &[None; 3], 9).unwrap().len(), 3);
    assert_eq!(ports(&mut alloc, 3, &[None], 9), None);
}
