//! Password hashes as crypt(3) writes them: `$6$` (SHA-512) and `$5$` (SHA-256), with or without `rounds=`.
//!
//! Older ones (DES, `$1$`) can be guessed too fast and newer ones (`$y$`, `$2b$`) are not made by the tools that are on
//! every machine: both are refused. So is a hash whose rounds would keep this machine busy for long: a configuration must
//! not be able to stall the program.

use std::fmt;

use base64ct::{Base64ShaCrypt, Encoding};
use sha_crypt::{PasswordHasher, PasswordVerifier, ShaCrypt};

use super::MAX_BYTES;

/// Rounds at most: some 0.2 s on a server's core, several seconds on a small router's.
pub const MAX_ROUNDS: u32 = 200_000;
/// Rounds at least; crypt(3) takes fewer for so many.
const MIN_ROUNDS: u32 = 1_000;
/// Characters of a salt at most.
const MAX_SALT: usize = 16;
/// Random bytes that become a salt of [`MAX_SALT`] characters.
pub const SALT_BYTES: usize = 12;

/// What is accepted, for messages.
pub const ACCEPTED: &str = "a crypt(3) hash: `$6$salt$…` or `$5$salt$…`, as `calamary --hash-password` or `openssl passwd -6` prints it";

/// A hash that can be checked against.
#[derive(Clone, PartialEq, Eq)]
pub struct CryptHash(Box<str>);

impl CryptHash {
    /// Checks its form.
    ///
    /// # Errors
    /// What is wrong with it, without any of its text.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let (bytes, rest) = match (text.strip_prefix("$6$"), text.strip_prefix("$5$")) {
            (Some(rest), _) => (64, rest),
            (_, Some(rest)) => (32, rest),
            _ if text.starts_with('$') => return Err("another kind of hash"),
            _ => return Err("no hash"),
        };
        let rest = match rest.strip_prefix("rounds=") {
            Some(rest) => {
                let (rounds, rest) = rest.split_once('$').ok_or("cut off")?;
                check_rounds(rounds)?;
                rest
            }
            None => rest,
        };
        let (salt, sum) = rest.split_once('$').ok_or("cut off")?;
        let in_alphabet = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'/');
        if salt.is_empty() || salt.len() > MAX_SALT || !salt.bytes().all(in_alphabet) {
            return Err("without a salt of 1-16 characters a-z, A-Z, 0-9, `.`, `/`");
        }
        let mut buffer = [0; 64];
        match Base64ShaCrypt::decode(sum, &mut buffer) {
            Ok(decoded) if decoded.len() == bytes => Ok(CryptHash(text.into())),
            _ => Err("cut off, or with other characters than a hash has"),
        }
    }

    /// The hash of `password`, with the default number of rounds. `salt` is random.
    ///
    /// # Errors
    /// The password is empty or longer than anybody can send.
    pub fn make(password: &[u8], salt: [u8; SALT_BYTES]) -> Result<Self, &'static str> {
        if password.is_empty() {
            return Err("the password is empty");
        }
        if password.len() > MAX_BYTES {
            return Err("the password is longer than 255 bytes");
        }
        match ShaCrypt::SHA512.hash_password_with_salt(password, &salt) {
            Ok(hash) => Ok(CryptHash(hash.as_str().into())),
            Err(_) => Err("the password cannot be hashed"),
        }
    }

    /// Whether `password` is the right one. This takes as long as the hash is meant to take; the comparison's time says
    /// nothing of how much of the sum was right.
    pub fn verify(&self, password: &[u8]) -> bool {
        ShaCrypt::SHA512.verify_password(password, &*self.0).is_ok()
    }

    /// As it stands in a file.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Not the hash: who has it can try passwords at leisure.
impl fmt::Debug for CryptHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CryptHash(..)")
    }
}

