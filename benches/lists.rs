//! Lists of a million names and of 100,000 networks: memory for an entry, time for a lookup and for loading, beside
//! what else one could keep them in. `cargo bench --bench lists`; the table is what docs/performance.md shows.
//!
//! Not criterion: a lookup that misses the cache differs more between two runs than between two versions, so the
//! figures are medians of rounds in which everybody takes a turn, and their ratios.
#![allow(missing_docs, unsafe_code, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::HashSet;
use std::hint::black_box;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use calamary::config::{LoadOptions, load};
use calamary::decide::list::List;
use calamary::decide::rules::{AddrValue, FieldSpec, NameValue};

const NAMES: usize = 1_000_000;
const NETS: usize = 100_000;
const LOOKUPS: usize = 200_000;
const ROUNDS: usize = 7;

/// What is asked of the allocator: now and at most.
struct Counting;
static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator as it is; only sizes are counted beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // As an allocator does that cannot grow in place: the new one and the old one at once.
        add(size);
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

fn add(size: usize) {
    PEAK.fetch_max(NOW.fetch_add(size, Ordering::Relaxed) + size, Ordering::Relaxed);
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// xorshift64 (Marsaglia 2003).
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % n as u64).unwrap()
    }
}

/// Names like those of published lists: two to four labels under a few dozen endings, 20 bytes on average.
fn names(count: usize) -> Vec<String> {
    let ends =
        ["com", "net", "org", "de", "ru", "info", "co.uk", "xyz", "online", "cloudfront.net", "com.br"];
    let words =
        ["ads", "track", "pixel", "metrics", "cdn", "stat", "click", "shop", "free", "best", "app", "news"];
    let mut random = Random(88_172_645_463_325_252);
    (0..count)
        .map(|i| {
            let (word, end) = (words[random.below(words.len())], ends[random.below(ends.len())]);
            match random.below(3) {
                0 => format!("{word}{i:x}.{end}"),
                1 => format!("{word}.{}{i:x}.{end}", words[random.below(words.len())]),
                _ => format!("{i:x}.{word}-{}.{end}", words[random.below(words.len())]),
            }
        })
        .collect()
}

/// One way of keeping a list.
struct Row {
    what: &'static str,
    bytes_per_entry: f64,
    peak_bytes: usize,
    load: Duration,
    contains: Box<dyn Fn(&str) -> bool>,
    /// Nanoseconds a lookup: of names that are not in the list, and of names below an entry.
    miss: Vec<f64>,
    hit: Vec<f64>,
}

/// Runs `make` and weighs what it leaves.
fn weigh<T>(make: impl FnOnce() -> T) -> (T, usize, usize, Duration) {
    let before = NOW.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let start = Instant::now();
    let made = make();
    let took = start.elapsed();
    let left = NOW.load(Ordering::Relaxed).saturating_sub(before);
    (made, left, PEAK.load(Ordering::Relaxed).saturating_sub(before), took)
}

fn row<T: 'static>(
    what: &'static str,
    entries: usize,
    make: impl FnOnce() -> T,
    contains: impl Fn(&T, &str) -> bool + 'static,
) -> Row {
    let (made, bytes, peak_bytes, load) = weigh(make);
    let contains = Box::new(move |name: &str| contains(&made, name));
    let bytes_per_entry = bytes as f64 / entries as f64;
    Row { what, bytes_per_entry, peak_bytes, load, contains, miss: Vec::new(), hit: Vec::new() }
}

/// The list of a configuration with this file: what the daemon loads.
fn load_list(file: &Path, field: &str) -> std::sync::Arc<List> {
    let text = format!(
        "listen: [{{port: 1}}]\nvars: [{{name: l, file: '{}'}}]\nrules: [{{{field}: $l, action: deny}}]\n",
        file.display()
    );
    let loaded = load(&text, Path::new("bench.yml"), LoadOptions::default()).unwrap();
    match &loaded.plan.rules.specs()[0].fields[0] {
        FieldSpec::Dns(terms) => {
            let NameValue::List(list) = &terms[0].value else { unreachable!() };
            list.clone()
        }
        FieldSpec::Dest(terms) => {
            let AddrValue::List(list) = &terms[0].value else { unreachable!() };
            list.clone()
        }
        _ => unreachable!(),
    }
}

