//! Random numbers of the kernel, for keys and salts.

use std::io;

/// `N` random bytes; at most 256, which the kernel gives whole (getrandom(2)). Early after a boot it may wait for the
/// kernel to have some.
///
/// # Errors
/// A kernel before 3.17.
pub fn bytes<const N: usize>() -> io::Result<[u8; N]> {
    const { assert!(N <= 256) };
    let mut bytes = [0u8; N];
    loop {
        // SAFETY: the pointer and the length are those of an array that lives here.
        let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), N, 0) };
        match usize::try_from(got) {
            Ok(got) if got == N => return Ok(bytes),
            // Cannot happen with so few; what came is thrown away.
            Ok(_) => {}
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_are_alike() {
        assert_ne!(bytes::<32>().unwrap(), bytes::<32>().unwrap());
        assert_ne!(bytes::<256>().unwrap()[128..], [0; 128]);
    }
}
