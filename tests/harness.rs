//! The laboratory itself: without the daemon everything gets through, so that a refusal in another test means something.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use std::io::Write;

use common::client::{connect, expect_bytes};
use common::dns::{Answer, NameServer};
use common::lab::{Lab, SERVER4, SERVER6, at};
use common::origin::Origin;
use common::tls::{self, Hello, HttpsOrigin};

#[test]
fn client_and_server_reach_each_other_over_the_router_and_syns_are_counted() {
    let Some(lab) = Lab::build_or_skip() else { return };
    lab.server.count_syns();
    for addr in [at(SERVER4, 7000), at(SERVER6, 7000)] {
        let _echo = lab.server.run(|| Origin::echo(&addr));
        lab.client.run(|| {
            let mut stream = connect(&addr);
            stream.write_all(b"ping").unwrap();
            expect_bytes(&mut stream, b"ping");
        });
    }
    assert_eq!(lab.server.syns(), 2);
}

#[test]
fn redirect_rules_take_the_connection_away_from_the_server() {
    let Some(lab) = Lab::build_or_skip() else { return };
    lab.redirect("7000", 4128);
    lab.server.count_syns();
    let _echo = lab.server.run(|| [Origin::echo(at(SERVER4, 7000)), Origin::echo(at(SERVER6, 7000))]);
    for addr in [at(SERVER4, 7000), at(SERVER6, 7000)] {
        // Nobody listens on the router.
        assert!(lab.client.run(|| std::net::TcpStream::connect(&addr)).is_err());
    }
    assert_eq!(lab.server.syns(), 0);
}

#[test]
fn a_real_client_accepts_the_servers_certificate() {
    if !common::have("curl") {
        return common::skip("needs curl");
    }
    let origin = HttpsOrigin::start("127.0.0.1:0");
    let output = std::process::Command::new("curl")
        .args(["-sS", "-m", "20", "--cacert"])
        .arg(&tls::certificate().cert_pem)
        .arg("--resolve")
        .arg(format!("www.example.com:{}:127.0.0.1", origin.addr().port()))
        .arg(format!("https://www.example.com:{}/x", origin.addr().port()))
        .output()
        .unwrap();
    assert_eq!(
        common::daemon::text(&output),
        format!("GET /x HTTP/1.1 host=www.example.com:{} body=0\n", origin.addr().port())
    );
    assert_eq!(origin.requests().len(), 1);
}

#[test]
fn a_real_server_understands_the_hello_in_one_record_and_in_many() {
    let origin = HttpsOrigin::start("127.0.0.1:0");
    let hello = Hello { name: Some("www.example.com"), ..Hello::default() };
    for bytes in [hello.record(), hello.records(1), hello.records(50)] {
        let mut stream = connect(origin.addr());
        stream.write_all(&bytes).unwrap();
        // A ServerHello, or an alert about key shares: in both cases the hello was read to its end. A decode error is
        // alert 50.
        let mut start = [0; 7];
        std::io::Read::read_exact(&mut stream, &mut start).unwrap();
        assert!(start[0] == 0x16 || start[0] == 0x15 && start[6] != 50, "{start:x?}");
    }
}

#[test]
fn the_nameserver_answers_the_systems_tools() {
    let server = NameServer::start("127.0.0.1:0", |question| match question.name.as_str() {
        "www.example.com" => Answer::addrs(&["192.0.2.1", "2001:db8::1"]),
        _ => Answer::NxDomain,
    });
    // A question for www.example.com A, by hand.
    let mut query = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03www\x07example\x03com\x00".to_vec();
    query.extend_from_slice(&[0, 1, 0, 1]);
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(common::PATIENCE)).unwrap();
    socket.send_to(&query, server.addr).unwrap();
    let mut answer = [0; 512];
    let n = socket.recv(&mut answer).unwrap();
    assert_eq!(&answer[..4], &[0x12, 0x34, 0x81, 0x80]);
    assert_eq!(&answer[n - 4..n], &[192, 0, 2, 1]);
    assert_eq!(server.asked("www.example.com"), 1);
}
