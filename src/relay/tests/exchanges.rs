//! One request and its response.

use std::net::Shutdown;

use super::*;
use crate::relay::exchange::{Asked, Exchange, Progress};
use crate::wire::http1::Framing;

const HEAD: &[u8] = b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n";

/// What happens around one request; the rest is ordinary.
#[derive(Debug, Clone, Copy)]
struct Case<'a> {
    method: &'a str,
    minor: u8,
    body: Framing,
    after_head: &'a [u8],
    client: &'a [u8],
    server: &'a [u8],
    /// The server closes behind what it says.
    closes: bool,
    /// The request asks for another protocol.
    upgrades: bool,
}

const GET: Case<'_> = Case {
    method: "GET",
    minor: 1,
    body: Framing::None,
    after_head: b"",
    client: b"",
    server: b"",
    closes: false,
    upgrades: false,
};

const POST: Case<'_> =
    Case { method: "POST", server: b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", ..GET };

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    /// `finished both`, `finished client`, `finished server`, `finished` (which connection may be used again), or a failure.
    end: String,
    to_client: String,
    to_server: String,
    surplus: String,
    answered: bool,
}

fn run(case: Case<'_>) -> Outcome {
    let (mut rig, mut client, mut server) = Rig::new();
    client.write_all(case.client).unwrap();
    server.write_all(case.server).unwrap();
    if case.closes {
        server.shutdown(Shutdown::Write).unwrap();
    }
    let asked =
        Asked { method: case.method.into(), keep_alive: true, minor: case.minor, upgrades: case.upgrades };
    let mut exchange = Exchange::new(HEAD.to_vec(), asked, case.body, case.after_head).unwrap();
    let end = loop {
        match exchange.pump(&mut rig.client, &mut rig.server, &mut rig.loan) {
            Progress::Wait { .. } if !rig.wait(SETTLED) => break "wait".to_owned(),
            Progress::Wait { .. } | Progress::Again => {}
            Progress::Finished { client_reusable, server_reusable } => {
                let which = match (client_reusable, server_reusable) {
                    (true, true) => " both",
                    (true, false) => " client",
                    (false, true) => " server",
                    (false, false) => "",
                };
                break format!("finished{which}");
            }
            Progress::Switched(rest) => break format!("switched {}", String::from_utf8_lossy(&rest)),
            Progress::BadResponse => break "bad response".to_owned(),
            Progress::BadRequest => break "bad request".to_owned(),
            Progress::Broken(side, _) => break format!("broken {side:?}"),
        }
    };
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let (to_client, to_server) = (arrived(&mut client).0, arrived(&mut server).0);
    let delivered = exchange.delivered();
    assert_eq!(delivered, (to_server.len() as u64, to_client.len() as u64), "{case:?}");
    exchange.close(&mut rig.loan);
    assert_eq!(rig.loan.pipes.lent(), 0);
    Outcome {
        end,
        to_client: text(to_client),
        to_server: text(to_server.strip_prefix(HEAD).expect("the head").to_vec()),
        answered: exchange.is_answered(),
        surplus: text(exchange.into_surplus()),
    }
}

#[track_caller]
fn check(case: Case<'_>, end: &str, to_client: &str) {
    let outcome = run(case);
    assert_eq!((&*outcome.end, &*outcome.to_client), (end, to_client), "{case:?}");
}

