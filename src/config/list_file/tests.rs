//! Lines of every kind, and files of them.

use super::*;

fn all(text: &[u8]) -> (Vec<(String, u32)>, Passed) {
    let mut entries = Vec::new();
    let passed = read(text, |entry, line| {
        let shown = match entry {
            Entry::Net(net) => net.to_string(),
            Entry::Name(pattern) => pattern.to_string(),
            Entry::Except(pattern) => format!("except {pattern}"),
        };
        entries.push((shown, line));
    });
    (entries, passed.unwrap())
}

fn entries(text: &[u8]) -> (Vec<(String, u32)>, BadLines) {
    let (entries, passed) = all(text);
    assert_eq!(passed.skipped, Skipped::default());
    (entries, passed.bad)
}

#[test]
fn each_line_is_recognised_by_itself() {
    let check = |line: &str, expected: &[&str]| {
        let (entries, bad) = entries(line.as_bytes());
        assert_eq!(bad, BadLines::default(), "{line}");
        assert_eq!(entries.iter().map(|(entry, _)| entry.as_str()).collect::<Vec<_>>(), expected, "{line}");
    };
    check("0.0.0.0 ads.example.com", &[".ads.example.com"]);
    check("127.0.0.1\tADS.example.com b.example # both\r\n", &[".ads.example.com", ".b.example"]);
    check("::1 localhost ip6-localhost", &[]);
    check("ads.example.com ! a note", &[".ads.example.com"]);
    check("0.0.0.0 b.example !a note", &[".b.example"]);
    check("0.0.0.0 0.0.0.0", &[]);
    check("ads.example.com", &[".ads.example.com"]);
    check("ads.example.com.", &[".ads.example.com"]);
    check(".ads.example.com", &[".ads.example.com"]);
    check("*.ads.example.com", &["*.ads.example.com"]);
    check("||ads.example.com^", &[".ads.example.com"]);
    check("||192.0.2.1^", &["192.0.2.1/32"]);
    check("||*.ads.example.com^", &["*.ads.example.com"]);
    check("||ads.example.com^$important", &[".ads.example.com"]);
    check("||ads.example.com^$all,important", &[".ads.example.com"]);
    check("@@||ads.example.com^", &["except .ads.example.com"]);
    check("@@||ADS.example.com^$important ! really", &["except .ads.example.com"]);
    check("cafe.ad", &[".cafe.ad"]);
    check("ads.example.com ## both", &[".ads.example.com"]);
    check("##.banner", &[]);
    check("192.0.2.1", &["192.0.2.1/32"]);
    check("2001:db8::/32 # documentation", &["2001:db8::/32"]);
    check("\u{feff}# comment", &[]);
    check("! comment", &[]);
    check("[Adblock Plus 2.0]", &[]);
    check("   \t\r\n", &[]);
    check("", &[]);
}

#[test]
fn bad_lines_are_counted_and_passed_over() {
    let check = |line: &str| {
        let (entries, bad) = entries(format!("b.example\n{line}\n192.0.2.1").as_bytes());
        assert_eq!(bad, BadLines { count: 1, first: vec![2] }, "{line}");
        assert_eq!(entries, [(".b.example".to_owned(), 1), ("192.0.2.1/32".to_owned(), 3)], "{line}");
    };
    check("two words");
    check("443");
    check("10.0.0.0/33");
    check("1.2.3.4.5");
    check("ads.example.com:443");
    check("ads..example.com");
    check("ads.example.com$");
    check("ads.example.com,b.example");
    check(&"a".repeat(100_000));
    check(&"a".repeat(4095));
    check(&"a".repeat(4096));
    check(&"a".repeat(4097));
}

#[test]
fn what_only_browsers_can_follow_is_counted_by_kind() {
    let check = |line: &str, expected: Skipped| {
        let (entries, passed) = all(format!("b.example\n{line}\n192.0.2.1").as_bytes());
        assert_eq!(passed, Passed { skipped: expected, ..Passed::default() }, "{line}");
        assert_eq!(entries, [(".b.example".to_owned(), 1), ("192.0.2.1/32".to_owned(), 3)], "{line}");
    };
    let options = Skipped { options: 1, ..Skipped::default() };
    check("||ads.example.com^$third-party", options);
    check("||ads.example.com^$important,script", options);
    check("||ads.example.com^$", options);
    check("@@||ads.example.com^$document", options);
    check("ads.example.com$third-party", options);
    check("/banner/ads$~script,domain=b.example", options);
    let cosmetic = Skipped { cosmetic: 1, ..Skipped::default() };
    check("b.example##.ad > div", cosmetic);
    check("b.example,c.example#@#.ad", cosmetic);
    check("b.example#?#div:has(> .ad)", cosmetic);
    check("b.example#@$#body { overflow: auto }", cosmetic);
    check("b.example$$script[tag-content=\"ad\"]", cosmetic);
    let patterns = Skipped { patterns: 1, ..Skipped::default() };
    check("||ads.example.com/path^", patterns);
    check("||ads.example.com", patterns);
    check("||ads.*^", patterns);
    check("|https://ads.example.com^", patterns);
    check("@@/path", patterns);
    check("@@||192.0.2.1^", patterns);
    check("https://ads.example.com/", patterns);
    check("/^ad[0-9]+/", patterns);
    check("/ads/*", patterns);
    check("-ad-banner.*", patterns);
    check("&ad_type=", patterns);
}

