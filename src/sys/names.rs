//! Names to addresses as the system does it: getaddrinfo(3), which knows /etc/hosts, too.

use std::ffi::{CStr, CString};
use std::io;
use std::net::IpAddr;

use super::error::described;
use super::socket;

/// The addresses of `name`, in the system's order of preference, each once. It blocks for as long as the system's settings allow,
/// and may need 64 KiB of stack.
///
/// # Errors
/// `NotFound` if there is no such name or it has no addresses; anything else means that nobody could say.
pub fn addresses(name: &str) -> io::Result<Vec<IpAddr>> {
    let name = CString::new(name).map_err(|_| io::ErrorKind::NotFound)?;
    // SAFETY: addrinfo is plain data for which all zeroes is a value: no wish.
    let mut hints: libc::addrinfo = unsafe { std::mem::zeroed() };
    // Else there is an entry for each kind of socket.
    hints.ai_socktype = libc::SOCK_STREAM;
    let mut first = std::ptr::null_mut();
    // SAFETY: the name is terminated, and all of them outlive the call.
    let result =
        unsafe { libc::getaddrinfo(name.as_ptr(), std::ptr::null(), &raw const hints, &raw mut first) };
    if result != 0 {
        return Err(error(result));
    }
    let mut found = Vec::new();
    let mut entry = first;
    // SAFETY: after success these are a list of valid entries that ends with null and is nobody else's …
    while let Some(info) = unsafe { entry.as_ref() } {
        // SAFETY: … each with an address of the family that it begins with.
        if let Some(address) = unsafe { socket::decode_at(info.ai_addr) } {
            found.push(address.ip());
        }
        entry = info.ai_next;
    }
    // SAFETY: the list that getaddrinfo made; nothing of it is used any more.
    unsafe { libc::freeaddrinfo(first) };
    Ok(found)
}

fn error(code: libc::c_int) -> io::Error {
    let kind = match code {
        libc::EAI_NONAME | libc::EAI_NODATA => io::ErrorKind::NotFound,
        _ => io::ErrorKind::Other,
    };
    let text = match code {
        libc::EAI_SYSTEM => io::Error::last_os_error().to_string(),
        // SAFETY: it gives a constant text for every number.
        _ => unsafe { CStr::from_ptr(libc::gai_strerror(code)) }.to_string_lossy().into_owned(),
    };
    described(kind, format!("the name cannot be looked up: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_known_and_what_is_no_name_is_not() {
        let found = addresses("localhost").unwrap();
        assert!(!found.is_empty() && found.iter().all(IpAddr::is_loopback), "{found:?}");
        assert_eq!(addresses("192.0.2.1").unwrap(), [IpAddr::from([192, 0, 2, 1])]);
        for name in ["a\0b", "no such name"] {
            let error = addresses(name).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NotFound, "{name:?}: {error}");
        }
    }
}
