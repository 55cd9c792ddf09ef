//! Punycode (RFC 3492), the encoding half only: what A-labels are made of.

// The parameters of RFC 3492 §5.
const BASE: u32 = 36;
const T_MIN: u32 = 1;
const T_MAX: u32 = 26;
const SKEW: u32 = 38;
const DAMP: u32 = 700;
const INITIAL_BIAS: u32 = 72;
const INITIAL_N: u32 = 0x80;

/// Appends the encoding of `label`, which is lower-cased, without the `xn--` (RFC 3492 §6.3). `None` if a number grows
/// out of 32 bits, which no label of a name does; `out` then has its beginning.
pub(super) fn encode(label: &[char], out: &mut String) -> Option<()> {
    out.extend(label.iter().filter(|c| c.is_ascii()));
    let basic = u32::try_from(label.iter().filter(|c| c.is_ascii()).count()).ok()?;
    if basic > 0 {
        out.push('-');
    }
    let (mut n, mut delta, mut bias, mut handled) = (INITIAL_N, 0u32, INITIAL_BIAS, basic);
    while let Some(next) = label.iter().map(|c| u32::from(*c)).filter(|c| *c >= n).min() {
        let skipped = next.checked_sub(n)?.checked_mul(handled.checked_add(1)?)?;
        delta = delta.checked_add(skipped)?;
        n = next;
        for c in label.iter().map(|c| u32::from(*c)) {
            if c < n {
                delta = delta.checked_add(1)?;
            }
            if c == n {
                push_number(delta, bias, out)?;
                bias = adapt(delta, handled.checked_add(1)?, handled == basic);
                delta = 0;
                handled = handled.checked_add(1)?;
            }
        }
        delta = delta.checked_add(1)?;
        n = n.checked_add(1)?;
    }
    Some(())
}

/// Appends a generalized variable-length integer (RFC 3492 §3.3).
fn push_number(mut q: u32, bias: u32, out: &mut String) -> Option<()> {
    let mut k = BASE;
    loop {
        let t = k.saturating_sub(bias).clamp(T_MIN, T_MAX);
        let Some(above) = q.checked_sub(t) else {
            out.push(digit(q)?);
            return Some(());
        };
        out.push(digit(t + above % (BASE - t))?);
        q = above / (BASE - t);
        k = k.checked_add(BASE)?;
    }
}

/// `a` to `z`, then `0` to `9` (RFC 3492 §5).
fn digit(value: u32) -> Option<char> {
    match value.checked_sub(26) {
        None => char::from_u32(u32::from('a') + value),
        Some(number) => char::from_digit(number, 10),
    }
}

/// Bias adaptation (RFC 3492 §6.1).
fn adapt(delta: u32, points: u32, first: bool) -> u32 {
    let mut delta = if first { delta / DAMP } else { delta / 2 };
    delta = delta.saturating_add(delta / points.max(1));
    let mut k = 0;
    while delta > (BASE - T_MIN) * T_MAX / 2 {
        delta /= BASE - T_MIN;
        k += BASE;
    }
    k + (BASE - T_MIN + 1) * delta / (delta + SKEW)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_of_the_standard() {
        let check = |label: &str, want: &str| {
            let mut out = String::new();
            encode(&label.chars().collect::<Vec<_>>(), &mut out).unwrap();
            assert_eq!(out, want, "{label}");
        };
        // RFC 3492 §7.1 (B), (C), (L), (R), (S).
        check("他们为什么不说中文", "ihqwcrb4cv8a8dqg056pqjye");
        check("他們爲什麽不說中文", "ihqwctvzc91f659drss3x8bo0yb");
        check("3年b組金八先生", "3b-ww4c5e180e575a65lsy2b");
        check("そのスピードで", "d9juau41awczczp");
        check("bücher", "bcher-kva");
        check("ü", "tda");
    }
}
