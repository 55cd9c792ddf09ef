//! Sessions that outlive a window of the rules, with a clock on the wall that goes faster.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::decide::week::WeekTime;

/// How long a minute is here.
const MINUTE: Duration = Duration::from_millis(50);

/// Shows Monday noon until it is night.
#[derive(Default)]
struct Clock(AtomicBool);

impl Surroundings for Clock {
    fn week_time(&self) -> (WeekTime, Duration) {
        let hour = if self.0.load(Ordering::Relaxed) { 23 } else { 12 };
        (WeekTime::new(1, hour, 0), MINUTE)
    }
}

/// A tunnel ends in the middle, both ways, and so does an exchange; what hangs on no window goes on.
#[test]
fn what_outlives_its_window_is_ended() {
    let clock = Arc::new(Clock::default());
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let free_port = free.local_addr().unwrap().port();
    let settings = format!(
        "endAtClose: true\nrules: [{{ action: accept, port: {free_port} }}, {{ action: accept, time: '08:00-20:00' }}]"
    );
    let surroundings: Arc<dyn Surroundings> = Arc::<Clock>::clone(&clock);
    let running = start_in(surroundings, "mode: http", &settings, |_, _, _| {});
    let tunnel = |origin: &TcpListener| {
        let mut client = running.connect();
        let target = origin.local_addr().unwrap();
        client.write_all(format!("CONNECT {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).unwrap();
        let server = patient(origin.accept().unwrap().0);
        assert!(head(&mut client).starts_with("HTTP/1.1 200"));
        (client, server)
    };
    let bound = TcpListener::bind("127.0.0.1:0").unwrap();
    let (client, server) = tunnel(&bound);
    let (mut free_client, mut free_server) = tunnel(&free);
    let mut asking = running.connect();
    let url = format!("http://{}/film", bound.local_addr().unwrap());
    asking.write_all(format!("GET {url} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).unwrap();
    let mut answering = patient(bound.accept().unwrap().0);
    head(&mut answering);
    answering.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nbeginning").unwrap();
    assert!(head(&mut asking).starts_with("HTTP/1.1 200"));
    let mut begun = [0; 9];
    asking.read_exact(&mut begun).unwrap();

    // Some minutes pass in the window.
    std::thread::sleep(MINUTE * 4);
    running.counts("calamary_current_connections 3");
    clock.0.store(true, Ordering::Relaxed);
    for cut in [client, server, asking, answering] {
        assert!(is_let_go(cut));
    }
    running.counts("calamary_closed{reason=\"window_closed\"} 2");
    free_client.write_all(b"x").unwrap();
    free_server.read_exact(&mut [0]).unwrap();
    assert_eq!(running.stop(), 0);
}