/// The name and every parent of it.
fn suffixes(name: &str) -> impl Iterator<Item = &str> {
    std::iter::once(name).chain(name.match_indices('.').map(|(dot, _)| &name[dot + 1..]))
}

fn lines(file: &Path) -> Vec<String> {
    std::fs::read_to_string(file).unwrap().lines().map(str::to_owned).collect()
}

fn reversed(name: &str) -> Vec<u8> {
    let labels: Vec<&str> = name.rsplit('.').collect();
    labels.join(".").into_bytes()
}

fn file_of(name: &str, lines: impl Iterator<Item = String>) -> PathBuf {
    let path = std::env::temp_dir().join(format!("calamary-bench-{name}-{}", std::process::id()));
    let mut file = std::io::BufWriter::new(std::fs::File::create(&path).unwrap());
    lines.for_each(|line| writeln!(file, "{line}").unwrap());
    file.flush().unwrap();
    path
}

fn per_lookup<T>(wanted: &[T], contains: impl Fn(&T) -> bool, expected: bool) -> f64 {
    let start = Instant::now();
    for item in wanted {
        assert_eq!(black_box(contains(item)), expected);
    }
    start.elapsed().as_nanos() as f64 / wanted.len() as f64
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn bench_names() {
    let all = names(NAMES);
    let file = file_of("names", all.iter().cloned());
    let mut random = Random(1_234_567);
    // Ten labels each, as the target says: below an entry of the list, and below none.
    let deep = |name: &str| {
        let mut name = name.to_owned();
        while name.split('.').count() < 10 {
            name = format!("a{}.{name}", name.len());
        }
        name
    };
    let hits: Vec<String> = (0..LOOKUPS).map(|_| deep(&all[random.below(NAMES)])).collect();
    let misses: Vec<String> =
        (0..LOOKUPS).map(|_| deep(&format!("x{}", all[random.below(NAMES)].replace('.', "-y.")))).collect();
    drop(all);

    let mut rows = vec![
        row("calamary", NAMES, || load_list(&file, "dns"), |list, name| list.contains_name(name)),
        row(
            "fst::Set, labels reversed",
            NAMES,
            || {
                let mut keys: Vec<Vec<u8>> = lines(&file).iter().map(|name| reversed(name)).collect();
                keys.sort_unstable();
                fst::Set::from_iter(keys).unwrap()
            },
            |set, name| {
                // One walk from the last label on: every end of a label may be the end of an entry.
                let fst = set.as_fst();
                let mut node = fst.root();
                for byte in reversed(name).into_iter().chain([b'.']) {
                    if byte == b'.' && node.is_final() {
                        return true;
                    }
                    match node.find_input(byte) {
                        Some(at) => node = fst.node(node.transition_addr(at)),
                        None => return false,
                    }
                }
                false
            },
        ),
        row(
            "HashSet<String>",
            NAMES,
            || lines(&file).into_iter().collect::<HashSet<String>>(),
            |set, name| suffixes(name).any(|suffix| set.contains(suffix)),
        ),
        row(
            "sorted Vec<String>",
            NAMES,
            || {
                let mut all = lines(&file);
                all.sort_unstable();
                all
            },
            |all, name| suffixes(name).any(|s| all.binary_search_by(|name| name.as_str().cmp(s)).is_ok()),
        ),
    ];
    for _ in 0..ROUNDS {
        for row in &mut rows {
            row.hit.push(per_lookup(&hits, |name| (row.contains)(name), true));
            row.miss.push(per_lookup(&misses, |name| (row.contains)(name), false));
        }
    }
    println!("\n{NAMES} names, lookups with ten labels\n");
    println!(
        "| kept as | bytes per name | ns, not in the list | ns, in the list | load, s | peak of loading, MB |"
    );
    println!("| --- | --- | --- | --- | --- | --- |");
    let (bytes, miss, hit) = (rows[0].bytes_per_entry, median(&mut rows[0].miss), median(&mut rows[0].hit));
    for row in &mut rows {
        let (own_miss, own_hit) = (median(&mut row.miss), median(&mut row.hit));
        println!(
            "| {} | {:.1} ({:.1}) | {own_miss:.0} ({:.2}) | {own_hit:.0} ({:.2}) | {:.2} | {:.1} |",
            row.what,
            row.bytes_per_entry,
            row.bytes_per_entry / bytes,
            own_miss / miss,
            own_hit / hit,
            row.load.as_secs_f64(),
            row.peak_bytes as f64 / 1e6,
        );
    }
    longest_names(&rows[0]);
    std::fs::remove_file(file).unwrap();
}

/// What a client can ask at worst: 253 bytes, 127 labels.
fn longest_names(row: &Row) {
    let wanted: Vec<String> = (0..LOOKUPS / 10).map(|i| format!("{}{}", "a.".repeat(126), i % 10)).collect();
    let mut times: Vec<f64> =
        (0..ROUNDS).map(|_| per_lookup(&wanted, |name| (row.contains)(name), false)).collect();
    println!("\n127 labels in 253 bytes, {}: {:.0} ns", row.what, median(&mut times));
}

fn bench_nets() {
    println!("\n{NETS} networks\n");
    println!(
        "| family | bytes per network | ns, not in the list | ns, in the list | load, s | peak of loading, MB |"
    );
    println!("| --- | --- | --- | --- | --- | --- |");
    for v6 in [false, true] {
        // Every second network of a block, so that none can be joined with the next.
        let net = |i: usize| -> IpAddr {
            let i = u32::try_from(i).unwrap();
            if v6 {
                Ipv6Addr::from_bits((0x2001_0db8u128 << 96) | (u128::from(i) << 81)).into()
            } else {
                Ipv4Addr::from_bits(0x1000_0000 + i * 512).into()
            }
        };
        let mut order: Vec<usize> = (0..NETS).collect();
        let mut random = Random(987_654_321);
        (1..NETS).rev().for_each(|i| order.swap(i, random.below(i + 1)));
        let len = if v6 { 48 } else { 24 };
        let file = file_of("nets", order.iter().map(|i| format!("{}/{len}", net(*i))));
        let (list, bytes, peak, load) = weigh(|| load_list(&file, "dest"));
        let asked = |inside: bool, random: &mut Random| -> Vec<IpAddr> {
            (0..LOOKUPS)
                .map(|_| match net(random.below(NETS)) {
                    IpAddr::V4(a) => Ipv4Addr::from_bits(a.to_bits() + if inside { 7 } else { 256 }).into(),
                    IpAddr::V6(a) => {
                        Ipv6Addr::from_bits(a.to_bits() + if inside { 7 } else { 1 << 80 }).into()
                    }
                })
                .collect()
        };
        let times = |inside: bool, random: &mut Random| {
            let addrs = asked(inside, random);
            let mut times: Vec<f64> =
                (0..ROUNDS).map(|_| per_lookup(&addrs, |addr| list.contains_addr(*addr), inside)).collect();
            median(&mut times)
        };
        println!(
            "| {} | {:.1} | {:.0} | {:.0} | {:.3} | {:.1} |",
            if v6 { "IPv6" } else { "IPv4" },
            bytes as f64 / NETS as f64,
            times(false, &mut random),
            times(true, &mut random),
            load.as_secs_f64(),
            peak as f64 / 1e6,
        );
        std::fs::remove_file(file).unwrap();
    }
}

fn main() {
    bench_names();
    bench_nets();
}
