//! Asking a person for something that nobody else should read.

use std::io::{self, BufRead, Write};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::low_level;

use super::socket::cvt;

/// What may end the program while a person types.
const ENDS: [i32; 4] = [SIGINT, SIGQUIT, SIGTERM, SIGHUP];

/// A line that is read from the terminal `input`, which does not show it, after `prompt` was written to `output`. Without
/// its line break.
///
/// # Errors
/// `input` is no terminal, or cannot be read.
pub fn ask_silently(
    input: &mut (impl BufRead + AsRawFd),
    output: &mut impl Write,
    prompt: &str,
) -> io::Result<String> {
    output.write_all(prompt.as_bytes())?;
    output.flush()?;
    let mut line = String::new();
    {
        // SAFETY: the descriptor is `input`'s, which outlives this block.
        let fd = unsafe { BorrowedFd::borrow_raw(input.as_raw_fd()) };
        let _silence = Silence::begin(fd)?;
        input.read_line(&mut line)?;
    }
    // The line break was not shown either.
    output.write_all(b"\n")?;
    if line.ends_with('\n') {
        line.pop();
    }
    Ok(line)
}

/// A terminal that does not show what is typed, until this is dropped or a signal ends the program.
struct Silence<'fd> {
    fd: BorrowedFd<'fd>,
    before: libc::termios,
}

impl<'fd> Silence<'fd> {
    fn begin(fd: BorrowedFd<'fd>) -> io::Result<Self> {
        // SAFETY: all-zero bytes are a valid termios, which is made of integers.
        let mut before: libc::termios = unsafe { std::mem::zeroed() };
        // SAFETY: the pointer is to a local of the right type.
        cvt(unsafe { libc::tcgetattr(fd.as_raw_fd(), &raw mut before) })?;
        // They stay, as signal-hook cannot give a signal its default back; to restore what is restored does no harm.
        for signal in ENDS {
            let terminal = fd.as_raw_fd();
            let restore_and_end = move || {
                restore(terminal, &before);
                let _ = low_level::emulate_default_handler(signal);
            };
            // SAFETY: the action does nothing but what is allowed in a signal handler: tcsetattr(3), and what signal-hook
            // says of the default handler.
            unsafe { low_level::register(signal, restore_and_end) }?;
        }
        let mut silent = before;
        silent.c_lflag &= !libc::ECHO;
        // SAFETY: as above. TCSAFLUSH: what was typed before the question is no answer.
        cvt(unsafe { libc::tcsetattr(fd.as_raw_fd(), libc::TCSAFLUSH, &raw const silent) })?;
        Ok(Silence { fd, before })
    }
}

impl Drop for Silence<'_> {
    fn drop(&mut self) {
        restore(self.fd.as_raw_fd(), &self.before);
    }
}

/// Makes the terminal what it was; nobody could be told of a failure.
fn restore(fd: RawFd, before: &libc::termios) {
    // SAFETY: the pointer is to a value of the right type.
    let _ = unsafe { libc::tcsetattr(fd, libc::TCSANOW, before) };
}