#[test]
fn a_request_ends_where_its_framing_says() {
    let sent = |case: Case<'_>, to_server: &str, surplus: &str, end: &str| {
        let outcome = run(case);
        assert_eq!(
            (&*outcome.to_server, &*outcome.surplus, &*outcome.end),
            (to_server, surplus, end),
            "{case:?}"
        );
    };
    let length = Case { body: Framing::Length(5), ..POST };
    sent(Case { after_head: b"hello", ..length }, "hello", "", "finished both");
    sent(Case { client: b"hello", ..length }, "hello", "", "finished both");
    sent(
        Case { after_head: b"he", client: b"lloGET /next", ..length },
        "hello",
        "GET /next",
        "finished both",
    );
    sent(Case { after_head: b"helloGET /next", ..length }, "hello", "GET /next", "finished both");
    // What the kernel still has is read as the next request.
    sent(Case { after_head: b"hello", client: b"GET /next", ..length }, "hello", "", "finished both");
    let chunked = Case { body: Framing::Chunked, ..POST };
    let body = "3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n";
    sent(Case { client: body.as_bytes(), ..chunked }, body, "", "finished both");
    let behind = format!("{body}GET /next");
    sent(Case { after_head: behind.as_bytes(), ..chunked }, body, "GET /next", "finished both");
    sent(Case { client: behind.as_bytes(), ..chunked }, body, "GET /next", "finished both");
    // Nothing behind a body is ever sent to this server, nor what breaks its framing.
    let broken = run(Case { client: b"3\r\nabcX", server: b"", ..chunked });
    assert_eq!((&*broken.end, broken.answered), ("bad request", false));
    assert!(!broken.to_server.contains('X'), "{broken:?}");
}

/// RFC 9112 §6.1: it would take the chunks for the body.
#[test]
fn a_client_of_1_0_never_gets_chunks() {
    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    check(Case { minor: 0, server: chunked, ..GET }, "bad response", "");
}

