//! Tables of heads, bodies and attacks.

mod bodies;
mod forwarding;
mod heads;
mod replies;
mod requests;
mod responses;
mod smuggling;

use super::*;

/// The status that refuses the head, or 0.
fn status(head: &[u8]) -> u16 {
    parse_request(head).map_or_else(|reject| reject.status, |_| 0)
}

fn request(head: &str) -> Request {
    match parse_request(head.as_bytes()) {
        Ok(request) => request,
        Err(reject) => panic!("{}: {head:?}", reject.reason),
    }
}

fn response(head: &str, method: &str) -> Response {
    match parse_response(head.as_bytes(), method) {
        Ok(response) => response,
        Err(reason) => panic!("{reason}: {head:?}"),
    }
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

/// xorshift: the same run every time.
struct Random(u32);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0 as usize % n.max(1)
    }
}
