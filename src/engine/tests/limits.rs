//! Limits of rules on real connections.

use super::*;

/// Bytes a second of the rate below.
const RATE: u64 = 500_000;
/// How much is sent: several times what a connection may be ahead of its rate.
const LEN: usize = 300_000;

/// Reads all of them; how long that took.
fn take(mut stream: TcpStream) -> Duration {
    let begun = Instant::now();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    assert_eq!(all.len(), LEN);
    assert!(all.iter().enumerate().all(|(at, byte)| *byte == at as u8), "not what was sent");
    begun.elapsed()
}

fn give(mut stream: TcpStream, head: &str) {
    let bytes: Vec<u8> = (0..LEN).map(|at| at as u8).collect();
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&bytes).unwrap();
}

/// Through a tunnel, copied and then spliced, and through an exchange: nothing is lost, and no time is won.
#[test]
fn a_rate_is_kept_and_nothing_is_lost() {
    let running = start("mode: http", "rules: [{ action: accept, limit: { rate: 4mbit } }]");
    let least = Duration::from_millis((LEN as u64 - RATE / 4) * 1000 / RATE);
    let origin = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = origin.local_addr().unwrap();

    let mut client = running.connect();
    client.write_all(format!("CONNECT {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).unwrap();
    let server = patient(origin.accept().unwrap().0);
    assert!(head(&mut client).starts_with("HTTP/1.1 200"));
    std::thread::spawn(move || give(server, ""));
    let took = take(client);
    assert!(took >= least, "{took:?} of {least:?}");

    let mut client = running.connect();
    client
        .write_all(
            format!("GET http://{target}/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").as_bytes(),
        )
        .unwrap();
    let mut server = patient(origin.accept().unwrap().0);
    head(&mut server);
    let begun = Instant::now();
    std::thread::spawn(move || {
        give(server, &format!("HTTP/1.1 200 OK\r\nContent-Length: {LEN}\r\nConnection: close\r\n\r\n"))
    });
    head(&mut client);
    take(client);
    assert!(begun.elapsed() >= least, "{:?} of {least:?}", begun.elapsed());
    running.counts("calamary_current_connections 0");
    assert_eq!(running.stop(), 0);
}

#[test]
fn connections_of_a_source_are_counted_as_long_as_they_live() {
    let running = start("mode: http", "rules: [{ action: accept, limit: { connections: 1 } }]");
    let origin = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = origin.local_addr().unwrap();
    let connect = || {
        let mut client = running.connect();
        client.write_all(format!("CONNECT {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).unwrap();
        let answer = head(&mut client);
        (client, answer)
    };
    let (first, answer) = connect();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let server = origin.accept().unwrap();
    let (_, answer) = connect();
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    running.counts("calamary_closed{reason=\"limit\"} 1");
    drop((first, server));
    running.counts("calamary_current_connections 0");
    let (_again, answer) = connect();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    running.stop();
}