#[test]
fn an_answer_before_the_request_is_whole_ends_both_connections() {
    let early = Case { body: Framing::Length(5), after_head: b"he", ..POST };
    check(early, "finished", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
}

#[test]
fn a_response_ends_where_its_framing_says() {
    let answer = |server: &'static str| Case { server: server.as_bytes(), ..GET };
    let same = |case: Case<'_>, end: &str| check(case, end, std::str::from_utf8(case.server).unwrap());
    same(answer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"), "finished both");
    same(answer("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), "finished both");
    same(
        answer("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
        "finished both",
    );
    same(answer("HTTP/1.1 204 No Content\r\n\r\n"), "finished both");
    same(answer("HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n"), "finished both");
    let head = answer("HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n");
    same(Case { method: "HEAD", ..head }, "finished both");
    // Close-delimited: the client learns the end by the end.
    same(Case { closes: true, ..answer("HTTP/1.1 200 OK\r\n\r\nall of it") }, "finished");
    same(answer("HTTP/1.1 200 OK\r\n\r\nall of it"), "wait");
    // The server's connection alone is over.
    check(
        answer("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"),
        "finished client",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    );
}

#[test]
fn what_a_server_sends_beyond_its_response_is_never_delivered() {
    let answers = [
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", "ok"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "2\r\nok\r\n0\r\n\r\n"),
        ("HTTP/1.1 204 No Content\r\n\r\n", ""),
    ];
    for (head, body) in answers {
        let (due, all) = (format!("{head}{body}"), format!("{head}{body}HTTP/1.1 200 OK\r\n"));
        check(Case { server: all.as_bytes(), ..GET }, "finished client", &due);
    }
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n";
    let all = format!("{head}ok");
    check(Case { method: "HEAD", server: all.as_bytes(), ..GET }, "finished client", head);
}

#[test]
fn what_is_no_response() {
    let failed = |server: &'static str, closes, end: &str, answered| {
        let outcome = run(Case { server: server.as_bytes(), closes, ..GET });
        assert_eq!((&*outcome.end, outcome.answered), (end, answered), "{server:?}");
    };
    failed("", true, "broken Server", false);
    failed("HTTP/1.1 200 OK\r\n", true, "bad response", false);
    failed("SSH-2.0-x\r\n\r\n", false, "bad response", false);
    failed("HTTP/1.1 101 Switching Protocols\r\n\r\n", false, "bad response", false);
    failed("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", true, "bad response", true);
    failed("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", false, "bad response", false);
    let endless: &'static str = format!("HTTP/1.1 200 OK\r\nX: {}", "a".repeat(33 * 1024)).leak();
    failed(endless, false, "bad response", false);
}

#[test]
fn interim_responses_come_before_the_answer() {
    let early = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    let go_on = "HTTP/1.1 100 Continue\r\n\r\n";
    let last = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let all = format!("{go_on}{early}{last}");
    check(Case { server: all.as_bytes(), ..GET }, "finished both", &all);
    // Not for a client of HTTP/1.0 (RFC 9110 §15.2).
    check(Case { minor: 0, server: all.as_bytes(), ..GET }, "finished both", last);
    // Until the answer begins, the client can still be told what became of it.
    let outcome = run(Case { server: go_on.as_bytes(), closes: true, ..GET });
    assert_eq!((&*outcome.end, outcome.answered), ("broken Server", false));
    let waiting = run(Case { server: go_on.as_bytes(), ..GET });
    assert_eq!((&*waiting.end, &*waiting.to_client), ("wait", go_on));
}

#[test]
fn a_server_that_only_ever_says_interim_is_cut_off() {
    let go_on = "HTTP/1.1 100 Continue\r\n\r\n";
    let last = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    for minor in [0, 1] {
        let many = format!("{}{last}", go_on.repeat(100));
        assert_eq!(run(Case { minor, server: many.as_bytes(), ..GET }).end, "finished both");
        let too_many = format!("{}{last}", go_on.repeat(101));
        assert_eq!(run(Case { minor, server: too_many.as_bytes(), ..GET }).end, "bad response");
    }
}

#[test]
fn large_bodies_are_counted_to_the_byte() {
    let (mut rig, mut client, mut server) = Rig::new();
    let body = noise(5 * 1024 * 1024, 1);
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    let framing = Framing::Length(body.len() as u64);
    let asked = Asked { method: "PUT".into(), keep_alive: true, minor: 1, upgrades: false };
    let mut exchange = Exchange::new(HEAD.to_vec(), asked, framing, &body[..100]).unwrap();
    std::thread::scope(|scope| {
        let reading = scope.spawn({
            let (mut client, len) = (client.try_clone().unwrap(), head.len() + body.len());
            move || {
                let mut got = vec![0; len];
                client.read_exact(&mut got).unwrap();
                got
            }
        });
        scope.spawn(|| client.write_all(&[&body[100..], b"GET /next"].concat()).unwrap());
        let serving = scope.spawn(|| {
            let mut got = vec![0; HEAD.len() + body.len()];
            server.read_exact(&mut got).unwrap();
            server.write_all(head.as_bytes()).unwrap();
            server.write_all(&body).unwrap();
            got
        });
        let end = loop {
            match exchange.pump(&mut rig.client, &mut rig.server, &mut rig.loan) {
                Progress::Wait { .. } => assert!(rig.wait(STALLED), "stalled: {exchange:?}"),
                Progress::Again => {
                    rig.wait(Duration::ZERO);
                }
                end => break end,
            }
        };
        assert!(
            matches!(end, Progress::Finished { client_reusable: true, server_reusable: true }),
            "{end:?}"
        );
        assert!(serving.join().unwrap() == [HEAD, &body].concat());
        assert!(reading.join().unwrap() == [head.as_bytes(), &body].concat());
    });
    assert_eq!(rig.loan.pipes.lent(), 0);
    // What follows was read with the body's end, or is still in the kernel.
    let (mut next, mut rest) = (exchange.into_surplus(), [0; 16]);
    if let Ok(n) = rig.client.stream.read(&mut rest) {
        next.extend_from_slice(&rest[..n]);
    }
    assert_eq!(next, b"GET /next");
}

#[test]
fn a_protocol_changes_only_where_that_was_asked_for() {
    const SWITCH: &str = "HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
    let behind = format!("{SWITCH}more");
    let asked = Case { upgrades: true, server: behind.as_bytes(), ..GET };
    check(asked, &format!("switched {behind}"), "");
    check(Case { upgrades: false, ..asked }, "bad response", "");
    // The server need not, and then it is an answer like another.
    check(Case { server: b"HTTP/1.1 204 No\r\n\r\n", ..asked }, "finished both", "HTTP/1.1 204 No\r\n\r\n");
    for incomplete in ["Connection: upgrade\r\n", "Upgrade: x\r\n", ""] {
        let server = format!("HTTP/1.1 101 Switching\r\n{incomplete}\r\n");
        check(Case { server: server.as_bytes(), ..asked }, "bad response", "");
    }
}