fn check_rounds(text: &str) -> Result<(), &'static str> {
    let is_plain = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
    match text.parse::<u32>() {
        Ok(rounds) if is_plain && (MIN_ROUNDS..=MAX_ROUNDS).contains(&rounds) => Ok(()),
        _ => Err("with a `rounds` that is not 1000-200000"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by `openssl passwd` 3.0 (`-6 -salt …`, `-5 -salt …`); the last ones are examples of the specification (Drepper,
    /// "Unix crypt using SHA-256 and SHA-512") that are within the bounds.
    const VECTORS: &[(&str, &str)] = &[
        (
            "secret",
            "$6$saltsalt$TVLlQcbpFVof5W3Yz4DTP6gRstiNuHwwTt6GLc1E5n0U0aDehy0S5knV8wiOQSpT0Y77vwPZN.Pq.H91p5hVO1",
        ),
        (
            "Grüße, Wält",
            "$6$./0AZaz9./0AZaz9$1.gF7oWOkDTMHbk.a0A9sRsbjREZuRbYPRlD6sRwExgG5JRAjTkbYPz9DQuyuuBmsj29ZJC5BCBgQlk.SlT.90",
        ),
        (
            "short",
            "$6$rounds=1000$roundsmin$ZmmQIiY2JPaLj.zCyOPcXWZu16icNzM2ktxryDeJMGP3hlV2m.fpDPopUR/Igmv5Bv5r.Gm0rVXhH/VTTUyHF/",
        ),
        (
            "a",
            "$6$rounds=12345$x$8ZgREtjqi/krFJRWTnnk04Z7gDTbHTKsbBsGAm1M5AtCCLleL1mzjoPUfq8SUpPjpWYztSC3JudZOjqhokhBZ1",
        ),
        ("secret", "$5$saltsalt$0IyaXrmV7.sGNS6tirgqHLqX/G.FBvgkYA.lpPdS5sA"),
        (
            "we have a short salt string but not a short password",
            "$5$rounds=77777$anotherlongsalts$nOfqrkZyea86O4zkffa4NmJMgvEVQK0wxsSMiR.pvi9",
        ),
        (
            "pppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppp",
            "$5$Q$4K4XOq0.mYNphT7qMPcE3aXzxA1C1vll1jgf2neyiu2",
        ),
        (
            "ppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppp",
            "$6$Q$FoFPjG59TxUcv7Lc3RcPoa7.s8pl93SbeFwmLyQA0KDCzgOLp4tRj5Dd0qdf7oSsSp4IyHTnIl5RX/eZZFg7p/",
        ),
        ("Hello world!", "$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5"),
        (
            "Hello world!",
            "$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1",
        ),
        (
            "Hello world!",
            "$6$rounds=10000$saltstringsaltst$OW1/O6BYHV6BcXZu8QVeXbDWra3Oeqh0sbHbbMCVNSnCM/UrjmM0Dp8vOuZeHBy/YTBmSK6H9qs/y3RnOaw5v.",
        ),
    ];

    #[test]
    fn what_other_programs_made_is_verified() {
        for (password, text) in VECTORS {
            let hash = CryptHash::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert!(hash.verify(password.as_bytes()), "{text}");
            assert!(!hash.verify(format!("{password}x").as_bytes()), "{text}");
            assert!(!hash.verify(b""), "{text}");
        }
    }

    #[test]
    fn what_is_made_is_verified_and_differs_by_its_salt() {
        let hash = CryptHash::make("pässword".as_bytes(), [7; SALT_BYTES]).unwrap();
        assert!(hash.as_str().starts_with("$6$"), "{}", hash.as_str());
        assert_eq!(CryptHash::parse(hash.as_str()).as_ref(), Ok(&hash));
        assert!(hash.verify("pässword".as_bytes()) && !hash.verify(b"password"));
        assert_ne!(CryptHash::make("pässword".as_bytes(), [8; SALT_BYTES]).unwrap(), hash);
        assert!(CryptHash::make(b"", [0; SALT_BYTES]).is_err());
        assert!(CryptHash::make(&[b'x'; MAX_BYTES], [0; SALT_BYTES]).is_ok());
        assert!(CryptHash::make(&[b'x'; MAX_BYTES + 1], [0; SALT_BYTES]).is_err());
    }

    #[test]
    fn what_is_no_hash_is_refused() {
        let good = VECTORS[0].1;
        let (head, sum) = good.rsplit_once('$').unwrap();
        let check = |text: &str, part: &str| match CryptHash::parse(text) {
            Ok(_) => panic!("{text} is accepted"),
            Err(error) => assert!(error.contains(part), "{text}: {error}"),
        };
        check("", "no hash");
        check("secret", "no hash");
        check("$1$abcdefgh$G//4keteveJp0qb8z2DxG/", "another kind");
        check("$y$j9T$abc$def", "another kind");
        check("$6$", "cut off");
        check("$6$salt", "cut off");
        check("$6$rounds=5000", "cut off");
        check("$6$salt$", "cut off");
        check(&good[..good.len() - 1], "cut off");
        check(&format!("{good}."), "cut off");
        check(&format!("{good}$"), "cut off");
        check(&format!("{head}${}!", &sum[1..]), "other characters");
        // The last character holds two bits; others would never match.
        check(&format!("{head}${}z", &sum[..85]), "other characters");
        check(&format!("$6$${sum}"), "without a salt");
        check(&format!("$6$12345678901234567${sum}"), "without a salt");
        check(&format!("$6$a b${sum}"), "without a salt");
        check(&format!("$5$salt${sum}"), "cut off");
        for rounds in ["", "0", "999", "200001", "999999999", "4294967296", "5000x", "+5000", "05000"] {
            check(&format!("$6$rounds={rounds}$salt${sum}"), "`rounds`");
        }
        for rounds in ["1000", "200000"] {
            assert!(CryptHash::parse(&format!("$6$rounds={rounds}$salt${sum}")).is_ok());
        }
        assert!(!format!("{:?}", CryptHash::parse(good)).contains(sum));
    }
}