/// A file in the folder for temporary files, gone when it is dropped.
struct TempFile(std::path::PathBuf);

impl TempFile {
    fn new(name: &str, content: &str) -> Self {
        let path = std::env::temp_dir().join(format!("calamary-list-{name}-{}", std::process::id()));
        std::fs::write(&path, content).unwrap();
        TempFile(path)
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn the_line_of_an_entry_is_found_again() {
    let text = "! ads\n.example\na.example x\n*.a.example\na.example\n||a.example^\n10.0.0.0/8\n10.1.1.1\n";
    let file = TempFile::new("lines", text);
    let check = |wanted: Wanted<'_>, line: Option<u32>| {
        assert_eq!(find_line(&file.0, wanted), line, "{wanted:?}");
    };
    check(Wanted::Name("a.example"), Some(5));
    check(Wanted::Name("b.a.example"), Some(4));
    check(Wanted::Name("b.example"), Some(2));
    check(Wanted::Name("a.test"), None);
    check(Wanted::Addr("10.1.1.1".parse().unwrap()), Some(7));
    check(Wanted::Addr("::ffff:10.1.1.1".parse().unwrap()), Some(7));
    check(Wanted::Addr("11.1.1.1".parse().unwrap()), None);
    assert_eq!(find_line(Path::new("/nowhere/at/all"), Wanted::Name("a.example")), None);
}

#[test]
fn a_list_is_what_its_file_says() {
    let text =
        "a.example\n0.0.0.0 b.example c.example\n@@||good.a.example^\n192.0.2.0/24\n2001:db8::/32\n? ?\n";
    let file = TempFile::new("load", text);
    let source = crate::decide::list::Source::File(file.0.clone());
    let mut list = ListBuilder::new("ads".into(), source);
    let (counts, passed) = load(&file.0, &mut list, &mut Progress::new(false)).unwrap();
    assert_eq!(counts, Counts { names: 3, exceptions: 1, v4: 1, v6: 1 });
    assert_eq!(passed.bad, BadLines { count: 1, first: vec![6] });
    let list = list.build();
    for (name, inside) in
        [("a.example", true), ("x.a.example", true), ("x.good.a.example", false), ("c.example", true)]
    {
        assert_eq!(list.contains_name(name), inside, "{name}");
    }
    for (addr, inside) in [("192.0.2.255", true), ("2001:db8::1", true), ("192.0.3.0", false)] {
        assert_eq!(list.contains_addr(addr.parse().unwrap()), inside, "{addr}");
    }
}

#[test]
fn only_the_first_bad_lines_are_named() {
    let (_, bad) = entries("? ?\n".repeat(1000).as_bytes());
    assert_eq!(bad, BadLines { count: 1000, first: vec![1, 2, 3, 4, 5] });
    let (_, bad) = entries(b"\xff\xfe\n\0\n");
    assert_eq!(bad.count, 2);
}

/// The rest of a line that is too long is no line of its own.
#[test]
fn long_lines_are_passed_over_as_a_whole() {
    // The end of the line would be an entry if it were read by itself.
    let check = |len: usize, fine: bool| {
        let (begin, end) = ("a.example", " 192.0.2.9\n");
        let padding = " ".repeat(len - begin.len() - " #".len() - end.len());
        let text = format!("{begin} #{padding}{end}192.0.2.1");
        let (entries, bad) = entries(text.as_bytes());
        let lines: Vec<u32> = entries.iter().map(|(_, line)| *line).collect();
        let (expected, bad_lines) = if fine { (vec![1, 2], 0) } else { (vec![2], 1) };
        assert_eq!((lines, bad.count), (expected, bad_lines), "{len}");
    };
    check(100, true);
    check(4096, true);
    check(4097, false);
    check(4096 + " 192.0.2.9".len(), false);
    check(60_000, false);
}

#[test]
fn any_bytes_are_lines() {
    let pieces: &[&[u8]] = &[
        b"0.0.0.0 ",
        b"a.example",
        b"||",
        b"^",
        b"\n",
        b"\r\n",
        b"#",
        b" ",
        b"*.",
        b".",
        b"/",
        b"\0",
        b"\xff",
        b"xn--",
        b"::",
        b"\xc3\xa4",
    ];
    let mut state = 2_463_534_242u32;
    let mut text = Vec::new();
    for _ in 0..100_000 {
        // xorshift (Marsaglia 2003)
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        text.extend_from_slice(pieces[state as usize % pieces.len()]);
    }
    let lines = text.split(|&byte| byte == b'\n').count() as u32;
    let mut last = 0;
    let Passed { bad, skipped } = read(text.as_slice(), |_, line| {
        assert!(line >= last && line <= lines);
        last = line;
    })
    .unwrap();
    assert!(last > 0 && bad.count > 0 && bad.count <= lines && skipped != Skipped::default());
}
