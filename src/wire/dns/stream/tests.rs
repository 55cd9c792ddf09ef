//! Streams in pieces: what goes on is the same however they are cut.

use super::*;
use crate::wire::dns::ech::tests::{answer_with_ech, vectors};

/// Messages as they go over TCP.
fn stream<'a>(messages: impl IntoIterator<Item = &'a Vec<u8>>) -> Vec<u8> {
    let framed =
        |message: &Vec<u8>| [&u16::try_from(message.len()).unwrap().to_be_bytes()[..], message].concat();
    messages.into_iter().flat_map(framed).collect()
}

/// What goes on of `before`, cut into pieces of `size` bytes.
fn in_pieces(before: &[u8], size: usize, strip: bool) -> (Vec<u8>, Vec<Published>) {
    let (mut answers, mut out, mut published) = (AnswerStream::new(strip), Vec::new(), Vec::new());
    for piece in before.chunks(size) {
        out.extend(answers.take(piece));
        published.extend(answers.take_published());
        assert!(answers.held.len() <= PREFIX_LEN + usize::from(u16::MAX));
        assert!(strip || out.len() >= published.len());
    }
    out.extend(answers.end());
    (out, published)
}

#[track_caller]
fn check(before: &[u8], after: &[u8]) {
    for size in [1, 2, 3, 7, 64, before.len().max(1)] {
        assert_eq!(in_pieces(before, size, true).0, after, "in pieces of {size}");
        assert_eq!(in_pieces(before, size, false).0, before, "left alone, in pieces of {size}");
    }
}

#[test]
fn every_message_is_what_it_is_as_a_datagram() {
    let vectors = vectors();
    let before = stream(vectors.iter().map(|(_, before, _)| before));
    let after = stream(vectors.iter().map(|(_, _, after)| after));
    assert_ne!(before, after);
    check(&before, &after);
    let published: Vec<Published> = vectors.iter().flat_map(|(_, before, _)| published_ech(before)).collect();
    assert!(!published.is_empty());
    for strip in [true, false] {
        assert_eq!(in_pieces(&before, 1, strip).1, published);
        // With one call for many messages there is a bound.
        assert_eq!(
            in_pieces(&before, before.len(), strip).1,
            published[..published.len().min(MAX_PUBLISHED)]
        );
    }
}

#[test]
fn what_is_no_answer_ends_it_and_what_is_cut_goes_on_as_it_is() {
    let answer = answer_with_ech();
    let (whole, stripped) = (stream([&answer]), stream([&strip_ech(&answer).unwrap()]));
    // A query, messages without room for a header, an empty one.
    let query = super::super::encode_query(7, "www.example.com", 65).unwrap();
    for other in [stream([&query]), b"\0\x0bSSH-2.0-abcd".to_vec(), b"\0\0".to_vec()] {
        check(&[&whole[..], &other, &whole].concat(), &[&stripped[..], &other, &whole].concat());
    }
    for cut in 0..whole.len() {
        check(&[&whole[..], &whole[..cut]].concat(), &[&stripped[..], &whole[..cut]].concat());
    }
}

/// Only the first message of a transfer must repeat the question.
#[test]
fn a_zone_transfer_is_data_for_a_server() {
    let mut transfer = super::super::encode_query(7, "example.com", QTYPE_AXFR).unwrap();
    transfer[2] |= 0x80;
    let all = stream([&transfer, &answer_with_ech()]);
    check(&all, &all);
}

#[test]
fn nothing_waits_that_is_not_to_be_changed() {
    let whole = stream([&answer_with_ech()]);
    let mut answers = AnswerStream::new(false);
    assert_eq!(answers.take(&whole[..5]), whole[..5]);
    let mut answers = AnswerStream::new(true);
    assert_eq!(answers.take(&whole[..whole.len() - 1]), b"");
}
