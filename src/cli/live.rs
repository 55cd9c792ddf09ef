//! Asking the running program through its live socket.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How long the program may take: it may have to read a long list again to find a line.
const PATIENCE: Duration = Duration::from_secs(30);

/// Sends `request` to the program that listens at `path`: its exit status and what it says.
pub(crate) fn ask(path: &Path, request: &str) -> Result<(u8, String), String> {
    let place = path.display();
    let mut socket = UnixStream::connect(path).map_err(|error| {
        format!(
            "cannot ask the running program at {place}: {error}; `live: true` in its configuration opens that"
        )
    })?;
    let talk = |socket: &mut UnixStream| {
        socket.set_read_timeout(Some(PATIENCE))?;
        // A newline in it would end it early, and be refused there.
        socket.write_all(format!("{}\n", request.replace('\n', " ")).as_bytes())?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = talk(&mut socket).map_err(|error: std::io::Error| format!("{place}: {error}"))?;
    let (status, text) = answer.split_once('\n').unwrap_or_default();
    match status.parse() {
        Ok(status) => Ok((status, text.to_owned())),
        Err(_) => Err(format!("{place}: no answer that can be understood")),
    }
}
