use super::*;

/// 2023-10-01 23:43:01 in central Europe, or in `offset` from UTC.
fn local(offset: i32) -> LocalTime {
    LocalTime {
        year: 2023,
        month: 10,
        day: 1,
        hour: 23,
        minute: 43,
        second: 1,
        weekday: 0,
        utc_offset_secs: offset,
    }
}

const TEXT: Style = Style { json: false, syslog: false };
const JSON: Style = Style { json: true, syslog: false };
const SYSLOG: Style = Style { json: false, syslog: true };
const SYSLOG_JSON: Style = Style { json: true, syslog: true };

fn render(style: Style, line: &Line<'_>) -> String {
    let mut stamp = Stamp::default();
    stamp.refresh(style, 1_696_196_581, |_| local(7200));
    let mut out = b"before\n".to_vec();
    append(&mut out, style, &stamp, line);
    String::from_utf8(out).unwrap().strip_prefix("before\n").unwrap().to_owned()
}

#[track_caller]
fn check(style: Style, line: &Line<'_>, want: &str) {
    let want = want.replace("PID", &std::process::id().to_string());
    assert_eq!(render(style, line), want + "\n");
}

fn message(level: Level, text: fmt::Arguments<'_>) -> Line<'_> {
    Line { level, module: "session", body: Body::Message(text) }
}

fn flow<'a>(level: Level, dest: Dest<'a>, event: &'a str, fields: &'a [Field<'a>]) -> Line<'a> {
    let src = Some("192.168.11.104".parse().unwrap());
    Line { level, module: "session", body: Body::Flow { src, dest, event, fields } }
}

fn dest() -> Dest<'static> {
    Dest::Addr("135.181.170.219:80".parse().unwrap())
}

#[test]
fn the_documented_lines() {
    let accept = flow(Level::Info, dest(), "Accept", &[]);
    check(TEXT, &accept, "2023-10-01 23:43:01 | INFO | 192.168.11.104 => 135.181.170.219:80 | Accept");
    let fields: &[Field<'_>] = &[
        ("rule", RuleId::Index(3).into()),
        ("sport", 51234_u16.into()),
        ("proto", "tls".into()),
        ("name", "example.com".into()),
        ("tls", Value::Shown(&crate::wire::tls::Version(0x0304))),
        ("alpn", Value::List(&[Box::from(*b"h2"), Box::from(*b"http/1.1")])),
        ("ech", "grease".into()),
    ];
    let accept = flow(Level::Info, dest(), "Accept", fields);
    check(
        TEXT,
        &accept,
        "2023-10-01 23:43:01 | INFO | 192.168.11.104 => 135.181.170.219:80 | Accept | rule=3 sport=51234 \
         proto=tls name=example.com tls=1.3 alpn=h2,http/1.1 ech=grease",
    );
    check(
        JSON,
        &accept,
        r#"{"time":"2023-10-01T23:43:01+02:00","level":"INFO","src":"192.168.11.104","dest":"135.181.170.219:80","event":"Accept","rule":3,"sport":51234,"proto":"tls","name":"example.com","tls":"1.3","alpn":["h2","http/1.1"],"ech":"grease"}"#,
    );
    check(
        TEXT,
        &message(Level::Warn, format_args!("rule {} can never match", 4)),
        "2023-10-01 23:43:01 | WARN | rule 4 can never match",
    );
    check(
        TEXT,
        &message(Level::Debug, format_args!("hello")),
        "2023-10-01 23:43:01 | DEBUG | session | hello",
    );
    check(
        TEXT,
        &flow(Level::Debug, Dest::Unknown, "Parsing TCP connection", &[]),
        "2023-10-01 23:43:01 | DEBUG | session | 192.168.11.104 => ? | Parsing TCP connection",
    );
    check(
        JSON,
        &message(Level::Debug, format_args!("hello")),
        r#"{"time":"2023-10-01T23:43:01+02:00","level":"DEBUG","module":"session","message":"hello"}"#,
    );
}

#[test]
fn syslog_brings_its_own_time() {
    let fields = [("rule", RuleId::Default.into())];
    let accept = flow(Level::Info, dest(), "Accept", &fields);
    check(
        SYSLOG,
        &accept,
        "<30>Oct  1 23:43:01 calamary[PID]: INFO | 192.168.11.104 => 135.181.170.219:80 | Accept | rule=default",
    );
    check(
        SYSLOG_JSON,
        &message(Level::Error, format_args!("x")),
        r#"<27>Oct  1 23:43:01 calamary[PID]: {"level":"ERROR","message":"x"}"#,
    );
    check(SYSLOG, &message(Level::Warn, format_args!("x")), "<28>Oct  1 23:43:01 calamary[PID]: WARN | x");
    check(
        SYSLOG,
        &message(Level::Debug, format_args!("x")),
        "<31>Oct  1 23:43:01 calamary[PID]: DEBUG | session | x",
    );
}

#[test]
fn destinations() {
    let check = |dest: Dest<'_>, want: &str| {
        let line = Line {
            level: Level::Info,
            module: "",
            body: Body::Flow { src: None, dest, event: "E", fields: &[] },
        };
        assert_eq!(render(TEXT, &line), format!("2023-10-01 23:43:01 | INFO | ? => {want} | E\n"));
    };
    check(Dest::Unknown, "?");
    check(Dest::Addr("[2001:db8::1]:443".parse().unwrap()), "[2001:db8::1]:443");
    check(Dest::Addr("[fe80::1%3]:443".parse().unwrap()), "[fe80::1]:443");
    check(Dest::Name("example.com", 443), "example.com:443");
    check(Dest::Name("evil | INFO\n", 1), "evil%20%7c%20INFO%0a:1");
}

