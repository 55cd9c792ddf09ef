//! Signals as events that a thread waits for: no handler is installed, so nothing ever runs in the middle of something.

use std::io;

/// What the program may be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGHUP.
    Hangup,
    /// SIGINT.
    Interrupt,
    /// SIGTERM.
    Terminate,
    /// SIGUSR1.
    User1,
}

impl Signal {
    const ALL: [Signal; 4] = [Signal::Hangup, Signal::Interrupt, Signal::Terminate, Signal::User1];

    fn number(self) -> libc::c_int {
        match self {
            Signal::Hangup => libc::SIGHUP,
            Signal::Interrupt => libc::SIGINT,
            Signal::Terminate => libc::SIGTERM,
            Signal::User1 => libc::SIGUSR1,
        }
    }
}

/// Every [`Signal`], kept from doing anything else than being waited for.
pub struct Signals(libc::sigset_t);

impl Signals {
    /// To be called before there are other threads: one that exists already would still be ended by these signals, those
    /// that are started later are not.
    ///
    /// # Errors
    /// The system does not allow it.
    pub fn take() -> io::Result<Self> {
        // SAFETY: sigset_t is plain data for which all zeroes is a value.
        let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
        // SAFETY: the pointer is to a local that outlives the calls; they cannot fail for numbers that are signals'.
        unsafe {
            libc::sigemptyset(&raw mut set);
            for signal in Signal::ALL {
                libc::sigaddset(&raw mut set, signal.number());
            }
        }
        // SAFETY: the set is a local that outlives the call; nobody asks for the former mask.
        match unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) } {
            0 => Ok(Signals(set)),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }

    /// Waits for the next one. The same one sent again meanwhile is one.
    pub fn next(&self) -> Signal {
        loop {
            let mut number = 0;
            // SAFETY: the pointers are to a set and a local that outlive the call. It fails only where another signal's
            // handler interrupts it, or leaves the number as it is.
            unsafe { libc::sigwait(&raw const self.0, &raw mut number) };
            if let Some(signal) = Signal::ALL.into_iter().find(|signal| signal.number() == number) {
                return signal;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::testing;

    #[test]
    fn signals_are_waited_for_and_end_nobody() {
        testing::in_child("sys::signals::tests::child_that_waits", &[]);
    }

    #[test]
    #[ignore = "changes the process's signals: run by signals_are_waited_for_and_end_nobody"]
    fn child_that_waits() {
        if !testing::is_child() {
            return;
        }
        let signals = Signals::take().unwrap();
        for signal in Signal::ALL {
            // What somebody ignores is heard nevertheless: a shell does that to what it starts in the background.
            for before in [libc::SIG_DFL, libc::SIG_IGN] {
                // SAFETY: no handler is installed, and the signals are sent to this thread alone.
                unsafe {
                    libc::signal(signal.number(), before);
                    libc::raise(signal.number());
                    libc::raise(signal.number());
                }
                assert_eq!(signals.next(), signal);
            }
        }
        // One that started later has the mask, too.
        let signals = std::thread::spawn(move || {
            // SAFETY: as above.
            unsafe { libc::raise(libc::SIGTERM) };
            assert_eq!(signals.next(), Signal::Terminate);
            signals
        });
        signals.join().unwrap();
    }
}
