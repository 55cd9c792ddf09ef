//! The stage in which a client that was told something may still hear it: closing while its bytes come in would reset the
//! connection and could take the last words with it.

use std::io::{self, Read};
use std::time::Duration;

use crate::relay::End;

/// How long a client may take to hear its last words before the connection is closed over its head.
pub(super) const LINGER: Duration = Duration::from_secs(2);

/// Bytes of a lingering client that are read and thrown away before it is cut off.
const LINGER_BYTES: u32 = 256 * 1024;

/// A client whose own bytes no longer matter.
#[derive(Debug)]
pub(super) struct Lingering {
    discarded: u32,
}

impl Lingering {
    /// Tells the client its last words, which may be none. What it does not take at once, of at most one small answer, it
    /// does not get.
    pub fn new(client: &mut End, words: &[u8]) -> Self {
        let _ = client.stream.write(words);
        let _ = client.shutdown();
        client.ready.readable = true;
        Lingering { discarded: 0 }
    }

    /// Throws away what has come; true once the connection can be closed.
    pub fn turn(&mut self, client: &mut End, scratch: &mut [u8]) -> bool {
        let told = !matches!(client.flush(), Ok(false));
        while self.discarded < LINGER_BYTES {
            // Under TLS it is ciphertext that is thrown away: no need to know what it says.
            match client.stream.socket_mut().read(scratch) {
                Ok(0) => return told,
                Ok(n) => self.discarded = self.discarded.saturating_add(u32::try_from(n).unwrap_or(u32::MAX)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return false,
                Err(_) => break,
            }
        }
        true
    }
}