#[test]
fn what_a_peer_sends_cannot_break_a_line() {
    let all: Vec<u8> = (0..=255).collect();
    let line = render(TEXT, &flow(Level::Info, dest(), "E", &[("name", all.as_slice().into())]));
    let value = line.trim_end().rsplit_once("name=").unwrap().1;
    let mut back = Vec::new();
    let mut rest = value.as_bytes();
    while let [byte, tail @ ..] = rest {
        assert!((0x21..=0x7e).contains(byte) && *byte != b'|');
        if *byte == b'%' {
            back.push(u8::from_str_radix(std::str::from_utf8(&tail[..2]).unwrap(), 16).unwrap());
            rest = &tail[2..];
        } else {
            back.push(*byte);
            rest = tail;
        }
    }
    assert_eq!(back, all);

    let fields: &[Field<'_>] = &[
        ("name", b"\"\\\xff |%".as_slice().into()),
        ("alpn", Value::List(&[Box::from(*b"a,b\""), Box::from(*b"")])),
        ("none", Value::List(&[])),
    ];
    let line = flow(Level::Info, Dest::Name("\"", 1), "E", fields);
    check(
        JSON,
        &line,
        r#"{"time":"2023-10-01T23:43:01+02:00","level":"INFO","src":"192.168.11.104","dest":"\":1","event":"E","name":"\"\\%ff%20%7c%25","alpn":["a,b\"",""],"none":[]}"#,
    );
    check(
        TEXT,
        &line,
        r#"2023-10-01 23:43:01 | INFO | 192.168.11.104 => ":1 | E | name="\%ff%20%7c%25 alpn=a%2cb", none="#,
    );
}

#[test]
fn messages_stay_on_one_line() {
    let text = "two\nlines \t\u{7f}\u{0} \"ü\" \\ 100 % | x";
    check(
        TEXT,
        &message(Level::Info, format_args!("{text}")),
        "2023-10-01 23:43:01 | INFO | two%0alines %09%7f%00 \"ü\" \\ 100 % | x",
    );
    check(
        JSON,
        &message(Level::Info, format_args!("{text}")),
        "{\"time\":\"2023-10-01T23:43:01+02:00\",\"level\":\"INFO\",\"message\":\
         \"two\\nlines \\t\\u007f\\u0000 \\\"ü\\\" \\\\ 100 % | x\"}",
    );
}

#[test]
fn offsets_of_utc() {
    let check = |offset, want: &str| {
        let mut stamp = Stamp::default();
        stamp.refresh(JSON, 0, |_| local(offset));
        assert_eq!(stamp.text, format!("2023-10-01T23:43:01{want}"));
    };
    check(0, "+00:00");
    check(-12_600, "-03:30");
    check(20_700, "+05:45");
}

#[test]
fn the_time_is_made_once_a_second() {
    let mut stamp = Stamp::default();
    let mut made = 0;
    let mut refresh = |style, secs| {
        stamp.refresh(style, secs, |_| {
            made += 1;
            local(0)
        });
        made
    };
    assert_eq!(refresh(TEXT, 5), 1);
    assert_eq!(refresh(TEXT, 5), 1);
    assert_eq!(refresh(TEXT, 6), 2);
    assert_eq!(refresh(JSON, 6), 3);
    // The clock was set back.
    assert_eq!(refresh(JSON, 2), 4);
}

#[test]
fn a_line_is_bounded_whatever_it_says() {
    let junk = [0xff_u8; 70_000];
    let name = "\u{1}".repeat(70_000);
    let offers: Vec<Box<[u8]>> = vec![Box::from(*b"\"\\|,"); 20_000];
    let fields: &[Field<'_>] = &[("name", junk.as_slice().into()), ("alpn", Value::List(&offers))];
    for style in [TEXT, JSON, SYSLOG, SYSLOG_JSON] {
        for level in [Level::Info, Level::Debug] {
            for line in [
                flow(level, Dest::Name(&name, 65535), "Accept", fields),
                message(level, format_args!("{name}")),
            ] {
                let line = render(style, &line);
                assert!(line.len() <= MAX_LINE && line.contains("..."), "{}: {line}", line.len());
                let ends_well = if style.json { line.ends_with("}\n") } else { line.ends_with("...\n") };
                assert!(ends_well, "{line}");
                if style.json {
                    assert_eq!(line.matches('[').count(), line.matches(']').count(), "{line}");
                }
            }
        }
    }
}

#[test]
fn a_cut_does_not_split_a_character() {
    for before in 0..4 {
        let text = "x".repeat(before) + &"€".repeat(MAX_MESSAGE);
        // Not being UTF-8 would fail here.
        assert!(render(TEXT, &message(Level::Info, format_args!("{text}"))).ends_with("€...\n"));
    }
}
