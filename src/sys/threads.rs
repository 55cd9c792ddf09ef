//! Threads are started in one place.

use std::io;
use std::thread::{Builder, JoinHandle};

/// The stack of a thread that says nothing of it; std's own choice.
pub const STACK_SIZE: usize = 2 << 20;

/// Starts a thread that is called `name` and has a stack of `stack` bytes.
///
/// The closure is boxed: std's way to start a thread, compiled once for every closure, is 1 KB of a MIPS binary each time.
///
/// # Errors
/// The system gives no thread.
pub fn spawn(name: &str, stack: usize, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    start(name.to_owned(), stack, Box::new(run))
}

fn start(name: String, stack: usize, run: Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>> {
    Builder::new().name(name).stack_size(stack).spawn(run)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_has_its_name() {
        let (tell, told) = std::sync::mpsc::channel();
        let run = move || tell.send(std::thread::current().name().map(str::to_owned)).unwrap();
        spawn("somebody", STACK_SIZE, run).unwrap().join().unwrap();
        assert_eq!(told.recv().unwrap().as_deref(), Some("somebody"));
    }
}
