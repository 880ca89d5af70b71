//! Which session of an agent counts.

use gantry_wire::agent::{Kill, to_agent};
use gantry_wire::ids::AgentId;
use gantry_wire::time::Millis;
use tokio::sync::watch;

use super::sessions::Sessions;
use crate::agents::{Directory, OUTGOING_MAX, Outgoing, SessionId};

fn agent() -> AgentId {
    AgentId::parse("agent-1").unwrap()
}

fn sessions() -> (Sessions, watch::Receiver<Directory>) {
    let (to_directory, directory) = watch::channel(Directory::default());
    (Sessions::new(to_directory), directory)
}

fn connect(sessions: &mut Sessions, id: u64) -> crate::agents::Incoming {
    let (outgoing, incoming) = Outgoing::new(SessionId(id));
    sessions.opening(&agent(), SessionId(id));
    assert!(sessions.open(&agent(), outgoing, format!("host:{id}")));
    incoming
}

#[test]
fn a_second_connection_replaces_the_first_without_a_disconnection() {
    let (mut sessions, directory) = sessions();
    let mut first = connect(&mut sessions, 1);
    assert_eq!(directory.borrow()[&agent()], "host:1");
    let _second = connect(&mut sessions, 2);
    assert!(first.cut.try_recv().is_ok());
    assert_eq!(sessions.agent_of(SessionId(1)), None);
    assert_eq!(sessions.closed(SessionId(1), Millis(5)), None);
    assert!(sessions.overdue(Millis(u64::MAX)).is_empty() && !sessions.any_absent());
    assert_eq!(directory.borrow()[&agent()], "host:2");
}

#[test]
fn a_registration_that_was_overtaken_opens_nothing() {
    let (mut sessions, directory) = sessions();
    let (slow, mut slow_end) = Outgoing::new(SessionId(1));
    sessions.opening(&agent(), SessionId(1));
    let _second = connect(&mut sessions, 2);
    assert!(!sessions.open(&agent(), slow, "host:1".to_owned()));
    assert!(slow_end.cut.try_recv().is_ok());
    assert_eq!(directory.borrow()[&agent()], "host:2");
}

#[test]
fn an_agent_that_closes_is_asked_to_be_disconnected_once_until_that_fails() {
    let (mut sessions, directory) = sessions();
    let _end = connect(&mut sessions, 1);
    assert_eq!(sessions.closed(SessionId(1), Millis(5)), Some(agent()));
    assert!(directory.borrow().is_empty());
    assert_eq!(sessions.overdue(Millis(5)), [agent()]);
    assert!(sessions.overdue(Millis(6)).is_empty());
    sessions.ask_again(&agent());
    assert_eq!(sessions.overdue(Millis(7)), [agent()]);
    sessions.forget(&agent());
    assert!(!sessions.any_absent());
}

#[test]
fn an_agent_that_does_not_keep_up_is_cut_and_then_absent() {
    let (mut sessions, directory) = sessions();
    let mut end = connect(&mut sessions, 1);
    for _ in 0..=OUTGOING_MAX {
        assert!(end.cut.try_recv().is_err());
        sessions.send(&agent(), to_agent::Kind::Kill(Kill::default()));
    }
    assert!(end.cut.try_recv().is_ok());
    assert!(directory.borrow().is_empty());
    assert_eq!(sessions.closed(SessionId(1), Millis(5)), Some(agent()));
    assert_eq!(sessions.overdue(Millis(5)), [agent()]);
}

#[test]
fn a_new_leader_waits_for_the_agents_it_expects() {
    let (mut sessions, _directory) = sessions();
    sessions.expect([agent()].into_iter(), Millis(0));
    assert!(sessions.overdue(Millis(9_999)).is_empty());
    let _end = connect(&mut sessions, 1);
    assert!(sessions.overdue(Millis(20_000)).is_empty());
    assert!(!sessions.any_absent());
}
