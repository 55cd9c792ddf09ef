//! Conversations with the redirector's machine: what happens on the left, what the session does on the right.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use super::*;
use crate::config::LoadOptions;
use crate::config::redirector::load;
use crate::decide::rules::Locals;
use crate::session::{Budget, Memory, Nowhere, Report};

const CLIENT: &str = "192.168.1.20:51234";
const DEST: &str = "198.51.100.2:22";
const A: &str = "192.0.2.1:4129";
const B: &str = "[2001:db8::2]:4129";

/// What happens to a session.
#[derive(Debug, Clone, Copy)]
enum In<'a> {
    /// It begins, and was going to [`DEST`].
    Begins,
    /// It begins, and nobody knows where it was going.
    Lost,
    /// It is one of our own that came back.
    ComesBack,
    /// An attempt to connect failed.
    Unreached(&'a str, DialError),
    /// All did.
    Unconnected(DialError),
    /// All led to this machine.
    LeadsHere,
    /// An attempt stands.
    Connected(&'a str),
    /// The daemon stops.
    Stopped,
}

/// Hears where connections go.
#[derive(Default)]
struct Ways(Vec<String>);

impl Report<Redirection> for Ways {
    fn verdict(&mut self, session: &Redirection, way: Way) {
        let server = session.server().map(|server| format!(" {}", server.name())).unwrap_or_default();
        self.0.push(format!("{}{server}", Kept::word(way)));
    }
}

fn plan(settings: &str) -> Arc<RedirectPlan> {
    let text = format!("listen: [{{ port: 4128 }}]\nproxies: ['{A}', '{B}']\n{settings}");
    let loaded = load(&text, Path::new("r.yml"), LoadOptions::default());
    Arc::new(loaded.unwrap_or_else(|problems| panic!("{problems}")).plan)
}

/// Holds a conversation, checks every line of it, and what was reported in the end.
#[track_caller]
fn talk(plan: &Arc<RedirectPlan>, conversation: &[(In<'_>, &str)], reported: &[&str]) -> Redirection {
    let addr = |text: &str| text.parse::<SocketAddr>().unwrap();
    let now = Instant::now();
    let mut session = Redirection::new(Arc::clone(plan), &plan.service.listeners[0], addr(CLIENT), now);
    let locals = Locals { addrs: Vec::new(), tcp_ports: Vec::new(), allow_local: true };
    let (preludes, mut ways) = (Arc::<Budget>::default(), Ways::default());
    for (line, (input, expected)) in conversation.iter().enumerate() {
        let memory = Memory::new(now);
        let mut env = Env {
            now,
            plan,
            locals: &locals,
            preludes: &preludes,
            report: &mut ways,
            surroundings: &Nowhere,
            memory: &memory,
        };
        let env = &mut env;
        let step = match *input {
            In::Begins => session.start(Wish::Address(addr(DEST)), env),
            In::Lost => session.start(Wish::Lost, env),
            In::ComesBack => session.comes_back(Wish::Address(addr(DEST)), env),
            In::Unreached(server, error) => {
                session.unreached(addr(server), error, now);
                continue;
            }
            In::Unconnected(error) => session.dial_failed(error, env),
            In::LeadsHere => session.leads_here(env),
            In::Connected(server) => session.connected(addr(server), addr("192.168.1.1:40000"), env),
            In::Stopped => session.close(CloseReason::Shutdown),
        };
        let shown = match step {
            Step::Dial(addrs) => {
                format!("dial {}", addrs.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
            }
            Step::Tunnel { to_server } => format!("tunnel {}", to_server.len()),
            Step::Close(Closing { reason, wire }) => format!("close {}: {wire:?}", reason.as_str()),
            other => format!("{other:?}"),
        };
        assert_eq!(shown, *expected, "line {line}: {input:?}");
    }
    assert_eq!(ways.0, reported);
    session
}

fn standings(plan: &RedirectPlan) -> Vec<Standing> {
    plan.servers.iter().map(|server| server.standing()).collect()
}

const BOTH: &str = "dial 192.0.2.1:4129 [2001:db8::2]:4129";
use DialError::{Other, Refused, TimedOut};
use In::*;
use Standing::{Down, Unknown};

#[test]
fn a_connection_goes_to_the_first_server_and_says_whose_it_is() {
    let header = |settings: &str| {
        let plan = plan(settings);
        let mut session =
            talk(&plan, &[(Begins, BOTH), (Connected(A), "tunnel 0")], &["Forward 192.0.2.1:4129"]);
        // That the kernel took it says nothing about the process.
        assert_eq!(standings(&plan), [Unknown, Unknown]);
        session.take_greeting()
    };
    let ends = (CLIENT.parse().unwrap(), DEST.parse().unwrap());
    assert_eq!(header(""), write::v2(Some(ends)));
    assert_eq!(header("proxyProtocol: v1"), write::v1(Some(ends)));
}

#[test]
fn a_server_that_fails_a_client_is_the_last_for_the_next_one() {
    let plan = plan("");
    talk(
        &plan,
        &[(Begins, BOTH), (Unreached(A, Refused), ""), (Connected(B), "tunnel 0")],
        &[&format!("Forward {B}")],
    );
    assert_eq!(standings(&plan), [Down, Unknown]);
    talk(
        &plan,
        &[(Begins, "dial [2001:db8::2]:4129 192.0.2.1:4129"), (Connected(A), "tunnel 0")],
        &[&format!("Forward {A}")],
    );
    assert_eq!(standings(&plan), [Down, Unknown], "a check tells when it is back");
}

#[test]
fn trouble_of_this_machine_is_no_fault_of_a_server() {
    let plan = plan("");
    let conversation =
        [(Begins, BOTH), (Unreached(A, Other), ""), (Unconnected(Other), "close connect_failed: Reset")];
    talk(&plan, &conversation, &[]);
    assert_eq!(standings(&plan), [Unknown, Unknown]);
}

#[test]
fn when_no_server_answers_the_client_gets_a_reset() {
    let plan = plan("");
    let attempts = [(Begins, BOTH), (Unreached(A, Refused), ""), (Unreached(B, TimedOut), "")];
    let conversation =
        [attempts.as_slice(), &[(Unconnected(Refused), "close connect_refused: Reset")]].concat();
    talk(&plan, &conversation, &[]);
    assert_eq!(standings(&plan), [Down, Down]);
    // Again in vain, as they may be back.
    talk(&plan, &conversation, &[]);
}

#[test]
fn when_no_server_answers_the_destination_may_be_dialled_instead() {
    let plan = plan("onFailure: direct");
    let conversation = [
        (Begins, BOTH),
        (Unreached(A, Refused), ""),
        (Unreached(B, TimedOut), ""),
        (Unconnected(Refused), "dial 198.51.100.2:22"),
        (Connected(DEST), "tunnel 0"),
    ];
    let mut session = talk(&plan, &conversation, &["Direct"]);
    assert_eq!(session.take_greeting(), b"", "a stranger understands no PROXY header");
    // Nobody waits for servers that are known to be gone.
    let fails = [(Begins, "dial 198.51.100.2:22"), (Unconnected(TimedOut), "close connect_timeout: Reset")];
    talk(&plan, &fails, &[]);
    let own = [(Begins, "dial 198.51.100.2:22"), (LeadsHere, "close denied: Reset")];
    talk(&plan, &own, &["Denied"]);
}

#[test]
fn what_goes_nowhere_is_reset() {
    let plan = plan("onFailure: direct");
    talk(&plan, &[(Lost, "close no_destination: Reset")], &["Denied"]);
    talk(&plan, &[(ComesBack, "close denied: Reset")], &["Denied"]);
    talk(&plan, &[(Begins, BOTH), (LeadsHere, "close denied: Reset")], &["Denied"]);
    talk(&plan, &[(Begins, BOTH), (Stopped, "close shutdown: Quiet")], &[]);
}

#[test]
fn a_name_that_was_never_resolved_is_no_server() {
    let text = "listen: [{ port: 4128 }]\nproxies: ['proxy.example:4129']";
    let plan = Arc::new(load(text, Path::new("r.yml"), LoadOptions::default()).unwrap().plan);
    talk(&plan, &[(Begins, "close resolve_failed: Reset")], &[]);
}

#[test]
fn a_flow_has_a_header_for_datagrams_and_leaves_a_server_that_is_down_for_one_that_is_not() {
    let mut plan = plan("proxyProtocol: v1");
    Arc::get_mut(&mut plan).unwrap().service.listeners[0].l4 = L4::Udp;
    let conversation = [(Begins, BOTH), (Connected(A), "tunnel 0")];
    let mut session = talk(&plan, &conversation, &["Forward 192.0.2.1:4129"]);
    let ends = (CLIENT.parse().unwrap(), DEST.parse().unwrap());
    assert_eq!(session.take_greeting(), write::v2_datagram(ends), "version 1 has none");
    assert!(session.is_reviewed() && !session.would_go_elsewhere());
    let fails = |number: usize| plan.servers.iter().nth(number).unwrap().failed("refused", Instant::now());
    fails(0);
    assert!(session.would_go_elsewhere());
    fails(1);
    assert!(!session.would_go_elsewhere(), "there is nowhere");
}

/// It was unfiltered for as long as the client went on sending.
#[test]
fn a_flow_past_all_servers_ends_when_one_is_there_again() {
    let mut plan = plan("onFailure: direct");
    Arc::get_mut(&mut plan).unwrap().service.listeners[0].l4 = L4::Udp;
    plan.servers.iter().for_each(|server| server.failed("refused", Instant::now()));
    let conversation = [(Begins, "dial 198.51.100.2:22"), (Connected(DEST), "tunnel 0")];
    let session = talk(&plan, &conversation, &["Direct"]);
    assert!(session.is_reviewed() && !session.would_go_elsewhere());
    plan.servers.iter().next().unwrap().answered(A.parse().unwrap(), Instant::now());
    assert!(session.would_go_elsewhere());
}
