//! A worker's listeners: which there are, and how one is closed.

use std::sync::Arc;
use std::time::Instant;

use mio::net::{TcpListener, UdpSocket};
use mio::{Interest, Token};

use super::{ACCEPTS_PER_TURN, Bound, FIRST_LISTENER, Listening, MAX_LISTENERS, Worker};
use crate::config::Listener;
use crate::engine::listening::{Socket, key as listener_key};
use crate::session::Machine;
use crate::sys::socket;

impl<M: Machine> Worker<M> {
    /// Closes listeners that are not wanted any more, keeps those that run, adds the others.
    pub(super) fn listen_on(&mut self, wanted: Vec<(Listener, Option<Socket>)>, now: Instant) {
        for place in 0..self.listeners.len() {
            let Some(Some(bound)) = self.listeners.get(place) else { continue };
            let key = listener_key(&bound.listener);
            if !wanted.iter().any(|(listener, _)| listener_key(listener) == key) {
                self.close_listener(place, now);
            }
        }
        for (listener, socket) in wanted {
            match socket {
                Some(socket) => self.add_listener(listener, socket),
                None => {
                    let key = listener_key(&listener);
                    for bound in self.listeners.iter_mut().flatten() {
                        if listener_key(&bound.listener) == key {
                            bound.listener = Arc::new(listener.clone());
                        }
                    }
                }
            }
        }
    }

    fn add_listener(&mut self, listener: Listener, socket: Socket) {
        let place = self.listeners.iter().position(Option::is_none).unwrap_or(self.listeners.len());
        if place >= MAX_LISTENERS {
            log::error!("more than {MAX_LISTENERS} listeners: {} is left out", listener.addr);
            return;
        }
        let (registry, token) = (self.poll.registry(), Token(FIRST_LISTENER + place));
        let watched = match socket {
            Socket::Tcp(socket) => {
                let mut socket = TcpListener::from_std(socket);
                registry.register(&mut socket, token, Interest::READABLE).map(|()| Listening::Tcp(socket))
            }
            Socket::Udp(socket) => {
                let mut socket = UdpSocket::from_std(socket);
                registry
                    .register(&mut socket, token, Interest::READABLE)
                    .map(|()| Listening::Udp(Arc::new(socket)))
            }
        };
        let socket = match watched {
            Ok(socket) => socket,
            Err(error) => {
                log::error!("cannot watch the listener on {}: {error}", listener.place());
                return;
            }
        };
        let bound = Some(Bound { listener: Arc::new(listener), socket, paused: false });
        match self.listeners.get_mut(place) {
            Some(free) => *free = bound,
            None => self.listeners.push(bound),
        }
    }

    /// Closes a listener, after accepting those who wait at it: their connections stand already.
    pub(super) fn close_listener(&mut self, place: usize, now: Instant) {
        let token = FIRST_LISTENER + place;
        if let Some(Some(bound)) = self.listeners.get_mut(place) {
            bound.paused = false;
        }
        // What waits now is at most the backlog; those who go on coming meanwhile are not waited for.
        for _ in 0..=socket::BACKLOG / ACCEPTS_PER_TURN {
            let queued = self.queue.len();
            self.accept(token, now);
            if self.queue.len() == queued || self.queue.back() != Some(&token) {
                break;
            }
            self.queue.pop_back();
        }
        self.queue.retain(|&queued| queued != token);
        if let Some(place) = self.listeners.get_mut(place) {
            *place = None;
        }
    }
}
