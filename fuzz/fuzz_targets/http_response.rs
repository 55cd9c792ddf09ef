//! HTTP responses: what the client gets is one head that frames the same body.
#![no_main]

use calamary::wire::http1::{Framing, HeadEnd, forward_response, parse_response};
use libfuzzer_sys::fuzz_target;

/// Chosen by the input's first byte.
const METHODS: [&str; 4] = ["GET", "HEAD", "CONNECT", "POST"];

fuzz_target!(|data: &[u8]| {
    let Some((&choice, data)) = data.split_first() else { return };
    let method = METHODS[usize::from(choice) % METHODS.len()];
    let Some(end) = HeadEnd::new().find(data) else {
        assert!(parse_response(data, method).is_err());
        return;
    };
    let head = &data[..end];
    let Ok(response) = parse_response(head, method) else { return };
    assert_eq!(response.len, end);
    assert_eq!(response.interim, response.status < 200);
    assert!(!response.keep_alive || response.body != Framing::ToEof);
    assert!(!response.interim || response.body == Framing::None);

    let out = forward_response(head, &response);
    assert_eq!(HeadEnd::new().find(&out), Some(out.len()), "exactly one head");
    let again = parse_response(&out, method).unwrap_or_else(|e| panic!("{e}: {}", out.escape_ascii()));
    assert_eq!((again.status, again.body, again.minor), (response.status, response.body, 1));
    if response.interim || response.status == 204 {
        let lower = out.to_ascii_lowercase();
        let declares = |name: &[u8]| lower.windows(name.len()).any(|bytes| bytes == name);
        assert!(
            !declares(b"\ncontent-length:") && !declares(b"\ntransfer-encoding:"),
            "{}",
            out.escape_ascii()
        );
    }
    assert_eq!(forward_response(&out, &again), out, "forwarded once more it stays as it is");
});
